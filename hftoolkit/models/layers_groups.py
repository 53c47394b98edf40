"""Which sequences of flat rows attend to which, grouped by their lengths: what grouped_attention computes.

Shapes: B = rows, T = queries, S = keys, L = a length, n = sequences of a group, H = heads.
"""

import math

import torch


def row_lengths(values, mask):
    """How many real tokens each row has, (B,), on the CPU."""
    return torch.full((len(values),), values.shape[1]) if mask is None else mask.ne(0).sum(1).cpu()


def own_groups(groups, bias, allowed=None):
    """How sequences in one flat row attend to themselves; see grouped_attention.

    Args:
        groups: list of (number of sequences, their length), the longest first.
        bias: (1, H, T, T) of the longest.
        allowed: for each group a mask of its sequences, (n, 1, L, L), True = attend, or None.
    """
    sizes, calls = [n * L for n, L in groups], []
    for i, (n, L) in enumerate(groups):
        corner = bias[:, :, :L, :L]
        calls.append((n, L, L, i, corner if allowed is None else corner.masked_fill(~allowed[i], -math.inf)))
    return sizes, sizes, calls


def cross_groups(query_lengths, key_lengths):
    """How the sequences of one flat row attend to those of another; see grouped_attention.

    Both rows hold the sequences of the same batch, the longest first and else in the order of the batch; sequences that
    lie together in both and have the same two lengths are one call.

    Args:
        query_lengths: of each row of the batch, (B,), on the CPU; key_lengths likewise. 0 leaves a row out.

    Example:
        query_lengths  [2, 2, 1]
        key_lengths    [4, 4, 3]
        result         [4, 1], [8, 3], [(2, 2, 4, 0, None), (1, 1, 3, 1, None)]
    """
    lengths = [query_lengths.tolist(), key_lengths.tolist()]
    orders = [torch.sort(part, descending=True, stable=True)[1].tolist() for part in (query_lengths, key_lengths)]
    rank = {row: place for place, row in enumerate(orders[1])}
    runs, last = [], None
    for row in orders[0]:
        T, S = lengths[0][row], lengths[1][row]
        if T and runs and runs[-1][1:3] == [T, S] and rank[row] == last + 1:
            runs[-1][0] += 1
        elif T:
            runs.append([1, T, S, rank[row]])
        last = rank[row]
    starts = {run[3]: run[0] for run in runs}
    key_sizes, piece_of, place = [], {}, 0
    while place < len(orders[1]):
        piece_of[place], n = len(key_sizes), starts.get(place, 1)
        key_sizes.append(n * lengths[1][orders[1][place]])
        place += n
    return [n * T for n, T, _, _ in runs], key_sizes, [(n, T, S, piece_of[first], None) for n, T, S, first in runs]
