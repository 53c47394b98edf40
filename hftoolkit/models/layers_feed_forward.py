"""The position-wise feed-forward layer of the Transformer.

Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Section 3.3: FFN(x) = f(x W1 + b1) W2 + b2.
Shapes: D = hidden size, F = intermediate size.
"""

from torch import nn
from transformers.activations import ACT2FN

# One fused kernel instead of the eight element-wise ones of the formula; equal to 1e-6.
FUSED = {"gelu_new": "gelu_pytorch_tanh"}


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between them; dropout is of the output, inner_dropout between the two."""

    def __init__(self, hidden_size, intermediate_size, hidden_act, dropout=0.0, inner_dropout=0.0):
        super().__init__()
        self.up_proj = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[FUSED.get(hidden_act, hidden_act)]
        self.down_proj = nn.Linear(intermediate_size, hidden_size)
        self.dropout, self.inner_dropout = nn.Dropout(dropout), nn.Dropout(inner_dropout)

    def forward(self, hidden):
        """Map every position by itself; (..., D) to (..., D)."""
        return self.dropout(self.down_proj(self.inner_dropout(self.activation(self.up_proj(hidden)))))


class PredictionTransform(nn.Module):
    """What BERT puts between the encoder and the output matrix: a linear layer, the activation, LayerNorm.

    Source: get_masked_lm_output in run_pretraining.py of google-research/bert.
    """

    def __init__(self, config):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden):
        """(..., D) to (..., D)."""
        return self.norm(self.activation(self.dense(hidden)))
