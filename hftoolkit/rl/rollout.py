"""One rollout: sample responses, score them with the rewards, the reference and the value function.

Everything here is per process; the advantages are computed in hftoolkit.rl.make_experience from the responses of all.
Shapes: B = responses, T = tokens of the longest row, R = longest response.
"""

import contextlib
import copy
from dataclasses import dataclass

import torch

from hftoolkit.rl.actor_critic import last_hidden_state, predicting, token_logprobs
from hftoolkit.rl.sampling import Responses, generate_responses, sample_responses
from hftoolkit.training.adaptation import without_adapter


@dataclass
class Rollout:
    """Responses of one process: input_ids (B, T), prompt + response with padding on the right; logprobs (B, R)."""

    input_ids: torch.Tensor
    prompt_lengths: torch.Tensor
    response_lengths: torch.Tensor
    logprobs: torch.Tensor
    ended: torch.Tensor

    @property
    def attention_mask(self):
        """1 at prompt and response, (B, T)."""
        lengths = self.prompt_lengths + self.response_lengths
        return (torch.arange(self.input_ids.shape[1], device=lengths.device) < lengths.unsqueeze(1)).long()

    @property
    def mask(self):
        """True at the tokens of the responses, (B, R)."""
        places = torch.arange(self.logprobs.shape[1], device=self.input_ids.device)
        return places < self.response_lengths.unsqueeze(1)

    def token_ids(self):
        """Token ids of prompts and responses, a pair of lists for each row; the stop token is part of the response."""
        rows = zip(self.input_ids.tolist(), self.prompt_lengths.tolist(), self.response_lengths.tolist(), strict=True)
        return [(row[:begin], row[begin : begin + n]) for row, begin, n in rows]

    def completion_ids(self):
        """Token ids of the responses, one list each, the stop token included."""
        return [response for _, response in self.token_ids()]


def sample_rollout(policy, prompts, uniforms, args, *, stop_token_ids, pad_id, stop_strings=None, generator=None):
    """Sample a response to each prompt, a bounded number at a time, prompts of similar length together.

    Args:
        prompts: lists of token ids.
        uniforms: (B, R), see sampling.
        args: PPOConfig.
        generator: for the backend "generate" only.
    """
    device = without_adapter(policy).device
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    options = {"stop_token_ids": stop_token_ids, "pad_id": pad_id, "temperature": args.temperature}
    options["stop_strings"] = stop_strings
    parts = []
    for begin in range(0, len(order), args.rollout_forward_batch_size):
        rows = order[begin : begin + args.rollout_forward_batch_size]
        some = [prompts[row] for row in rows]
        if args.rollout_backend == "generate":
            more = {"length": uniforms.shape[1], "cache": args.cache_implementation}
            parts.append(generate_responses(policy, some, generator, **more, **options))
        else:
            parts.append(sample_responses(policy, some, uniforms[rows].to(device), **options))
    back = torch.tensor(order).argsort().to(device)
    responses = Responses(*(torch.cat(tensors)[back] for tensors in zip(*parts, strict=True)))
    return pack_right(prompts, responses, pad_id)


def pack_right(prompts, responses, pad_id):
    """Prompt and response of each row next to each other, padding behind them: a Rollout."""
    device = responses.ids.device
    prompt_lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = int((prompt_lengths + responses.lengths).max())
    input_ids = torch.full((len(prompts), longest), pad_id, device=device)
    places = torch.arange(longest, device=device)
    in_prompt = places < prompt_lengths.unsqueeze(1)  # (B, T)
    input_ids[in_prompt] = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    in_response = ~in_prompt & (places < (prompt_lengths + responses.lengths).unsqueeze(1))
    sampled = torch.arange(responses.ids.shape[1], device=device) < responses.lengths.unsqueeze(1)
    input_ids[in_response] = responses.ids[sampled]
    return Rollout(input_ids, prompt_lengths, responses.lengths, responses.logprobs, responses.ended)


