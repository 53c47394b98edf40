"""The objective of a reward model, as pure functions: tensors in, tensors out.

Papers: Ouyang et al. 2022, "InstructGPT", https://arxiv.org/abs/2203.02155, Equation 1: for a prompt x with K ranked
answers, all pairs of which are one batch element,

    loss = -1 / C(K, 2) * sum over pairs of log sigmoid(r(x, y_w) - r(x, y_l))

Each answer is read once, K forward passes instead of 2 * C(K, 2). Margins: Touvron et al. 2023, "Llama 2",
https://arxiv.org/abs/2307.09288, Equation 2. Penalty: Eisenstein et al. 2023, https://arxiv.org/abs/2312.09244, Section 2.
Differs from the first: of answers with the same score none is preferred, and C(K, 2) counts the pairs that are left.
Shapes: B = prompts, N = answers of all prompts, one prompt after another, P = pairs. sizes (B,): answers of each prompt.
"""

import torch
from torch.nn import functional as F


def preference_pairs(scores, sizes):
    """Every pair of answers to one prompt of which one is better.

    Args:
        scores: higher is better, (N,).

    Returns:
        (better, worse, prompts), each (P,): two places in 0..N-1 and one in 0..B-1.

    Example:
        scores [2, 1, 1, 0, 5], sizes [3, 2] -> better [0, 0, 4], worse [1, 2, 3], prompts [0, 0, 1]
    """
    prompts = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)  # (N,)
    is_pair = (prompts[:, None] == prompts) & (scores[:, None] > scores)  # (N, N)
    better, worse = is_pair.nonzero(as_tuple=True)
    return better, worse, prompts[better]


def ranking_loss(rewards, scores, sizes, margins=None):
    """Equation 1 for each prompt, in nats; 0 where no answer is better than another.

    Args:
        rewards: r(x, y) of every answer, (N,).
        scores: higher is better, (N,); only their order counts.
        margins: by how much a better answer's reward should be the greater one, (B,).

    Returns:
        (B,), float32. The gradient of a prompt with K answers is the mean of the gradients of its pairs.
    """
    better, worse, prompts = preference_pairs(scores, sizes)
    differences = rewards.float()[better] - rewards.float()[worse]  # (P,)
    if margins is not None:
        differences = differences - margins[prompts]
    return _mean_by_prompt(-F.logsigmoid(differences), prompts, len(sizes))


def centre_penalty(rewards, scores, sizes):
    """How far the rewards of each prompt's pairs are from the mean 0: mean of (r_w + r_l)^2, (B,), float32.

    The preferences do not determine a constant that is added to all rewards; a small multiple of this does. For K = 2
    it is what TRL's center_rewards_coefficient weighs.
    """
    better, worse, prompts = preference_pairs(scores, sizes)
    sums = rewards.float()[better] + rewards.float()[worse]  # (P,)
    return _mean_by_prompt(sums**2, prompts, len(sizes))


def _mean_by_prompt(values, prompts, num_prompts):
    """Mean over the pairs of each prompt, (P,) to (B,); 0 for a prompt without pairs."""
    counts = torch.bincount(prompts, minlength=num_prompts).clamp(min=1)
    return torch.zeros(num_prompts, device=values.device).index_add(0, prompts, values) / counts
