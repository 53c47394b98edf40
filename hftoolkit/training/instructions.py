"""TRL's SFTTrainer in this house: exact evaluation of the answers, reports that resume, no telemetry, no card of its own.

    trainer = instruction_trainer(model=model, args=sft_config, train_dataset=..., processing_class=tokenizer)

What TRL does stays as it is: tokens and labels of prompts and conversations, the end token behind a completion, packing,
and a loss that is computed from the last hidden states and the output layer without the logits of a whole batch.
"""

import math
import time
from importlib.util import find_spec

import torch
from torch.utils.data import DataLoader, Subset
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import speed_metrics

from hftoolkit.errors import CheckpointError, DataError, MachineError
from hftoolkit.training.adaptation import without_adapter

INSTALL_TRL = "pip install 'trl>=1.13,<2'"
CHECKED_TOKENS, LOG_PROBABILITY_TOLERANCE = 8, 1e-2


def instruction_trainer(judge=None, **options):
    """An SFTTrainer with exact evaluation.

    Args:
        judge: called with the trainer at every evaluation; returns more metrics, {name: number}.
        options: of trl.SFTTrainer; the model is one already, and eval_dataset a single data set.

    Raises:
        MachineError: trl is not installed.
        DataError: settings that TRL refuses, or no answer that fits into max_length.
        CheckpointError: a model whose logits are not its output layer's of its last hidden states.
    """
    if find_spec("trl") is None:
        raise MachineError(f"supervised fine-tuning needs the package trl; install it: {INSTALL_TRL}")
    from trl import SFTTrainer

    class InstructionTrainer(AnswerEvaluation, SFTTrainer):
        pass

    try:
        trainer = InstructionTrainer(**options)
    except ValueError as error:
        whole = (
            "; --assistant_only_loss false scores all of a conversation" if options["args"].assistant_only_loss else ""
        )
        raise DataError(f"TRL refuses these settings: {error}{whole}") from error
    limit = trainer.args.max_length
    for name, rows in (("training", trainer.train_dataset), ("validation", trainer.eval_dataset)):
        if rows is not None and not any(label != -100 for row in rows for label in row["labels"]):
            raise DataError(
                f"of the {name} data no answer begins within max_length {limit}: raise it, or shorten the prompts"
            )
    _show_bias(without_adapter(trainer.model).get_output_embeddings())
    _check_output_layer(trainer)
    trainer.judge = judge
    return trainer


class ReportedMeans(TrainerCallback, ExportableState):
    """What TRL has measured since its last report; part of a checkpoint, so that a resumed run reports the same."""

    def __init__(self):
        self.means, self.tokens = {}, 0

    @staticmethod
    def of(trainer):
        """The one in use; Trainer puts a new one in its place when it resumes."""
        return next(found for found in trainer.callback_handler.callbacks if isinstance(found, ReportedMeans))

    def state(self):
        return {"args": {}, "attributes": {"means": dict(self.means), "tokens": self.tokens}}


class AnswerEvaluation:
    """What stands before SFTTrainer among the bases of a trainer.

    The evaluation is exact: sums over all scored tokens, where Trainer would average the means of batches. `judge` adds
    metrics of its own.
    """

    judge = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.add_callback(ReportedMeans())

    def _send_telemetry(self):
        """TRL would report every run to its makers."""

    def create_model_card(self, *args, **options):
        """The run writes its own card."""

    def training_step(self, *args, **options):
        """TRL's step; what it measures is kept for the checkpoint, and taken from there in a resumed run."""
        kept = ReportedMeans.of(self)
        if kept.tokens > self._total_train_tokens:
            self._total_train_tokens = kept.tokens
            self._metrics["train"].update({name: list(values) for name, values in kept.means.items()})
        loss = super().training_step(*args, **options)
        kept.tokens, kept.means = self._total_train_tokens, self._metrics["train"]
        return loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Loss, perplexity and accuracy over the scored tokens, how many they are, and what the judge says.

        Args:
            eval_dataset: token rows as the trainer's own; None is its own.
        """
        start, was_training = time.time(), self.model.training
        self.model.eval()
        try:
            nats, right, tokens = self.answer_totals(self.eval_dataset if eval_dataset is None else eval_dataset)
            metrics = {
                "loss": nats / tokens,
                "perplexity": math.exp(min(nats / tokens, 700.0)),
                "token_accuracy": right / tokens,
                "answer_tokens": int(tokens),
            }
            metrics |= {} if self.judge is None else self.judge(self)
            metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
            metrics.update(speed_metrics(metric_key_prefix, start, num_tokens=int(tokens)))
            self.log(metrics)
        finally:
            self.model.train(was_training)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def answer_totals(self, rows):
        """(loss in nats, right guesses, number) summed over all scored tokens of all processes."""
        sharded = self.is_fsdp_enabled
        model = self.model_wrapped if sharded else self.accelerator.unwrap_model(self.model)
        world, size = self.args.world_size, self.args.per_device_eval_batch_size
        shared = world > 1 and not sharded
        fewest = math.ceil(len(rows) // world / size) if shared else math.inf  # batches that every process has
        part = Subset(rows, range(self.args.process_index, len(rows), world)) if shared else rows
        totals = torch.zeros(3, dtype=torch.float64)
        for number, batch in enumerate(DataLoader(part, size, collate_fn=self.data_collator)):
            batch = self._prepare_inputs(batch)
            with torch.no_grad(), self.compute_loss_context_manager():
                output = model(**batch, fused_lm_head=True)
            found = (-output.log_probs, output.is_top1, output.label_mask)
            totals += torch.stack([values.sum(dtype=torch.float64).cpu() for values in found])
            if number < fewest:  # a callback may ask all processes, so each must call it as often as the others
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        if shared:
            totals = self.accelerator.reduce(totals.to(self.args.device), "sum").cpu()
        return totals.tolist()


def _show_bias(output_layer):
    """PEFT's wrapper of an output layer that is tied to trained embeddings shows its weight, but TRL reads its bias too."""
    from peft.utils import TrainableTokensWrapper

    if isinstance(output_layer, TrainableTokensWrapper):
        vars(output_layer)["bias"] = vars(output_layer.original_module).get("bias")  # None is no parameter


def _check_output_layer(trainer):
    """TRL scores tokens by output layer and last hidden states alone: does the model itself compute its logits so?"""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    model, was_training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
    model.eval()
    ids = torch.tensor([trainer.train_dataset[0]["input_ids"][:CHECKED_TOKENS]], device=model.device)
    with torch.no_grad():
        theirs = model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs
        logits = model(input_ids=ids).logits[:, :-1].float()
    model.train(was_training)
    ours = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
    if not torch.allclose(theirs.float(), ours, atol=LOG_PROBABILITY_TOLERANCE, rtol=LOG_PROBABILITY_TOLERANCE):
        raise CheckpointError(
            f"{type(model).__name__}: its logits are not its output layer's of its last hidden states, and TRL would "
            "train another model than this one"
        )
