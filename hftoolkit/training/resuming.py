"""What Trainer leaves out when it saves and resumes: without it, a resumed run differs from the unbroken one."""

import contextlib
import logging
from functools import partial
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer_utils import has_length

from hftoolkit.training.checkpoints import MANIFEST
from hftoolkit.training.disk import read_json


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
    """Completes Trainer's saving and resuming; `checkpoint` is the one to resume from, None at a first start.

    It keeps the sums of losses, the state of callbacks (the patience of early stopping), the place in a stream that is
    read several times, and the best checkpoint where the folder was moved. Three methods of the trainer's own object
    (not of its class) are wrapped: `_init_training_state`, which takes the first pass over a stream for endless;
    `_run_epoch`, because Trainer takes one step too many when it resumes at the last one; and, for --allow_change,
    `_load_optimizer_and_scheduler`, which brings back the old learning rate and weight decay whatever is given now.
    """

    def __init__(self, trainer, checkpoint):
        self.trainer, self.checkpoint = trainer, checkpoint
        self.saved = {} if checkpoint is None else read_json(Path(checkpoint) / MANIFEST)
        self.passes, self.pass_began = None, 0  # over the training data: their number, and the step of the last one

    def memory(self):
        """What Trainer keeps in memory only, for the manifest of a checkpoint; every process must ask.

        Without the losses since the last report, of each process, the first report after resuming would be the mean of
        fewer steps than in the unbroken run.
        """
        trainer = self.trainer
        return {
            "losses_since_last_log": trainer.accelerator.gather(trainer._tr_loss.detach().reshape(1)).tolist(),
            "last_logged_step": trainer._globalstep_last_logged,
            "total_loss": trainer._total_loss_scalar,
            "passes": self.passes,
            "pass_began": self.pass_began,
        }

    @contextlib.contextmanager
    def installed(self):
        """Wrap the trainer's methods while open."""
        trainer = self.trainer
        trainer._init_training_state = partial(self._init_training_state, trainer._init_training_state)
        trainer._run_epoch = partial(self._run_epoch, trainer._run_epoch)
        trainer._load_optimizer_and_scheduler = partial(self._load_states, trainer._load_optimizer_and_scheduler)
        trainer.args.restore_callback_states_from_checkpoint = self.checkpoint is not None
        trainers_log = logging.getLogger("transformers.trainer")
        trainers_log.addFilter(is_real_warning)
        try:
            yield self
        finally:
            del trainer._init_training_state, trainer._run_epoch, trainer._load_optimizer_and_scheduler
            trainers_log.removeFilter(is_real_warning)

    def _init_training_state(self, plain_init, *args, **kwargs):
        epochs, batches = plain_init(*args, **kwargs)
        if self.checkpoint is not None and not has_length(self.trainer.train_dataset):
            epochs, self.pass_began = self.saved["passes"], self.saved["pass_began"]
            batches = (
                self.trainer.state.global_step - self.pass_began
            ) * self.trainer.args.gradient_accumulation_steps
        return epochs, batches

    def _run_epoch(self, plain_epoch, *args, epoch, **kwargs):
        trainer = self.trainer
        if trainer.state.global_step >= trainer.state.max_steps:
            trainer.control.should_training_stop = True
            return
        if self.passes is not None or self.checkpoint is None:
            self.pass_began = trainer.state.global_step
        self.passes = epoch
        plain_epoch(*args, epoch=epoch, **kwargs)

    def _load_states(self, plain_load, checkpoint):
        allowed = checkpoint is not None and vars(self.trainer.args).get("allowed_changes")
        settings = present_settings(self.trainer.optimizer, self.trainer.lr_scheduler)
        with settings if allowed else contextlib.nullcontext():
            plain_load(checkpoint)

    def on_train_begin(self, args, state, control, **kwargs):
        if self.checkpoint is None:
            return
        trainer, since = self.trainer, self.saved["losses_since_last_log"]
        # With another number of processes than before, each takes the mean; the report averages over them again.
        own = since[args.process_index] if len(since) == args.world_size else sum(since) / len(since)
        trainer._tr_loss = torch.full_like(trainer._tr_loss, own)
        trainer._globalstep_last_logged = self.saved["last_logged_step"]
        trainer._total_loss_scalar = self.saved["total_loss"]
        trainer._initial_global_step = 0  # the total covers the run from its first step
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if state.best_model_checkpoint is None and best.is_dir():
            state.best_model_checkpoint = str(best)
