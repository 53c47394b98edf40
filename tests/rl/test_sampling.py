"""Sampling: the right distribution, log-probabilities of a full pass, lengths, and no influence of the batch."""

import pytest
import torch
from tiny_ppo import EOS, tiny_policy
from transformers import StaticCache

from hftoolkit.errors import DivergedError
from hftoolkit.rl.sampling import generate_responses, new_cache, pick_tokens, sample_responses

PROMPTS = [[5], [6, 7, 8], [9, 4], [3, 3, 3, 3], [10, 11]]
OPTIONS = dict(stop_token_ids=[EOS], pad_id=0)


def uniforms(number, length=10, seed=0):
    return torch.rand(number, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_tokens_are_picked_by_their_probabilities():
    logits = torch.tensor([[0.1, 0.2, 0.0, 0.7]]).log().expand(4, 4)
    ids, logprobs = pick_tokens(logits, torch.tensor([0.0, 0.0999, 0.1001, 0.3001], dtype=torch.float64))
    assert ids.tolist() == [0, 0, 1, 3]  # never the token of probability 0
    torch.testing.assert_close(logprobs, torch.tensor([0.1, 0.1, 0.2, 0.7]).log())


def test_the_largest_number_below_one_picks_a_token_that_can_occur():
    logits = torch.full((1, 1000), -2.0)
    logits[0, -1] = -torch.inf
    ids, _ = pick_tokens(logits, torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert ids.item() == 998


@pytest.mark.parametrize("kind", ["gpt2", "llama", "hft_gpt"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_a_full_pass_over_each_row_alone(kind, temperature):
    policy = tiny_policy(kind)
    stops = dict(stop_token_ids=[EOS, 8, 12], pad_id=0)
    found = sample_responses(policy, PROMPTS, uniforms(5), temperature=temperature, **stops)
    assert found.ended.any() and len(set(found.lengths.tolist())) > 1
    for row, prompt in enumerate(PROMPTS):
        n = int(found.lengths[row])
        response = found.ids[row, :n].tolist()
        logits = policy(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / temperature
        theirs = logits.log_softmax(1).gather(1, torch.tensor(response).unsqueeze(1)).squeeze(1)
        torch.testing.assert_close(found.logprobs[row, :n], theirs, rtol=1e-4, atol=1e-5)
        assert [token in (EOS, 8, 12) for token in response] == [False] * (n - 1) + [bool(found.ended[row])]
        assert not found.ids[row, n:].any() and (n == 10 or found.ended[row])


@pytest.mark.parametrize("kind", ["gpt2", "hft_gpt"])
def test_a_prompt_is_answered_the_same_alone(kind):
    """Rows that have ended leave the batch; what the others get does not change."""
    policy, numbers = tiny_policy(kind), uniforms(5)
    together = sample_responses(policy, PROMPTS, numbers, **OPTIONS)
    for row, prompt in enumerate(PROMPTS):
        alone = sample_responses(policy, [prompt], numbers[row : row + 1], **OPTIONS)
        n = int(alone.lengths[0])
        assert together.lengths[row] == n
        assert together.ids[row, :n].tolist() == alone.ids[0, :n].tolist()


def test_other_stop_tokens_and_a_pad_that_is_sampled():
    """The pad is a token like others: rows end where a stop token was sampled, and nowhere else."""
    policy = tiny_policy()
    with torch.no_grad():
        policy.transformer.ln_f.bias.zero_()
    found = sample_responses(policy, PROMPTS * 20, uniforms(100), stop_token_ids=[9, 4], pad_id=0)
    live = torch.arange(10) < found.lengths.unsqueeze(1)
    assert ((found.ids == 0) & live).any()
    last = found.ids.gather(1, found.lengths.unsqueeze(1) - 1).squeeze(1)
    assert torch.equal(found.ended, torch.isin(last, torch.tensor([9, 4])))
    assert ((found.lengths == 10) | found.ended).all()


def test_the_generation_config_of_a_checkpoint_is_not_read():
    policy, numbers = tiny_policy(), uniforms(5)
    plain = sample_responses(policy, PROMPTS, numbers, **OPTIONS)
    policy.generation_config.repetition_penalty, policy.generation_config.suppress_tokens = 5.0, list(range(3, 15))
    again = sample_responses(policy, PROMPTS, numbers, **OPTIONS)
    assert torch.equal(plain.ids, again.ids)
    state = torch.get_rng_state()
    made = generate_responses(policy, PROMPTS * 8, torch.Generator().manual_seed(0), length=10, **OPTIONS)
    assert torch.isin(made.ids, torch.arange(3, 15)).any()
    assert torch.equal(state, torch.get_rng_state())
    assert policy.generation_config.repetition_penalty == 5.0


def test_generate_has_the_same_layout():
    policy = tiny_policy()
    made = generate_responses(policy, PROMPTS * 8, torch.Generator().manual_seed(0), length=10, **OPTIONS)
    live = torch.arange(10) < made.lengths.unsqueeze(1)
    assert not made.ids.masked_fill(live, 0).any()
    last = made.ids.gather(1, made.lengths.unsqueeze(1) - 1).squeeze(1)
    assert torch.equal(last == EOS, made.ended) and made.ended.any()
    assert not ((made.ids == EOS) & live)[:, :-1][~made.ended].any()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "hft_gpt"])
def test_generate_with_a_static_cache_says_the_same(kind, monkeypatch):
    policy, sizes, plain = tiny_policy(kind), [], StaticCache.__init__
    monkeypatch.setattr(
        StaticCache, "__init__", lambda self, *args, **kw: (sizes.append(kw), plain(self, *args, **kw))[1]
    )
    first, second = (
        generate_responses(policy, PROMPTS * 8, torch.Generator().manual_seed(0), length=10, cache=cache, **OPTIONS)
        for cache in (None, "static")
    )
    assert torch.equal(first.ids, second.ids) and torch.equal(first.lengths, second.lengths)
    assert len(sizes) == 1 and second.ended.any()


def test_frequencies_follow_the_model():
    """2,000 first tokens against the distribution they are drawn from, chi squared over 20 tokens."""
    policy = tiny_policy().requires_grad_(False)
    found = sample_responses(policy, [[5]] * 2000, uniforms(2000, length=1), **OPTIONS)
    expected = 2000 * policy(input_ids=torch.tensor([[5]])).logits[0, -1].softmax(0)
    counts = torch.bincount(found.ids[:, 0], minlength=20)
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # 99.9% of chi squared with 19 degrees


def test_the_cache_is_never_copied():
    cache = new_cache(tiny_policy().config, capacity=8)
    keys = torch.randn(2, 2, 3, 8)
    first, _ = cache.update(keys, keys, 0)
    second, _ = cache.update(keys, keys, 0)
    assert first.data_ptr() == second.data_ptr() and second.shape[2] == cache.get_seq_length() == 6
    cache.layers[0].batch_select_indices(torch.tensor([1]))
    third, _ = cache.update(keys[1:], keys[1:], 0) if cache.get_seq_length() + 3 <= 8 else (second[1:], None)
    torch.testing.assert_close(third[:, :, :3], keys[1:])


def test_a_policy_whose_logits_are_no_numbers_has_diverged():
    policy = tiny_policy("hft_gpt")
    with torch.no_grad():
        next(policy.parameters()).fill_(torch.nan)
    with pytest.raises(DivergedError, match="logits are not finite .* lower learning_rate, or set max_kl"):
        sample_responses(policy, PROMPTS, uniforms(5), **OPTIONS)
