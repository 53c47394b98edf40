"""What watches over a training run: no update from a number that is not finite, and a stop that can be resumed."""

import contextlib
import logging
import math
import os
import signal
import statistics
import threading
from collections import deque

import torch
from transformers import TrainerCallback

from hftoolkit.errors import DataError, DivergedError, RunInterruptedError
from hftoolkit.training.checkpoints import list_checkpoints

logger = logging.getLogger(__name__)

SPIKE_RATIO = 10.0  # a gradient norm this many times the median of the last SPIKE_WINDOW steps is reported
SPIKE_WINDOW = 100
SPIKE_QUIET_STEPS = 20  # steps to learn the median first, and silence after a report


def require_finite_weights(model, when, trainer=None):
    """Refuse a model with NaN or infinity in a weight.

    Args:
        trainer: given in a distributed run, where weights may be sharded: then every process asks, and all raise.

    Raises:
        DivergedError: naming the weights, and `when` it was found.
    """
    bad = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and not bool(torch.isfinite(weight.detach()).all())
    ]
    if any_process(trainer, bad):
        names = ", ".join(bad[:3]) or "one in another process"
        raise DivergedError(f"{len(bad) or 'some'} weights are not finite {when}, {names} among them")


def any_process(trainer, flag):
    """Whether the flag is up in any process of a distributed run; every process must ask at the same moment.

    Without a trainer it is the flag of this process.
    """
    if trainer is None or trainer.args.world_size == 1:
        return bool(flag)
    shared = torch.tensor([float(bool(flag))], device=trainer.args.device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return bool(shared.item())


class FiniteCheck(TrainerCallback):
    """Stops before the update when a loss or the gradient norm is not finite, and reports jumps of the norm.

    Callbacks are not told the loss of a step nor its gradient norm. While `watching`, two methods of the trainer's
    own object (not of its class) are wrapped to note what they return: `training_step` and Accelerate's
    `clip_grad_norm_`, which Trainer calls once per update, also where it clips nothing.
    """

    def __init__(self, trainer, max_spikes=None):
        self.trainer, self.max_spikes = trainer, max_spikes
        self.losses, self.labels, self.norm = [], [], None
        self.recent_norms, self.quiet_until = deque(maxlen=SPIKE_WINDOW), 0
        self.updates, self.spikes, self.learned_something = 0, 0, False

    @contextlib.contextmanager
    def watching(self):
        """Note losses and gradient norms while open."""
        trainer, accelerator = self.trainer, self.trainer.accelerator
        plain_step, plain_clip = trainer.training_step, accelerator.clip_grad_norm_

        def training_step(model, inputs, *args, **kwargs):
            if "labels" in inputs:
                self.labels.append(inputs["labels"])
            loss = plain_step(model, inputs, *args, **kwargs)
            self.losses.append(loss)
            return loss

        def clip_grad_norm_(*args, **kwargs):
            self.norm = plain_clip(*args, **kwargs)
            return self.norm

        trainer.training_step, accelerator.clip_grad_norm_ = training_step, clip_grad_norm_
        try:
            yield self
        finally:
            del trainer.training_step, accelerator.clip_grad_norm_

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        loss = torch.stack(self.losses).sum().item() if self.losses else 0.0
        norm = 0.0 if self.norm is None else float(self.norm)
        # With float16 an infinite norm is ordinary: the loss scaler skips that update and lowers its scale.
        checked = loss if self.trainer.accelerator.scaler is not None else loss + norm
        if any_process(self.trainer, not math.isfinite(checked)):
            raise self._diverged(state.global_step + 1, loss, norm, optimizer)
        self.updates += 1
        self.learned_something |= loss != 0.0 or norm != 0.0
        self._report_spike(state.global_step + 1, norm)
        self.losses, self.labels = [], []

    def _diverged(self, step, loss, norm, optimizer):
        """The error for a step that must not happen."""
        if self.labels and all(torch.is_tensor(labels) and bool((labels == -100).all()) for labels in self.labels):
            return DataError(
                f"the loss is {loss} at step {step}: every label of its batch is ignored (-100). Check how the labels "
                "are made and whether truncation cuts all of them off"
            )
        rate = optimizer.param_groups[0]["lr"]
        return DivergedError(
            f"loss {loss} and gradient norm {norm} at step {step}, learning rate {rate:g}: stopped before the update. "
            f"{self._remedy()}"
        )

    def _remedy(self):
        kept = list_checkpoints(self.trainer.args.output_dir)
        return (
            f"{f'The last good checkpoint is {kept[-1]}. ' if kept else 'No checkpoint had been saved. '}"
            "Lower learning_rate, lengthen the warm-up, or lower max_grad_norm"
        )

    def _report_spike(self, step, norm):
        if len(self.recent_norms) >= SPIKE_QUIET_STEPS and step >= self.quiet_until:
            median = statistics.median(self.recent_norms)
            if norm > SPIKE_RATIO * median > 0:
                self.spikes, self.quiet_until = self.spikes + 1, step + SPIKE_QUIET_STEPS
                logger.warning("step %d: gradient norm %.3g, usually %.3g: a spike", step, norm, median)
                if self.max_spikes is not None and self.spikes > self.max_spikes:
                    raise DivergedError(
                        f"spike {self.spikes} of the gradient norm ({norm:.3g}, usually {median:.3g}) at step {step}; "
                        f"max_spikes is {self.max_spikes}: stopped before the update. {self._remedy()}"
                    )
        self.recent_norms.append(norm)

    def require_sound_end(self):
        """Refuse to finish a run that learned nothing.

        Raises:
            DataError: no step at all, or loss and gradient were exactly 0 at every step.
            DivergedError: a weight or a reported loss is not finite.
        """
        if self.trainer.state.global_step == 0:
            raise DataError("training ended without a single step: the training data gave no batch")
        if self.updates and not self.learned_something:
            raise DataError(
                f"loss and gradient were exactly 0 at each of {self.updates} steps: nothing can be learned from these "
                "data (all labels ignored, or only one class)"
            )
        require_finite_weights(self.trainer.model, "at the end of training", self.trainer)
        self.require_finite_reports()

    def require_finite_reports(self):
        """Refuse a run in whose log a loss, of training or evaluation, is not finite.

        Raises:
            DivergedError: naming the loss and the step.
        """
        for entry in self.trainer.state.log_history:
            for key, value in entry.items():
                if key.endswith("loss") and not math.isfinite(value):
                    raise DivergedError(f"{key} is {value} at step {entry.get('step')}: the run is not finished")


class Interruption(TrainerCallback):
    """SIGTERM and Ctrl-C set a flag; the run stops between two updates, with a checkpoint that resumes exactly.

    A second signal leaves at once. The former handlers return when the context ends.
    """

    def __init__(self, trainer):
        self.trainer = trainer
        self.signal, self.stopping, self.former = None, False, {}
        self.process = os.getpid()

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if os.getpid() != self.process:  # a worker of the data loader, which its parent will end
            return
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        with contextlib.suppress(OSError):  # print and logging may not be called from a signal handler
            os.write(2, b"\nstopping after this step, with a checkpoint; a second signal stops at once\n")

    def on_step_end(self, args, state, control, **kwargs):
        if not any_process(self.trainer, self.signal is not None):
            return
        self.stopping = True
        if args.save_strategy == "best":  # Trainer would cancel the saving asked for here when it evaluates
            args.save_strategy = "steps"
        # At the end of an epoch, what is due there (evaluation, a report) comes first: a resumed run begins after it.
        control.should_save = not (control.should_training_stop or float(state.epoch).is_integer())

    def on_epoch_end(self, args, state, control, **kwargs):
        self.stopping = any_process(self.trainer, self.signal is not None)
        control.should_save |= self.stopping

    def on_save(self, args, state, control, **kwargs):
        if self.stopping:
            raise self.error(state)

    def on_prediction_step(self, args, state, control, **kwargs):
        """Leave the last evaluation at once; one in the middle of training is finished before the saving."""
        if self.trainer.is_in_train or not any_process(self.trainer, self.signal is not None):
            return
        kept = list_checkpoints(args.output_dir)
        if kept and kept[-1].name == f"checkpoint-{state.global_step}":
            raise self.error(state)

    def error(self, state):
        """The error that ends an interrupted run."""
        return RunInterruptedError(
            f"interrupted by {signal.Signals(self.signal or signal.SIGTERM).name} after step {state.global_step} of "
            f"{state.max_steps}; checkpoint-{state.global_step} is saved: the same command resumes"
        )
