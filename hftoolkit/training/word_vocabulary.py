"""The words of a corpus: a word-level tokenizer of those frequent enough, and the parts that no window may leave."""

from hftoolkit.data.sentences import split_lines, split_sentences
from hftoolkit.errors import DataError
from hftoolkit.tokenization.counting import Documents, count_words, parts_of, too_few
from hftoolkit.tokenization.pipelines import (
    KINDS,
    SPECIAL_TOKENS,
    assemble,
    make_model,
    make_normalizer,
    make_pre_tokenizer,
)

CONTEXTS = {"sentence": split_sentences, "line": split_lines, "document": lambda text: [text]}


def counts_words(tokenizer, model):
    """Whether a run counts its own words: neither a tokenizer nor a model to start from is named, which have theirs.

    Args:
        tokenizer: a folder, a Hub id, the kind "word", which is what is made here, or None.
        model: a folder, a Hub id, or None.

    Raises:
        DataError: another kind of tokenizer, whose pieces are no words; a kind beside a model.
    """
    if tokenizer not in KINDS:
        return tokenizer is None and model is None
    if model is not None:
        raise DataError(f"the tokenizer {tokenizer!r} would be new, but {model} has its words: leave out tokenizer")
    if tokenizer != "word":
        raise DataError(
            f"the tokenizer {tokenizer!r} makes pieces, but vectors are those of words, which are counted here (min_count, "
            "max_words): leave out tokenizer"
        )
    return True


def make_word_tokenizer(texts, min_count=5, max_words=None, lowercase=True):
    """A tokenizer whose words come in the order of their frequency, then of the alphabet.

    Args:
        texts: documents; gone through once.
        min_count: rarer words are unknown.
        max_words: no more than so many, the most frequent ones; None: all.

    Returns:
        A PreTrainedTokenizerFast of the kind "word": <unk> <pad> <|endoftext|>, then the words.

    Raises:
        DataError: no text; a min_count that leaves fewer than two words, with one that would not; a single word.
    """
    counts = count_words(Documents(texts, True), make_normalizer("word", lowercase), make_pre_tokenizer("word"))
    special = list(dict.fromkeys(SPECIAL_TOKENS["word"].values()))
    words = [word for word, n in counts.items() if n >= min_count and word not in special]
    if len(words) < 2:
        raise DataError(too_few(counts, min_count, len(words), "min_count"))
    words = sorted(words, key=lambda word: (-counts[word], word))[:max_words]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    return assemble("word", make_model("word", vocabulary), lowercase=lowercase)


class ContextParts:
    """Documents cut into the parts that no window may leave, as tokenize_sentences takes documents.

    A part that is very long is cut before white space after a million characters, which bounds the memory.

    Args:
        documents: a data set with a column `text`; a streamed one is read anew each time.
        context: "sentence" (by rules), "line", or "document".
    """

    def __init__(self, documents, context):
        self.documents, self.split = documents, CONTEXTS[context]

    def select_columns(self, names):
        return self

    def iter(self, batch_size):
        for batch in self.documents.select_columns(["text"]).iter(batch_size=batch_size):
            for text in batch["text"]:
                parts = [piece for part in self.split(text) for piece in parts_of(part)]
                for begin in range(0, len(parts), batch_size):
                    yield {"text": parts[begin : begin + batch_size]}


def count_ids(store, vocab_size, left_out=(), min_count=1, block=1 << 22):
    """How often each id occurs in a store, 0 for those left out and those rarer than min_count, (vocab_size,) int64."""
    import numpy as np

    counts = np.zeros(vocab_size, dtype=np.int64)
    for begin in range(0, len(store.tokens), block):
        counts += np.bincount(store.tokens[begin : begin + block], minlength=vocab_size)
    counts[list(left_out)] = 0
    counts[counts < min_count] = 0
    return counts
