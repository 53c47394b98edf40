"""Reward functions as TRL's trainers call them: with a name, and None for a response that has no score."""

from hftoolkit.rl.scoring import call_reward, combined_scores, unique_names


def in_trls_form(functions, on_error, device):
    """Reward functions that say which responses they could not score; reward models go to the device.

    Args:
        on_error: "stop" or "skip", of a response without a finite score.
    """
    return [_in_trls_form(*pair, on_error, device) for pair in zip(functions, unique_names(functions), strict=True)]


def _in_trls_form(function, name, on_error, device):
    if hasattr(function, "model"):
        function.model.to(device)

    def score(prompts, completions, completion_ids, **columns):
        scores, used = call_reward(function, prompts, completions, completion_ids, columns, on_error)
        parts = scores.unsqueeze(1), used.new_ones(len(used), 1), scores.new_ones(1)
        scores = combined_scores(*parts, [name], prompts, completions, on_error)
        return [float(value) if on and value.isfinite() else None for value, on in zip(scores, used, strict=True)]

    score.__name__ = name
    return score
