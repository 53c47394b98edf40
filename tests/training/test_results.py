"""The numbers a run leaves: rounded, none hidden, and the facts of its card."""

import math

import torch

from hftoolkit.training.results import baseline_table, tidy


def test_numbers_are_rounded_and_the_undefined_are_named(caplog):
    results = {
        "loss": 2.123456789,
        "f1": math.nan,
        "steps": 7,
        "x": torch.tensor(0.5),
        "inner": {"mcc": math.inf, "n": 1},
    }
    assert tidy(results) == {
        **{"loss": 2.123457, "f1": None, "steps": 7, "x": 0.5, "inner": {"mcc": None, "n": 1}},
        "undefined": ["f1", "inner.mcc"],
    }
    assert "not a finite number, written as null: f1, inner.mcc" in caplog.text
    assert "undefined" not in tidy({"loss": 1.0})


def test_a_bare_baseline_is_a_loss():
    assert baseline_table({"unigram_loss": 5.1, "one_class": {"eval_accuracy": 0.6}, "unknown": None}) == {
        "unigram": {"eval_loss": 5.1},
        "one class": {"eval_accuracy": 0.6},
    }
