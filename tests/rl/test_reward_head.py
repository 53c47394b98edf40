"""How a head starts, and where the constant lies that sets the mean of the rewards."""

import math

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from hftoolkit.arguments import AdaptationArguments
from hftoolkit.convert import to_stock
from hftoolkit.errors import CheckpointError
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForSequenceClassification
from hftoolkit.rl.reward_head import is_reward_model, new_head, reward_head, shift_rewards, without_dropout
from hftoolkit.rl.reward_model import read_rewards
from hftoolkit.training.adaptation import adapt

SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=40, num_labels=1, pad_token_id=0)
BATCH = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]]), "attention_mask": torch.ones(2, 3, dtype=torch.long)}


def ours(**fields):
    torch.manual_seed(0)
    return HftGptForSequenceClassification(HftGptConfig(**SIZES, max_position_embeddings=16, **fields)).eval()


def stock(kind, **fields):
    torch.manual_seed(0)
    if kind == "gpt2":
        sizes = dict(n_embd=16, n_layer=1, n_head=2, n_positions=16, vocab_size=40, num_labels=1, pad_token_id=0)
        return GPT2ForSequenceClassification(GPT2Config(**sizes, **fields)).eval()
    config, model = {"bert": (BertConfig, BertForSequenceClassification),
                     "roberta": (RobertaConfig, RobertaForSequenceClassification)}[kind]  # fmt: skip
    return model(config(**SIZES, intermediate_size=16, **fields)).eval()


def rewards_of(model):
    with torch.no_grad():
        return read_rewards(model.eval(), BATCH)


def test_a_new_head_is_normal_with_one_over_the_square_root_of_d_plus_one():
    torch.manual_seed(1)
    config = HftGptConfig(**SIZES | {"hidden_size": 1024, "intermediate_size": 8})
    model = new_head(HftGptForSequenceClassification(config))
    assert model.score.weight.std().item() == pytest.approx(1 / math.sqrt(1025), rel=0.1)
    assert model.score.bias.item() == 0.0 and model.config.score_bias


@pytest.mark.parametrize("adaptation", ["full", "frozen", "lora"])
def test_the_shift_lies_in_the_heads_bias_and_a_plain_class_reads_it(adaptation, tmp_path):
    model = adapt(new_head(ours()), AdaptationArguments(adaptation=adaptation))
    before = rewards_of(model)
    assert shift_rewards(model, -1.25)
    torch.testing.assert_close(rewards_of(model), before - 1.25)
    if adaptation == "full":
        model.save_pretrained(tmp_path)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            torch.testing.assert_close(plain(**BATCH).logits[:, 0], before - 1.25)


def test_a_stock_decoder_keeps_the_shift_in_its_config(tmp_path):
    model = new_head(stock("gpt2"))
    before = rewards_of(model)
    assert not shift_rewards(model, 0.5) and not shift_rewards(model, 0.25)
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.reward_bias == 0.75
    torch.testing.assert_close(rewards_of(again), before + 0.75)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_encoders_have_a_bias(kind):
    model = new_head(stock(kind))
    before = rewards_of(model)
    assert shift_rewards(model, 2.0) and not hasattr(model.config, "reward_bias")
    torch.testing.assert_close(rewards_of(model), before + 2.0)


@pytest.mark.parametrize("kind", ["ours", "gpt2", "bert"])
def test_without_dropout_training_is_evaluation(kind):
    model = new_head(ours(hidden_dropout_prob=0.5) if kind == "ours" else stock(kind)).train()
    noisy = [read_rewards(model, BATCH) for _ in range(2)]
    assert not torch.equal(*noisy)
    without_dropout(model)
    quiet = [read_rewards(model, BATCH) for _ in range(2)]
    assert torch.equal(*quiet)
    torch.testing.assert_close(quiet[0], rewards_of(model), rtol=1e-5, atol=1e-6)
    assert not [name for name, value in model.config.to_dict().items() if "drop" in name and value]


def test_a_model_without_a_scalar_head_is_refused():
    model = ours()
    model.score = torch.nn.Linear(16, 2)
    with pytest.raises(CheckpointError, match="no linear layer with one output"):
        reward_head(model)


def test_a_classifier_is_told_from_a_base_model(tmp_path):
    stock("gpt2").save_pretrained(tmp_path / "classifier")
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=40)).save_pretrained(tmp_path / "language")
    assert is_reward_model(str(tmp_path / "classifier"))
    assert not is_reward_model(str(tmp_path / "language")) and not is_reward_model(str(tmp_path / "nothing"))


def test_only_a_gpt_without_a_bias_is_one_of_transformers():
    plain = ours()
    torch.testing.assert_close(to_stock(plain).eval()(**BATCH).logits, plain(**BATCH).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(CheckpointError, match="score_bias=False only"):
        to_stock(new_head(plain))
