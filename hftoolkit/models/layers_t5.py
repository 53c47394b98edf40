"""What T5 does in its own way: relative positions in buckets, attention with a bias, RMS norm, layers without biases.

Paper: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", https://arxiv.org/abs/1910.10683, Section 2.1;
RMS norm is Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467; the gated feed-forward layer is Shazeer 2020, "GLU
Variants Improve Transformer", https://arxiv.org/abs/2002.05202.
Shapes: B = rows, T = queries, S = keys, H = heads, D = size of a head, N = tokens of all rows.
"""

import math

import torch
from torch import nn
from transformers.activations import ACT2FN

# One fused kernel instead of the eight element-wise ones of the formula; equal to 1e-6.
FUSED = {"gelu_new": "gelu_pytorch_tanh"}
CHUNK_SCORES = 2**20  # scores computed at a time in backward: 4 MiB in float32


class _RMSNorm(torch.autograd.Function):
    """x * scale * weight, where scale = 1 / root mean square; of its own it keeps one number for each token."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out):
        x, scale, weight = ctx.saved_tensors
        normed = x * scale
        d_weight = (d_out * normed).flatten(0, -2).sum(0)
        d_normed = d_out * weight
        mean = (d_normed * normed).mean(-1, keepdim=True)
        return d_normed.sub_(normed.mul_(mean)).mul_(scale), d_weight, None


class RMSNorm(nn.Module):
    """Divide by the root mean square and multiply by a weight: no mean, no bias."""

    def __init__(self, hidden_size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden):
        """(..., hidden_size) to the same shape; the mean is taken in float32 at least."""
        if hidden.dtype == self.weight.dtype == torch.float32 and not torch.compiler.is_compiling():
            return _RMSNorm.apply(hidden, self.weight, self.eps)
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * scale).to(hidden.dtype) * self.weight


class _Gated(torch.autograd.Function):
    """f(gate) * up, which keeps the two only: backward computes f again."""

    @staticmethod
    def forward(ctx, gate, up, activation):
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return activation(gate) * up

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out):
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            gate = gate.detach().requires_grad_()
            active = ctx.activation(gate)
        (d_gate,) = torch.autograd.grad(active, gate, d_out * up)
        return d_gate, active.detach() * d_out, None


class GatedFeedForward(nn.Module):
    """T5's feed-forward layer: f(x W) V, or f(x W) * (x U) V where it is gated; no biases."""

    def __init__(self, config):
        super().__init__()
        D, F = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(D, F, bias=False) if config.is_gated else None
        self.up_proj = nn.Linear(D, F, bias=False)
        self.down_proj = nn.Linear(F, D, bias=False)
        self.activation = ACT2FN[FUSED.get(config.hidden_act, config.hidden_act)]
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden):
        """(..., hidden_size) to the same shape."""
        if self.gate_proj is None:
            inner = self.activation(self.up_proj(hidden))
        elif torch.compiler.is_compiling() or not torch.is_grad_enabled():
            inner = self.activation(self.gate_proj(hidden)) * self.up_proj(hidden)
        else:
            inner = _Gated.apply(self.gate_proj(hidden), self.up_proj(hidden), self.activation)
        return self.down_proj(self.dropout(inner))


def relative_buckets(distance, is_bidirectional, num_buckets, max_distance):
    """The bucket of each distance (position of the key minus position of the query), in the shape of distance.

    Half of the buckets are one distance each, the other half grow logarithmically up to max_distance, beyond which all
    share the last one. With is_bidirectional, keys after the query have buckets of their own; without, bucket 0.

    Example (32 buckets, distance 128):
        distance        -200 -20  -3   0   3  20  200
        bidirectional     15  10   3   0  19  26   31
        backwards only    31  17   3   0   0   0    0
    """
    offset = 0
    if is_bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = num_buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    large = (exact + (ratio * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
    return offset + torch.where(distance < exact, distance, large)


class RelativeBias(nn.Module):
    """A learned number for every head and bucket, added to the scores: the only positions that T5 has."""

    def __init__(self, config, is_bidirectional):
        super().__init__()
        self.is_bidirectional = is_bidirectional
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.weight = nn.Parameter(torch.empty(self.num_buckets, config.num_attention_heads))

    def forward(self, queries, keys, seen=0):
        """The bias (1, H, T, S) of so many queries after `seen` earlier ones over so many keys.

        It depends on the distance only, so each of the S + T - 1 distances is looked up once.
        """
        distance = torch.arange(keys + queries - 1, device=self.weight.device) - (queries - 1) - seen
        buckets = relative_buckets(distance, self.is_bidirectional, self.num_buckets, self.max_distance)
        values = nn.functional.embedding(buckets, self.weight).t().contiguous()  # (H, S + T - 1)
        return values.unfold(1, keys, 1).flip(1).unsqueeze(0)


def add_mask(bias, mask):
    """Bias (1, H, T, S) with a mask of transformers, True = attend or numbers to add; None masks nothing."""
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, torch.finfo(bias.dtype).min)
    return bias + mask


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
        if mask is not None and mask.requires_grad and not dropout and q.device.type == "cpu":
            out = _BiasedAttention.apply(q, k, v, mask)
        else:
            options = dict(attn_mask=mask, dropout_p=dropout, scale=scaling)
            out = nn.functional.scaled_dot_product_attention(q, k, v, **options)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (n * T, H, D)
    return torch.cat(outputs).unsqueeze(0)
