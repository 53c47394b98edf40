"""Settings of PPO, models and data that do not go together are refused before anything is sampled; the others are used."""

import pytest
import torch
from datasets import Dataset
from tiny_ppo import WORDS, count_low_words, tiny_args, tiny_prompts, tiny_text, tiny_tokenizer, tiny_trainer
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, Trainer

from hftoolkit.errors import DataError
from hftoolkit.rl.config import PPOConfig
from hftoolkit.rl.ppo_results import language_model_rows

SHORT = dict(vocab_size=len(WORDS), n_layer=1, n_embd=16, n_head=2, n_positions=10)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("value model", lambda: GPT2ForSequenceClassification(GPT2Config(**SHORT, num_labels=1))),
        ("reference", lambda: GPT2LMHeadModel(GPT2Config(**SHORT))),
    ],
)
def test_prompts_fit_every_model_that_reads_them(tmp_path, name, model):
    """Of a context of 10 tokens a response takes 6."""
    given = {name.replace("value ", "value_").replace("reference", "ref_model"): model()}
    long = [{"prompt": "w1 w2 w3 w4 w5"}] * 8
    with pytest.raises(DataError, match="row 0 of the training prompts has 5 tokens, and the limit is 4"):
        tiny_trainer(tmp_path, prompts=long, **given)
    with pytest.raises(DataError, match=f"response_length 10 leaves no room for a prompt: the {name} reads 10 tokens"):
        tiny_trainer(tmp_path, response_length=10, **given)
    trainer = tiny_trainer(tmp_path, prompts=long, on_long_prompt="truncate", **given)
    trainer.micro_batch(0)
    assert trainer.experience.prompt_lengths.max() == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["w1"]}, r"token ids in the column input_ids, got one with the columns text \(string\)"),
        ({"input_ids": ["w1"]}, r"columns input_ids \(string\)"),
        ({"input_ids": [[3, 4], [5]]}, "have 1 and 2 tokens: join the texts"),
        ({"input_ids": [[3] * 33] * 2}, "have 33 tokens; it must be 2 to 32, which is what the policy reads"),
        ({"input_ids": [[3]] * 2}, "have 1 tokens; it must be 2 to 32"),
        ({"input_ids": [[3, 4], [5, 20]]}, "the token id 20, and the policy's are 0 to 19"),
        ({"input_ids": [[3, 4], [5, -100]]}, "the token id -100"),
    ],
)
def test_pretraining_text_that_no_update_could_read(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        tiny_trainer(tmp_path, ptx_dataset=Dataset.from_dict(rows), ptx_coef=1.0)


def test_pretraining_text_that_is_no_data_set_or_has_no_weight(tmp_path):
    with pytest.raises(DataError, match="has to be a datasets.Dataset .*, got list"):
        tiny_trainer(tmp_path, ptx_dataset=[{"input_ids": [3, 4]}], ptx_coef=1.0)
    with pytest.raises(DataError, match="ptx_dataset has no rows"):
        tiny_trainer(tmp_path, ptx_dataset=tiny_text().take(0), ptx_coef=1.0)
    with pytest.raises(DataError, match="ptx_coef is 0, so that nothing would be learned from it"):
        tiny_trainer(tmp_path, ptx_dataset=tiny_text())
    with pytest.raises(DataError, match=r"ptx_coef is 1.0, but there is no ptx_dataset"):
        tiny_trainer(tmp_path, ptx_coef=1.0)


def test_what_a_rollout_is_cut_into_is_checked_as_soon_as_the_processes_are_known(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="rollout_batch_size 33 is no multiple of the minibatch of 4 .*to 32 or 36"):
        tiny_args(tmp_path, rollout_batch_size=33)
    monkeypatch.setattr(PPOConfig, "world_size", 3)
    with pytest.raises(DataError, match="8 is no multiple of the minibatch of 12 .* x 3 processes"):
        tiny_args(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(reward_weights=[1.0]),
            "1 reward_weights for 2 reward functions: give one for each of length, low, in this",
        ),
        (dict(reward_weights=[0.0, 0.0]), "nothing is left to learn from; give one of them another weight"),
        (dict(stop_token_ids=[99]), "outside of the vocabulary of 20 tokens: give ids below 20"),
    ],
)
def test_what_the_user_can_mend_is_a_data_error(tmp_path, changes, message):
    def length(completions, **columns):
        return [float(len(text)) for text in completions]

    def low(completions, **columns):
        return count_low_words(completions)

    with pytest.raises(DataError, match=message):
        tiny_trainer(tmp_path, reward=[length, low], **changes)


