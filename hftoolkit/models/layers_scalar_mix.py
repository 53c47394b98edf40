"""One vector from the vectors of several layers: a learnt weighted mean, scaled.

Paper: Peters et al. 2018, "ELMo", https://arxiv.org/abs/1802.05365, Section 3.2, Equation 1.
"""

import torch
from torch import nn


class ScalarMix(nn.Module):
    """gamma * sum_j softmax(weights)_j h_j; at the start the mean of the layers."""

    def __init__(self, num_layers):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(num_layers))
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, layers):
        """Layers of equal shape (..., D) to (..., D).

        Raises:
            ValueError: another number of layers than this has weights for.
        """
        if len(layers) != len(self.weights):
            raise ValueError(f"this mixes {len(self.weights)} layers, got {len(layers)}")
        shares = self.weights.softmax(0) * self.gamma
        return sum(share * layer for share, layer in zip(shares.unbind(), layers, strict=True))
