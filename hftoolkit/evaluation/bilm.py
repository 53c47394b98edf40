"""How well a bidirectional language model predicts: the perplexity of each direction, exactly, and of counting.

Paper: Peters et al. 2018, https://arxiv.org/abs/1802.05365, Section 3.4 (the mean of the two perplexities).
"""

import math

import numpy as np
import torch
from torch.utils.data import DataLoader


def direction_losses(model, dataset, collate, batch_size=32):
    """Nats per word of the forward and of the backward model over a whole data set.

    Args:
        model: with forward_loss and backward_loss among its outputs; in evaluation mode while this runs.
        dataset: rows for `collate`, with labels and backward_labels.

    Returns:
        (forward, backward).
    """
    was_training, totals, counts = model.training, np.zeros(2), np.zeros(2)
    model.eval()
    for batch in DataLoader(dataset, batch_size, collate_fn=collate):
        batch = {name: values.to(model.device) for name, values in batch.items()}
        with torch.no_grad():
            output = model(**batch, num_items_in_batch=1, logits_to_keep=1)
        totals += [float(output.forward_loss), float(output.backward_loss)]
        counts += [int(batch[name].ne(-100).sum()) for name in ("labels", "backward_labels")]
    model.train(was_training)
    return tuple(float(total / count) for total, count in zip(totals, counts, strict=True))


def bilm_perplexities(model, dataset, collate, batch_size=32):
    """{"eval_forward_perplexity": ..., "eval_backward_perplexity": ...}."""
    losses = direction_losses(model, dataset, collate, batch_size)
    names = ("eval_forward_perplexity", "eval_backward_perplexity")
    return {name: math.exp(min(loss, 700.0)) for name, loss in zip(names, losses, strict=True)}


def counted_baselines(train, held_out, vocab_size):
    """Nats per word of n-gram models that read forwards, on the same words of the same rows.

    Args:
        train, held_out: data sets with the column words.

    Returns:
        {"unigram_loss": ..., "bigram_loss": ...}; the first word of a row is given.
    """
    from hftoolkit.evaluation.ngram import ngram_losses

    def flat(rows):
        words = [np.asarray(row) for row in rows["words"]]
        return np.concatenate(words), np.concatenate([[0], np.cumsum([len(row) for row in words])])

    losses = ngram_losses(flat(train), flat(held_out), vocab_size)
    return {"unigram_loss": losses[1], "bigram_loss": losses[2]}
