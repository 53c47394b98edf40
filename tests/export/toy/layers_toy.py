"""Averaging, the one layer of the toy architecture."""


def masked_mean(hidden, keep):
    """(B, T, D) and keep (B, T) with 1 = take part; (B, D)."""
    keep = keep.unsqueeze(-1).to(hidden.dtype)
    return (hidden * keep).sum(1) / keep.sum(1).clamp(min=1)
