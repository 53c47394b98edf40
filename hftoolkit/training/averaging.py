"""The mean of the weights of the last checkpoints, in place of the last weights.

Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Section 6.1 (the last 5 checkpoints of base models, the
last 20 of big ones).
"""

from pathlib import Path

import torch
from transformers import TrainerCallback

from hftoolkit.errors import DataError
from hftoolkit.training.checkpoints import list_checkpoints


class AverageCheckpoints(TrainerCallback):
    """When a run has reached its last step, the model gets the mean of its last `number` checkpoints' weights.

    The last weights are one of them, saved or not. `averaged` says afterwards of which steps the mean was taken.

    Args:
        trainer: keeps enough checkpoints (save_total_limit).
        number: of checkpoints, at least 1; 1 changes nothing.

    Raises:
        DataError: fewer checkpoints are kept, or weights are sharded over processes.
    """

    def __init__(self, trainer, number):
        kept = trainer.args.save_total_limit
        if number > 1 and kept is not None and kept < number:
            raise DataError(f"average_checkpoints is {number}, but save_total_limit keeps only {kept}; raise it")
        if number > 1 and trainer.is_fsdp_enabled:
            raise DataError("average_checkpoints needs whole checkpoints, which FSDP does not write; set it to 1")
        self.model, self.number, self.averaged = trainer.model, number, []

    def on_train_end(self, args, state, control, **kwargs):
        if self.number > 1 and state.global_step >= state.max_steps:
            found = {int(path.name.rpartition("-")[2]): path for path in list_checkpoints(Path(args.output_dir))}
            earlier = sorted(step for step in found if step < state.global_step)[-(self.number - 1) :]
            average_into(self.model, [found[step] for step in earlier])
            self.averaged = [*earlier, state.global_step]


@torch.no_grad()
def average_into(model, folders):
    """Set a model's parameters to the mean of its own and those of checkpoints; sums are taken in float64."""
    from safetensors.torch import load_file

    own = {name: value for name, value in model.named_parameters()}
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
