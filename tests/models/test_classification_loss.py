"""The loss of whole-row labels against torch's own, whole and in pieces."""

import pytest
import torch
from torch.nn import functional
from transformers import PretrainedConfig

from hftoolkit.models.layers_losses import classification_loss, linear_cross_entropy

CLASSIFICATION = {
    "classes": (dict(num_labels=3), torch.tensor([0, 2, 1, 1]), functional.cross_entropy),
    "one number": (dict(num_labels=1), torch.tensor([0.5, -1, 2, 0]), lambda x, y: functional.mse_loss(x[:, 0], y)),
    "one number in a column": (dict(num_labels=1), torch.tensor([[0.5], [-1], [2], [0]]), functional.mse_loss),
    "several numbers": (
        dict(num_labels=3, problem_type="regression"),
        torch.arange(12.0).view(4, 3),
        functional.mse_loss,
    ),
    "several labels": (
        dict(num_labels=3, problem_type="multi_label_classification"),
        torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
        functional.binary_cross_entropy_with_logits,
    ),
    "several labels, told by their type": (
        dict(num_labels=3),
        torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
        functional.binary_cross_entropy_with_logits,
    ),
}


@pytest.mark.parametrize("kind", CLASSIFICATION)
def test_classification_loss(kind):
    """The mean of torch's loss; in pieces, with the count that Trainer makes (all labels but -100), the same."""
    options, labels, expected = CLASSIFICATION[kind]
    config = PretrainedConfig(**options)
    logits = torch.randn(4, options["num_labels"], generator=torch.Generator().manual_seed(0))
    whole = classification_loss(logits, labels, config)
    torch.testing.assert_close(whole, expected(logits, labels))
    items = labels.ne(-100).sum()
    pieces = [classification_loss(logits[i], labels[i], config, items) for i in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(pieces), whole)


@pytest.mark.parametrize("label", [3, 10, -1])
def test_a_label_outside_of_the_classes_is_refused_by_name(label):
    logits, labels = torch.zeros(2, 3), torch.tensor([1, label])
    with pytest.raises(ValueError, match=f"label {label} is outside of the head's 3 classes, 0 to 2"):
        classification_loss(logits, labels, PretrainedConfig(num_labels=3))
    with pytest.raises(ValueError, match=f"label {label} is outside"):
        linear_cross_entropy(torch.zeros(2, 4), torch.zeros(3, 4), labels)
    assert classification_loss(logits, torch.tensor([1, -100]), PretrainedConfig(num_labels=3)) > 0
