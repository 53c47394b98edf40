"""Policy and value function as one module."""

import pytest
import torch
from tiny_ppo import WORDS, tiny_policy
from transformers import AutoModelForSequenceClassification, BertConfig, Gemma2Config, Gemma2ForCausalLM

import hftoolkit.rl.actor_critic as module
from hftoolkit.errors import CheckpointError
from hftoolkit.rl.actor_critic import ActorCritic, token_logprobs
from hftoolkit.rl.checks import require_readable_policy
from hftoolkit.rl.reward_model import read_rewards

IDS = torch.tensor([[5, 6, 7, 8, 9], [4, 3, 10, 0, 0], [6, 11, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])
PROMPTS = torch.tensor([2, 1, 2])  # the third response is empty


def value_model(policy, **changes):
    config = type(policy.config)(**policy.config.to_dict() | {"num_labels": 1} | changes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for weight in model.parameters():
        weight.data.add_(0.1)
    return model


@pytest.mark.parametrize("kind", ["gpt2", "llama", "hft_gpt"])
@pytest.mark.parametrize("separate", [False, True])
def test_tokens_are_scored_as_in_rows_alone(kind, separate):
    policy = tiny_policy(kind)
    pair = ActorCritic(policy, value_model(policy) if separate else None, temperature=0.7).eval()
    if not separate:
        torch.nn.init.normal_(pair.value_head.weight)
    found, ptx, last = pair(IDS, MASK, PROMPTS, with_last_value=True)
    assert ptx is None and found.logprobs.shape == found.values.shape == (5,)
    logprobs, values, ends = [], [], []
    for row, (prompt, length) in enumerate(zip(PROMPTS.tolist(), MASK.sum(1).tolist(), strict=True)):
        alone = IDS[row : row + 1, :length]
        output = policy(input_ids=alone, output_hidden_states=True)
        scored = (output.logits[0, :-1] / 0.7).log_softmax(1).gather(1, alone[0, 1:].unsqueeze(1)).squeeze(1)
        logprobs += scored[prompt - 1 :].tolist()
        head = pair.value_model.score if separate else pair.value_head
        hidden = pair.value_model.base_model(alone).last_hidden_state if separate else output.hidden_states[-1]
        value = head(hidden)[0, :, 0]
        values += value[prompt - 1 : length - 1].tolist()
        ends.append(value[-1].item())
    torch.testing.assert_close(found.logprobs, torch.tensor(logprobs), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.values, torch.tensor(values), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last, torch.tensor(ends), rtol=1e-4, atol=1e-5)


def test_pieces_give_the_same_log_probabilities_and_gradients(monkeypatch):
    head = torch.nn.Linear(8, 30, bias=False)
    hidden, targets = torch.randn(11, 8, requires_grad=True), torch.randint(30, (11,))

    def both():
        found = token_logprobs(hidden, head, targets, 0.9)
        return found, *torch.autograd.grad(found.square().sum(), [hidden, head.weight])

    whole = both()
    monkeypatch.setattr(module, "CHUNK_LOGITS", 90)  # three rows at a time
    for ours, theirs in zip(both(), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_value_head_begins_at_zero_and_belongs_to_the_value_function():
    pair = ActorCritic(tiny_policy())
    found, _, _ = pair(IDS, MASK, PROMPTS)
    assert not found.values.any()
    assert {id(w) for w in pair.value_parameters()} == {id(pair.value_head.weight), id(pair.value_head.bias)}
    assert pair.exported_model is pair.policy and pair.config is pair.policy.config


def test_under_autocast_values_keep_the_precision_of_the_head():
    """Hidden states of bfloat16 size, of which a bfloat16 product would lose the last digits."""
    pair = ActorCritic(tiny_policy()).eval()
    torch.nn.init.constant_(pair.value_head.weight, 1.0)
    hidden = torch.ones(1, 2, 16)
    hidden[0, 0, 0] += 1 / 64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = pair.all_values(IDS, MASK, hidden)
    assert values.dtype == torch.float32 and values.tolist() == [[16 + 1 / 64, 16.0]]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "hft_gpt"])
def test_a_value_model_begins_as_the_reward_model(kind):
    """The value after the last token is the reward, the shift in config.reward_bias included."""
    policy = tiny_policy(kind)
    critic = value_model(policy, reward_bias=-7.0)
    values = ActorCritic(policy, critic).eval().all_values(IDS[:1], MASK[:1], None)
    rewards = read_rewards(critic, {"input_ids": IDS[:1], "attention_mask": MASK[:1]})
    assert rewards.item() < -3
    torch.testing.assert_close(values[:, -1], rewards)


def test_the_language_model_beside_it():
    pair = ActorCritic(tiny_policy())
    rows = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    _, ptx, _ = pair(IDS, MASK, PROMPTS, ptx_input_ids=rows)
    torch.testing.assert_close(ptx, pair.policy(input_ids=rows, labels=rows).loss)


def test_the_language_model_beside_it_never_has_all_logits(monkeypatch):
    """The output layer sees a piece of the rows at a time."""
    pair, sizes = ActorCritic(tiny_policy()), []
    pair.policy.lm_head.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    monkeypatch.setattr(module, "CHUNK_LOGITS", 3 * len(WORDS))
    rows = torch.randint(3, len(WORDS), (4, 9))
    pair(IDS, MASK, PROMPTS, ptx_input_ids=rows)[1].backward()
    assert max(sizes) == 3 * len(WORDS)


def test_dropout_never_acts():
    policy = tiny_policy("llama", attention_dropout=0.5)
    pair = ActorCritic(policy).train()
    first, second = (pair(IDS, MASK, PROMPTS)[0].logprobs for _ in range(2))
    assert torch.equal(first, second)
    policy = tiny_policy(attn_pdrop=0.5, resid_pdrop=0.5, embd_pdrop=0.5)
    pair = ActorCritic(policy)
    pair.gradient_checkpointing_enable()
    pair.train()
    first, second = (pair(IDS, MASK, PROMPTS)[0].logprobs for _ in range(2))
    assert torch.equal(first, second)
    assert policy.config.resid_pdrop == 0.5  # what is exported keeps it


def test_models_that_cannot_serve():
    policy = tiny_policy()
    with pytest.raises(CheckpointError, match="no scalar head `score`.*num_labels=1"):
        ActorCritic(policy, value_model(policy, num_labels=2))
    with pytest.raises(CheckpointError, match="causal language model, got GPT2ForSequenceClassification"):
        ActorCritic(value_model(policy))
    sizes = dict(vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    bert = AutoModelForSequenceClassification.from_config(BertConfig(**sizes, intermediate_size=16, num_labels=1))
    bert.score = bert.classifier
    for weight in bert.parameters():
        weight.data.add_(0.3 * torch.randn(weight.shape))
    with pytest.raises(CheckpointError, match="BertForSequenceClassification is not causal"):
        require_readable_policy(ActorCritic(policy, bert))
    config = Gemma2Config(
        **sizes, num_key_value_heads=2, head_dim=8, intermediate_size=16, final_logit_softcapping=0.1
    )
    with pytest.raises(CheckpointError, match="capped or scaled"):
        require_readable_policy(ActorCritic(Gemma2ForCausalLM(config)))