def test_of_max_steps_and_total_episodes_the_fewer_steps_count(tmp_path):
    """Two rollouts of four updates each; a rollout that is begun is sampled whole."""
    found = {given: tiny_trainer(tmp_path, max_steps=given).args.max_steps for given in (-1, 3, 4, 9)}
    assert found == {-1: 8, 3: 3, 4: 4, 9: 8}
    assert tiny_trainer(tmp_path, max_steps=9, total_episodes=None).args.max_steps == 9


def rates(trainer):
    """The learning rate of every weight, by name."""
    named = {id(weight): name for name, weight in trainer.model.named_parameters()}
    groups = trainer.create_optimizer().param_groups
    return {named[id(weight)]: pytest.approx(group["lr"]) for group in groups for weight in group["params"]}


def test_the_rate_falls_from_layer_to_layer(tmp_path, monkeypatch):
    """Two layers of the policy, one of the value model: each falls by its own number of layers."""
    critic = GPT2ForSequenceClassification(GPT2Config(**SHORT | {"n_positions": 32}, num_labels=1))
    options = dict(learning_rate=0.8, value_learning_rate=0.4, layer_decay=0.5)
    trainer = tiny_trainer(tmp_path, value_model=critic, **options)
    found = rates(trainer)
    assert found.keys() == {name for name, _ in trainer.model.named_parameters()}
    policy = {"ln_f": 0.8, "h.1.attn.c_attn": 0.4, "h.0.attn.c_attn": 0.2, "wte": 0.1}
    value = {"ln_f": 0.4, "h.0.attn.c_attn": 0.2, "wte": 0.1}
    assert {name: found[f"policy.transformer.{name}.weight"] for name in policy} == policy
    assert {name: found[f"value_model.transformer.{name}.weight"] for name in value} == value
    assert found["value_model.score.weight"] == 0.4
    shared = rates(tiny_trainer(tmp_path, **options))
    assert shared["value_head.weight"] == shared["value_head.bias"] == 0.4
    assert shared["policy.transformer.h.0.attn.c_attn.weight"] == 0.2
    plain = tiny_trainer(tmp_path, learning_rate=0.8)
    assert set(map(str, rates(plain).values())) == {str(pytest.approx(0.8))}
    galore = staticmethod(lambda args, model: (torch.optim.AdamW, {"params": []}))
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", galore)
    with pytest.raises(DataError, match="layer_decay does not work with optim=.*; leave layer_decay 1"):
        tiny_trainer(tmp_path, layer_decay=0.5).create_optimizer()


def test_prompts_are_tokenized_by_the_processes_that_were_asked_for(tmp_path, monkeypatch):
    asked, plain = [], Dataset.map
    monkeypatch.setattr(
        Dataset, "map", lambda self, *args, num_proc, **kw: asked.append(num_proc) or plain(self, *args, **kw)
    )
    tiny_trainer(tmp_path, num_workers=3, eval_dataset=tiny_prompts(2))
    assert asked == [3, 3]


def test_pretraining_text_of_a_tokenizer_without_an_end_token(tmp_path):
    (tmp_path / "text.txt").write_text("w1 w2 w3\n\n" * 3)  # the last is held out
    tokenizer = tiny_tokenizer()
    with_end = language_model_rows(str(tmp_path / "text.txt"), tokenizer, 8)
    assert with_end["input_ids"][:] == [[4, 5, 6, 2, 4, 5, 6, 2]]
    tokenizer.eos_token = None
    without = language_model_rows(str(tmp_path / "text.txt"), tokenizer, 6)
    assert without["input_ids"][:] == [[4, 5, 6, 4, 5, 6]]
    with pytest.raises(
        DataError, match="holds 6 tokens, less than one row of 7: give more text, or set a smaller ptx_max"
    ):
        language_model_rows(str(tmp_path / "text.txt"), tokenizer, 7)
