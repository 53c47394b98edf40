"""The losses of PPO against the cases of their definitions, and their gradients."""

import pytest
import torch

from hftoolkit.rl.losses import approximate_kl, clipped_policy_loss, clipped_value_loss


def policy_loss_by_cases(ratio, advantage, c):
    """Equation 7 of Schulman et al. 2017 by cases: outside of the clip range only what makes it worse counts."""
    bounded = min(max(ratio, 1 - c), 1 + c)
    return -min(ratio * advantage, bounded * advantage)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 3.0])
def test_the_policy_loss_by_cases(ratio, advantage):
    logprobs = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    old = torch.zeros(1, dtype=torch.float64)
    loss, found, clipped = clipped_policy_loss(logprobs, old, torch.tensor([advantage], dtype=torch.float64), 0.2)
    assert loss.item() == pytest.approx(policy_loss_by_cases(ratio, advantage, 0.2))
    assert found.item() == pytest.approx(ratio)
    loss.sum().backward()
    decided = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert clipped.item() == decided
    assert logprobs.grad.item() == pytest.approx(0 if decided else -advantage * ratio)


@pytest.mark.parametrize("returns", [0.0, 3.0])
@pytest.mark.parametrize("value", [0.5, 0.9, 1.0, 1.1, 2.0])
def test_the_value_loss_by_cases(value, returns):
    values = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    loss, clipped = clipped_value_loss(values, torch.tensor([1.0]), torch.tensor([returns]), 0.2)
    bounded = min(max(value, 0.8), 1.2)
    assert loss.item() == pytest.approx(0.5 * max((value - returns) ** 2, (bounded - returns) ** 2))
    loss.sum().backward()
    decided = (bounded - returns) ** 2 > (value - returns) ** 2
    assert clipped.item() == decided
    assert values.grad.item() == pytest.approx(0 if decided else value - returns)


def test_an_unchanged_policy_has_ratio_one_and_no_kl():
    logprobs = torch.randn(9)
    _, ratio, clipped = clipped_policy_loss(logprobs, logprobs, torch.randn(9))
    assert ratio.tolist() == [1.0] * 9 and not clipped.any()
    assert not approximate_kl(logprobs, logprobs).any()
    torch.testing.assert_close(approximate_kl(logprobs + 0.2, logprobs), torch.full((9,), 0.02))
