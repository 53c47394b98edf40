"""What Trainer leaves out when it saves and resumes: without it, a resumed run differs from the unbroken one."""

import contextlib
import logging
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
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


@contextlib.contextmanager
def present_settings(optimizer, scheduler):
    """Around the loading of their states: keep the settings that optimizer and scheduler have now.

    The moments and the number of steps are those of the checkpoint; learning rate, weight decay and the like are not.
    """
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    rates = list(scheduler.base_lrs) if isinstance(scheduler, LambdaLR) else None
    yield
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group |= settings
    if rates is not None:  # a schedule that follows a metric has no rate of its own to keep
        scheduler.base_lrs = rates
        for group, rate, factor in zip(optimizer.param_groups, rates, scheduler.lr_lambdas, strict=True):
            group["lr"] = rate * factor(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]  # what is reported


class Resumption(TrainerCallback):
    """Completes Trainer's resuming from `checkpoint` (None: a run from its first step).

    It restores the sums of losses, the state of callbacks (the patience of early stopping) and the place of the best
    checkpoint where the folder was moved. Two methods of the trainer's own object (not of its class) are wrapped:
    `_run_epoch`, because Trainer takes one step too many when it resumes at the last step; and, for --allow_change,
    `_load_optimizer_and_scheduler`, which brings back the old learning rate and weight decay whatever is given now.
    """

    def __init__(self, trainer, checkpoint):
        self.trainer, self.checkpoint = trainer, checkpoint

    @contextlib.contextmanager
    def installed(self):
        """Guard the trainer's epochs while open."""
        trainer = self.trainer
        plain_epoch, plain_load = trainer._run_epoch, trainer._load_optimizer_and_scheduler

        def load_optimizer_and_scheduler(checkpoint):
            if checkpoint is None or not vars(trainer.args).get("allowed_changes"):
                return plain_load(checkpoint)
            with present_settings(trainer.optimizer, trainer.lr_scheduler):
                plain_load(checkpoint)

        def run_epoch(*args, **kwargs):
            if trainer.state.global_step < trainer.state.max_steps:
                plain_epoch(*args, **kwargs)
            else:
                trainer.control.should_training_stop = True

        trainer._run_epoch, trainer._load_optimizer_and_scheduler = run_epoch, load_optimizer_and_scheduler
        trainer.args.restore_callback_states_from_checkpoint = self.checkpoint is not None
        trainers_log = logging.getLogger("transformers.trainer")
        trainers_log.addFilter(is_real_warning)
        try:
            yield self
        finally:
            del trainer._run_epoch, trainer._load_optimizer_and_scheduler
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
