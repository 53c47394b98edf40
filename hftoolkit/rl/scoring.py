"""The score of a response: reward functions called and checked, summed with weights, then normalised and clipped.

A reward function follows TRL's convention: `f(prompts, completions, completion_ids, **columns) -> list of numbers`,
one for each completion; None means that it does not apply to that row. A reward model is one too
(hftoolkit.rl.reward_model.RewardModel).
Shapes: B = responses, F = reward functions.
"""

import inspect
from dataclasses import dataclass

import torch

from hftoolkit.errors import DataError


def function_name(function):
    """What a reward function is called in the report."""
    return getattr(function, "__name__", type(function).__name__)


def call_reward(function, prompts, completions, completion_ids, columns):
    """Scores of one function and where it applies, (B,) each; a score of None does not apply and is 0.

    Raises:
        DataError: it raised, or gave another number of scores than completions.
    """
    name = function_name(function)
    given = columns | {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
    accepted = inspect.signature(function).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted):
        given = {key: value for key, value in given.items() if key in {parameter.name for parameter in accepted}}
    try:
        found = function(**given)
    except Exception as error:
        raise DataError(
            f"the reward function {name} raised {type(error).__name__}: {error}, for {len(prompts)} prompts of which "
            f"the first is {prompts[0]!r}"
        ) from error
    found = found.tolist() if torch.is_tensor(found) else list(found)
    if len(found) != len(completions):
        raise DataError(
            f"the reward function {name} gave {len(found)} scores for {len(completions)} completions: it has to give "
            "one for each"
        )
    scores = torch.tensor([0.0 if score is None else float(score) for score in found])
    return scores, torch.tensor([score is not None for score in found])


def combined_scores(parts, applies, weights, names, prompts, completions, on_error="stop"):
    """Weighted sum of what the functions gave, (B,).

    Args:
        parts: (B, F).
        applies: False where a function gave None, (B, F).
        on_error: "stop", or "skip": rows without a finite score are nan in the result.

    Raises:
        DataError: a score that is not finite, or a row to which no function applies, with on_error "stop"; naming
            the functions, the prompt and the completion.
    """
    scores = (parts * weights).sum(dim=1)
    bad = ~scores.isfinite() | ~applies.any(dim=1)
    if bad.any() and on_error == "stop":
        row = int(bad.nonzero()[0])
        values = [value if used else None for value, used in zip(parts[row].tolist(), applies[row], strict=True)]
        given = ", ".join(f"{name} gave {value}" for name, value in zip(names, values, strict=True))
        raise DataError(
            f"{int(bad.sum())} of {len(scores)} responses have no score: {given} for the completion "
            f"{completions[row]!r} of the prompt {prompts[row]!r}. Mend the function, or leave such responses out with "
            "on_reward_error skip"
        )
    return scores.masked_fill(bad, torch.nan)


@dataclass
class RunningNorm:
    """Mean and deviation of all scores so far (Welford 1962, in Chan's form for batches)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, scores):
        """Take in scores (B,)."""
        scores = scores.double()
        count, mean = len(scores), float(scores.mean())
        total, shift = self.count + count, mean - self.mean
        self.squares += float((scores - mean).square().sum()) + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    def __call__(self, scores):
        """Scores less the mean, by the deviation."""
        return (scores - self.mean) / max((self.squares / max(self.count, 1.0)) ** 0.5, 1e-6)


def shape_scores(scores, ended, args, norm=None):
    """Scores as the policy gets them: normalised, clipped, and lower for a response that does not end; (B,).

    Args:
        ended: whether a stop token was sampled, (B,).
        args: PPOConfig.
        norm: a RunningNorm, or None.
    """
    scores = scores if norm is None else norm(scores)
    if args.score_clip is not None:
        scores = scores.clamp(-args.score_clip, args.score_clip)
    if args.missing_eos_score is not None:
        scores = torch.where(ended, scores, args.missing_eos_score)
    if args.missing_eos_penalty is not None:
        scores = scores - args.missing_eos_penalty * (~ended).to(scores.dtype)
    return scores
