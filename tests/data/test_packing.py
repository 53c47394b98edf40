"""Packing: every token predicted once, rows never overfull, few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftoolkit.data.packing import (
    cut_documents,
    efficiency,
    first_fit_decreasing,
    pack_across,
    pack_stream,
    pack_whole,
)

LENGTHS = st.lists(st.integers(0, 40), min_size=0, max_size=60)
ROW = st.integers(1, 17)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def targets_of(stretches):
    return np.concatenate([np.arange(start + 1, end) for start, end in stretches] or [np.empty(0, int)])


def first_fit_by_loop(lengths, row_length):
    """The algorithm as Johnson 1973 states it, one piece at a time."""
    room, rows = [], [None] * len(lengths)
    for piece in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, free in enumerate(room) if free >= lengths[piece]), len(room))
        if row == len(room):
            room.append(row_length)
        room[row] -= lengths[piece]
        rows[piece] = row
    return rows


def test_cut_documents_example():
    assert cut_documents(np.array([0, 3, 3, 14]), 4).tolist() == [[0, 3], [3, 8], [7, 12], [11, 14]]


def test_first_fit_decreasing_example():
    assert first_fit_decreasing([4, 7, 3, 6], 10).tolist() == [1, 0, 0, 1]


@settings(max_examples=60, derandomize=True)
@given(st.lists(st.integers(1, 17), max_size=80))
def test_first_fit_decreasing_is_the_algorithm(lengths):
    assert first_fit_decreasing(lengths, 17).tolist() == first_fit_by_loop(lengths, 17)


def test_a_length_that_fits_no_row_is_refused():
    with pytest.raises(ValueError, match=r"1\.\.4, got 2\.\.5"):
        first_fit_decreasing([2, 5], 4)


def test_pack_stream_example():
    stretches, rows = pack_stream(np.array([0, 4, 10]), 4)
    assert stretches.tolist() == [[0, 4], [4, 6], [5, 10]]
    assert rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize("pack", [pack_whole, pack_stream])
@settings(max_examples=60, derandomize=True)
@given(lengths=LENGTHS, row_length=ROW)
def test_every_token_is_predicted_exactly_once(pack, lengths, row_length):
    offsets = offsets_of(lengths)
    stretches, rows = pack(offsets, row_length)
    expected = np.setdiff1d(np.arange(offsets[-1]), offsets[:-1])  # all but the first token of each document
    assert np.array_equal(np.sort(targets_of(stretches)), expected)
    inputs = np.diff(stretches, axis=1)[:, 0] - 1
    assert (inputs > 0).all()
    for first, last in zip(rows[:-1], rows[1:], strict=True):
        assert 1 <= inputs[first:last].sum() <= row_length
    document = np.searchsorted(offsets, stretches[:, 0], side="right")  # a stretch stays inside its document
    assert (stretches[:, 1] <= offsets[document]).all()


@settings(max_examples=60, derandomize=True)
@given(lengths=LENGTHS, row_length=ROW)
def test_stream_rows_are_full_but_the_last(lengths, row_length):
    stretches, rows = pack_stream(offsets_of(lengths), row_length)
    inputs = np.diff(stretches, axis=1)[:, 0] - 1
    sizes = [inputs[a:b].sum() for a, b in zip(rows[:-1], rows[1:], strict=True)]
    assert all(size == row_length for size in sizes[:-1])


def test_whole_documents_are_not_cut_when_they_fit():
    lengths = [5, 9, 3, 2, 8]
    stretches, _ = pack_whole(offsets_of(lengths), 8)
    assert sorted(np.diff(stretches, axis=1)[:, 0].tolist()) == sorted(lengths)


def test_across_ignores_boundaries():
    stretches, rows = pack_across(np.array([0, 3, 9]), 4)
    assert stretches.tolist() == [[0, 5], [4, 9]]
    assert rows.tolist() == [0, 1, 2]


def test_efficiency_of_realistic_lengths():
    lengths = np.random.default_rng(0).lognormal(4.9, 0.7, 4000).astype(int).clip(2)
    assert efficiency(*pack_whole(offsets_of(lengths), 512), 512) > 0.99
    assert efficiency(np.array([[0, 4], [4, 8]]), np.array([0, 1, 2]), 6) == 0.5
