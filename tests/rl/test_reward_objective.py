"""The objective against hand-worked numbers, a double loop over its definition, and TRL's loss for pairs."""

import math
from collections import defaultdict
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

from hftoolkit.rl.reward_objective import centre_penalty, preference_pairs, ranking_loss

SIZES = torch.tensor([3, 2, 4])
SCORES = torch.tensor([2, 0, 1, 0, 5, 1, 1, 0, 1])  # the last prompt has three answers in the same place


def rewards(seed=0):
    return torch.randn(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def double_loop(values, scores, sizes, margins, term):
    """Equation 1 as it is written: for every prompt the mean over its pairs."""
    found, start = [], 0
    for size, margin in zip(sizes, margins, strict=True):
        terms = []
        for i, j in combinations(range(start, start + size), 2):
            if scores[i] != scores[j]:
                w, loser = (i, j) if scores[i] > scores[j] else (j, i)
                terms.append(term(values[w], values[loser], margin))
        found.append(sum(terms) / max(len(terms), 1))
        start += size
    return found


@pytest.mark.parametrize("margins", [None, [0.0, 0.5, 2.0]])
def test_the_definition(margins):
    values, given = rewards(), None if margins is None else torch.tensor(margins)
    loop = double_loop(
        values.tolist(),
        SCORES.tolist(),
        SIZES.tolist(),
        margins or [0.0] * 3,
        lambda w, loser, m: -log_sigmoid(w - loser - m),
    )
    torch.testing.assert_close(ranking_loss(values, SCORES, SIZES, given), torch.tensor(loop), rtol=1e-6, atol=1e-6)
    penalty = double_loop(
        values.tolist(), SCORES.tolist(), SIZES.tolist(), [0.0] * 3, lambda w, loser, m: (w + loser) ** 2
    )
    torch.testing.assert_close(centre_penalty(values, SCORES, SIZES), torch.tensor(penalty), rtol=1e-6, atol=1e-6)


def test_by_hand():
    """Two answers: -log sigmoid(2 - 1) = 0.31326; three: mean of differences 1, 2, 1; equal rewards: ln 2."""
    found = ranking_loss(
        torch.tensor([2.0, 1, 3, 2, 1, 0, 0]), torch.tensor([1, 0, 2, 1, 0, 0, 1]), torch.tensor([2, 3, 2])
    )
    assert found.tolist() == pytest.approx([0.3132617, (2 * 0.3132617 + 0.1269280) / 3, math.log(2)], abs=1e-6)
    assert centre_penalty(torch.tensor([2.0, 1.0]), torch.tensor([0, 1]), torch.tensor([2])).tolist() == [9.0]


def test_pairs():
    better, worse, prompts = preference_pairs(torch.tensor([2, 1, 1, 0, 5]), torch.tensor([3, 2]))
    assert (better.tolist(), worse.tolist(), prompts.tolist()) == ([0, 0, 4], [1, 2, 3], [0, 0, 1])


def test_ties_count_neither_above_nor_below_the_line():
    """Scores 1, 1, 0: two pairs are left of three, and the mean is over two."""
    values = torch.tensor([1.0, 3.0, 0.0])
    found = ranking_loss(values, torch.tensor([1, 1, 0]), torch.tensor([3]))
    assert found.item() == pytest.approx((-log_sigmoid(1) - log_sigmoid(3)) / 2, abs=1e-6)
    assert ranking_loss(values, torch.ones(3), torch.tensor([3])).tolist() == [0.0]


def test_the_gradient_of_a_ranking_is_the_mean_of_its_pairs():
    values, scores = rewards()[:4].requires_grad_(), torch.tensor([3, 1, 0, 2])
    (whole,) = torch.autograd.grad(ranking_loss(values, scores, torch.tensor([4])).sum(), values)
    parts = torch.zeros_like(values)
    for i, j in combinations(range(4), 2):
        pair = ranking_loss(values[[i, j]], scores[[i, j]], torch.tensor([2])).sum()
        parts += torch.autograd.grad(pair, values)[0] / 6
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-7)
    assert whole.abs().min() > 1e-3


def test_prompts_do_not_see_each_other():
    values = rewards()
    moved = torch.cat([values[:3] + 7.0, values[3:]])
    first, second = (ranking_loss(one, SCORES, SIZES) for one in (values, moved))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("coefficient", "margins"), [(None, None), (0.01, None), (0.1, [0.5, 1.0])])
def test_pairs_are_as_in_trl(coefficient, margins):
    from trl import RewardTrainer

    chosen, rejected = torch.tensor([1.5, -0.3]), torch.tensor([0.2, 0.4])
    stub = SimpleNamespace(
        model=SimpleNamespace(training=False),
        args=SimpleNamespace(center_rewards_coefficient=coefficient),
        accelerator=SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    inputs = {} if margins is None else {"margin": torch.tensor(margins)}
    model = lambda **_: SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])  # noqa: E731
    theirs = RewardTrainer.compute_loss(stub, model, inputs)
    values, scores, sizes = (
        torch.stack([chosen, rejected], 1).flatten(),
        torch.tensor([1, 0, 1, 0]),
        torch.tensor([2, 2]),
    )
    ours = ranking_loss(values, scores, sizes, None if margins is None else torch.tensor(margins))
    ours = ours + (coefficient or 0.0) * centre_penalty(values, scores, sizes)
    torch.testing.assert_close(ours.mean(), theirs)


def test_half_precision_is_summed_in_float32():
    values = torch.tensor([100.0, 99.9], dtype=torch.bfloat16)
    assert ranking_loss(values, torch.tensor([1, 0]), torch.tensor([2])).dtype == torch.float32
