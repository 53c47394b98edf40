"""What a whole RLHF run asks before it trains, and what once its SFT model is there."""

import json
from types import SimpleNamespace

import pytest

from hftoolkit.arguments import ExampleArguments
from hftoolkit.errors import CheckpointError, DataError, UserError
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM
from hftoolkit.rl.config import PPOConfig
from hftoolkit.rl.rlhf_checks import check_before_training, check_with_policy
from hftoolkit.tokenization import train_tokenizer


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A model of bytes that reads 24 tokens."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer("byte", [])
    sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=24)
    HftGptForCausalLM(HftGptConfig(len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(tmp_path):
    """{stage: what its recipe's parse gives}, of a run whose prompts have 6 tokens, or 7 from the tenth on."""
    rows = [{"prompt": f"Say {n}:"} for n in range(40)]
    pairs = [row | {"chosen": " Yes.", "rejected": " No."} for row in rows]
    for name, found in (("prompts", rows), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))

    def make(adaptation="full", preferences="pairs", prompts="prompts", value="shared", max_eval_prompts=3, **options):
        def data(name):
            return ExampleArguments(dataset=str(tmp_path / f"{name}.jsonl"))

        rows = {
            "on_bad_row": "stop",
            "max_bad_rows": 1,
            "validation_fraction": 0.2,
            "max_eval_prompts": max_eval_prompts,
        }
        task = SimpleNamespace(**rows, value=value, ptx_dataset=None, reward_batch_size=2)
        sizes = {"per_device_train_batch_size": 8, "rollout_batch_size": 32, "response_length": 8}
        common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": []}
        ppo_args = PPOConfig(**common, **(sizes | options))
        whole, part = SimpleNamespace(adaptation="full"), SimpleNamespace(adaptation=adaptation)
        return {
            "sft": (None, None, whole, None, None),
            "reward": (None, data(preferences), whole, task, None),
            "ppo": (None, data(prompts), part, task, ppo_args),
        }

    return make


def test_what_is_right_gives_the_prompts(settings, model_folder):
    found = settings()
    prompts = check_before_training(found, "judge", str(model_folder))
    assert {name: len(rows) for name, rows in prompts.items()} == {"train": 32, "validation": 3}
    check_with_policy(model_folder, found["ppo"], prompts)


@pytest.mark.parametrize(
    ("options", "truth", "error", "message"),
    [
        ({"adaptation": "frozen"}, None, DataError, r"--ppo\.adaptation frozen trains a new head only"),
        ({"preferences": "prompts"}, None, DataError, r"stage reward .*--reward.KEY\): .*jsonl:1: no known form"),
        ({}, "nothing.py:f", DataError, r"stage ppo .*--ppo.KEY\): .*there is no file nothing.py"),
        ({"value": "no/such/model"}, None, CheckpointError, "value: no/such/model is no model that can be loaded"),
        ({"ptx_coef": 3.0}, None, DataError, "there is no ptx_dataset"),
        ({"rollout_batch_size": 40}, None, DataError, "32 training prompts, and a rollout takes 40"),
        ({"response_length": 24}, None, DataError, "response_length 24 leaves no room for a prompt"),
        ({"prompts": "none"}, None, DataError, "there is no file or folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(settings, model_folder, options, truth, error, message):
    with pytest.raises(error, match=message):
        check_before_training(settings(**options), truth, str(model_folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"response_length": 24}, r"stage ppo .*response_length 24 leaves no room for a prompt"),
        ({"response_length": 18}, "row 10 of the training prompts has 7 tokens, and the limit is 6"),
        ({"response_length": 18, "on_long_prompt": "skip"}, "10 training prompts, and a rollout takes 32"),
        ({"stop_token_ids": [999]}, r"stop_token_ids \[999\] are outside of the vocabulary"),
    ],
)
def test_what_does_not_fit_the_sft_model_is_found_when_it_is_there(settings, model_folder, options, message):
    found = settings(**options)
    prompts = check_before_training(found)  # a new model: its context is not known yet
    with pytest.raises(UserError, match=message):
        check_with_policy(model_folder, found["ppo"], prompts)
