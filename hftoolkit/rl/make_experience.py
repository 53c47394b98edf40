"""From prompts to experience: what PPOTrainer does between two series of updates.

Shapes: B = responses of all processes (b of this one), R = longest response, F = reward functions.
"""

import torch
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
from hftoolkit.rl.experience import Experience
from hftoolkit.rl.rollout import sample_rollout, score_rollout
from hftoolkit.rl.scoring import call_reward, combined_scores, function_name, shape_scores

EVALUATION_STREAM = 2**40  # seeds of evaluations are far from those of rollouts


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
    data = trainer.train_dataset[chosen]
    seed = args.seed + 15_485_863 * (rollout + 1)
    found, scores, (parts, applies) = respond(trainer, data, seed, size)
    gathered = gather_all(trainer, found, scores, parts, applies)
    return finish(trainer, *gathered)


def respond(trainer, data, seed, total):
    """Sample and score responses to the prompts of this process, b of `total`.

    Returns:
        (Rollout, Scores, (rewards (b, F), where they apply (b, F))).
    """
    args, pair = trainer.args, trainer.model
    tokenizer = trainer.processing_class
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(total, args.response_length, generator=generator, dtype=torch.float64)
    uniforms = uniforms[own_part(range(total), args)] if total > len(data["prompt_ids"]) else uniforms
    training = pair.training
    pair.eval()
    try:
        with trainer.accelerator.autocast():
            found = sample_rollout(
                pair.policy,
                data["prompt_ids"],
                uniforms,
                args,
                stop_token_ids=trainer.stop_token_ids,
                pad_id=pad_id(tokenizer, trainer.stop_token_ids),
                generator=generator,
            )
            # Cached decoding and a full pass differ by the rounding of bfloat16, which the ratio must not see.
            exact = args.rollout_backend == "native" and not (args.bf16 or args.fp16)
            exact = exact and next(pair.policy.parameters()).dtype == torch.float32
            scores = score_rollout(
                pair, trainer.reference, found, args.rollout_forward_batch_size, score_policy=not exact
            )
    finally:
        pair.train(training)
    return found, scores, rewards_of(trainer, data, found)


def pad_id(tokenizer: PreTrainedTokenizerBase, stop_token_ids):
    """What fills rows; never read as a token."""
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_token_ids[0]


def completions_of(trainer, found):
    """Texts of the responses, special tokens left out."""
    return trainer.processing_class.batch_decode(found.completion_ids(), skip_special_tokens=True)


def rewards_of(trainer, data, found):
    """What each reward function gives each response, (b, F), and where it applies, (b, F)."""
    prompts, completions = data["prompt"], completions_of(trainer, found)
    if prompts and not isinstance(prompts[0], str):  # conversations: TRL gives a list of messages for each
        answers = [[{"role": "assistant", "content": text}] for text in completions]
    else:
        answers = completions
    columns = {name: values for name, values in data.items() if name not in ("prompt", "prompt_ids")}
    ids = found.completion_ids()
    columns["trainer_state"] = trainer.state
    results = [call_reward(function, prompts, answers, ids, columns) for function in trainer.reward_funcs]
    parts, applies = (torch.stack(list(tensors), dim=1) for tensors in zip(*results, strict=True))
    return parts, applies


def gather_all(trainer, found, scores, parts, applies):
    """The responses of all processes in the order of the prompts, the same in every process."""
    accelerator, device = trainer.accelerator, trainer.args.device
    pad = trainer.stop_token_ids[0]

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
    names = [function_name(function) for function in trainer.reward_funcs]
    given = combined(trainer, found, parts, applies, names)
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
    report = describe(found, scores, given, shaped, left_out, control.coefficient)
    report["val/explained_variance"] = float(explained_variance(values, returns, mask))
    report["val/returns"], report["val/values"] = (float(masked_mean(x, mask)) for x in (returns, values))
    for number, name in enumerate(names):
        used = applies[:, number]
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


