"""Resuming with another value function is refused; with other statistics of the scores it goes on."""

import pytest
from safetensors.torch import load_file, save_file
from tiny_ppo import WORDS, tiny_trainer
from transformers import GPT2Config, GPT2ForSequenceClassification

from hftoolkit.errors import CheckpointError


def critic(**changes):
    sizes = dict(vocab_size=len(WORDS), n_layer=1, n_embd=16, n_head=2, n_positions=32, num_labels=1, pad_token_id=0)
    config = GPT2Config(**sizes | {name: value for name, value in changes.items() if name != "reward_bias"})
    if "reward_bias" in changes:
        config.reward_bias = changes["reward_bias"]
    return GPT2ForSequenceClassification(config)


def checkpoint_of(folder, **changes):
    options = dict(save_strategy="steps", save_steps=1, max_steps=1)
    tiny_trainer(folder, **options | changes).train()
    return folder / "checkpoint-1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return checkpoint_of(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def separate(tmp_path_factory):
    return checkpoint_of(
        tmp_path_factory.mktemp("separate"), value_model=critic(reward_bias=-3.0), score_norm="running"
    )


def test_another_value_function_is_refused(tmp_path, shared, separate):
    with pytest.raises(
        CheckpointError, match=r"is a head on the policy \(shared\), and here it is a model of its own: keep"
    ):
        tiny_trainer(tmp_path, value_model=critic()).train(resume_from_checkpoint=str(shared))
    with pytest.raises(CheckpointError, match=r"is a model of its own, and here it is a head on the policy"):
        tiny_trainer(tmp_path).train(resume_from_checkpoint=str(separate))
    with pytest.raises(CheckpointError, match="value_model does not fit the one here .*missing.* keep `value`"):
        tiny_trainer(tmp_path, value_model=critic(n_layer=2)).train(resume_from_checkpoint=str(separate))
    with pytest.raises(CheckpointError, match="value_model does not fit the one here .*size"):
        tiny_trainer(tmp_path, value_model=critic(n_inner=8)).train(resume_from_checkpoint=str(separate))


def test_a_value_function_comes_back_with_the_shift_of_its_rewards(tmp_path, separate):
    trainer = tiny_trainer(tmp_path, value_model=critic(), score_norm="running")
    trainer._load_from_checkpoint(str(separate))
    assert trainer.model.value_model.config.reward_bias == -3.0


def test_a_damaged_value_head_is_named(tmp_path, shared):
    trainer = tiny_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    path = tmp_path / "checkpoint-1/value_model/value_head.safetensors"
    save_file({"weight": load_file(path)["weight"]}, path)
    with pytest.raises(CheckpointError, match="does not fit the one here .*keep `value`"):
        trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))


def test_statistics_of_the_scores_begin_anew_or_are_dropped(tmp_path, shared, separate, caplog):
    trainer = tiny_trainer(tmp_path, score_norm="running")
    trainer._load_from_checkpoint(str(shared))
    assert trainer.score_norm.count == 0 and "score_norm begins with those of the next rollout" in caplog.text
    caplog.clear()
    trainer = tiny_trainer(tmp_path, value_model=critic())
    trainer._load_from_checkpoint(str(separate))
    assert trainer.score_norm is None and "are dropped: score_norm is off" in caplog.text
    caplog.clear()
    trainer = tiny_trainer(tmp_path, value_model=critic(), score_norm="running")
    trainer._load_from_checkpoint(str(separate))
    assert trainer.score_norm.count == 8 and "score" not in caplog.text
