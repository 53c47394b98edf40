"""Packing: which stretches of a token array stand together in one training row.

Pure functions on lengths and offsets; no token is touched here. A stretch (start, end) of the token array is one
sequence: its inputs are tokens[start : end - 1], its targets tokens[start + 1 : end]. Pieces of one document overlap
by one token, so that every token but a document's first is predicted exactly once, and none is multiplied in vain.
Paper: whole documents by first-fit decreasing, Johnson 1973 (the rows needed are at most 11/9 of the fewest + 1);
for language models Krell et al. 2021, https://arxiv.org/abs/2107.02027, Section 3.
"""

import numpy as np


def cut_documents(offsets, row_length):
    """Cut every document into pieces of at most `row_length` inputs.

    Args:
        offsets: where each document begins in the token array, and the array's end, (documents + 1,).

    Returns:
        (start, end) of the pieces, (pieces, 2); documents without a token to predict have none.

    Example (row_length 4):
        offsets  [0 3 3 14]
        pieces   [0 3] [3 8] [7 12] [11 14]
    """
    starts, inputs = offsets[:-1], np.maximum(np.diff(offsets) - 1, 0)
    pieces = -(-inputs // row_length)
    first = np.repeat(starts, pieces)
    index = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # 0, 1, ... inside a document
    start = first + index * row_length
    end = np.minimum(start + row_length + 1, np.repeat(offsets[1:], pieces))
    return np.stack([start, end], axis=1)


def first_fit_decreasing(lengths, row_length):
    """Put each length into the first row that has room, the longest first.

    Args:
        lengths: each in 1..row_length, (pieces,).

    Returns:
        The row of each piece, (pieces,), numbered from 0 in the order in which rows were opened.

    Raises:
        ValueError: a length that does not fit into a row.

    Example (row_length 10):
        lengths  [4 7 3 6]
        rows     [1 0 0 1]
    """
    lengths = np.asarray(lengths)
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= row_length:
        raise ValueError(f"lengths must be in 1..{row_length}, got {lengths.min()}..{lengths.max()}")
    order = np.argsort(-lengths, kind="stable")
    sizes, counts = np.unique(-lengths, return_counts=True)
    rows, room, done = np.empty(len(lengths), dtype=np.int64), np.empty(0, dtype=np.int64), 0
    for length, count in zip((-sizes).tolist(), counts.tolist(), strict=True):  # equal lengths fill a row at a time
        per_row = row_length // length
        fresh = max(0, count - int((room // length).sum()))
        room = np.concatenate([room, np.full(-(-fresh // per_row), row_length)])
        takes = room // length
        before = np.cumsum(takes) - takes
        takes = np.clip(count - before, 0, takes)
        rows[order[done : done + count]] = np.repeat(np.arange(len(room)), takes)
        room = room - takes * length
        done += count
    return rows


def pack_whole(offsets, row_length):
    """Rows of whole documents (longer ones cut), by first-fit decreasing.

    Returns:
        (stretches (S, 2), row_offsets (rows + 1,)): row r consists of stretches[row_offsets[r] : row_offsets[r + 1]],
        in the order in which they stand in the token array.
    """
    pieces = cut_documents(offsets, row_length)
    rows = first_fit_decreasing(pieces[:, 1] - pieces[:, 0] - 1, row_length)
    order = np.argsort(rows, kind="stable")
    return pieces[order], np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)


def pack_stream(offsets, row_length):
    """Rows of exactly `row_length` inputs, cut from the documents laid end to end; only the last may be shorter.

    A document that crosses the end of a row goes on in the next one as a sequence of its own.

    Returns:
        (stretches, row_offsets) as pack_whole.

    Example (row_length 4):
        offsets  [0 4 10]
        rows     [0 4] [4 6] | [5 10]       (3 + 1 inputs, then 4)
    """
    keep = np.diff(offsets) > 1
    starts, inputs = offsets[:-1][keep], np.diff(offsets)[keep] - 1
    ends = np.cumsum(inputs)  # in the row of all inputs
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.unique(np.concatenate([ends, np.arange(row_length, total, row_length)])) if total else np.empty(0, int)
    begins = np.concatenate([[0], cuts[:-1]]).astype(np.int64) if total else cuts
    document = np.searchsorted(ends, begins, side="right")
    shift = (starts - (ends - inputs))[document] if total else 0
    stretches = np.stack([begins + shift, cuts + shift + 1], axis=1).astype(np.int64)
    rows = begins // row_length
    return stretches, np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=1))]).astype(np.int64) if total else (
        np.zeros(1, dtype=np.int64)
    )


def pack_across(offsets, row_length):
    """Rows of `row_length` inputs that ignore document boundaries, as GPT-2 was trained; (stretches, row_offsets)."""
    whole = np.array([offsets[0], offsets[-1]])
    stretches = cut_documents(whole, row_length)
    return stretches, np.arange(len(stretches) + 1)


def efficiency(stretches, row_offsets, row_length):
    """Share of the row places that hold a token, 0 to 1."""
    rows = len(row_offsets) - 1
    return float((stretches[:, 1] - stretches[:, 0] - 1).sum() / (rows * row_length)) if rows else 0.0