def combined(trainer, found, parts, applies, names):
    """The weighted scores, (B,); an error names prompt and completion."""
    pairs = zip(found.input_ids.tolist(), found.prompt_lengths.tolist(), strict=True)
    prompts = [row[:n] for row, n in pairs]
    bad = ~parts.isfinite().all(dim=1) | ~applies.any(dim=1)
    texts = [("", "")] * len(prompts)
    if bad.any():  # decoded only for the message
        decode = trainer.processing_class.batch_decode
        texts = list(zip(decode(prompts), decode(found.completion_ids()), strict=True))
    weights = trainer.reward_weights.to(parts.device)
    return combined_scores(parts, applies, weights, names, *zip(*texts, strict=True), trainer.args.on_reward_error)


def describe(found, scores, given, shaped, left_out, kl_coef):
    """Statistics of a rollout, means over its responses; TRL's names where it had them."""
    mask, kept = found.mask, ~left_out
    number = kept.sum()

    def per_response(x):
        return float(x.masked_fill(~mask, 0.0).sum() / number)

    kl = per_response(scores.logprobs - scores.ref_logprobs)
    lengths = found.response_lengths[kept].float()
    report = {
        "objective/kl": kl,
        "objective/entropy": per_response(-scores.logprobs),  # of the sampled tokens: an estimate without bias
        "objective/non_score_reward": -kl_coef * kl,
        "objective/rlhf_reward": float(shaped[kept].mean()) - kl_coef * kl,
        "objective/scores": float(given[kept].mean()),
        "objective/scores_std": float(given[kept].std(correction=0)),
        "objective/kl_coef": kl_coef,
        "policy/entropy_avg": float(masked_mean(-scores.logprobs, mask)),
        "val/num_eos_tokens": int((found.ended & kept).sum()),
        "completions/mean_length": float(lengths.mean()),
        "completions/max_length": float(lengths.max()),
    }
    if left_out.any():
        report["completions/left_out"] = int(left_out.sum())
    return report


def stop_if_far(trainer, kl):
    """End the training after a rollout whose KL is above max_kl; the update at hand is still made."""
    limit = trainer.args.max_kl
    if limit is not None and kl > limit:
        trainer.stopped_by = f"KL {kl:.4g} nats per response at step {trainer.state.global_step}, max_kl is {limit:g}"
        trainer.control.should_training_stop = True


@torch.no_grad()
def evaluate_prompts(trainer, data):
    """Means over the responses to held-out prompts; samples of them are kept in trainer.samples."""
    args = trainer.args
    rows = list(range(args.process_index, len(data), args.world_size))
    names = [function_name(function) for function in trainer.reward_funcs]
    sums = torch.zeros(5 + len(names), dtype=torch.float64)
    trainer.samples = []
    if rows:
        batch = data[rows]
        found, scores, (parts, applies) = respond(
            trainer, batch, args.seed + EVALUATION_STREAM + args.process_index, len(rows)
        )
        given = (parts * trainer.reward_weights).sum(dim=1)
        difference = (scores.logprobs - scores.ref_logprobs).masked_fill(~found.mask, 0.0).sum(dim=1)
        measured = [given, difference.cpu(), found.response_lengths.cpu(), found.ended.cpu()]
        sums = torch.stack(
            [torch.tensor(float(len(rows))), *(x.double().sum() for x in measured), *parts.double().sum(dim=0)]
        )
        shown = args.num_sample_completions
        texts = completions_of(trainer, found)
        trainer.samples = [
            {"prompt": prompt, "completion": text, "reward": reward}
            for prompt, text, reward in zip(
                batch["prompt"][:shown], texts[:shown], given[:shown].tolist(), strict=True
            )
        ]
    sums = trainer.accelerator.reduce(sums.to(args.device), "sum").tolist()
    count, reward, kl, length, ended = sums[:5]
    metrics = {"reward": reward / count, "kl": kl / count, "length": length / count, "ended": ended / count}
    metrics["rlhf_reward"] = metrics["reward"] - trainer.kl_control.coefficient * metrics["kl"]
    return metrics | {f"rewards/{name}": value / count for name, value in zip(names, sums[5:], strict=True)}
