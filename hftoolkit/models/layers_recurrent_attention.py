"""What a recurrent decoder looks at: attention over the encoder's states, and the decoder's cell, one step at a time.

Papers: Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, Section 3.1 and Appendix A.1.2 (additive); Luong et al.
2015, https://arxiv.org/abs/1508.04025, Section 3.1, Equation 8 (dot, general, concat).
Shapes: B = rows, T = tokens that are written, S = tokens of the source, H = size of the decoder's state, C = size of
the encoder's states, A = size of what additive scores are made of (H here), G = gates of a cell times H.
"""

import torch
from torch import nn

ATTENTIONS = ("none", "additive", "dot", "general", "concat")
SUMS = ("additive", "concat")  # scored by v tanh(W s + U h), the one from the last state, the other from the new one


class RecurrentAttention(nn.Module):
    """Weights of the encoder's states for states of the decoder, and the mean that they make, the context.

    Args:
        kind: of ATTENTIONS, but "none".
        query_size: H.
        source_size: C; for "dot" equal to H.
    """

    def __init__(self, kind, query_size, source_size):
        super().__init__()
        self.kind = kind
        projected = query_size if kind in SUMS else source_size
        self.q_proj = None if kind == "dot" else nn.Linear(query_size, projected, bias=False)
        self.k_proj = nn.Linear(source_size, projected, bias=False) if kind in SUMS else None
        self.energy = nn.Linear(projected, 1, bias=False) if kind in SUMS else None

    def keys(self, source):
        """What the scores read of the source (B, S, C), the same at every step: (B, S, A) or the source itself."""
        return source if self.k_proj is None else self.k_proj(source)

    def forward(self, query, source, keys, is_padding=None):
        """Look from every query at the source.

        Args:
            query: states of the decoder, (B, T, H).
            source: states of the encoder, (B, S, C), and keys, what `keys` made of them.
            is_padding: True at padding of the source, (B, S), or None. It gets the weight 0, everywhere if there is
                nothing else.

        Returns:
            (contexts (B, T, C), weights (B, T, S), of which those of a row sum to 1).
        """
        projected = query if self.q_proj is None else self.q_proj(query)
        if self.energy is None:
            scores = projected @ keys.to(projected.dtype).transpose(1, 2)  # (B, T, S)
        else:
            scores = self.energy(torch.tanh(projected.unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if is_padding is None:
            weights = scores.softmax(-1)
        else:
            is_padding = is_padding.unsqueeze(1)
            weights = scores.masked_fill(is_padding, torch.finfo(scores.dtype).min).softmax(-1)
            weights = weights.masked_fill(is_padding, 0.0)
        return weights.to(source.dtype) @ source, weights


def check_attention(kind):
    """Refuse a kind that does not exist.

    Raises:
        ValueError: it is none of ATTENTIONS.
    """
    if kind not in ATTENTIONS:
        raise ValueError(f"attention_type must be one of {', '.join(ATTENTIONS)}, got {kind!r}")


def cell_step(rnn, gates, state):
    """One step of a torch.nn.LSTM, GRU or RNN with one layer, whose part of the input was multiplied before.

    Args:
        rnn: gives the recurrent weights.
        gates: input times weight_ih_l0, plus bias_ih_l0, (B, G).
        state: (h,), of an LSTM (h, c), each (B, H).

    Returns:
        The next state.
    """
    h = state[0]
    recurrent = nn.functional.linear(h, rnn.weight_hh_l0, rnn.bias_hh_l0)
    if isinstance(rnn, nn.LSTM):
        inward, forget, cell, outward = (gates + recurrent).chunk(4, -1)
        c = forget.sigmoid() * state[1] + inward.sigmoid() * cell.tanh()
        return outward.sigmoid() * c.tanh(), c
    if isinstance(rnn, nn.GRU):
        reset, update, new = gates.chunk(3, -1)
        r, u, n = recurrent.chunk(3, -1)
        new = torch.tanh(new + torch.sigmoid(reset + r) * n)
        return (torch.lerp(new, h.to(new.dtype), torch.sigmoid(update + u)),)
    return (torch.tanh(gates + recurrent),)