@dataclass
class Scores:
    """By the models: log-probabilities of policy and reference, values (B, R), value after the last token (B,)."""

    logprobs: torch.Tensor
    ref_logprobs: torch.Tensor
    values: torch.Tensor
    last_values: torch.Tensor


@torch.no_grad()
def score_rollout(pair, reference, rollout, size, score_policy=True):
    """Score the tokens of a rollout with policy, reference and value function, `size` rows at a time.

    Args:
        pair: ActorCritic in evaluation mode.
        reference: a Reference.
        score_policy: False takes over the log-probabilities of the sampling.
    """
    mask = rollout.mask
    like = rollout.logprobs
    found = Scores(like, *(torch.zeros_like(like) for _ in range(2)), torch.zeros_like(like[:, 0]))
    if score_policy:
        found.logprobs = torch.zeros_like(like)
    lengths = rollout.prompt_lengths + rollout.response_lengths
    for rows in lengths.argsort(stable=True).split(size):
        T, R = int(lengths[rows].max()), int(rollout.response_lengths[rows].max())
        ids, attention_mask = rollout.input_ids[rows, :T], rollout.attention_mask[rows, :T]
        prompts, live = rollout.prompt_lengths[rows], mask[rows, :R]
        if score_policy:
            scores, _, last = pair(ids, attention_mask, prompts, with_last_value=True)
            _put(found.logprobs, rows, live, scores.logprobs)
            _put(found.values, rows, live, scores.values)
        else:
            hidden = last_hidden_state(pair.policy, ids, attention_mask) if pair.value_model is None else None
            values = pair.all_values(ids, attention_mask, hidden)
            _put(found.values, rows, live, values[predicting(attention_mask, prompts)])
            last = values.gather(1, attention_mask.sum(dim=1, keepdim=True) - 1).squeeze(1)
        found.last_values[rows] = last
        _put(found.ref_logprobs, rows, live, reference.logprobs(pair, ids, attention_mask, prompts))
    return found


def _put(table, rows, live, values):
    """Write the values of live tokens, row by row, into some rows of a (B, R) table."""
    part = torch.zeros(live.shape, dtype=table.dtype, device=table.device)
    part[live] = values.to(table.dtype)
    table[rows, : live.shape[1]] = part


class Reference:
    """The policy as it was before PPO: a model of its own, or the policy with its new adapters switched off.

    Args:
        policy: before training.
        model: a model given as the reference; None copies the policy, unless it has PEFT adapters that change nothing
            yet.
    """

    def __init__(self, policy, model=None):
        self.by_adapter = model is None and is_new_adapter(policy)
        self.model = model
        if model is None and not self.by_adapter:
            self.model = copy.deepcopy(policy)
        if self.model is not None:
            self.model.requires_grad_(False)
            self.model.eval()

    @contextlib.contextmanager
    def in_place_of(self, pair):
        """While open, the reference is the policy of the pair."""
        policy = pair.policy
        with policy.disable_adapter() if self.by_adapter else contextlib.nullcontext():
            pair.policy = policy if self.by_adapter else self.model
            try:
                yield
            finally:
                pair.policy = policy

    def logprobs(self, pair, input_ids, attention_mask, prompt_lengths):
        """Log-probabilities of the responses' tokens, (N,)."""
        model = pair.policy if self.by_adapter else self.model
        places = predicting(attention_mask, prompt_lengths)
        with pair.policy.disable_adapter() if self.by_adapter else contextlib.nullcontext():
            hidden = last_hidden_state(model, input_ids, attention_mask)[places]
            head = without_adapter(model).get_output_embeddings()
            return token_logprobs(hidden, head, input_ids[:, 1:][places[:, :-1]], pair.temperature)


def is_new_adapter(model):
    """Whether the model has low-rank updates that are all zero, as PEFT makes them."""
    updates = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    return bool(updates) and not any(bool(weight.any()) for weight in updates)
