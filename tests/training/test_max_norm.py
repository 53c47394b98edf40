"""The limit on the length of each class's weights."""

import pytest
import torch
from torch import nn

from hftoolkit.errors import DataError
from hftoolkit.models.modeling_bow import HftBowConfig, HftBowForSequenceClassification
from hftoolkit.training.max_norm import MaxNorm


def test_only_rows_that_are_too_long_are_shortened():
    model = nn.Module()
    model.score = nn.Linear(2, 3)
    model.score.weight.data = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    bias = model.score.bias.clone()
    MaxNorm(model, 1.0).on_optimizer_step(None, None, None, model=model)
    torch.testing.assert_close(model.score.weight.detach(), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    assert torch.equal(model.score.bias, bias)


def test_a_bag_of_words_has_no_such_rows():
    model = HftBowForSequenceClassification(HftBowConfig(vocab_size=9))
    with pytest.raises(DataError, match="max_norm is 3, but HftBowForSequenceClassification has no layer 'score'"):
        MaxNorm(model, 3.0)
