"""What T5 does in its own way: relative positions in buckets, RMS norm, layers without biases.

Paper: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", https://arxiv.org/abs/1910.10683, Section 2.1;
RMS norm is Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467; the gated feed-forward layer is Shazeer 2020, "GLU
Variants Improve Transformer", https://arxiv.org/abs/2002.05202.
Shapes: T = queries, S = keys, H = heads, D = hidden_size.
"""

import math

import torch
from torch import nn
from transformers.activations import ACT2FN

# One fused kernel instead of the eight element-wise ones of the formula; equal to 1e-6.
FUSED = {"gelu_new": "gelu_pytorch_tanh"}


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
