"""Cross-entropy over a large vocabulary learnt from some of its words, for training only.

Papers: Bengio and Senecal 2003 and 2008 (importance sampling); Jean et al. 2015, https://aclanthology.org/P15-1001,
Section 3; Jozefowicz et al. 2016, https://arxiv.org/abs/1602.02410, Section 3.1.
Words are numbered by falling frequency, and word k has the weight log((k + 2) / (k + 1)) / log(V + 1), about as Zipf's law
has it: TensorFlow's log_uniform_candidate_sampler, which bilm-tf uses. Of every word's score the log of its chance to be
drawn is subtracted: among the words that then stand to choice, word k is right with a probability in proportion to
p_k / chance_k, and the scores are learnt as by the full softmax.
Differs from TensorFlow: each word is drawn or not by itself, so that this holds exactly; S is the mean of how many are.
Shapes: N = positions, D = hidden size, V = vocabulary, S = words drawn, n = positions with a target.
"""

from functools import lru_cache

import torch
from torch import nn

IGNORE_INDEX = -100


@lru_cache(maxsize=8)
def chances(vocab_size, num_samples):
    """Chance of each word to be drawn, (V,); they sum up to num_samples, and are 1 where that is all.

    n draws with repetition hit word k at least once with probability 1 - (1 - p_k)^n; n is that for which the sum is right.
    """
    if num_samples >= vocab_size:
        return torch.ones(vocab_size)
    weights = zipf(vocab_size)
    low, high = 0.0, float(num_samples)
    while hits(weights, high).sum() < num_samples:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if hits(weights, middle).sum() < num_samples else (low, middle)
    return hits(weights, high).float()


def hits(weights, draws):
    """Probability of each word to be among so many draws, in float64."""
    return -torch.expm1(draws * torch.log1p(-weights))


def zipf(vocab_size):
    """Weight of each word, (V,), float64; they sum up to 1."""
    ranks = torch.arange(vocab_size, dtype=torch.float64)
    return torch.log1p(1 / (ranks + 1)) / torch.log(torch.tensor(vocab_size + 1.0, dtype=torch.float64))


def sampled_cross_entropy(hidden, weight, targets, num_samples, *, bias=None, num_items_in_batch=None):
    """What stands for the cross-entropy of `hidden @ weight.T + bias` against `targets`; exact where S >= V.

    Args:
        hidden: (..., D); targets (...), IGNORE_INDEX where there is none.
        weight: (V, D), rows by falling frequency of the words; bias (V,) or None.
        num_samples: S; the words are drawn once for the whole batch, from torch's generator.
        num_items_in_batch: what the sum is divided by; None is the number of targets present.

    Returns:
        Nats, a scalar; not comparable with the full loss, which has more words to choose from.
    """
    chosen = targets.reshape(-1) != IGNORE_INDEX
    labels, rows = targets.reshape(-1)[chosen], hidden.reshape(-1, hidden.shape[-1])[chosen]  # (n,), (n, D)
    count = len(labels) if num_items_in_batch is None else num_items_in_batch
    count = torch.as_tensor(count, device=rows.device).clamp(min=1)
    if not len(labels):
        return hidden.sum() * 0.0
    chance = chances(len(weight), num_samples).to(rows.device)
    drawn = (torch.rand(len(chance), device=rows.device) < chance).nonzero().squeeze(1)  # rand is below 1
    offset = -chance.log() if bias is None else bias - chance.log()
    wrong = nn.functional.linear(rows, weight[drawn], offset[drawn].to(rows.dtype))  # (n, S)
    wrong = wrong.masked_fill(drawn == labels.unsqueeze(1), torch.finfo(wrong.dtype).min)
    right = (rows * weight[labels]).sum(-1, keepdim=True) + offset[labels].unsqueeze(1)
    logits = torch.cat([right.to(wrong.dtype), wrong], -1).float()
    return (logits.logsumexp(-1) - logits[:, 0]).sum() / count
