"""Cross-entropy over a large vocabulary estimated from some of its words, for training only.

Papers: Bengio and Senecal 2003 and 2008 (importance sampling); Jean et al. 2015, https://aclanthology.org/P15-1001,
Section 3; the sampler is TensorFlow's log_uniform_candidate_sampler, as in Jozefowicz et al. 2016 and bilm-tf.
Words are numbered by falling frequency, and word k is drawn with probability log((k + 2) / (k + 1)) / log(V + 1), about
as Zipf's law has it. No word is drawn twice; scores are corrected by how often a word is expected among the drawn.
Shapes: N = positions, D = hidden size, V = vocabulary, S = words drawn.
"""

from functools import lru_cache

import torch
from torch import nn

IGNORE_INDEX = -100


@lru_cache(maxsize=8)
def log_expected_counts(vocab_size, num_samples):
    """Log of how often each word is expected among `num_samples` different ones, (V,); 0 for all where all are drawn.

    n draws with repetition hit word k at least once with probability 1 - (1 - p_k)^n; n is that for which these sum up to
    num_samples.
    """
    chances = zipf(vocab_size)
    if num_samples >= vocab_size:
        return torch.zeros(vocab_size)
    low, high = float(num_samples), float(num_samples)
    while hits(chances, high).sum() < num_samples:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if hits(chances, middle).sum() < num_samples else (low, middle)
    return hits(chances, high).log().float()


def hits(chances, draws):
    """Probability of each word to be among so many draws, in float64."""
    return -torch.expm1(draws * torch.log1p(-chances))


def zipf(vocab_size):
    """Chance of each word to be drawn, (V,), float64."""
    ranks = torch.arange(vocab_size, dtype=torch.float64)
    return torch.log1p(1 / (ranks + 1)) / torch.log(torch.tensor(vocab_size + 1.0, dtype=torch.float64))


def sampled_cross_entropy(hidden, weight, targets, num_samples, *, bias=None, num_items_in_batch=None):
    """Estimate of the cross-entropy of `hidden @ weight.T + bias` against `targets`; exact where S >= V.

    Args:
        hidden: (..., D); targets (...), IGNORE_INDEX where there is none.
        weight: (V, D), rows by falling frequency of the words; bias (V,) or None.
        num_samples: S, drawn once for the whole batch from torch's generator.
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
    V, S = len(weight), min(num_samples, len(weight))
    drawn = torch.multinomial(zipf(V).to(hidden.device), S) if S < V else torch.arange(V, device=hidden.device)
    correction = log_expected_counts(V, S).to(hidden.device)
    offset = -correction if bias is None else bias - correction
    wrong = nn.functional.linear(rows, weight[drawn], offset[drawn].to(rows.dtype))  # (n, S)
    wrong = wrong.masked_fill(drawn == labels.unsqueeze(1), torch.finfo(wrong.dtype).min)
    right = (rows * weight[labels]).sum(-1, keepdim=True) + offset[labels].unsqueeze(1)
    logits = torch.cat([right.to(wrong.dtype), wrong], -1).float()
    return (logits.logsumexp(-1) - logits[:, 0]).sum() / count
