"""Trainer whose predictions stand in the order of the data, however the training rows are grouped.

With train_sampling_strategy=group_by_length, Trainer shuffles the evaluation data too (transformers 5.23,
Trainer._get_eval_sampler): answers, tags and choices would be given to other questions than their own.
"""

from torch.utils.data import SequentialSampler
from transformers import Trainer


class OrderedEvaluationTrainer(Trainer):
    """A Trainer that evaluates and predicts row after row."""

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)


def most_likely(logits, labels):
    """preprocess_logits_for_metrics: keep the number of the best class, not the logits of all, (..., C) -> (...)."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
