"""What Trainer leaves out when it saves and resumes: without it, a resumed run differs from the unbroken one."""

import contextlib
import logging
from pathlib import Path

import torch
from transformers import TrainerCallback

from hftoolkit.training.checkpoints import MANIFEST
from hftoolkit.training.disk import read_json


def loss_sums(trainer):
    """The losses since the last report, of each process, and their total; Trainer keeps them in memory only.

    Without them the first report after resuming would be the mean of fewer steps than in the unbroken run.
    """
    return {
        "since_last_log": trainer.accelerator.gather(trainer._tr_loss.detach().reshape(1)).tolist(),
        "last_logged_step": trainer._globalstep_last_logged,
        "total": trainer._total_loss_scalar,
    }


def is_real_warning(record):
    """False for Trainer's complaint that a tied weight is missing: whether any is missing has been checked before."""
    return not str(record.msg).startswith("There were missing keys in the checkpoint model loaded")


class Resumption(TrainerCallback):
    """Completes Trainer's resuming from `checkpoint` (None: a run from its first step).

    It restores the sums of losses, the state of callbacks (the patience of early stopping) and the place of the best
    checkpoint where the folder was moved; and it stops a run that resumes at its last step: Trainer would take one
    step more. For the last, `_run_epoch` of the trainer's own object (not of its class) is wrapped.
    """

    def __init__(self, trainer, checkpoint):
        self.trainer, self.checkpoint = trainer, checkpoint

    @contextlib.contextmanager
    def installed(self):
        """Guard the trainer's epochs while open."""
        trainer, plain_epoch = self.trainer, self.trainer._run_epoch

        def run_epoch(*args, **kwargs):
            if trainer.state.global_step < trainer.state.max_steps:
                plain_epoch(*args, **kwargs)
            else:
                trainer.control.should_training_stop = True

        trainer._run_epoch = run_epoch
        trainer.args.restore_callback_states_from_checkpoint = self.checkpoint is not None
        trainers_log = logging.getLogger("transformers.trainer")
        trainers_log.addFilter(is_real_warning)
        try:
            yield self
        finally:
            del trainer._run_epoch
            trainers_log.removeFilter(is_real_warning)

    def on_train_begin(self, args, state, control, **kwargs):
        if self.checkpoint is None:
            return
        trainer, sums = self.trainer, read_json(Path(self.checkpoint) / MANIFEST)["losses"]
        since = sums["since_last_log"]
        # With another number of processes than before, each takes the mean; the report averages over them again.
        own = since[args.process_index] if len(since) == args.world_size else sum(since) / len(since)
        trainer._tr_loss = torch.full_like(trainer._tr_loss, own)
        trainer._globalstep_last_logged, trainer._total_loss_scalar = sums["last_logged_step"], sums["total"]
        trainer._initial_global_step = 0  # the total covers the run from its first step
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if state.best_model_checkpoint is None and best.is_dir():
            state.best_model_checkpoint = str(best)
