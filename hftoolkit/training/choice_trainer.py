"""Trainer for multiple choice whose questions may have different numbers of choices.

Shapes: B = questions, C = choices of the question that has most.
"""

import torch
from torch.nn import functional as F

from hftoolkit.training.ordered_evaluation import OrderedEvaluationTrainer


class ChoiceTrainer(OrderedEvaluationTrainer):
    """A Trainer that leaves choices which are only filling, where `choice_mask` (B, C) is False, without probability."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Cross-entropy over the true choices; the logits of the others become the least number."""
        given = {name: value for name, value in inputs.items() if name not in ("choice_mask", "labels")}
        outputs = model(**given)
        logits = outputs.logits.float()  # (B, C)
        logits = logits.masked_fill(~inputs["choice_mask"], torch.finfo(logits.dtype).min)
        total = F.cross_entropy(logits, inputs["labels"], reduction="sum")
        if num_items_in_batch is None or not self.model_accepts_loss_kwargs:
            loss = total / len(logits)
        else:  # Trainer divides by nothing else; in a distributed run it takes the mean over the processes
            share = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = total * share / num_items_in_batch
        outputs = {"loss": loss, "logits": logits}
        return (loss, outputs) if return_outputs else loss
