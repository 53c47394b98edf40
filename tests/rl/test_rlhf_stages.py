"""The command lines of the stages of a whole RLHF run."""

from pathlib import Path

import pytest

from hftoolkit.errors import DataError
from hftoolkit.rl.rlhf_stages import stage_words, words_of

FOLDER = Path("runs/rlhf")


def pairs(words):
    """{flag: its words}."""
    found = {}
    for word in words:
        if word.startswith("--"):
            found[word[2:]] = values = []
        else:
            values.append(word)
    return found


def test_settings_become_words():
    settings = {"config": "gpt/sft", "bf16": False, "columns": ["a", "b"], "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}
    assert list(words_of(settings)) == [
        *("--config", "gpt/sft", "--bf16", "false", "--columns", "a", "b"),
        *("--lr_scheduler_kwargs.min_lr_rate", "0.1"),
    ]
    assert list(words_of({"max_length": None})) == ["--max_length", "null"]


def test_every_stage_begins_where_its_predecessor_ended():
    words = {name: pairs(stage_words(name, {}, FOLDER, model="base")) for name in ("sft", "reward", "ppo")}
    assert words["sft"] == {"model_name_or_path": ["base"], "output_dir": ["runs/rlhf/sft"]}
    assert words["reward"] == {"model_name_or_path": ["runs/rlhf/sft"], "output_dir": ["runs/rlhf/reward"]}
    assert words["ppo"]["model_name_or_path"] == ["runs/rlhf/sft"] and words["ppo"]["rewards"] == ["runs/rlhf/reward"]


def test_the_true_reward_is_reported_and_not_learned():
    words = pairs(stage_words("ppo", {}, FOLDER, model="base", truth="judge"))
    assert words["rewards"] == ["runs/rlhf/reward", "judge"] and words["reward_weights"] == ["1", "0"]


def test_the_prompts_of_the_run_are_those_of_ppo_unless_it_names_its_own():
    assert pairs(stage_words("ppo", {}, FOLDER, model=None, dataset="a.jsonl"))["dataset"] == ["a.jsonl"]
    assert pairs(stage_words("ppo", {"dataset": "b"}, FOLDER, model=None, dataset="a.jsonl"))["dataset"] == ["b"]
    for name in ("sft", "reward"):
        assert "dataset" not in pairs(stage_words(name, {}, FOLDER, model=None, dataset="a.jsonl"))


def test_a_first_model_may_be_built_by_the_config():
    assert "model_name_or_path" not in pairs(stage_words("sft", {}, FOLDER, model=None))


def test_a_check_names_only_what_exists_already():
    for name in ("reward", "ppo"):
        words = pairs(stage_words(name, {}, FOLDER, model="base", checks=True))
        assert words["model_name_or_path"] == ["runs/rlhf"] and "runs/rlhf/reward" not in words.get("rewards", [])


@pytest.mark.parametrize("key", ["output_dir", "model_name_or_path", "rewards"])
def test_what_the_run_sets_cannot_be_given(key):
    with pytest.raises(DataError, match=rf"ppo\.{key} cannot be given.*run recipes/ppo\.py alone"):
        stage_words("ppo", {key: "x"}, FOLDER, model="base")
