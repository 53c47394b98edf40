"""The words of a corpus: a word-level tokenizer of those frequent enough, and the parts that no window may leave."""

from collections import Counter

from hftoolkit.data.sentences import split_lines, split_sentences
from hftoolkit.errors import DataError
from hftoolkit.tokenization.counting import Documents, count_words, parts_of
from hftoolkit.tokenization.pipelines import (
    SPECIAL_TOKENS,
    assemble,
    make_model,
    make_normalizer,
    make_pre_tokenizer,
)

CONTEXTS = {"sentence": split_sentences, "line": split_lines, "document": lambda text: [text]}


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
        raise DataError(_too_few(counts, min_count, len(words)))
    words = sorted(words, key=lambda word: (-counts[word], word))[:max_words]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    return assemble("word", make_model("word", vocabulary), lowercase=lowercase)


def _too_few(counts: Counter, min_count, kept):
    number = len(counts)
    if number < 2:
        return f"the corpus has {number or 'no'} distinct word{'s' if number != 1 else ''}, and vectors tell at least two apart"
    second = counts.most_common(2)[1][1]
    half = sorted(counts.values(), reverse=True)[min(number, 100) - 1]
    return (
        f"min_count {min_count} leaves {kept or 'none'} of the {number:,} distinct words; the most frequent occurs "
        f"{max(counts.values()):,} times, and min_count {half} would keep {sum(n >= half for n in counts.values()):,} words"
        + (f", {second} at least two" if second != half else "")
    )


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
