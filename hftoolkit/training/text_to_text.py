"""Trainer for text-to-text tasks: evaluated by what the model writes, task by task.

The loss of an evaluation is the mean over all target tokens of all tasks; the metrics are those of generated texts.
"""

import time

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import speed_metrics

IGNORE_INDEX = -100


class TextToTextTrainer(Trainer):
    """Trains on mixed tasks, whose rows come in the order of the data set (hftoolkit.data.mixing).

    Args:
        tokens: {task: {"validation": Dataset of input_ids and labels, ...}}.
        evaluation: a TextAnswers of hftoolkit.evaluation.text_to_text, which generates and scores.
    """

    def __init__(self, *args, tokens, evaluation, **kwargs):
        super().__init__(*args, eval_dataset=tokens, **kwargs)
        self.tokens, self.evaluation = tokens, evaluation
        model = self.accelerator.unwrap_model(self.model)
        # The classes of transformers take any argument and ignore num_items_in_batch: their loss is a batch's mean.
        self.model_accepts_loss_kwargs = getattr(model, "accepts_loss_kwargs", False)
        generation = model.generation_config  # without a length, `generate` of the saved model stops after 20 tokens
        generation.max_length = max(evaluation.generation["max_new_tokens"] + 1, generation.max_length or 0)

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss over the targets, and each task's metrics of generated texts; what was written is kept in `written`."""
        start, model = time.time(), self.accelerator.unwrap_model(self.model)
        sums, metrics, number, self.written = torch.zeros(2, dtype=torch.float64), {}, 0, {}
        was_training = model.training
        model.eval()
        for name, splits in self.tokens.items():
            for split, rows in splits.items():
                if not split.startswith("validation"):
                    continue
                sums += self._losses(model, rows)
                texts, endless = self._generate(model, rows["input_ids"][:])
                found = self.evaluation.scores(name, split, texts, endless)
                title = name + split.removeprefix("validation")  # mnli_mismatched
                metrics |= {f"{metric_key_prefix}_{title}_{key}": value for key, value in found.items()}
                self.written[title], number = texts, number + len(texts)
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_loss": float(sums[0] / sums[1])} | metrics
        metrics[f"{metric_key_prefix}_average"] = self.evaluation.average(metrics, f"{metric_key_prefix}_")
        metrics.update(speed_metrics(metric_key_prefix, start, num_samples=number))
        self.log({key: value for key, value in metrics.items() if not isinstance(value, str)})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _share(self, rows):
        """The rows of this process, as numbers."""
        return range(self.args.process_index, len(rows), self.args.world_size)

    def _losses(self, model, rows):
        """(sum of the losses of the target tokens, their number), of all processes."""
        size, mine = self.args.per_device_eval_batch_size, list(self._share(rows))
        sums = torch.zeros(2, dtype=torch.float64)
        lengths = [len(ids) for ids in rows["input_ids"][:]]
        mine.sort(key=lambda row: -lengths[row])
        for begin in range(0, len(mine), size):
            batch = self._prepare_inputs(self.data_collator([rows[row] for row in mine[begin : begin + size]]))
            with torch.no_grad(), self.compute_loss_context_manager():
                logits = model(**batch, use_cache=False).logits
            real = batch["labels"] != IGNORE_INDEX
            losses = torch.nn.functional.cross_entropy(logits[real].float(), batch["labels"][real], reduction="none")
            sums += torch.stack([losses.double().sum(), real.sum()]).cpu()
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        return self.accelerator.reduce(sums.to(self.args.device), "sum").cpu() if self.args.world_size > 1 else sums

    def _generate(self, model, inputs):
        """(texts of all rows in their order, how many did not end)."""
        mine = list(self._share(inputs))
        rows, size = [inputs[row] for row in mine], self.args.per_device_eval_batch_size
        with self.compute_loss_context_manager():
            texts, endless = self.evaluation.write(model, self.processing_class, rows, size)
        if self.args.world_size == 1:
            return texts, endless
        from accelerate.utils import gather_object

        shares = gather_object([(mine, texts, endless)])
        by_row = dict(pair for rows, found, _ in shares for pair in zip(rows, found, strict=True))
        return [by_row[row] for row in range(len(inputs))], sum(number for _, _, number in shares)
