"""One vector per row: against loops over the real tokens, whatever the padding holds and wherever it stands."""

import pytest
import torch
from small_models import randomise

from hftoolkit.models.layers_pooling import POOLINGS, Pooling, masked_last

D = 6
MASKS = {
    "right": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]),
    "left": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]),
    "holes": torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]]),
}


def by_hand(kind, pooling, row):
    """Of the real tokens of one row, (n, D) to (D,)."""
    if not len(row):
        return torch.zeros(D)
    if kind == "attention":
        weights = torch.stack([pooling.query.weight[0] @ torch.tanh(pooling.project(token)) for token in row]).exp()
        return sum(weight * token for weight, token in zip(weights / weights.sum(), row, strict=True))
    if kind == "last":
        return torch.cat([row[-1, : D // 2], row[0, D // 2 :]]) if pooling.bidirectional else row[-1]
    return row.max(0).values if kind == "max" else row.sum(0) / len(row)


@pytest.mark.parametrize("padding", MASKS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", POOLINGS)
def test_is_the_loop(kind, bidirectional, padding):
    pooling, mask = randomise(Pooling(kind, D, bidirectional)), MASKS[padding]
    values = (
        torch.randn(4, 4, D, generator=torch.Generator().manual_seed(0)) - 2
    )  # negative: zeros would be the largest
    expected = torch.stack([by_hand(kind, pooling, row[real.bool()]) for row, real in zip(values, mask, strict=True)])
    torch.testing.assert_close(pooling(values, mask), expected)
    other = values.masked_fill(mask.unsqueeze(-1) == 0, 1e4)
    torch.testing.assert_close(pooling(other, mask), expected)
    torch.testing.assert_close(pooling(values, torch.ones_like(mask)), pooling(values))
    grown = torch.nn.functional.pad(values, (0, 0, 1, 2)), torch.nn.functional.pad(mask, (1, 2))
    torch.testing.assert_close(pooling(*grown), expected)


@pytest.mark.parametrize("kind", POOLINGS)
def test_the_gradient_reaches_real_tokens_only_and_is_finite(kind):
    pooling, mask = randomise(Pooling(kind, D)), MASKS["right"]
    values = torch.randn(4, 4, D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pooling(values, mask).square().sum().backward()
    assert values.grad.isfinite().all()
    assert (values.grad[mask == 0] == 0).all()
    assert (values.grad[:3, 0 if kind != "last" else -1][0] != 0).any()


def test_the_law_notices_the_last_column():
    """What -1 would give: padding, in every row but the first."""
    values, mask = torch.randn(4, 4, D), MASKS["right"]
    assert not torch.equal(masked_last(values, mask.bool())[1], values[1, -1])
    assert torch.equal(masked_last(values, mask.bool())[1], values[1, 1])


def test_weights_of_the_attention_sum_to_one():
    pooling, mask = randomise(Pooling("attention", D)), MASKS["right"].bool()
    weights = pooling.weights(torch.randn(4, 4, D), mask)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert (weights[~mask] == 0).all()


@pytest.mark.parametrize("kind", POOLINGS)
def test_rows_without_any_column(kind):
    assert torch.equal(Pooling(kind, D)(torch.zeros(2, 0, D), torch.zeros(2, 0)), torch.zeros(2, D))


def test_refuses_an_unknown_kind():
    with pytest.raises(ValueError, match="pooling must be one of last, mean, max, attention, got 'sum'"):
        Pooling("sum", D)
