"""One vector for each row of token vectors: the last, the mean, the largest, or a learnt weighted mean; word dropout.

Padding has no influence, wherever it stands; a row without a real token gives zeros.
Paper of the weighted mean: Yang et al. 2016, https://aclanthology.org/N16-1174, Section 2.2, Equations 5 to 7.
Shapes: B = rows, T = tokens of a row, D = hidden size.
"""

import torch
from torch import nn

POOLINGS = ("last", "mean", "max", "attention")


def real_tokens(values, attention_mask):
    """True at real tokens, (B, T); without a mask all are."""
    if attention_mask is None:
        return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    return attention_mask.ne(0)


def drop_words(keep, probability):
    """Leave out each kept token with this probability, Iyyer et al. 2015, https://aclanthology.org/P15-1162, Section 3.2.

    A row that would lose all of its tokens keeps them. (B, T) to (B, T), bool; not changed in place.
    """
    if probability == 0:
        return keep
    chosen = keep & (torch.rand(keep.shape, device=keep.device) >= probability)
    return torch.where(chosen.any(1, keepdim=True), chosen, keep)


def masked_mean(values, keep):
    """Mean of the kept tokens; (B, T, D) and (B, T) to (B, D)."""
    keep = keep.to(values.dtype).unsqueeze(1)  # (B, 1, T)
    return (keep @ values).squeeze(1) / keep.sum(-1).clamp(min=1)


def masked_max(values, keep):
    """Largest number of each dimension among the kept tokens; (B, T, D) and (B, T) to (B, D)."""
    if values.shape[1] == 0:
        return values.new_zeros(values.shape[0], values.shape[2])
    largest = values.masked_fill(~keep.unsqueeze(-1), torch.finfo(values.dtype).min).amax(1)
    return largest.masked_fill(~keep.any(1, keepdim=True), 0.0)


def masked_last(values, keep, bidirectional=False):
    """The vector of the last kept token; (B, T, D) and (B, T) to (B, D).

    Args:
        bidirectional: the second half of the vector was computed from right to left; of it, that of the first token is
            taken, which has seen the whole row.
    """
    if values.shape[1] == 0:
        return values.new_zeros(values.shape[0], values.shape[2])
    rows, places = (
        torch.arange(len(values), device=values.device),
        torch.arange(1, values.shape[1] + 1).to(keep.device),
    )
    last, first = (keep * places).argmax(1), keep.long().argmax(1)
    chosen = values[rows, last]
    if bidirectional:
        half = values.shape[-1] // 2
        chosen = torch.cat([chosen[:, :half], values[rows, first, half:]], -1)
    return chosen.masked_fill(~keep.any(1, keepdim=True), 0.0)


class Pooling(nn.Module):
    """One of POOLINGS: (B, T, D) and (B, T) to (B, D).

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind, size, bidirectional=False):
        super().__init__()
        check_pooling(kind)
        self.kind, self.bidirectional = kind, bidirectional
        self.project = nn.Linear(size, size) if kind == "attention" else None
        self.query = nn.Linear(size, 1, bias=False) if kind == "attention" else None

    def forward(self, values, attention_mask=None):
        """(B, D); attention_mask (B, T) is not 0 at real tokens, None: all are real."""
        keep = real_tokens(values, attention_mask)
        if self.kind == "last":
            return masked_last(values, keep, self.bidirectional)
        if self.kind == "attention":
            return (self.weights(values, keep).unsqueeze(1) @ values).squeeze(1)
        return (masked_max if self.kind == "max" else masked_mean)(values, keep)

    def weights(self, values, keep):
        """Weight of each token, (B, T); those of a row sum to 1, or are all 0 where no token is real."""
        scores = self.query(torch.tanh(self.project(values))).squeeze(-1).float()
        weights = scores.masked_fill(~keep, torch.finfo(scores.dtype).min).softmax(1).masked_fill(~keep, 0.0)
        return weights.to(values.dtype)


def check_pooling(kind):
    """Refuse a kind that does not exist.

    Raises:
        ValueError: it is none of POOLINGS.
    """
    if kind not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, got {kind!r}")
