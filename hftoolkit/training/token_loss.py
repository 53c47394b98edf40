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

from hftoolkit.errors import DataError


class TokenLossTrainer(Trainer):
    """A Trainer for language models with exact evaluation: loss in nats per predicted token, and its perplexity.

    Raises:
        DataError: an option of Trainer that cannot work here: label smoothing of its own, evaluation without data,
            or grouping by length of rows that are batches already.
    """

    def __init__(self, model=None, args=None, data_collator=None, train_dataset=None, eval_dataset=None, **options):
        if args is not None:
            _check_options(args, train_dataset, eval_dataset)
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, **options)
        known = self.accelerator.unwrap_model(self.model)
        if getattr(getattr(known, "config", None), "is_encoder_decoder", False):
            # Those of transformers take any argument and ignore num_items_in_batch: their loss is a batch's mean.
            self.model_accepts_loss_kwargs = getattr(known, "accepts_loss_kwargs", False)

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
        options = {"num_items_in_batch": 1, "logits_to_keep": 1} if self.model_accepts_loss_kwargs else {}
        was_training = model.training
        model.eval()
        loader = DataLoader(dataset, self.args.per_device_eval_batch_size, collate_fn=self.data_collator)
        self.callback_handler.eval_dataloader = loader
        for number, batch in enumerate(loader):
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = float(model(**batch, **options, use_cache=False).loss)
            count = int((batch["shift_labels"] if "shift_labels" in batch else batch["labels"]).ne(-100).sum())
            totals += torch.tensor([loss if options else loss * count, count], dtype=torch.float64)
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


def _check_options(args, train_dataset, eval_dataset):
    if args.label_smoothing_factor:
        raise DataError(
            "label_smoothing_factor cannot be used: the loss is the model's own; set it to 0 (a new Transformer has "
            "label_smoothing among its sizes: --model_config.label_smoothing 0.1)"
        )
    if eval_dataset is None and args.eval_strategy != "no":
        raise DataError(f"eval_strategy is {args.eval_strategy.value}, but there are no validation data; set it to no, or "
                        "hold some out (--validation_fraction 0.05)")  # fmt: skip
    by_length = args.train_sampling_strategy not in ("random", "sequential")
    if by_length and train_dataset is not None and isinstance(train_dataset[0], list):
        raise DataError(f"train_sampling_strategy is {args.train_sampling_strategy}, but the batches have rows of like "
                        "length already; leave it out")  # fmt: skip
