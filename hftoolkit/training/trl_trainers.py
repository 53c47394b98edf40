"""What TRL's trainers need to serve here: no telemetry, no card of their own, reports that resume, and a sound model.

class InHouse(TrlManners, DPOTrainer): ...
"""

from importlib.util import find_spec

import torch

from hftoolkit.errors import CheckpointError, MachineError
from hftoolkit.training.instructions import INSTALL_TRL, ReportedMeans

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


class TrlManners:
    """What stands before a trainer of TRL among the bases of a trainer."""

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

    def evaluation_loop(self, *args, **options):
        """Trainer's loop, also where a resumed run begins with it (eval_on_start)."""
        self.take_up_reports()
        return super().evaluation_loop(*args, **options)


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
