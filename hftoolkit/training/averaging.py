"""The mean of the weights of the last checkpoints, in place of the last weights.

Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Section 6.1 (the last 5 checkpoints of base models, the
last 20 of big ones).
"""

import logging
import shutil
from pathlib import Path

import torch
from transformers import TrainerCallback

from hftoolkit.errors import DataError
from hftoolkit.training.checkpoints import list_checkpoints, step_of
from hftoolkit.training.disk import read_json

logger = logging.getLogger(__name__)


class AverageCheckpoints(TrainerCallback):
    """When a run has reached its last step, the model gets the mean of its last `number` checkpoints' weights.

    The last weights are one of them, saved or not. A checkpoint that an interruption left between two that were due is
    none of them, and goes when the next one is saved: a resumed run ends with the same mean. `averaged` says
    afterwards of which steps the mean was taken.

    Args:
        trainer: keeps enough checkpoints (save_total_limit).
        number: of checkpoints, at least 1; 1 changes nothing.

    Raises:
        DataError: too few checkpoints are saved or kept, the best is to be loaded instead, or weights are sharded over
            processes.
    """

    def __init__(self, trainer, number):
        self.model, self.number, self.averaged = trainer.model, number, []
        self.limit = trainer.args.save_total_limit
        if number > 1:
            self._check(trainer.args, trainer.is_fsdp_enabled)

    def _check(self, args, is_sharded):
        wanted = f"average_checkpoints is {self.number}, but"
        if args.save_strategy not in ("steps", "epoch"):
            raise DataError(f"{wanted} save_strategy is {args.save_strategy.value}; set it to steps or epoch")
        if args.load_best_model_at_end:
            raise DataError(f"{wanted} load_best_model_at_end asks for a single checkpoint; leave out one of the two")
        needed = self.number + (args.metric_for_best_model is not None)  # the best one is kept beside the last ones
        if self.limit and self.limit < needed:
            raise DataError(f"{wanted} save_total_limit keeps only {self.limit}; raise it to {needed}")
        if is_sharded:
            raise DataError("average_checkpoints needs whole checkpoints, which FSDP does not write; set it to 1")

    def on_train_begin(self, args, state, control, **kwargs):
        if self.number > 1 and self.limit:
            args.save_total_limit = self.limit + sum(not _was_due(path, args, state) for path in _saved(args))

    def on_save(self, args, state, control, **kwargs):
        *earlier, newest = _saved(args) or [None]
        if self.number > 1 and state.is_world_process_zero and newest is not None and _was_due(newest, args, state):
            for path in earlier:
                if not _was_due(path, args, state):
                    shutil.rmtree(path, ignore_errors=True)
            args.save_total_limit = self.limit

    def on_train_end(self, args, state, control, **kwargs):
        if self.number > 1 and state.global_step >= state.max_steps:
            due = [path for path in _saved(args) if step_of(path) < state.global_step and _was_due(path, args, state)]
            earlier = due[-(self.number - 1) :]
            average_into(self.model, earlier)
            self.averaged = [*map(step_of, earlier), state.global_step]
            if len(self.averaged) < self.number:
                logger.warning(
                    "average_checkpoints is %d, but the run saved only %d: the model is their mean; save more often",
                    *(self.number, len(self.averaged)),
                )


def _saved(args):
    return list_checkpoints(Path(args.output_dir))


def _was_due(checkpoint, args, state):
    """False for one that was saved because the run was interrupted."""
    if args.save_strategy == "epoch":
        return float((read_json(checkpoint / "trainer_state.json") or {}).get("epoch", 0.5)).is_integer()
    return step_of(checkpoint) % state.save_steps == 0


@torch.no_grad()
def average_into(model, folders):
    """Set a model's parameters to the mean of its own and those of checkpoints; sums are taken in float64.

    What a class computes itself, as Marian its table of positions, is in no checkpoint and stays.
    """
    from safetensors.torch import load_file

    computed = getattr(model, "_keys_to_ignore_on_save", None) or ()
    own = {name: value for name, value in model.named_parameters() if name not in computed}
    sums = {name: value.double() for name, value in own.items()}
    for folder in folders:
        weights = {}
        for file in sorted(Path(folder).glob("*.safetensors")):
            weights |= load_file(file)
        missing = [name for name in own if name not in weights]
        if missing:
            raise DataError(f"{folder} lacks the weight {missing[0]}, so it cannot be averaged")
        for name, total in sums.items():
            total += weights[name].to(total)
    for name, value in own.items():
        value.copy_(sums[name] / (len(folders) + 1))
