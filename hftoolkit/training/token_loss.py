"""Trainer whose evaluation loss is the mean over tokens, exactly.

Trainer averages the means of batches; with packed rows, whose token counts differ, that is not the loss of the text,
and a perplexity made of it is wrong. A batch names what is predicted `shift_labels` where the tokens predict their
successors, `labels` where an encoder-decoder predicts them.
"""

import math
import time

import torch
from torch.utils.data import DataLoader, Subset
from transformers import Trainer
from transformers.trainer_utils import speed_metrics


class TokenLossTrainer(Trainer):
    """A Trainer for language models with exact evaluation: loss in nats per predicted token, and its perplexity."""

    def token_loss(self, dataset):
        """(mean loss in nats per token, number of tokens) over a whole data set, also with several processes."""
        model = self.model_wrapped if self.is_fsdp_enabled else self.accelerator.unwrap_model(self.model)
        rank, world = self.args.process_index, self.args.world_size
        if world > 1 and not self.is_fsdp_enabled and hasattr(dataset, "__len__"):
            fewest = math.ceil(len(dataset) // world / self.args.per_device_eval_batch_size)  # batches of a process
            dataset = Subset(dataset, range(rank, len(dataset), world))
            share = world
        else:
            fewest, share = math.inf, 1
        totals = torch.zeros(2, dtype=torch.float64)
        was_training = model.training
        model.eval()
        loader = DataLoader(dataset, self.args.per_device_eval_batch_size, collate_fn=self.data_collator)
        self.callback_handler.eval_dataloader = loader
        for number, batch in enumerate(loader):
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = model(**batch, num_items_in_batch=1, logits_to_keep=1, use_cache=False).loss
            labels = batch["shift_labels"] if "shift_labels" in batch else batch["labels"]
            totals += torch.tensor([float(loss), int((labels != -100).sum())], dtype=torch.float64)
            if number < fewest:  # a callback may ask all processes, so each must call it as often as the others
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        if share > 1:
            totals = self.accelerator.reduce(totals.to(self.args.device), "sum").cpu()
        return float(totals[0] / totals[1]), int(totals[1])

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Metrics of the evaluation data: loss, perplexity, tokens, runtime."""
        dataset, start = self.eval_dataset if eval_dataset is None else eval_dataset, time.time()
        loss, tokens = self.token_loss(dataset)
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": math.exp(min(loss, 700.0)),
            f"{metric_key_prefix}_tokens": tokens,
        }
        metrics.update(speed_metrics(metric_key_prefix, start, num_tokens=tokens))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
