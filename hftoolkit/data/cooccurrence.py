"""How often words stand near each other: counts in windows, weighted by distance, as a sparse matrix.

Papers: Levy, Goldberg and Dagan 2015, https://aclanthology.org/Q15-1016, Section 3.1; harmonic weights: Pennington et al.
2014, "GloVe", https://aclanthology.org/D14-1162, Section 4.2.
Memory is bounded by the number of different pairs, whatever the length of the corpus.
"""

import numpy as np

PAIRS_AT_ONCE = 4_000_000  # before they are summed up
WEIGHTS = {  # of a pair at distance d in a window of w
    "none": lambda d, w: 1.0,
    "linear": lambda d, w: (w - d + 1) / w,  # the expectation of word2vec's windows, drawn from 1..w
    "harmonic": lambda d, w: 1.0 / d,
}


def count_pairs(store, kept, *, window_size, weighting="linear", keep=None, seed=0):
    """Sum the weights of all pairs of words that are at most window_size apart in a sentence; symmetric.

    Args:
        store: SentenceStore.
        kept: which ids are words, (V,) bool; what is none is left out before windows are laid.
        weighting: one of WEIGHTS.
        keep: chance of each word to stay, (V,), drawn once for each place; None keeps all.
        seed: of these draws.

    Returns:
        keys (P,) int64, which are row * V + column in rising order, and their weights (P,) float64.
    """
    keys, weights, waiting, size = np.empty(0, np.int64), np.empty(0), [], 0
    for number, (ids, sentences) in enumerate(_stretches(store)):
        stays = kept[ids]
        if keep is not None:
            stays &= np.random.default_rng([seed, number]).random(len(ids)) < keep[ids]
        ids, sentences = ids[stays], sentences[stays]
        for distance in range(1, window_size + 1):
            near = sentences[distance:] == sentences[:-distance]
            left, right = ids[:-distance][near], ids[distance:][near]
            weight = WEIGHTS[weighting](distance, window_size)
            waiting.append((left * len(kept) + right, np.full(len(left), weight)))
            size += len(left)
        if size > PAIRS_AT_ONCE:
            keys, weights = _merged([(keys, weights), *waiting])
            waiting, size = [], 0
    keys, weights = _merged([(keys, weights), *waiting])
    mirrored = keys % len(kept) * len(kept) + keys // len(kept)
    return _merged([(keys, weights), (mirrored, weights)])


def _stretches(store, sentences_at_once=1 << 14, words_at_once=1 << 20):
    """(ids, number of the sentence of each) of a stretch of whole sentences at a time."""
    offsets, begin, last = store.sentence_offsets, 0, len(store.sentence_offsets) - 1
    while begin < last:
        most = np.searchsorted(offsets, offsets[begin] + words_at_once, side="right") - 1
        end = min(max(int(most), begin + 1), begin + sentences_at_once, last)
        ids = np.asarray(store.tokens[offsets[begin] : offsets[end]], dtype=np.int64)
        yield ids, np.repeat(np.arange(begin, end), np.diff(offsets[begin : end + 1]))
        begin = end


def _merged(parts):
    """Sorted keys, each once, with the sums of their weights."""
    keys, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    unique, places = np.unique(keys, return_inverse=True)
    return unique, np.bincount(places, weights, minlength=len(unique))
