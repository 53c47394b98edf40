"""From prompts to experience: what PPOTrainer does between two series of updates.

Shapes: B = responses of all processes (b of this one), R = longest response, F = reward functions.
"""

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedTokenizerBase

from hftoolkit.errors import DataError
from hftoolkit.rl.advantages import (
    advantages_and_returns,
    explained_variance,
    kl_per_token,
    masked_mean,
    token_rewards,
    whiten,
)
from hftoolkit.rl.completion_texts import are_conversations, completion_texts
from hftoolkit.rl.experience import Experience
from hftoolkit.rl.rollout import pack_right, sample_rollout, score_rollout
from hftoolkit.rl.scoring import call_reward, combined_scores, shape_scores, without_score


def prompt_order(number, seed, epoch):
    """The prompts of one pass in a fresh order."""
    return torch.randperm(number, generator=torch.Generator().manual_seed(seed + 104_729 * epoch)).tolist()


def own_part(rows, args):
    """The rows of this process, an equal share in order."""
    share = len(rows) // args.world_size
    return rows[args.process_index * share :][:share]


def make_experience(trainer, rollout):
    """Experience of rollout number `rollout`, and its report."""
    args, size = trainer.args, trainer.args.rollout_batch_size
    per_pass = len(trainer.train_dataset) // size
    order = prompt_order(len(trainer.train_dataset), args.seed, rollout // per_pass)
    chosen = own_part(order[rollout % per_pass * size :][:size], args)
    seed = args.seed + 15_485_863 * (rollout + 1)
    uniforms = own_part(uniform_numbers(seed, size, args.response_length), args)
    data, sampler = trainer.train_dataset[chosen], trainer.vllm
    if sampler is not None:
        sampler.sync()
    with trainer.weights.gathered() as pair:
        answered = in_agreement(trainer, lambda: respond(trainer, pair, data, uniforms, seed, sampler))
    found, scores, (parts, applies) = answered
    gathered = gather_all(trainer, found, scores, parts, applies)
    experience, report = finish(trainer, *gathered)
    return experience, report | {"episode": (rollout + 1) * size}


def uniform_numbers(seed, number, length):
    """The random numbers of `number` responses, (number, length): the same however many processes share them."""
    return torch.rand(number, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_agreement(trainer, function):
    """Call a function in every process; the DataError of one is raised in all, so that none waits for it."""
    result, error = None, None
    try:
        result = function()
    except DataError as caught:
        error = caught
    if trainer.args.world_size > 1:
        failures = [text for text in gather_object([None if error is None else str(error)]) if text is not None]
        error = error or (DataError(failures[0]) if failures else None)
    if error is not None:
        raise error
    return result


def respond(trainer, pair, data, uniforms, seed, sampler=None):
    """Sample and score responses to the prompts of this process.

    Args:
        pair: ActorCritic with whole weights, in evaluation mode; see WholeWeights.
        data: columns of the prompts, b rows.
        uniforms: the random numbers of these rows, (b, R).
        seed: for the backend "generate", which draws its own numbers in each process.
        sampler: a VLLMSampler, which samples in place of the policy.

    Returns:
        (Rollout, Scores, (rewards (b, F), where they apply (b, F))).
    """
    args, tokenizer = trainer.args, trainer.processing_class
    with trainer.weights.precision_of(pair):
        pad = pad_id(tokenizer, trainer.stop_token_ids)
        if sampler is not None:
            found = pack_right(data["prompt_ids"], sampler.sample(data["prompt_ids"], pad), pad)
        else:
            found = sample_rollout(
                pair.policy,
                data["prompt_ids"],
                uniforms,
                args,
                stop_token_ids=trainer.stop_token_ids,
                pad_id=pad,
                stop_strings=trainer.stop_strings,
                generator=torch.Generator().manual_seed(seed + 32_452_843 * args.process_index),
            )
        # Cached decoding and a full pass differ by the rounding of bfloat16 or TF32, which the ratio must not see.
        exact = args.rollout_backend == "native" and sampler is None and not (args.bf16 or args.fp16)
        exact = exact and torch.get_float32_matmul_precision() == "highest"
        exact = exact and next(pair.policy.parameters()).dtype == torch.float32
        size = args.rollout_forward_batch_size
        scores = score_rollout(pair, trainer.reference, found, size, score_policy=not exact)
    return found, scores, rewards_of(trainer, data, found)


def pad_id(tokenizer: PreTrainedTokenizerBase, stop_token_ids):
    """What fills rows; never read as a token."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(stop_token_ids), 0)


def completions_of(trainer, found, prompts):
    """Texts of the responses to these prompts; see completion_texts."""
    return completion_texts(trainer.processing_class, found, prompts, trainer.stop_strings)


def rewards_of(trainer, data, found):
    """What each reward function gives each response, (b, F), and where it applies, (b, F)."""
    prompts, ids = data["prompt"], found.completion_ids()
    completions = completions_of(trainer, found, prompts)
    if are_conversations(prompts):  # TRL gives a list of messages for each
        answers = [[{"role": "assistant", "content": text}] for text in completions]
    else:
        answers = completions
    columns = {name: values for name, values in data.items() if name not in ("prompt", "prompt_ids")}
    columns["trainer_state"] = trainer.state
    given = (prompts, answers, ids, columns, trainer.args.on_reward_error)
    results = [call_reward(function, *given) for function in trainer.reward_funcs]
    parts, applies = (torch.stack(list(tensors), dim=1) for tensors in zip(*results, strict=True))
    return parts, applies


def gather_all(trainer, found, scores, parts, applies):
    """The responses of all processes in the order of the prompts, the same in every process."""
    accelerator, device = trainer.accelerator, trainer.args.device
    pad = pad_id(trainer.processing_class, trainer.stop_token_ids)

    def together(tensor, fill=0.0):
        tensor = tensor.to(device)
        if trainer.args.world_size == 1:
            return tensor
        if tensor.dim() == 2:
            tensor = accelerator.pad_across_processes(tensor, dim=1, pad_index=fill)
        return accelerator.gather(tensor)

    found.input_ids = together(found.input_ids, pad)
    for name in ("prompt_lengths", "response_lengths", "logprobs", "ended"):
        setattr(found, name, together(getattr(found, name)))
    for name in ("logprobs", "ref_logprobs", "values", "last_values"):
        setattr(scores, name, together(getattr(scores, name)))
    return found, scores, together(parts), together(applies)


def finish(trainer, found, scores, parts, applies):
    """Rewards, advantages and returns of gathered responses: (Experience, report)."""
    args, control = trainer.args, trainer.kl_control
    given = combined(trainer, found, parts, applies)
    left_out = ~given.isfinite()
    found.response_lengths = found.response_lengths.masked_fill(left_out, 0)
    mask = found.mask
    if not mask.any():
        raise DataError("no response of this rollout has a score: every reward is missing or not finite")
    given = given.masked_fill(left_out, 0.0)
    if trainer.score_norm is not None:
        trainer.score_norm.update(given[~left_out])
    shaped = shape_scores(given, found.ended, args, trainer.score_norm)
    kl = kl_per_token(scores.logprobs, scores.ref_logprobs, args.kl_estimator)
    rewards = token_rewards(shaped, kl, mask, control.coefficient)
    if args.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    last = scores.last_values.masked_fill(found.ended, 0.0) if args.bootstrap_truncated else None
    options = {"gamma": args.gamma, "lam": args.lam, "last_values": last}
    values = scores.values.masked_fill(~mask, 0.0)
    advantages, returns = advantages_and_returns(rewards, values, mask, **options)
    report = describe(found, scores, given, shaped, left_out, control.coefficient * kl)
    report["val/explained_variance"] = float(explained_variance(values, returns, mask))
    report["objective/kl_coef"] = control.coefficient
    report["val/returns"], report["val/values"] = (float(masked_mean(x, mask)) for x in (returns, values))
    for number, name in enumerate(trainer.reward_names):
        used = applies[:, number] & parts[:, number].isfinite()
        report[f"rewards/{name}"] = float(parts[used, number].mean()) if used.any() else 0.0
    kept = int((~left_out).sum())
    control.update(report["objective/kl"], kept)
    stop_if_far(trainer, report["objective/kl"])
    if args.whiten_advantages:
        advantages = whiten(advantages, mask)
    lengths = {"prompt_lengths": found.prompt_lengths, "response_lengths": found.response_lengths}
    logprobs = scores.logprobs.masked_fill(~mask, 0.0)
    tensors = {"logprobs": logprobs, "values": values, "advantages": advantages, "returns": returns}
    return Experience(found.input_ids, **lengths, **tensors), report


def combined(trainer, found, parts, applies):
    """The weighted scores, (B,), nan where a response has none; an error names prompt and completion."""
    args, decode = trainer.args, trainer.processing_class.batch_decode
    weights = trainer.reward_weights.to(parts.device)
    prompts = completions = None
    if args.on_reward_error == "stop" and without_score(parts, applies, weights).any():  # texts for the message
        prompts, completions = (decode(list(ids)) for ids in zip(*found.token_ids(), strict=True))
    return combined_scores(parts, applies, weights, trainer.reward_names, prompts, completions, args.on_reward_error)


def describe(found, scores, given, shaped, left_out, penalty):
    """Statistics of a rollout, means over its responses; TRL's names where it had them.

    Args:
        penalty: what is taken from the reward of every token for the KL, (B, R).
    """
    mask, kept = found.mask, ~left_out
    number = kept.sum()

    def per_response(x):
        return float(x.masked_fill(~mask, 0.0).sum() / number)

    taken = per_response(penalty)
    lengths = found.response_lengths[kept].float()
    report = {
        "objective/kl": per_response(scores.logprobs - scores.ref_logprobs),
        "objective/entropy": per_response(-scores.logprobs),  # of the sampled tokens: an estimate without bias
        "objective/non_score_reward": -taken,
        "objective/rlhf_reward": float(shaped[kept].mean()) - taken,
        "objective/scores": float(given[kept].mean()),
        "objective/scores_std": float(given[kept].std(correction=0)),
        "policy/entropy_avg": float(masked_mean(-scores.logprobs, mask)),
        "val/num_eos_tokens": int((found.ended & kept).sum()),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
    }
    if left_out.any():
        report["completions/left_out"] = int(left_out.sum())
    return report


def stop_if_far(trainer, kl):
    """End the training where the KL of a rollout is above max_kl, before an update is made on it."""
    limit = trainer.args.max_kl
    if limit is not None and kl > limit:
        trainer.stopped_by = f"KL {kl:.4g} nats per response at step {trainer.state.global_step}, max_kl is {limit:g}"
        trainer.control.should_training_stop = True
