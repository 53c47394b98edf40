"""Positions and documents of packed rows: the examples of the docstrings, and laws."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hftoolkit.models.layers_positions import by_length, document_lengths, positions_from_mask


def test_document_lengths_of_the_docstring():
    positions = torch.tensor([[0, 1, 2, 0, 1], [3, 4, 5, 0, 0]])
    assert document_lengths(positions).tolist() == [3, 2, 3, 1, 1]


def test_by_length_of_the_docstring():
    order, groups = by_length(torch.tensor([3, 2, 3]))
    assert order.tolist() == [0, 1, 2, 5, 6, 7, 3, 4]
    assert groups == [(2, 3), (1, 2)]


def test_by_length_moves_nothing_that_is_in_order():
    assert by_length(torch.tensor([5, 5, 2])) == (None, [(2, 5), (1, 2)])


def test_positions_from_mask():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    assert positions_from_mask(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 0, 0]]


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=20)


@settings(max_examples=50, deadline=None)
@given(LENGTHS)
def test_document_lengths_rebuilds_the_documents(lengths):
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    assert document_lengths(positions).tolist() == lengths
    assert document_lengths(positions.expand(3, -1)).tolist() == 3 * lengths


@settings(max_examples=50, deadline=None)
@given(LENGTHS)
def test_by_length_keeps_documents_whole_and_puts_equal_ones_together(lengths):
    order, groups = by_length(torch.tensor(lengths))
    sizes = [length for count, length in groups for _ in range(count)]
    assert sizes == sorted(lengths, reverse=True)
    assert len(groups) == len(set(lengths))
    tokens = [(document, place) for document, length in enumerate(lengths) for place in range(length)]
    moved = tokens if order is None else [tokens[i] for i in order.tolist()]
    assert sorted(moved) == tokens
    start = 0
    for size in sizes:
        document = moved[start][0]
        assert moved[start : start + size] == [(document, place) for place in range(lengths[document])]
        start += size
