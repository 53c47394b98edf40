"""Multi-head attention over padded, packed and cached text through one function, and over flat rows without padding.

Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Section 3.2, equation 1.
Shapes: B = rows, T = queries, S = keys, n = sequences of a group, H = heads, D = size of a head, N, M = tokens of all rows.
"""

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

CHUNK_SCORES = 2**20  # scores computed at a time in backward: 4 MiB in float32
SHORT = 200  # keys below which a CPU's backward is faster in float32 than in bfloat16


def eager_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """Equation 1 as it is written; the one implementation that also returns the weights.

    Args:
        module: the attention layer; its `training` and `is_causal` are read.
        query: (B, H, T, D); key and value (B, H, S, D).
        attention_mask: added to the scores, or True where a key may be read, (B, 1, T, S); None for plain (causal)
            attention.

    Returns:
        (output (B, T, H, D), weights (B, H, T, S)).
    """
    scores = query @ key.transpose(2, 3) * scaling  # (B, H, T, S)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    output = nn.functional.dropout(weights, p=dropout, training=module.training) @ value
    return output.transpose(1, 2).contiguous(), weights


def fused_attention(query, key, value, attn_mask=None, **options):
    """The fused kernel of torch, in float32 where that of bfloat16 is slow.

    On a CPU the backward of short rows in bfloat16 takes up to six times as long as in float32 (benchmarks/LOG.md), and
    rounds more.

    Args:
        query: (n, H, T, D); key and value (n, H, S, D).
        attn_mask: added to the scores, or True where a key may be read.
        options: those of scaled_dot_product_attention.

    Returns:
        (n, H, T, D) of the query's dtype.
    """
    attend = nn.functional.scaled_dot_product_attention
    short = query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[-2] < SHORT
    if not (short and torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))):
        return attend(query, key, value, attn_mask=attn_mask, **options)
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        attn_mask = attn_mask.float()
    with torch.autocast("cpu", enabled=False):  # which would make bfloat16 of it again
        out = attend(query.float(), key.float(), value.float(), attn_mask=attn_mask, **options)
    return out.to(query.dtype)


def packed_attention(query, key, value, groups, *, scaling, is_causal, dropout=0.0):
    """Attention inside each document of one flat row: no padding, no mask, no look across a boundary.

    Documents of equal length lie together (layers_positions.by_length) and are views of the row, so each group is one
    call of the fused kernel and nothing is copied but the result.

    Args:
        query: (1, H, N, D); key and value likewise.
        groups: list of (number of documents n, their length L); the products sum to N.

    Returns:
        (1, N, H, D).
    """
    sizes = [n * L for n, L in groups]
    outputs = []
    for (n, L), *parts in zip(groups, *(t.split(sizes, dim=2) for t in (query, key, value)), strict=True):
        q, k, v = (part[0].unflatten(1, (n, L)).transpose(0, 1) for part in parts)  # (n, H, L, D)
        out = fused_attention(q, k, v, dropout_p=dropout, scale=scaling, is_causal=is_causal)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # (n * L, H, D)
    return torch.cat(outputs).unsqueeze(0)


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


def cumulative_lengths(groups, device):
    """The same groups as the arguments of attention kernels for sequences of different length in one row."""
    lengths = torch.tensor([0] + [length for count, length in groups for _ in range(count)])
    ends, longest = lengths.cumsum(0).to(device, torch.int32), int(lengths.max())
    return dict(cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=longest, max_length_k=longest)


class SelfAttention(nn.Module):
    """Multi-head self-attention with projections of query, key, value and output."""

    def __init__(self, config, layer_idx, is_causal):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.num_key_value_groups = 1  # read by the attention functions of transformers
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden, attention_mask=None, past_key_values=None, groups=None, **kwargs):
        """Attend within each row, or within each document.

        Args:
            hidden: (B, T, H * D).
            attention_mask: what the chosen attention function expects, or None.
            past_key_values: cache of earlier keys and values; extended in place.
            groups: documents of one flat row (see packed_attention), or None.

        Returns:
            (output (B, T, H * D), attention weights (B, H, T, S) or None).
        """
        shape = (*hidden.shape[:-1], -1, self.head_dim)
        query, key, value = (p(hidden).view(shape).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        dropout = self.attention_dropout if self.training else 0.0
        if groups is not None:
            options = dict(scaling=self.scaling, is_causal=self.is_causal, dropout=dropout)
            return self.o_proj(packed_attention(query, key, value, groups, **options).flatten(2)), None
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, weights = attend(
            self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o_proj(output.flatten(2)), weights
