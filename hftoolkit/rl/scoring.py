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


def unique_names(functions):
    """What reward functions are called in the report; of equal names the second is `name_2`, the third `name_3`."""
    found = []
    for name in map(function_name, functions):
        candidate, number = name, 1
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


def call_reward(function, prompts, completions, completion_ids, columns, on_error="stop"):
    """Scores of one function and where it applies, (B,) each; a score of None does not apply and is 0.

    A function that raises is called again for each response alone: with on_error "skip" those for which it raises have
    the score nan.

    Args:
        columns: of the prompts, a list each; what is no list is given as it is.

    Raises:
        DataError: it raised (with on_error "stop", or not for single responses only), gave another number of scores
            than completions, or something that is no number.
    """
    name = function_name(function)
    given = columns | {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
    accepted = inspect.signature(function).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted):
        given = {key: value for key, value in given.items() if key in {parameter.name for parameter in accepted}}
    try:
        found = function(**given)
    except Exception as error:
        found = _one_by_one(function, given, prompts, completions, on_error, error)
    try:
        found = found.tolist() if torch.is_tensor(found) else list(found)
        scores = torch.tensor([0.0 if score is None else float(score) for score in found])
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"the reward function {name} gave {str(found)[:100]}: it has to give a list with one number, or None, for "
            "each completion"
        ) from error
    if len(found) != len(completions):
        raise DataError(
            f"the reward function {name} gave {len(found)} scores for {len(completions)} completions: it has to give "
            "one for each"
        )
    return scores, torch.tensor([score is not None for score in found])


def _one_by_one(function, given, prompts, completions, on_error, error):
    """Scores of single responses after the call for all of them has raised `error`."""
    scores, raised = [], 0
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        alone = {key: value[row : row + 1] if isinstance(value, list) else value for key, value in given.items()}
        try:
            scores.extend(function(**alone))
        except Exception as own:
            if on_error == "stop":
                raise DataError(
                    f"the reward function {function_name(function)} raised {type(own).__name__}: {own}, for the "
                    f"completion {completion!r} of the prompt {prompt!r}. Mend the function, or leave such responses out "
                    "with on_reward_error skip"
                ) from own
            scores.append(torch.nan)
            raised += 1
    if raised in (0, len(prompts)):
        which = "each of them alone too" if raised else "none of them alone"
        raise DataError(
            f"the reward function {function_name(function)} raised {type(error).__name__}: {error}, for {len(prompts)} "
            f"responses together, and for {which}; the first prompt is {prompts[0]!r}"
        ) from error
    return scores


def without_score(parts, applies, weights):
    """True where a weighted sum of what the functions gave is no finite number, or no function applies, (B,).

    A function of weight 0 is only reported: it neither gives a response a score nor takes it away.
    """
    weighed = weights != 0
    sums = (parts[:, weighed] * weights[weighed]).sum(dim=1)
    return ~sums.isfinite() | ~applies[:, weighed].any(dim=1)


def combined_scores(parts, applies, weights, names, prompts, completions, on_error="stop"):
    """Weighted sum of what the functions with a weight gave, (B,).

    Args:
        parts: (B, F).
        applies: False where a function gave None, (B, F).
        prompts, completions: texts for the message; read with on_error "stop" only.
        on_error: "stop", or "skip": rows without a finite score are nan in the result.

    Raises:
        DataError: a score that is not finite, or a row to which no function with a weight applies, with on_error "stop";
            naming the functions, the prompt and the completion.
    """
    weighed = weights != 0
    names = [name for name, used in zip(names, weighed, strict=True) if used]
    parts, applies, weights = parts[:, weighed], applies[:, weighed], weights[weighed]
    scores, bad = (parts * weights).sum(dim=1), without_score(parts, applies, weights)
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
