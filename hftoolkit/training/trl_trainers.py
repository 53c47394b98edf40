"""What TRL's trainers need to serve here: no telemetry, no card of their own, reports that resume, and a sound model.

class InHouse(TrlManners, DPOTrainer): ...
"""

import math
from importlib.util import find_spec

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from hftoolkit.errors import CheckpointError, MachineError

INSTALL_TRL = "pip install 'trl>=1.13,<2'"
CHECKED_TOKENS, LOG_PROBABILITY_TOLERANCE = 8, 1e-2


def require_trl(purpose):
    """Refuse to go on where the optional package trl is missing.

    Args:
        purpose: what needs it, the beginning of the message.

    Raises:
        MachineError: with the command that installs it.
    """
    if find_spec("trl") is None:
        raise MachineError(f"{purpose} needs the package trl; install it: {INSTALL_TRL}")


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


class TrlReports:
    """What stands before any trainer of TRL among the bases of a trainer: no telemetry, no card, reports that resume."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.add_callback(ReportedMeans())

    def _send_telemetry(self):
        """TRL would report every run to its makers."""

    def create_model_card(self, *args, **options):
        """The run writes its own card."""

    def take_up_reports(self):
        """In a resumed run, go on from what was measured before; the callback has it from the checkpoint."""
        kept = ReportedMeans.of(self)
        if kept.tokens > self._total_train_tokens:
            self._total_train_tokens = kept.tokens
            self._metrics["train"].update({name: list(values) for name, values in kept.means.items()})
        return kept

    def training_step(self, *args, **options):
        """TRL's step; what it measures is kept for the checkpoint."""
        kept = self.take_up_reports()
        loss = super().training_step(*args, **options)
        kept.tokens, kept.means = self._total_train_tokens, self._metrics["train"]
        return loss


class TrlManners(TrlReports):
    """The same, with an exact evaluation, for trainers of preferences and groups.

    In one process each row counts the same, where Trainer and TRL would average the means of batches, of which the last
    is smaller. `judge`, called with the trainer at every evaluation, adds metrics of its own. A new adapter has no
    second one beside it, so that the reference is the model without an adapter.
    """

    judge = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        if "ref" in getattr(self.model, "peft_config", {}):  # TRL copies a new adapter, which changes nothing yet
            self.model.delete_adapter("ref")

    def rows_in(self, inputs):
        """How many rows of the evaluation data a batch holds."""
        return len(inputs)

    def prediction_step(self, model, inputs, *args, **options):
        """TRL's step; notes the loss and the number of rows of the batch."""
        result = super().prediction_step(model, inputs, *args, **options)
        self._batches.append((self.rows_in(inputs), self.accelerator.gather(result[0].reshape(1)).mean()))
        return result

    def evaluation_loop(self, *args, metric_key_prefix="eval", **options):
        """Trainer's loop, with means over all rows; a resumed run may begin with it (eval_on_start)."""
        self.take_up_reports()
        self._batches = []
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **options)
        sizes = [size for size, _ in self._batches]
        measured = self._metrics["eval"]
        measured |= {name: [weighted_mean(each, sizes)] for name, each in measured.items() if len(each) == len(sizes)}
        found = {"loss": weighted_mean([float(loss) for _, loss in self._batches], sizes)}
        found |= {name: values[-1] for name, values in measured.items()}
        found |= {} if self.judge is None else self.judge(self)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        return output


def weighted_mean(values, weights):
    """The mean of the values that are numbers; nan where none is."""
    pairs = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else math.nan


def switch_off_dropout(model):
    """What TRL's disable_dropout leaves on: dropout that is a number of a module, as in attention, and no module.

    Without it the reference behind an adapter would drop out too, and the log-probabilities of two passes differ.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def require_plain_output_layer(trainer, ids):
    """Refuse a model whose logits TRL would not compute, which it does by output layer and last hidden states alone.

    Args:
        trainer: whose model TRL has prepared; nothing is asked where its weights are sharded.
        ids: a list of token ids; the first CHECKED_TOKENS are read.

    Raises:
        CheckpointError: naming the model's class.
    """
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    model, was_training = trainer.accelerator.unwrap_model(trainer.model), trainer.model.training
    model.eval()
    ids = torch.tensor([ids[:CHECKED_TOKENS]], device=model.device)
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
