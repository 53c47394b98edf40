"""Attention of an encoder-decoder without padding: sequences in flat rows, grouped by their lengths.

Shapes: B = rows, T = queries, S = keys, n = sequences of a group, H = heads, D = size of a head, N, M = tokens of all rows.
"""

import math

import torch
from torch import nn

from .layers_attention import fused_attention

CHUNK_SCORES = 2**20  # scores computed at a time in backward: 4 MiB in float32


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


class _BiasedAttention(torch.autograd.Function):
    """softmax(q k' + bias) v on the CPU, which keeps no scores: backward computes them again, a few rows at a time.

    The fused kernel of the CPU has no gradient for a bias, and without it all scores would be kept.
    """

    @staticmethod
    def forward(ctx, query, key, value, bias):
        """Query (n, H, T, D), key and value (n, H, S, D), bias (n or 1, H, T, S); (n, H, T, D)."""
        ctx.save_for_backward(query, key, value, bias)
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out):
        query, key, value, bias = ctx.saved_tensors
        wide = torch.promote_types(query.dtype, torch.float32)
        d_bias, shared = torch.zeros_like(bias, dtype=wide), len(bias) == 1
        d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))
        for rows in torch.arange(len(query)).split(max(1, CHUNK_SCORES // bias[0].numel())):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            own = slice(None) if shared else part
            q, k, v, d = (x[part] for x in (query, key, value, d_out))
            weights = (q @ k.transpose(2, 3)).to(wide).add_(bias[own]).softmax(-1)
            narrow = weights.to(q.dtype)
            d_value[part] = narrow.transpose(2, 3) @ d
            d_scores = (d @ v.transpose(2, 3)).to(wide).mul_(weights)
            d_scores.addcmul_(weights, d_scores.sum(-1, keepdim=True), value=-1)
            d_bias[own] += d_scores.sum(0, keepdim=True) if shared else d_scores
            narrow = d_scores.to(q.dtype)
            d_query[part], d_key[part] = narrow @ k, narrow.transpose(2, 3) @ q
        return d_query, d_key, d_value, d_bias.to(bias.dtype)


def grouped_attention(query, key, value, groups, dropout=0.0, scaling=1.0):
    """Attention between sequences that lie in flat rows: no padding, no look across a boundary.

    Args:
        query: (1, H, N, D); key and value: (1, H, M, D).
        groups: (query sizes, key sizes, calls). The sizes cut the rows into pieces; call i takes piece i of the
            queries, n sequences of length T, and a piece of the keys, n sequences of length S, as (n, T, S, number of
            that piece, what is added to the scores or None).
        scaling: what the scores are multiplied by; 1 where something that is trained is added to them.

    Returns:
        (1, N, H, D).
    """
    query_sizes, key_sizes, calls = groups
    queries, keys, values = (
        x[0].split(sizes, 1) for x, sizes in ((query, query_sizes), (key, key_sizes), (value, key_sizes))
    )
    outputs = []
    for piece, (n, T, S, i, mask) in zip(queries, calls, strict=True):
        q = piece.unflatten(1, (n, T)).transpose(0, 1)  # (n, H, T, D)
        k, v = (x.unflatten(1, (n, S)).transpose(0, 1) for x in (keys[i], values[i]))
        if mask is not None and mask.requires_grad and scaling == 1 and not dropout and q.device.type == "cpu":
            out = _BiasedAttention.apply(q, k, v, mask)
        else:
            out = fused_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (n * T, H, D)
    return torch.cat(outputs).unsqueeze(0)
