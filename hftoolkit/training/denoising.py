"""Trainer for objectives that restore a damaged row, with an exact evaluation that tells text from sentinels.

Half of the targets of span corruption may be sentinels, whose order is given, and the end of sequence; a loss over all of
them is what is trained and what other programs report, but it flatters. So the evaluation also has the loss and the
accuracy of the tokens of text alone.
"""

import math
import time

import torch
from torch.utils.data import DataLoader, SequentialSampler, Subset
from transformers import Trainer
from transformers.trainer_utils import speed_metrics

IGNORE_INDEX = -100


class DenoisingTrainer(Trainer):
    """Trains an encoder-decoder or a prefix LM on the batches of the collator Denoising.

    Rows come in the order of the data set, which shuffles itself (hftoolkit.data.training_rows).

    Args:
        is_text: of every id, whether it is text and no special token, (V,), bool.
    """

    def __init__(self, *args, is_text, **kwargs):
        super().__init__(*args, **kwargs)
        self.is_text = torch.as_tensor(is_text)
        self.args.remove_unused_columns = False  # the collator reads what the model does not: the number of the row

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def totals(self, dataset):
        """Sums over a whole data set, also with several processes.

        Returns:
            (loss of all targets, loss of the text, right tokens of the text, targets, tokens of the text), (5,) float64.
        """
        model = self.model_wrapped if self.is_fsdp_enabled else self.accelerator.unwrap_model(self.model)
        shared = self.args.world_size > 1 and not self.is_fsdp_enabled
        if shared:
            dataset = Subset(dataset, range(self.args.process_index, len(dataset), self.args.world_size))
        sums = torch.zeros(5, dtype=torch.float64)
        was_training = model.training
        model.eval()
        loader = DataLoader(dataset, self.args.per_device_eval_batch_size, collate_fn=self.data_collator)
        self.callback_handler.eval_dataloader = loader  # progress bars ask how long it is
        for batch in loader:
            sums += self._sums(model, self._prepare_inputs(batch))
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        if shared:
            sums = self.accelerator.reduce(sums.to(self.args.device), "sum").cpu()
        return sums

    def _sums(self, model, batch):
        """What one batch adds to the totals, in their order."""
        targets = batch.get("shift_labels", batch["labels"])
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**batch, num_items_in_batch=1, logits_to_keep=0, use_cache=False).logits
        real = targets != IGNORE_INDEX
        logits, targets = logits[real].float(), targets[real]
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
        text = self.is_text.to(targets.device)[targets]
        right = (logits.argmax(-1) == targets) & text
        return torch.stack([losses.sum(), losses[text].sum(), right.sum(), real.sum(), text.sum()]).cpu()

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss of all targets, and loss and accuracy of the text among them, on noise that is the same every time."""
        start = time.time()
        loss, text_loss, right, targets, text = self.totals(
            self.eval_dataset if eval_dataset is None else eval_dataset
        ).tolist()
        found = {"loss": loss / targets, "perplexity": math.exp(min(loss / targets, 700.0))}
        found |= {"text_loss": text_loss / text, "text_accuracy": right / text} if text else {}
        found |= {"target_tokens": int(targets), "text_tokens": int(text)}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        metrics.update(speed_metrics(metric_key_prefix, start, num_tokens=int(targets)))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
