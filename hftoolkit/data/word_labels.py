"""Rows for a model that labels words: each word's label stands at its first sub-word.

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 5.3.
A sentence that is too long is split between words, so that no word goes without a prediction.
"""

import logging

import numpy as np
from datasets import Dataset, Features, List, Value

from hftoolkit.errors import DataError

NO_LABEL = -100  # torch's cross-entropy skips these targets
COLUMNS = {"input_ids": List(Value("int32")), "labels": List(Value("int32"))}
COLUMNS |= {"words": List(Value("int32")), "sentence": Value("int32"), "words_shortened": Value("int32")}
logger = logging.getLogger(__name__)


def label_names(train: Dataset, task: str) -> list[str]:
    """The labels of the training data: O first, then by name; of every entity type both B- and I-."""
    tags = {tag for tags in train["tags"] for tag in tags}
    if task == "ner":
        kinds = sorted({tag[2:] for tag in tags if tag != "O"})
        return ["O", *(f"{letter}-{kind}" for kind in kinds for letter in "BI")]
    return sorted(tags)


def label_first_subwords(sentences: Dataset, tokenizer, labels: list[str], *, max_length=128, num_workers=None):
    """Rows of at most max_length tokens, in the order of the sentences.

    Columns beside the model's inputs: labels (T,), NO_LABEL at special tokens, at later sub-words and for tags that
    are not among `labels`; words (T,), the number of the word in its sentence at first sub-words, else -1; sentence;
    words_shortened, the words of the row that are longer than a row and lose their end.

    Raises:
        DataError: a slow tokenizer (it gives no offsets), or no room for a word.
    """
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} gives no offsets of its tokens; use a fast tokenizer")
    if max_length <= tokenizer.num_special_tokens_to_add():
        raise DataError(f"max_length {max_length} leaves no room for a word beside the special tokens")
    if max_length > tokenizer.model_max_length:
        raise DataError(f"max_length {max_length}: the model reads at most {tokenizer.model_max_length} tokens")
    inputs = {name: List(Value("int8")) for name in tokenizer.model_input_names if name != "input_ids"}
    ids = {label: number for number, label in enumerate(labels)}
    return sentences.map(
        _rows,
        batched=True,
        with_indices=True,
        remove_columns=sentences.column_names,
        features=Features(COLUMNS | inputs),
        num_proc=num_workers,
        fn_kwargs={"tokenizer": tokenizer, "ids": ids, "max_length": max_length},
    )


def _rows(batch, indices, tokenizer, ids, max_length):
    """Words are parted by spaces, as in a text, so that every kind of tokenizer sees what it knows."""
    pieces = [(number, 0, words) for number, words in enumerate(batch["tokens"])]
    encoded = _encode([words for _, _, words in pieces], tokenizer)
    if any(len(row) > max_length for row in encoded["input_ids"]):
        room = max_length - tokenizer.num_special_tokens_to_add()
        pieces = [
            (number, start, words[start:stop])
            for row, (number, _, words) in enumerate(pieces)
            for start, stop in split_words(subwords_per_word(encoded["offset_mapping"][row], words), room)
        ]
        encoded = _encode([words for _, _, words in pieces], tokenizer, truncation=True, max_length=max_length)
    rows = {name: [] for name in ("labels", "words", "sentence", "words_shortened")}
    for row, (number, start, words) in enumerate(pieces):
        places = first_subwords(encoded["offset_mapping"][row], words)
        numbers = np.where(places >= 0, places + start, -1)
        tags = batch["tags"][number]
        rows["labels"].append([NO_LABEL if word < 0 else ids.get(tags[word], NO_LABEL) for word in numbers])
        rows["words"].append(numbers)
        rows["sentence"].append(indices[number])
        end = max((offset[1] for offset in encoded["offset_mapping"][row]), default=0)
        is_cut = len(words) == 1 and len(encoded["input_ids"][row]) == max_length and end < len(words[0])
        rows["words_shortened"].append(int(is_cut))
    return {name: encoded[name] for name in tokenizer.model_input_names} | rows


def _encode(sentences, tokenizer, **options):
    texts = [" ".join(words) for words in sentences]
    return tokenizer(texts, return_offsets_mapping=True, verbose=False, **options)


def _word_of_token(offsets, words):
    """Number of the word that each token is of; -1 for special tokens and those that hold no character."""
    offsets = np.array(offsets).reshape(-1, 2)
    ends = np.cumsum([len(word) + 1 for word in words])  # just after the space that follows the word
    word = np.searchsorted(ends, offsets[:, 1] - 1, side="right")  # by its last character: the first may be a space
    return np.where(offsets[:, 1] > offsets[:, 0], word, -1)


def first_subwords(offsets, words):
    """For each token the number of its word where it is the word's first sub-word, else -1, (T,).

    Example:
        words ["Anna", "smiled"], tokens [CLS] anna smi ##led [SEP] -> [-1, 0, 1, -1, -1]
    """
    word = _word_of_token(offsets, words)
    first = np.full(len(word), -1)
    known, places = np.unique(word, return_index=True)
    first[places[known >= 0]] = known[known >= 0]
    return first


def subwords_per_word(offsets, words):
    """Number of sub-words of each word."""
    word = _word_of_token(offsets, words)
    return np.bincount(word[word >= 0], minlength=len(words))


def split_words(sizes, room):
    """Stretches [start, stop) of words whose sub-words together fill at most `room`; a longer word stands alone.

    Example:
        sizes [2, 2, 3, 9, 1], room 5 -> (0, 2) (2, 3) (3, 4) (4, 5)
    """
    stretches, start, filled = [], 0, 0
    for number, size in enumerate(sizes):
        if number > start and filled + size > room:
            stretches.append((start, number))
            start, filled = number, 0
        filled += size
    return [*stretches, (start, len(sizes))]


def describe_rows(sentences: Dataset, rows: Dataset, labels: list[str]) -> dict[str, int]:
    """Numbers of rows and tokens, and of what is unusual: sentences split, words without a label."""
    known, labelled = set(labels), sum(sum(word >= 0 for word in words) for words in rows["words"])
    unusual = {
        "sentences_split": len(rows) - len(sentences),
        "words_shortened": sum(rows["words_shortened"]),
        "words_without_token": sum(map(len, sentences["tokens"])) - labelled,
        "words_with_unknown_tag": sum(tag not in known for tags in sentences["tags"] for tag in tags),
    }
    counts = {"rows": len(rows), "tokens": sum(map(len, rows["input_ids"]))}
    return counts | {name: number for name, number in unusual.items() if number}
