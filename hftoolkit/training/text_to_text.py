"""Trainer for text-to-text tasks: evaluated by what the model writes, task by task.

The loss of an evaluation is the mean over all target tokens of all tasks; the metrics are those of generated texts.
"""

import time

import torch
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import speed_metrics

from hftoolkit.evaluation.text_to_text import average, generate_texts, score_answers, simple_answers

IGNORE_INDEX = -100


class TextToTextTrainer(Trainer):
    """Trains on mixed tasks, whose rows come in the order of the data set (hftoolkit.data.mixing).

    Args:
        tasks: {name: TextTask}.
        examples: {name: {"validation": Dataset, ...}} with what the metrics compare with.
        tokens: the same as token ids.
        answers: {name: every answer as the tokenizer writes it, to its label}.
        generation: max_new_tokens and num_beams.
    """

    def __init__(self, *args, tasks, examples, tokens, answers, generation, **kwargs):
        super().__init__(*args, eval_dataset=tokens, **kwargs)
        self.tasks, self.examples, self.tokens, self.answers = tasks, examples, tokens, answers
        self.generation = generation

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss over the targets, and each task's metrics of generated texts; what was written is kept in `written`."""
        start, model = time.time(), self.accelerator.unwrap_model(self.model)
        sums, metrics, number, self.written = torch.zeros(2, dtype=torch.float64), {}, 0, {}
        was_training = model.training
        model.eval()
        for name, task in self.tasks.items():
            for split in [split for split in self.tokens[name] if split.startswith("validation")]:
                rows = self.tokens[name][split]
                sums += self._losses(model, rows)
                texts, endless = self._generate(model, rows["input_ids"][:])
                found = score_answers(name, task, texts, self.examples[name][split], self.answers.get(name))
                found |= {"unended": endless / len(texts)} if task.is_text else {}
                title = name + split.removeprefix("validation")  # mnli_mismatched
                metrics |= {f"{metric_key_prefix}_{title}_{key}": value for key, value in found.items()}
                self.written[title], number = texts, number + len(texts)
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_loss": float(sums[0] / sums[1])} | metrics
        metrics[f"{metric_key_prefix}_average"] = average(
            {f"eval_{key.removeprefix(metric_key_prefix + '_')}": value for key, value in metrics.items()}, self.tasks
        )
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
        options = dict(batch_size=self.args.per_device_eval_batch_size, **self.generation)
        with self.compute_loss_context_manager():
            texts, endless = generate_texts(model, self.processing_class, [inputs[row] for row in mine], **options)
        if self.args.world_size == 1:
            return texts, endless
        from accelerate.utils import gather_object

        shares = gather_object([(mine, texts, endless)])
        by_row = dict(pair for rows, found, _ in shares for pair in zip(rows, found, strict=True))
        return [by_row[row] for row in range(len(inputs))], sum(number for _, _, number in shares)

    def simple_baselines(self):
        """What answers that need no model score, under the names of the model's own metrics."""
        found = {}
        for name, task in self.tasks.items():
            examples = self.examples[name]
            texts = simple_answers(name, task, examples["train"], examples["validation"])
            scores = score_answers(name, task, texts, examples["validation"])
            found |= {f"eval_{name}_{metric}": scores[metric] for metric in task.metrics}
        return {"baselines": {"simple": found}}
