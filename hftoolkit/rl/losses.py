"""The two losses of PPO, per token, and what is reported of them.

Paper: Schulman et al. 2017, "Proximal Policy Optimization Algorithms", https://arxiv.org/abs/1707.06347, equation 7.
The clipped value loss is openai/baselines' (ppo2/model.py), used by Ziegler et al. 2019 with the factor 1/2
(openai/lm-human-preferences, commit cbfd210, train_policy.py, lines 343-347).
Shapes: N = tokens of responses, of all rows in a row.
"""

import torch


def clipped_policy_loss(logprobs, old_logprobs, advantages, cliprange=0.2):
    """-min(ratio A, clip(ratio, 1 - c, 1 + c) A) of every token, with ratio = pi(token) / pi_old(token).

    Args:
        logprobs: under the policy that is trained, (N,); the only argument with a gradient.
        old_logprobs: under the policy that sampled the tokens, (N,).
        advantages: (N,).
        cliprange: c, above 0.

    Returns:
        (loss (N,), ratio (N,), clipped (N,)), the last True where the clipping decides.
    """
    ratio = (logprobs - old_logprobs).exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return torch.maximum(plain, bounded), ratio, bounded > plain


def clipped_value_loss(values, old_values, returns, cliprange_value=0.2):
    """1/2 max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) of every token.

    Args:
        values: of the value function that is trained, (N,); the only argument with a gradient.
        old_values: at the time of sampling, (N,).
        returns: (N,).
        cliprange_value: c, in the units of the rewards; above 0.

    Returns:
        (loss (N,), clipped (N,)).
    """
    bounded = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    plain_error, bounded_error = (values - returns).square(), (bounded - returns).square()
    return 0.5 * torch.maximum(plain_error, bounded_error), bounded_error > plain_error


def ppo_parts(new, batch, cliprange, cliprange_value):
    """Losses and statistics of a micro-batch by name, each summed over its tokens and divided by `batch["tokens"]`.

    Args:
        new: TokenScores of the policy that is trained.
        batch: old_logprobs, old_values, advantages, returns, (N,) each, and tokens, those of the whole minibatch.
    """
    old = batch["old_logprobs"]
    policy, ratio, clipped = clipped_policy_loss(new.logprobs, old, batch["advantages"], cliprange)
    value, value_clipped = clipped_value_loss(new.values, batch["old_values"], batch["returns"], cliprange_value)
    found = {
        "policy_loss": policy,
        "value_loss": value,
        "approximate_kl": approximate_kl(new.logprobs, old),
        "clipped": clipped.float(),
        "value_clipped": value_clipped.float(),
        "ratio": ratio,
        "ratio_variance": (ratio - 1).square(),
    }
    return {name: part.sum() / batch["tokens"] for name, part in found.items()}


def approximate_kl(logprobs, old_logprobs):
    """Half the squared log-ratio of every token, (N,): its mean says how far the policy has moved since sampling."""
    return 0.5 * (logprobs - old_logprobs).square()
