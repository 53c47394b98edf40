"""From scores to advantages: the reward of every token, generalised advantage estimation, whitening.

Papers: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", https://arxiv.org/abs/1909.08593,
Section 2.1 (the penalty); Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage
Estimation", https://arxiv.org/abs/1506.02438, equations 11 to 16; Schulman 2020,
http://joschu.net/blog/kl-approx.html (k1 and k3).
Shapes: B = responses, R = tokens of the longest. Every mask is True at the tokens of a response, from the first on.
"""

import torch


def kl_per_token(logprobs, ref_logprobs, estimator="k1"):
    """Estimate of KL(policy || reference) at every sampled token, in nats.

    Args:
        logprobs: log-probabilities of the sampled tokens under the policy, (B, R).
        ref_logprobs: those under the reference, (B, R).
        estimator: "k1" is their difference, unbiased and of either sign; "k3" is exp(-k1) - 1 + k1, unbiased, never
            negative and of lower variance.

    Returns:
        (B, R).

    Raises:
        ValueError: an unknown estimator.
    """
    difference = logprobs - ref_logprobs
    if estimator == "k1":
        return difference
    if estimator == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"kl_estimator must be 'k1' or 'k3', got {estimator!r}")


def token_rewards(scores, kl, mask, kl_coef):
    """Reward of every token: the penalty -kl_coef * kl everywhere, and the score at the last token of the response.

    Ziegler et al., equation 2: R(x, y) = r(x, y) - beta log(pi(y|x) / rho(y|x)), spread over the tokens.

    Args:
        scores: of whole responses, (B,).
        kl: per token, (B, R).

    Returns:
        (B, R), 0 outside of the mask.

    Example (kl_coef 0.5, . = outside of the mask):
        scores   1.0        kl   0.2  0.4   .
        rewards  -0.1  0.8   .
    """
    rewards = (-kl_coef * kl).masked_fill(~mask, 0.0)
    lengths = mask.sum(dim=1)
    rows = lengths.nonzero().squeeze(1)  # a response without any token gets nothing
    rewards[rows, lengths[rows] - 1] += scores[rows].to(rewards.dtype)
    return rewards


def advantages_and_returns(rewards, values, mask, *, gamma=1.0, lam=0.95, last_values=None):
    """Generalised advantage estimation: A_t = sum over l of (gamma lam)^l delta_{t+l}, returns A_t + V_t.

    delta_t = r_t + gamma V_{t+1} - V_t, where the value after the last token is 0, for a response that ended, or
    `last_values`, for one that was cut off.

    Args:
        rewards: (B, R).
        values: value of the state before each token, (B, R).
        last_values: value of the state after the last token, (B,); None is 0.

    Returns:
        (advantages, returns), both (B, R) and 0 outside of the mask. The advantages are not whitened.
    """
    B, R = rewards.shape
    after = torch.zeros(B, dtype=values.dtype, device=values.device) if last_values is None else last_values
    is_last = mask & ~torch.nn.functional.pad(mask[:, 1:], (0, 1))  # (B, R)
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(after)
    for t in reversed(range(R)):
        following = values[:, t + 1] if t + 1 < R else after
        following = torch.where(is_last[:, t], after, following)
        delta = rewards[:, t] + gamma * following - values[:, t]
        running = torch.where(is_last[:, t], delta, delta + gamma * lam * running)
        running = running.masked_fill(~mask[:, t], 0.0)
        advantages[:, t] = running
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def masked_mean(values, mask):
    """Mean over the True places of a mask; 0 where there is none."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


def masked_variance(values, mask):
    """Variance over the True places, divided by their number (not by one less)."""
    return masked_mean((values - masked_mean(values, mask)).square(), mask)


def whiten(values, mask, *, shift_mean=True):
    """Scale to variance 1, and shift to mean 0 or leave the mean where it was; 0 outside of the mask.

    Ziegler et al. whiten advantages with, and rewards without, the shift (openai/lm-human-preferences, commit cbfd210,
    lm_human_preferences/utils/core.py, `whiten`).
    """
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0.0)


def explained_variance(values, returns, mask):
    """1 - Var(returns - values) / Var(returns): 1 is a perfect value function, 0 no better than a constant."""
    variance = masked_variance(returns, mask)
    return 1 - masked_variance(returns - values, mask) / variance.clamp(min=1e-8)
