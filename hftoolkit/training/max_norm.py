"""A limit on the length of each class's weights, applied after every update.

Paper: Kim 2014, https://arxiv.org/abs/1408.5882, Section 2.1: "rescaling w to have ||w|| = s whenever ||w|| > s after a
gradient descent step"; s = 3.
"""

import torch
from transformers import TrainerCallback

from hftoolkit.errors import DataError


class MaxNorm(TrainerCallback):
    """Shortens the rows of `model.score.weight` (C, D) to at most `limit`; shorter ones stay as they are.

    Raises:
        DataError: the model has no such layer (a bag of words).
    """

    def __init__(self, model, limit):
        if not isinstance(getattr(model, "score", None), torch.nn.Linear):
            raise DataError(
                f"max_norm is {limit:g}, but {type(model).__name__} has no layer 'score' to limit: leave out max_norm"
            )
        self.limit = limit

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        weight = model.score.weight
        weight.copy_(torch.renorm(weight, p=2, dim=0, maxnorm=self.limit))
