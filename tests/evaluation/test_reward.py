"""What is reported of a reward model, against hand-worked numbers and a loop over the pairs."""

import math
import random

import numpy as np
import pytest

from hftoolkit.data.preferences_batches import ABSENT
from hftoolkit.evaluation.reward import (
    by_margin,
    calibration,
    length_bias,
    padded,
    pair_accuracy,
    pair_metrics,
    pairs_of,
    reward_report,
)
from hftoolkit.evaluation.reward_figure import draw_calibration

REWARDS = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])
RANKS = np.array([[1, 2, 0], [0, 1, ABSENT]])
CHARACTERS = np.array([[5, 9, 5], [7, 3, ABSENT]])


def test_pairs_by_hand():
    """First prompt: the second answer is best (1 - 2, 1 - 0), the first better than the third (2 - 0)."""
    differences, lengths = pairs_of(REWARDS, RANKS, CHARACTERS)
    assert sorted(zip(differences, lengths, strict=True)) == [(-1.0, 4), (0.0, -4), (1.0, 4), (2.0, 0)]
    assert pair_accuracy(differences) == (2 + 0.5) / 4 and pair_accuracy(differences[:0]) is None
    assert pair_metrics(REWARDS, RANKS) == {"accuracy": 0.625, "margin": 0.5}


def test_pairs_are_those_of_a_loop():
    draw = random.Random(0)
    rewards = [[draw.gauss(0, 1) for _ in range(4)] for _ in range(20)]
    ranks = [[draw.choice([0, 1, 2, ABSENT]) for _ in range(4)] for _ in range(20)]
    loop = sorted(
        row[i] - row[j]
        for row, places in zip(rewards, ranks, strict=True)
        for i in range(4)
        for j in range(4)
        if places[i] > places[j] != ABSENT
    )
    assert sorted(pairs_of(rewards, ranks)[0]) == pytest.approx(loop) and len(loop) > 20


def test_by_margin():
    bins = by_margin(np.array([0.2, -0.3, 3.0, -9.0, 9.0, 9.0]))
    assert bins == [
        {"from": 0.0, "to": 0.5, "pairs": 2, "accuracy": 0.5},
        {"from": 2.0, "to": 4.0, "pairs": 1, "accuracy": 1.0},
        {"from": 4.0, "to": None, "pairs": 3, "accuracy": pytest.approx(2 / 3)},
    ]


def test_calibration_by_hand():
    """Four pairs of probability 0.75 (difference ln 3), two of them right; two of probability 0.5."""
    sure = math.log(3)
    error, curve = calibration(np.array([sure, sure, -sure, -sure, 0.0, 0.0]))
    assert error == pytest.approx((4 * 0.25 + 2 * 0.0) / 6)
    assert curve == [
        {"probability": 0.5, "accuracy": 0.5, "pairs": 2},
        {"probability": pytest.approx(0.75), "accuracy": 0.5, "pairs": 4},
    ]


def test_a_model_that_says_how_sure_it_is_is_calibrated():
    draw = np.random.default_rng(0)
    size = np.abs(draw.normal(0, 2, 20000))
    right = draw.random(20000) < 1 / (1 + np.exp(-size))
    differences = np.where(right, size, -size)
    assert calibration(differences)[0] < 0.02
    assert calibration(3 * differences)[0] > 0.1  # overconfident: the same order, three times the margins


def test_length_bias():
    found = length_bias(REWARDS, RANKS, CHARACTERS)
    assert found["accuracy_chosen_longer"] == 0.5 and found["pairs_chosen_longer"] == 2
    assert found["accuracy_chosen_shorter"] == 0.5 and found["pairs_chosen_shorter"] == 1
    assert found["longer_preferred"] == 0.5
    lengths = np.array([[1, 2], [30, 10]])
    assert length_bias(lengths * 0.1, [[0, 1], [0, 1]], lengths)["reward_length_correlation"] == pytest.approx(1.0)
    assert length_bias(lengths * 0.1, [[0, 1], [0, 1]], lengths)["longer_preferred"] == 1.0
    assert length_bias(lengths * 0.1 + [[50], [0]], [[0, 1], [0, 1]], lengths)["reward_length_correlation"] > 0.999
    assert length_bias(np.zeros((2, 2)), [[0, 1], [0, 1]], lengths)["reward_length_correlation"] is None


def test_the_report_has_its_baselines():
    found = reward_report(REWARDS, RANKS, CHARACTERS)
    assert found["eval_accuracy"] == 0.625 and found["eval_pairs"] == 4
    assert found["eval_reward_mean"] == pytest.approx(0.6)  # of five answers; the one that is not there is left out
    baselines = found["baselines"]
    assert baselines["chance"] == {"eval_accuracy": 0.5, "eval_loss": math.log(2)}
    assert baselines["longer_answer"]["eval_accuracy"] == 0.625  # two longer, one shorter, one as long
    assert baselines["shorter_answer"]["eval_accuracy"] == 0.375
    assert sum(point["pairs"] for point in found["details"]["calibration"]) == 4


def test_padded():
    assert padded([[1, 2], [3]], 3).tolist() == [[1, 2, ABSENT], [3, ABSENT, ABSENT]]


def test_the_picture(tmp_path):
    draw_calibration(calibration(np.array([1.0, -2.0, 3.0]))[1], tmp_path / "a.png", error=0.2, title="x_y")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and len(list(tmp_path.iterdir())) == 1
