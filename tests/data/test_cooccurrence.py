"""Counts of neighbours against a loop over the text."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from hftoolkit.data import cooccurrence
from hftoolkit.data.cooccurrence import count_pairs

V = 6


def make_store(sentences):
    offsets = np.append(0, np.cumsum([len(sentence) for sentence in sentences]))
    return SimpleNamespace(tokens=np.concatenate(sentences).astype(np.uint16), sentence_offsets=offsets)


def by_loops(sentences, window, weight, unknown=0):
    found = Counter()
    for sentence in sentences:
        words = [word for word in sentence if word != unknown]
        for i, word in enumerate(words):
            for j, other in enumerate(words):
                if 0 < abs(i - j) <= window:
                    found[word * V + other] += weight(abs(i - j))
    return found


@pytest.mark.parametrize(
    ("weighting", "weight"),
    [("none", lambda d: 1), ("linear", lambda d: (4 - d) / 3), ("harmonic", lambda d: 1 / d)],
)
def test_counts_are_those_of_the_definition(weighting, weight, monkeypatch):
    rng = np.random.default_rng(0)
    sentences = [rng.integers(0, V, n) for n in rng.integers(1, 12, 40)]
    monkeypatch.setattr(cooccurrence, "PAIRS_AT_ONCE", 50)  # so that sums are merged
    keys, weights = count_pairs(make_store(sentences), np.arange(V) > 0, window_size=3, weighting=weighting)
    expected = by_loops([sentence.tolist() for sentence in sentences], 3, weight)
    assert keys.tolist() == sorted(expected)
    np.testing.assert_allclose(weights, [expected[key] for key in keys])
    if weighting == "none":  # a wrong window is noticed
        assert by_loops([sentence.tolist() for sentence in sentences], 2, weight) != dict(
            zip(keys, weights, strict=True)
        )


def test_subsampling_leaves_words_out_the_same_every_time():
    store = make_store([np.ones(2000, int), np.full(2000, 2)])
    keep = np.array([0, 0.25, 1, 1, 1, 1])
    found = [count_pairs(store, np.arange(V) > 0, window_size=1, keep=keep, seed=3) for _ in range(2)]
    assert np.array_equal(found[0][1], found[1][1]) and found[0][0].tolist() == [V + 1, 2 * V + 2]
    ones, twos = found[0][1]
    assert twos == 2 * 1999 and 0.2 * twos < ones < 0.3 * twos


def test_words_alone_have_no_neighbours():
    keys, weights = count_pairs(make_store([[1], [2], [3]]), np.arange(V) > 0, window_size=5)
    assert len(keys) == len(weights) == 0
