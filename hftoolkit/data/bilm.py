"""Rows for a bidirectional language model over words that are read as characters.

A row is a sentence between <S> and </S>; of one that is longer than a row, each part is a row of its own, and nothing is
predicted across the cut. Paper: Peters et al. 2018, https://arxiv.org/abs/1802.05365, Section 3.1; Chelba et al. 2013,
https://arxiv.org/abs/1312.3005 (its corpus is sentences in random order).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from hftoolkit.errors import DataError
from hftoolkit.hub_errors import loading_error

from .sentences import split_sentences

NO_LABEL = -100  # torch's cross-entropy skips these targets
FILE = "vocabulary.txt"
START, END, UNKNOWN = "<S>", "</S>", "<UNK>"
COLUMNS = {name: List(Value("int32")) for name in ("input_ids", "labels", "backward_labels", "words")}
FEATURES = Features(COLUMNS | {"length": Value("int32")})


def split_words(documents, words_of):
    """The words of every sentence of every document.

    Args:
        documents: a data set with the column `text`.
        words_of: text to words.

    Returns:
        A list of lists of words; sentences without a word are left out.
    """
    sentences = (words_of(sentence) for row in documents for sentence in split_sentences(row["text"]))
    return [words for words in sentences if words]


def frequent_words(sentences, size):
    """The words that a model learns to predict, by falling frequency; </S>, <S> and <UNK> have their places in it.

    Args:
        sentences: lists of words.
        size: words in all, those three included.

    Raises:
        DataError: no words, or fewer than two different ones.
    """
    counts = Counter(word for sentence in sentences for word in sentence)
    if len(counts) < 2:
        raise DataError(f"the training text has {len(counts)} different words: there is nothing to predict")
    kept = sorted(counts, key=lambda word: (-counts[word], word))[: max(size - 3, 1)]
    rest = sum(counts.values()) - sum(counts[word] for word in kept)
    counts = Counter({word: counts[word] for word in kept}) | Counter({START: len(sentences), END: len(sentences)})
    counts[UNKNOWN] = rest
    return sorted(counts, key=lambda word: (-counts[word], word))


def vocabulary_of(source, revision=None):
    """The words that a model predicts, from the vocabulary.txt beside it, one word a line.

    Args:
        source: a folder, or an id on the Hub; revision: branch, tag or commit there.

    Raises:
        DataError: it has no such file: words counted anew would have other numbers than those it learned.
        HubError: the Hub cannot be reached.
    """
    folder = Path(source).expanduser()
    file = folder / FILE if folder.is_dir() else _fetched(source, revision)
    if file is None or not file.is_file():
        raise DataError(
            f"{source} has no {FILE}, the words behind the numbers that the model predicts: {FILE} must lie beside it; "
            "copy it from the folder of the run that made the model"
        )
    return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _fetched(source, revision):
    """vocabulary.txt of a repository on the Hub; None where it has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, FILE, revision=revision))
    except (EntryNotFoundError, OSError, ValueError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise loading_error(error, source) from error


def bilm_rows(sentences, vocabulary, special_ids, max_words=60):
    """Rows of bytes with the neighbours of each word as labels.

    Args:
        sentences: lists of words.
        vocabulary: the words that are predicted; the others are <UNK>.
        special_ids: {"<S>": id, "</S>": id}.
        max_words: of a row, <S> and </S> included.

    Returns:
        A data set with the columns input_ids (T,): the bytes of the words, a space before each; labels and
        backward_labels (T,): the number of the next and of the previous word at a word's first token, else -100; words
        (W,): the number of each word; length: W.

    Example:
        ["an", "ox"] -> input_ids <S> _ a n _ o x </S>, labels an ox . . </S> . . ., backward_labels . <S> . . an . . ox
    """
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unknown, known = numbers[UNKNOWN], {}

    def generate():
        for sentence in sentences:
            whole = [START, *sentence, END]
            for begin in range(0, len(whole), max_words):
                words = whole[begin : begin + max_words]
                if len(words) > 1:
                    yield _row(words, numbers, unknown, special_ids, known)

    columns = {name: [] for name in FEATURES}
    for row in generate():
        for name, values in row.items():
            columns[name].append(values)
    if not columns["length"]:
        raise DataError("the text has no sentence with a word")
    return Dataset.from_dict(columns, FEATURES)


def _row(words, numbers, unknown, special_ids, known):
    ids, places = [], []
    for word in words:
        places.append(len(ids))
        if word in special_ids:
            ids.append(special_ids[word])
            continue
        if word not in known:
            known[word] = [32, *word.encode()]
        ids += known[word]
    own = [numbers.get(word, unknown) for word in words]
    labels, backward = (np.full(len(ids), NO_LABEL) for _ in range(2))
    labels[places[:-1]], backward[places[1:]] = own[1:], own[:-1]
    return dict(input_ids=ids, labels=labels, backward_labels=backward, words=own, length=len(words))


class WordBatches:
    """A data set whose rows are batches: sentences of like length, as many as have `words_per_batch` words together.

    The batches stay, and Trainer shuffles them. (Its own group_by_length gives them from long to short, again and again:
    benchmarks/elmo.md.)

    Args:
        rows: of bilm_rows.
        seed: decides between rows of the same length.
    """

    def __init__(self, rows, words_per_batch, seed=0):
        self.rows = rows
        lengths = np.array(rows["length"])
        order = np.random.default_rng(seed).permutation(len(rows))
        order = order[np.argsort(lengths[order], kind="stable")]
        batch = (lengths[order].cumsum() - 1) // words_per_batch
        self.batches = np.split(order, np.nonzero(np.diff(batch))[0] + 1)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        batch = self.rows[self.batches[index].tolist()]
        return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


@dataclass
class BilmCollator:
    """Pad rows on the right; batches of rows, as WordBatches has them, are put together."""

    pad_token_id: int

    def __call__(self, rows):
        if isinstance(rows[0], list):
            rows = [row for batch in rows for row in batch]
        fill = {"input_ids": self.pad_token_id, "labels": NO_LABEL, "backward_labels": NO_LABEL}
        longest = max(len(row["input_ids"]) for row in rows)
        batch = {}
        for name, value in fill.items():
            padded = np.full((len(rows), longest), value)
            for line, row in zip(padded, rows, strict=True):
                line[: len(row[name])] = row[name]
            batch[name] = torch.from_numpy(padded)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        return batch | {"attention_mask": (torch.arange(longest) < lengths.unsqueeze(1)).long()}


def describe_rows(sentences, rows, vocabulary):
    """Numbers of sentences, rows and words, and of those that are predicted as <UNK>."""
    unknown = list(vocabulary).index(UNKNOWN)
    return {
        "sentences": len(sentences),
        "rows": len(rows),
        "words": sum(map(len, sentences)),
        "unknown_words": sum(words.count(unknown) for words in rows["words"]),
    }
