"""Rewards, advantages and whitening of PPO against their definitions, written as double loops over floats."""

import math

import pytest
import torch

from hftoolkit.rl.advantages import (
    advantages_and_returns,
    explained_variance,
    kl_per_token,
    masked_mean,
    masked_variance,
    token_rewards,
    whiten,
)

LENGTHS = (5, 1, 3, 0, 5)
EXACT = dict(rtol=0, atol=1e-12)  # both sides compute in float64


@pytest.fixture
def mask():
    return torch.arange(5) < torch.tensor(LENGTHS).unsqueeze(1)


@pytest.fixture
def table():
    """Random numbers (5, 5), also outside of the mask, which nothing may read."""
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.randn(5, 5, generator=generator, dtype=torch.float64)


def advantages_by_definition(rewards, values, gamma, lam, after):
    """A_t = sum over l of (gamma lam)^l delta_{t+l} of one response, as lists."""
    n = len(rewards)
    following = [*values[1:], after]
    deltas = [rewards[t] + gamma * following[t] - values[t] for t in range(n)]
    return [sum((gamma * lam) ** l * deltas[t + l] for l in range(n - t)) for t in range(n)]  # noqa: E741


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0)])
def test_advantages_match_the_double_loop(mask, table, gamma, lam, last):
    rewards, values = table(), table()
    after = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) if last else None
    ours, returns = advantages_and_returns(rewards, values, mask, gamma=gamma, lam=lam, last_values=after)
    for row, n in enumerate(LENGTHS):
        end = after[row].item() if last else 0.0
        theirs = advantages_by_definition(rewards[row, :n].tolist(), values[row, :n].tolist(), gamma, lam, end)
        torch.testing.assert_close(ours[row, :n], torch.tensor(theirs, dtype=torch.float64), **EXACT)
        torch.testing.assert_close(returns[row, :n], ours[row, :n] + values[row, :n], **EXACT)
        assert not ours[row, n:].any() and not returns[row, n:].any()


def test_the_double_loop_notices_a_value_read_behind_the_end(mask, table):
    rewards, values = table(), table()
    wrong, _ = advantages_and_returns(rewards, values, torch.ones_like(mask))
    theirs = advantages_by_definition(rewards[2, :3].tolist(), values[2, :3].tolist(), 1.0, 0.95, 0.0)
    assert (wrong[2, :3] - torch.tensor(theirs)).abs().max() > 0.1


def test_with_lambda_one_the_returns_are_the_sums_of_the_rewards(mask, table):
    rewards = table()
    _, returns = advantages_and_returns(rewards, table(), mask, lam=1.0)
    torch.testing.assert_close(returns[0], rewards[0].flip(0).cumsum(0).flip(0), **EXACT)


def test_the_score_lies_on_the_last_token_and_the_penalty_on_all():
    kl = torch.tensor([[0.2, 0.4, 9.0]])
    mask = torch.tensor([[True, True, False]])
    rewards = token_rewards(torch.tensor([1.0]), kl, mask, kl_coef=0.5)
    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 0.8, 0.0]]))


def test_a_response_without_a_token_gets_no_reward(mask, table):
    rewards = token_rewards(torch.full((5,), 7.0, dtype=torch.float64), table(), mask, kl_coef=0.0)
    assert rewards.sum(dim=1).tolist() == [7, 7, 7, 0, 7]


def test_the_estimators_of_the_kl():
    """On a distribution over two tokens their means are the KL itself: 0.5 log(0.5/0.25) + 0.5 log(0.5/0.75)."""
    logprobs = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    reference = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    exact = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    for estimator in ("k1", "k3"):
        found = kl_per_token(logprobs, reference, estimator)
        assert (found * logprobs.exp()).sum().item() == pytest.approx(exact, abs=1e-12)
    assert kl_per_token(logprobs, reference, "k3").min() > 0
    assert kl_per_token(logprobs, reference, "k1").min() < 0
    with pytest.raises(ValueError, match="'k1' or 'k3', got 'k2'"):
        kl_per_token(logprobs, reference, "k2")


def test_whitening(mask, table):
    values = table()
    inside = values[mask]
    mean, deviation = inside.mean(), inside.std(correction=0)
    torch.testing.assert_close(whiten(values, mask)[mask], (inside - mean) / deviation, rtol=1e-6, atol=1e-6)
    kept = whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept[mask], (inside - mean) / deviation + mean, rtol=1e-6, atol=1e-6)
    assert not kept[~mask].any()
    assert masked_mean(values, mask).item() == pytest.approx(mean.item())
    assert masked_variance(values, mask).item() == pytest.approx(deviation.item() ** 2)


def test_explained_variance(mask, table):
    returns = table()
    assert explained_variance(returns, returns, mask).item() == pytest.approx(1)
    assert explained_variance(torch.zeros_like(returns), returns, mask).item() == pytest.approx(0)
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3)
