"""Sampling responses: preallocated caches, finished rows leave the batch, log-probabilities noted on the way.

Every token needs one uniform number, drawn beforehand for the whole rollout: what a prompt is answered with does not
depend on which rows have ended, nor on the process that samples it.
Shapes: B = prompts, P = tokens of the longest prompt, R = longest response, V = vocabulary.
"""

from typing import NamedTuple

import torch
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer

from hftoolkit.errors import DivergedError
from hftoolkit.rl.stop_strings import EndsWithString
from hftoolkit.training.adaptation import without_adapter

DROP_BELOW = 0.8  # share of rows that still run, below which the others leave the batch


class Responses(NamedTuple):
    """Sampled tokens (B, R), padded on the right, their number (B,), log-probabilities (B, R), and who ended (B,)."""

    ids: torch.Tensor
    lengths: torch.Tensor
    logprobs: torch.Tensor
    ended: torch.Tensor


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer in a buffer of full length, which no step copies."""

    def __init__(self, capacity):
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states, value_states):
        self.dtype, self.device = key_states.dtype, key_states.device
        B, H, _, D = key_states.shape
        self.key_buffer = key_states.new_empty(B, H, self.capacity, D)
        self.value_buffer = value_states.new_empty(B, H, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.key_buffer[:, :, start : self.length] = key_states
        self.value_buffer[:, :, start : self.length] = value_states
        return self.key_buffer[:, :, : self.length], self.value_buffer[:, :, : self.length]

    def get_seq_length(self):
        return self.length

    def batch_select_indices(self, indices):
        self.key_buffer, self.value_buffer = self.key_buffer[indices], self.value_buffer[indices]


def new_cache(config, capacity):
    """A cache for a model; layers that are no plain ones (sliding windows, states) keep transformers' own form."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def pick_tokens(logits, uniforms):
    """Draw one token of every row by the inverse of its distribution function.

    Args:
        logits: (B, V) in float32, temperature included.
        uniforms: numbers in [0, 1), (B,).

    Returns:
        (ids (B,), log-probabilities (B,)).
    """
    shifted = logits - logits.amax(dim=1, keepdim=True)
    cumulative = shifted.exp().cumsum(dim=1)
    total = cumulative[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))  # u * total may round up to the total
    threshold = torch.minimum(uniforms.to(total.dtype).unsqueeze(1) * total, below_total)
    ids = torch.searchsorted(cumulative, threshold, right=True)  # the first token whose cumulative mass exceeds it
    return ids.squeeze(1), (shifted.gather(1, ids) - total.log()).squeeze(1)


def pad_left(rows, pad_id, device):
    """Token lists as (ids, mask), both (B, P), their ends together."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


@torch.no_grad()
def sample_responses(policy, prompts, uniforms, *, stop_token_ids, pad_id, temperature=1.0, stop_strings=None):
    """Sample a response to every prompt, until a stop token, a stop string or R tokens.

    Args:
        policy: causal language model in evaluation mode; its own generation_config is not read.
        prompts: lists of token ids, none empty.
        uniforms: one number in [0, 1) per token that may be sampled, (B, R).
        stop_token_ids: the stop token belongs to the response.
        stop_strings: StopStrings or None; the tokens of the string belong to the response.
        pad_id: what fills the rows; lengths are kept apart, so it may also be a token of its own or a stop token.

    Returns:
        Responses; their log-probabilities are those of the whole vocabulary at this temperature.

    Raises:
        DivergedError: logits that are not finite.
    """
    B, R = uniforms.shape
    device = uniforms.device
    ids, mask = pad_left(prompts, pad_id, device)
    P = ids.shape[1]
    mask = torch.nn.functional.pad(mask, (0, R), value=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cache = new_cache(without_adapter(policy).config.get_text_config(decoder=True), P + R)
    stops = torch.tensor(sorted(stop_token_ids), device=device, dtype=torch.long)
    result = Responses(
        torch.full((B, R), pad_id, device=device),
        torch.zeros(B, dtype=torch.long, device=device),
        torch.zeros(B, R, device=device),
        torch.zeros(B, dtype=torch.bool, device=device),
    )
    rows, running = torch.arange(B, device=device), torch.ones(B, dtype=torch.bool, device=device)
    fed, begin = ids, 0
    for t in range(R):
        logits = policy(
            input_ids=fed,
            attention_mask=mask[:, : P + t],
            position_ids=positions[:, begin : P + t],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if t == 0 and not bool((logits < torch.inf).all()):  # -inf forbids a token
            raise DivergedError(
                "the policy's logits are not finite at the first token of a response: its last updates broke it; lower "
                "learning_rate, or set max_kl, and go on from an earlier checkpoint"
            )
        picked, logprobs = pick_tokens(logits.float() / temperature, uniforms[rows, t])
        result.ids[rows, t], result.logprobs[rows, t] = picked.where(running, pad_id), logprobs.where(running, 0.0)
        result.lengths[rows] += running
        stopped = torch.isin(picked, stops)
        if stop_strings is not None:
            written = result.ids[rows, max(0, t + 1 - stop_strings.tail) : t + 1]
            stopped |= torch.tensor(stop_strings.end(written.tolist()), device=device)
        stopped &= running
        result.ended[rows] |= stopped
        running = running & ~stopped
        left = int(running.sum())  # the one time a step that the GPU is waited for
        if left == 0:
            break
        if left < DROP_BELOW * len(rows):
            kept = running.nonzero().squeeze(1)
            cache.batch_select_indices(kept)
            rows, mask, positions, picked, running = (x[kept] for x in (rows, mask, positions, picked, running))
        fed, begin = picked.unsqueeze(1), P + t
    return result


@torch.no_grad()
def generate_responses(
    policy, prompts, generator, *, length, stop_token_ids, pad_id, temperature=1.0, stop_strings=None, cache=None
):
    """The same by transformers' `generate`, for models whose caches it alone knows; log-probabilities are left out.

    Args:
        generator: seeds torch's global generator, which generate draws from and which is put back afterwards.
        length: R.
        cache: cache_implementation of GenerationConfig.
    """
    model = without_adapter(policy)  # low-rank updates lie in its layers; PEFT's generate would keep `config` in it
    device = model.device
    ids, mask = pad_left(prompts, pad_id, device)
    stops = sorted(stop_token_ids)
    config = GenerationConfig(
        **{"max_new_tokens": length, "do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0},
        **{"eos_token_id": stops or None, "pad_token_id": pad_id, "cache_implementation": cache},
    )
    by_string = [] if stop_strings is None else [EndsWithString(stop_strings, ids.shape[1])]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        own, model.generation_config = model.generation_config, config  # what the checkpoint brings is not merged in
        try:
            sequences = model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=by_string
            )
        finally:
            model.generation_config = own
    sampled = sequences[:, ids.shape[1] :]
    is_stop = torch.isin(sampled, torch.tensor(stops, device=device, dtype=torch.long))
    for criterion in by_string:
        is_stop |= torch.arange(1, sampled.shape[1] + 1, device=device) == criterion.lengths.unsqueeze(1)
    ended = is_stop.any(dim=1)
    lengths = torch.where(ended, is_stop.int().argmax(dim=1) + 1, sampled.shape[1])
    inside = torch.arange(sampled.shape[1], device=device) < lengths.unsqueeze(1)
    fill = (0, length - sampled.shape[1])
    sampled = torch.nn.functional.pad(sampled.masked_fill(~inside, pad_id), fill, value=pad_id)
    return Responses(sampled, lengths, torch.zeros(sampled.shape, device=device), ended)
