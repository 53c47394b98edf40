"""Texts to rewards: each text alone gives what it gives in any batch, read at its last token."""

import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.models.modeling_bert import HftBertConfig, HftBertForSequenceClassification
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForSequenceClassification
from hftoolkit.rl.reward_model import RewardModel
from hftoolkit.tokenization import train_tokenizer

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=64, num_labels=1)
PROMPTS = ["Who has the lamp?", "Where?", "Anna took the lamp. Who has the lamp now, and where is it?", "Where?"]
ANSWERS = [" Anna.", " In the hall of the house.", " Tom", ""]


def tokenizer_of(kind):
    tokenizer = train_tokenizer(kind, PROMPTS + ANSWERS, vocab_size=80 if kind == "wordpiece" else 258)
    tokenizer.model_max_length = 64
    return tokenizer


def build(name):
    torch.manual_seed(0)
    tokenizer = tokenizer_of("wordpiece" if name == "bert" else "byte")
    common = dict(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    if name == "stock":
        sizes = dict(n_embd=16, n_layer=2, n_head=2, n_positions=64, num_labels=1)
        model = GPT2ForSequenceClassification(GPT2Config(**common, **sizes))
    elif name == "bert":
        model = HftBertForSequenceClassification(HftBertConfig(intermediate_size=24, **common, **SIZES))
    else:
        model = HftGptForSequenceClassification(HftGptConfig(**common, **SIZES))
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
    return model, tokenizer


@pytest.mark.parametrize("name", ["gpt", "bert", "stock"])
def test_every_text_alone_is_what_it_is_in_a_batch(name):
    model, tokenizer = build(name)
    model.train()
    together = RewardModel(model, tokenizer, batch_size=3)(PROMPTS, ANSWERS)
    assert model.training and together.shape == (4,) and together.dtype == torch.float32
    alone = [
        RewardModel(model, tokenizer)([prompt], [answer])[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
    ]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)
    assert together.unique().numel() == 4 and not together.requires_grad


def test_it_is_the_models_own_score_at_the_end_token():
    model, tokenizer = build("gpt")
    found = RewardModel(model, tokenizer)(PROMPTS[:1], ANSWERS[:1])
    ids = torch.tensor([[*tokenizer(PROMPTS[0] + ANSWERS[0])["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        hidden = model.eval().model(ids).last_hidden_state
        expected = model.score(hidden[:, -1])[:, 0]
        one_too_early = model.score(hidden[:, -2])[:, 0]
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, one_too_early, atol=1e-3)


def test_the_shift_of_a_head_without_a_bias_is_added():
    model, tokenizer = build("stock")
    before = RewardModel(model, tokenizer)(PROMPTS, ANSWERS)
    model.config.reward_bias = -2.5
    torch.testing.assert_close(RewardModel(model, tokenizer)(PROMPTS, ANSWERS), before - 2.5)


def test_a_long_prompt_loses_its_beginning_only():
    model, tokenizer = build("gpt")
    reward = RewardModel(model, tokenizer, max_length=30)
    found = reward(["x" * 500 + "the lamp?", "y" * 70 + "the lamp?"], [" Anna", " Anna"])
    expected = reward(["x" * 15 + "the lamp?", "y" * 15 + "the lamp?"], [" Anna", " Anna"])
    torch.testing.assert_close(found, expected)
    assert abs(found[0] - found[1]) > 1e-4


def test_without_any_padding_token_texts_are_scored_one_by_one():
    model, tokenizer = build("stock")
    expected = RewardModel(model, tokenizer)(PROMPTS, ANSWERS)
    model.config.pad_token_id = tokenizer.pad_token = None
    torch.testing.assert_close(RewardModel(model, tokenizer)(PROMPTS, ANSWERS), expected, rtol=1e-4, atol=1e-5)


def test_wrong_input_is_refused():
    model, tokenizer = build("gpt")
    reward = RewardModel(model, tokenizer)
    with pytest.raises(DataError, match="2 prompts, but 1 completions"):
        reward(["a", "b"], ["c"])
    with pytest.raises(DataError, match="completion 1 is NoneType"):
        reward(["a", "b"], ["c", None])
    with pytest.raises(DataError, match="max_length is 65, but the tokenizer reads at most 64"):
        RewardModel(model, tokenizer, max_length=65)
    model.config.num_labels = 3
    with pytest.raises(CheckpointError, match="has 3 outputs; a reward model has one"):
        RewardModel(model, tokenizer)
    assert reward([], []).shape == (0,)
