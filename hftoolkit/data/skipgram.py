"""Words with the words around them, for skip-gram and CBOW: rows of a corpus, thinned out and cut into blocks.

Papers: Mikolov et al. 2013b, https://arxiv.org/abs/1310.4546, Sections 2.2 (negative sampling), 2.3 (subsampling); the
details are those of word2vec.c (tmikolov/word2vec at commit 20c129a): words are left out before windows are laid, the
window of each word is drawn anew from 1..W, and noise words are drawn in proportion to count ** 0.75.
Differs from it: 16 neighbouring words share their noise words, each of which then weighs more (hftoolkit.training.
word_vectors), so that the expectation of every update is the same.
Shapes: N = words of a batch, filled up to a multiple of BLOCK; W = window_size; S = noise words of a block.
"""

import numpy as np
import torch

from hftoolkit.errors import DataError

from .epochs import DrawnRows

BLOCK = 16  # neighbouring words that share their noise words
NO_SENTENCE = -1  # of what fills up a batch: it is context of nothing
_NOISE = 1  # what tells the random numbers of a batch from those of its rows


class WordRows(DrawnRows):
    """A corpus cut into rows of equally many words, the last one shorter; a row is read where it lies on the disk.

    A row has `input_ids`, and `sentences`: to which sentence of the corpus each word belongs, both (words,) int64.

    Args:
        store: hftoolkit.data.token_store.SentenceStore.
        words_per_row: before subsampling.
    """

    def __init__(self, store, words_per_row):
        super().__init__(redraw=True)
        self.store, self.words_per_row = store, words_per_row
        self._length = -(-len(store.tokens) // words_per_row)

    def draw(self, epoch):
        """Nothing is planned: a row is always the same part of the corpus, its random numbers are the collator's."""
        return None

    def rows(self, plan, indices, epoch):
        return [self._row(index, epoch) for index in indices]

    def _row(self, index, epoch):
        begin = index * self.words_per_row
        ids = np.asarray(self.store.tokens[begin : begin + self.words_per_row], dtype=np.int64)
        places = np.arange(begin, begin + len(ids))
        sentences = np.searchsorted(self.store.sentence_offsets, places, side="right")
        return {"index": index, "epoch": epoch, "input_ids": ids, "sentences": sentences}

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        return {name: number for name, number in self.store.summary().items() if name in ("sentences", "tokens")}


def keep_probabilities(counts, threshold):
    """Chance of each word to stay in the text, (V,) float32.

    word2vec.c, ReadWordIndex: (sqrt(f / t) + 1) t / f of a word with the share f of all words, at most 1. The paper's
    formula, Section 2.3, is sqrt(t / f), which is a little less.

    Args:
        counts: how often each id may be a word; one with count 0 never stays.
        threshold: t, 1e-3 in word2vec.c to 1e-5 in the paper; 0 keeps every word.
    """
    counts = np.asarray(counts, dtype=np.float64)
    share = np.divide(counts, counts.sum())
    keep = (counts > 0).astype(np.float64)
    if threshold:
        known = share > 0
        keep[known] = np.minimum((np.sqrt(share[known] / threshold) + 1) * threshold / share[known], 1.0)
    return keep.astype(np.float32)


class Noise:
    """Draws noise words with chances in proportion to count ** exponent (the paper's Section 2.2: 0.75).

    Walker's alias method: one random number says both the column and on which side of it the draw falls, so that a draw
    costs the same for any vocabulary. Source: Vose 1991, https://doi.org/10.1109/32.92917.
    """

    def __init__(self, counts, exponent=0.75):
        weights = np.where(np.asarray(counts) > 0, np.asarray(counts, dtype=np.float64) ** exponent, 0.0)
        self.probabilities = weights / weights.sum()
        self.split, self.alias = _alias_table(self.probabilities)

    def draw(self, shape, rng):
        """Ids, int64."""
        numbers = rng.random(shape) * len(self.split)
        columns = numbers.astype(np.int64)
        numbers -= columns
        return np.where(numbers < self.split[columns], columns, self.alias[columns])


def _alias_table(probabilities):
    """(where each column of height 1 is split, the id above the split), both (V,)."""
    heights = probabilities * len(probabilities)
    split, alias = np.ones(len(heights)), np.arange(len(heights))
    small, large = (list(np.flatnonzero(part)) for part in (heights < 1, heights >= 1))
    while small and large:
        low, high = small.pop(), large[-1]
        split[low], alias[low] = heights[low], high
        heights[high] -= 1 - heights[low]
        if heights[high] < 1:
            small.append(large.pop())
    return split, alias


class WindowCollator:
    """Thin out rows and lay them end to end with the window of each word, and noise words for each block.

    All random numbers of a row come from (seed, epoch, index), so they do not depend on workers or on resuming.

    Args:
        counts: how often each id occurs, 0 for what is no word (unknown, special, rare), (V,).
        window_size: W.
        num_negatives: noise words per pair, 0 for none; a block of 16 words has `shared_negatives` of them.
        dynamic_window: draw windows from 1..W; otherwise every window is W.
        subsampling: see keep_probabilities, threshold.

    Returns:
        input_ids, sentences, windows, (N,) each; negatives (N / 16, S).

    Raises:
        DataError: fewer than two words are left that could be told apart.
    """

    def __init__(
        self, counts, *, window_size, num_negatives, shared_negatives=64, dynamic_window=True, subsampling=1e-3,
        noise_exponent=0.75, seed=0,
    ):  # fmt: skip
        require_words(counts)
        self.keep = keep_probabilities(counts, subsampling)
        self.noise = Noise(counts, noise_exponent) if num_negatives else None
        self.window_size, self.dynamic_window, self.seed = window_size, dynamic_window, seed
        self.num_negatives, self.shared_negatives = num_negatives, shared_negatives

    def __call__(self, rows):
        parts = [self._thinned(row, number) for number, row in enumerate(rows)]
        ids, sentences, windows = (np.concatenate(part) for part in zip(*parts, strict=True))
        missing = -len(ids) % BLOCK if len(ids) else BLOCK
        ids, windows = (np.pad(part, (0, missing)) for part in (ids, windows))
        sentences = np.pad(sentences, (0, missing), constant_values=NO_SENTENCE)
        batch = {"input_ids": ids, "sentences": sentences, "windows": windows}
        if self.noise is not None:
            rng = np.random.default_rng([self.seed, rows[0]["epoch"], rows[0]["index"], _NOISE])
            batch["negatives"] = self.noise.draw((len(ids) // BLOCK, self.shared_negatives), rng)
        return {name: torch.from_numpy(values) for name, values in batch.items()}

    def _thinned(self, row, number):
        """Words that stay, their sentences, and their windows; the sentences of different rows differ."""
        rng = np.random.default_rng([self.seed, row["epoch"], row["index"]])
        ids = row["input_ids"]
        stays = rng.random(len(ids), dtype=np.float32) < self.keep[ids]
        ids = ids[stays]
        sentences = row["sentences"][stays] * 2**12 + number
        if self.dynamic_window:
            return ids, sentences, rng.integers(1, self.window_size + 1, len(ids))
        return ids, sentences, np.full(len(ids), self.window_size)


def require_words(counts):
    """Refuse a corpus in which there is nothing to tell apart.

    Raises:
        DataError: fewer than two different words.
    """
    number = int(np.count_nonzero(counts))
    if number < 2:
        raise DataError(
            f"the corpus has {number or 'no'} distinct word{'' if number == 1 else 's'} of the vocabulary, and vectors "
            "tell at least two apart: give more text, or lower min_count"
        )
