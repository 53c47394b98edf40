"""What the policy, or the reference, answers to held-out prompts.

Shapes: B = responses of all processes (b of this one), F = reward functions.
"""

import contextlib

import torch

from hftoolkit.errors import DataError
from hftoolkit.rl.make_experience import combined, completions_of, in_agreement, respond, uniform_numbers

EVALUATION_STREAM = 2**40  # seeds of evaluations are far from those of rollouts


@torch.no_grad()
def evaluate_prompts(trainer, data, by_reference=False):
    """Means over the responses to held-out prompts; samples of them are kept in trainer.samples.

    The responses do not depend on the number of processes (with the backend "generate" they do); where these are more
    than the prompts, some have none.

    Args:
        by_reference: the reference answers in place of the policy.

    Raises:
        DataError: a response has no score, and on_reward_error is "stop"; or none has one.
    """
    args, names = trainer.args, trainer.reward_names
    rows = list(range(args.process_index, len(data), args.world_size))
    trainer.samples, trainer.samples_step = [], trainer.state.global_step
    sums = torch.zeros(5 + 2 * len(names), dtype=torch.float64)
    with trainer.weights.gathered() as pair:
        answers = trainer.reference.in_place_of(pair) if by_reference else contextlib.nullcontext()
        with answers:
            measured = in_agreement(trainer, lambda: _measured(trainer, pair, data, rows) if rows else sums)
    sums = trainer.accelerator.reduce(measured.to(args.device), "sum").tolist()
    count, means = sums[0], [value / max(sums[0], 1) for value in sums[1:5]]
    if not count:
        raise DataError(f"none of the {len(data)} responses of the evaluation has a score")
    metrics = dict(zip(("reward", "kl", "length", "ended"), means, strict=True))
    metrics["rlhf_reward"] = metrics["reward"] - trainer.kl_control.coefficient * metrics["kl"]
    if count < len(data):
        metrics["left_out"] = len(data) - int(count)
    totals, used = sums[5 : 5 + len(names)], sums[5 + len(names) :]
    found = zip(names, totals, used, strict=True)
    return metrics | {f"rewards/{name}": total / max(number, 1) for name, total, number in found}


def _measured(trainer, pair, data, rows):
    """Sums over the responses to the prompts of this process, (5 + 2 F,), float64.

    Number of responses with a score; their scores, KL, lengths and ends; then what each reward function gave, and to
    how many responses.
    """
    seed = trainer.args.seed + EVALUATION_STREAM
    uniforms, batch = uniform_numbers(seed, len(data), trainer.args.response_length)[rows], data[rows]
    found, scores, (parts, applies) = respond(trainer, pair, batch, uniforms, seed)
    given = combined(trainer, found, parts, applies)  # (b,)
    kept, used = given.isfinite(), applies & parts.isfinite()
    kl = (scores.logprobs - scores.ref_logprobs).masked_fill(~found.mask, 0.0).sum(dim=1)
    columns = [torch.ones_like(given), given, *(x.cpu() for x in (kl, found.response_lengths, found.ended))]
    shown = zip(batch["prompt"], completions_of(trainer, found, batch["prompt"]), given.tolist(), strict=True)
    trainer.samples = [
        {"prompt": prompt, "completion": text, "reward": reward if reward == reward else None}
        for prompt, text, reward in list(shown)[: trainer.args.num_sample_completions]
    ]
    of_responses = torch.stack([column[kept].double().sum() for column in columns])
    return torch.cat([of_responses, parts.masked_fill(~used, 0.0).double().sum(dim=0), used.double().sum(dim=0)])


def evaluate_reference(trainer, data):
    """What the reference reaches on held-out prompts, with the same random numbers as the policy."""
    return evaluate_prompts(trainer, data, by_reference=True)
