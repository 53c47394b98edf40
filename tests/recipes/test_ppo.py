"""PPO from beginning to end, in process: what is learned, what is left, and what is refused."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hftoolkit.data.microworld import question_prompts
from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.recipes import ppo
from hftoolkit.rl.ppo_trainer import PPOTrainer

TINY = ["--config", "gpt/ppo_tiny", "--use_cpu"]
SHORT = [*TINY, "--total_episodes", "64", "--builtin_examples", "64", "--eval_steps", "16", "--save_steps", "8"]


def run(*argv):
    return ppo.main(*ppo.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    return folder, run(*TINY, "--output_dir", folder)


def test_the_reward_rises_above_that_of_the_start(finished):
    _, results = finished
    before = results["baselines"]["before PPO"]
    assert before["eval_kl"] == pytest.approx(0, abs=1e-3)
    assert results["eval_reward"] > 2 * before["eval_reward"]
    assert results["eval_length"] < before["eval_length"] - 2
    assert results["eval_rlhf_reward"] > before["eval_rlhf_reward"]


def test_what_it_leaves(finished):
    folder, results = finished
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    output = model.generate(**tokenizer("The day", return_tensors="pt"), max_new_tokens=3)
    assert output.shape[1] <= 3 + len(tokenizer("The day")["input_ids"])
    assert (folder / "value_model/value_head.safetensors").is_file() and (folder / "curves.png").is_file()
    card = (folder / "README.md").read_text()
    assert "proximal policy optimisation" in card and "Rewards: brief." in card and "before PPO" in card
    samples = json.loads((folder / "samples.json").read_text())
    assert set(samples[0]) == {"prompt", "before", "before_reward", "after", "after_reward"}
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["data"]["train"]["prompts"] == 960
    assert results["steps"] == 480


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path):
    options = [*SHORT, "--save_total_limit", "9"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(*options, "--output_dir", whole)
    shutil.copytree(whole, broken)
    for step in (16, 24, 32):
        shutil.rmtree(broken / f"checkpoint-{step}")
    record = json.loads((broken / "run.json").read_text())
    record["given"]["output_dir"] = str(broken)
    (broken / "run.json").write_text(json.dumps(record | {"status": "running"}))
    (broken / "model.safetensors").unlink()
    run(*options, "--output_dir", broken)
    assert (broken / "checkpoint-16").is_dir()  # it went on from step 8, in the middle of a rollout
    for name in ("model.safetensors", "value_model/value_head.safetensors"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_low_rank_updates_a_reward_of_its_own_and_a_file_of_prompts(tmp_path):
    rows = [{"prompt": row["prompt"], "number": n} for n, row in enumerate(question_prompts(70))]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": ""}]))
    (tmp_path / "mine.py").write_text(
        "def vowels(completions, number, **columns):\n"
        "    assert len(number) == len(completions)\n"
        "    return [sum(c in 'aeiou' for c in text) / 20 for text in completions]\n"
    )
    options = ["--dataset", tmp_path / "prompts.jsonl", "--rewards", f"{tmp_path / 'mine.py'}:vowels"]
    options += ["--on_bad_row", "skip", "--max_bad_rows", "1"]
    results = run(*SHORT, *options, "--adaptation", "lora", "--output_dir", tmp_path / "run")
    assert results["eval_rewards/vowels"] == pytest.approx(results["eval_reward"])
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["skipped"] == 1
    assert (tmp_path / "run/adapter/adapter_config.json").is_file()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "run").eval()
    assert not any("lora" in name for name in merged.state_dict())
    assert merged(torch.tensor([[3, 4]])).logits.isfinite().all()


def test_after_a_reward_that_failed_the_same_command_goes_on(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def vowels(completions, **columns):\n"
        "    calls.append(1)\n"
        "    if len(calls) > 1 and Path(__file__).with_name('down').exists():\n"
        "        raise OSError('no connection')\n"
        "    return [sum(c in 'aeiou' for c in text) / 20 for text in completions]\n"
    )
    rare = ["--save_steps", "100", "--eval_steps", "100"]
    options = [*SHORT[:-4], "--rewards", f"{tmp_path / 'mine.py'}:vowels", *rare]
    run(*options, "--output_dir", tmp_path / "whole")
    (tmp_path / "down").touch()
    with pytest.raises(DataError, match="vowels raised OSError: no connection, for the completion"):
        run(*options, "--output_dir", tmp_path / "broken")
    assert (tmp_path / "broken/checkpoint-16").is_dir()
    (tmp_path / "down").unlink()
    run(*options, "--output_dir", tmp_path / "broken")
    whole, broken = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken


def test_a_policy_that_has_gone_too_far_is_not_updated_again(tmp_path):
    results = run(*SHORT, "--max_kl", "0.01", "--output_dir", tmp_path / "run")
    assert results["steps"] == 16 and "max_kl is 0.01" in results["stopped_by"]
    assert results["eval_kl"] > 0.01


def test_of_total_episodes_and_max_steps_the_fewer_steps_count(tmp_path, monkeypatch):
    """The config sets total_episodes, 32 steps of them; what the command line asks of rates and processes arrives too."""
    asked, plain = {}, PPOTrainer.__init__

    def init(self, *args, **given):
        asked.update(given)
        plain(self, *args, **given | {"num_workers": None})

    monkeypatch.setattr(PPOTrainer, "__init__", init)
    options = ["--max_steps", "4", "--layer_decay", "0.5", "--preprocessing_num_workers", "2", "--eval_strategy", "no"]
    results = run(*SHORT, *options, "--output_dir", tmp_path / "run")
    assert results["steps"] == 4
    assert asked["layer_decay"] == 0.5 and asked["num_workers"] == 2


@pytest.fixture(scope="module")
def reward_model(finished, tmp_path_factory):
    """A reward model with the policy's tokenizer, from the policy itself."""
    folder = tmp_path_factory.mktemp("reward")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(finished[0], num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(finished[0]).save_pretrained(folder)
    return folder


def test_a_reward_model_that_the_value_function_begins_as(finished, reward_model, tmp_path):
    short = ["--use_cpu", "--total_episodes", "64", "--builtin_examples", "64", "--eval_steps", "8"]
    short += ["--rollout_batch_size", "64", "--per_device_train_batch_size", "16"]
    options = ["--config", "gpt/ppo_quickstart", *short, "--model_name_or_path", finished[0], "--value", "reward"]
    options += ["--rewards", reward_model, "judge"]
    pretraining = ["--ptx_coef", "1", "--ptx_dataset", "builtin", "--ptx_max_length", "16", "--ptx_batch_size", "1"]
    results = run(*options, *pretraining, "--output_dir", tmp_path / "run")
    assert results["eval_rewards/judge"] == -1  # nothing it writes is well formed
    assert (tmp_path / "run/value_model/model.safetensors").is_file()
    critic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/value_model")
    assert critic.config.num_labels == 1


@pytest.mark.parametrize(
    ("argv", "error", "message"),
    [
        (["--rewards", "nothing.py:f"], DataError, "there is no file nothing.py"),
        (["--rewards", "no/such/model"], CheckpointError, "no/such/model is no reward model"),
        (["--value", "reward"], DataError, "none of the rewards is one"),
        (["--adaptation", "frozen"], DataError, "take full or lora"),
        (["--ptx_dataset", "builtin"], DataError, "ptx_coef is 0, so that nothing would be learned from it"),
        (["--ptx_coef", "1"], DataError, "there is no ptx_dataset"),
        (["--dataset", "FILE"], DataError, r"prompts.jsonl:2.*prompt"),
    ],
)
def test_what_cannot_work_is_refused_at_once(tmp_path, argv, error, message):
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n{"prompt": ""}\n')
    argv = [str(tmp_path / "prompts.jsonl") if word == "FILE" else word for word in argv]
    with pytest.raises(error, match=message):
        run(*SHORT, *argv, "--output_dir", tmp_path / "run")
    assert not (tmp_path / "run/run.json").exists()


def test_a_function_that_is_not_in_the_file(tmp_path):
    (tmp_path / "mine.py").write_text("def other(completions):\n    return [0.0]\n")
    with pytest.raises(DataError, match="has no function 'vowels'; it has other"):
        run(*SHORT, "--rewards", f"{tmp_path / 'mine.py'}:vowels", "--output_dir", tmp_path / "run")
