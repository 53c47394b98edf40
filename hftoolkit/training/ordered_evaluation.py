"""Trainer whose predictions stand in the order of the data, and whose batches a resumed run finds again.

With train_sampling_strategy=group_by_length, Trainer shuffles the evaluation data too (transformers 5.23,
Trainer._get_eval_sampler): answers, tags and choices would be given to other questions than their own. And it draws the
order of the training rows from the state of the global generator, which a run that resumes within a pass does not have.
"""

import torch
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler


class OrderedEvaluationTrainer(Trainer):
    """A Trainer that evaluates and predicts row after row; rows grouped by length follow from seed and pass."""

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return OrderOfThePass(sampler, seed, lambda: int(self.state.epoch or 0))


class OrderOfThePass(Sampler):
    """A LengthGroupedSampler that draws its order from a seed and the number of the pass.

    Args:
        current_pass: a function that tells the number.
    """

    def __init__(self, sampler, seed, current_pass):
        self.sampler, self.seed, self.current_pass = sampler, seed, current_pass

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        self.sampler.generator = torch.Generator().manual_seed((self.seed << 16) + self.current_pass())
        return iter(self.sampler)


def most_likely(logits, labels):
    """preprocess_logits_for_metrics: keep the number of the best class, not the logits of all, (..., C) -> (...)."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)
