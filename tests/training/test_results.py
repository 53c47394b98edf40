"""The numbers a run leaves: rounded, none hidden, and the facts of its card."""

import math

import pytest
import torch
from tiny_run import tiny_trainer

from hftoolkit.arguments import DataArguments
from hftoolkit.training.provenance import hyperparameters
from hftoolkit.training.results import baseline_table, card_facts, tidy

RECORD = dict.fromkeys(("data", "given", "versions", "hardware", "wall_seconds", "cpu_seconds", "steps", "command"))


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


def facts(folder, results=None, **changes):
    return card_facts(tiny_trainer(folder, **changes), (), RECORD, results or {})


def test_the_perplexity_of_a_baseline_follows_from_its_loss(tmp_path):
    results = {"eval_loss": 1.0, "eval_perplexity": math.e, "baselines": {"unigram_loss": 2.0, "x": {"eval_f1": 0.5}}}
    found = facts(tmp_path, results)["baselines"]
    assert found == {"unigram": {"eval_loss": 2.0, "eval_perplexity": pytest.approx(math.e**2)}, "x": {"eval_f1": 0.5}}
    del results["eval_perplexity"]
    assert facts(tmp_path, results)["baselines"]["unigram"] == {"eval_loss": 2.0}


@pytest.mark.parametrize(("named", "repo_id"), [("ada/tiny", "ada/tiny"), ("tiny", None), (None, None)])
def test_the_repository_is_quoted_where_its_user_is_known(named, repo_id, tmp_path):
    found = facts(tmp_path, hub_model_id=named)
    assert (found["repo_id"], found["name"]) == (repo_id, "tiny" if named else tmp_path.name)


def test_the_card_shows_only_options_that_decide_something(tmp_path):
    args = tiny_trainer(tmp_path).args
    of_files = {"text_column", "document_separator", "max_document_characters"}
    builtin = hyperparameters(args, [DataArguments()])
    local = hyperparameters(args, [DataArguments(dataset="a.txt")])
    skipping = hyperparameters(args, [DataArguments(dataset="a.txt", on_bad_row="skip")])
    assert not of_files & builtin.keys() and builtin["builtin_documents"] == 20000
    assert of_files <= local.keys() and "builtin_documents" not in local and "on_bad_row" not in local
    assert (skipping["on_bad_row"], skipping["max_bad_rows"]) == ("skip", 10)


def test_what_a_subclass_of_the_training_arguments_adds_decides_too(tmp_path):
    from hftoolkit.rl.config import PPOConfig

    args = PPOConfig(output_dir=str(tmp_path), kl_coef=0.07, report_to=[], use_cpu=True)
    found = hyperparameters(args)
    assert found["kl_coef"] == 0.07 and found["rollout_batch_size"] == 64
    assert "kl_target" not in found and "logging_dir" not in found


def test_of_what_trl_adds_only_what_was_changed_is_told(tmp_path):
    from trl import GRPOConfig, SFTConfig

    common = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False}
    found = hyperparameters(SFTConfig(**common, packing=True, max_length=64))
    assert found["packing"] is True and found["max_length"] == 64
    assert "dataset_text_field" not in found and "packing_strategy" not in found
    found = hyperparameters(GRPOConfig(**common, num_generations=4, beta=0.07))
    assert found["beta"] == 0.07 and found["num_generations"] == 4
    assert not [name for name in found if "vllm" in name or "vespo" in name]
