"""The rows of a whole training run in one fixed order: shuffled passes over the data, phase after phase.

Trainer shuffles anew at every pass and tells a data set which pass it is only where no worker processes lie between.
Here the place in the run alone decides the row, so that any number of workers, and a run that resumes anywhere, see
the same rows; and the length of the rows can change in the middle of a run (Devlin et al. 2018,
https://arxiv.org/abs/1810.04805, Appendix A.2: 128 tokens for 90% of the steps, then 512).
"""

from itertools import groupby

import numpy as np
import torch

from hftoolkit.errors import DataError


class TrainingRows(torch.utils.data.Dataset):
    """`count` rows from each data set in turn, every one read in shuffled passes.

    Args:
        phases: list of (number of rows, data set), each a DrawnRows.
        seed: of the shuffling.

    Raises:
        ValueError: no phase, a phase without rows, or an empty data set.

    Example:
        phases [(5, a), (2, b)], a of 3 rows, b of 9
        rows   a2 a0 a1, a1 a0, b7 b3
    """

    def __init__(self, phases, seed=0):
        if not phases:
            raise ValueError("a run needs at least one phase")
        for count, dataset in phases:
            if count < 1 or len(dataset) < 1:
                raise ValueError(f"a phase of {count} rows from a data set of {len(dataset)}: both must be at least 1")
        self.phases, self.seed = list(phases), seed
        self.ends = np.cumsum([count for count, _ in self.phases])
        self._place, self._pass = None, None  # the phase and pass that were read last; their order and plan

    def __len__(self):
        return int(self.ends[-1])

    def __getitem__(self, index):
        """Row `index` of the run, as its data set gives it."""
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):  # DataLoader asks for a whole batch where it can
        rows = []
        for place, group in groupby(indices, self._pass_of):
            phase, number = place
            dataset = self.phases[phase][1]
            if self._place != place:
                order = np.random.default_rng([self.seed, phase, number]).permutation(len(dataset))
                self._place, self._pass = place, (order, dataset.draw(number))
            order, plan = self._pass
            begin = (int(self.ends[phase - 1]) if phase else 0) + number * len(dataset)
            rows += dataset.rows(plan, order[[index - begin for index in group]].tolist(), number)
        return rows

    def _pass_of(self, index):
        """(phase, pass) that a row lies in."""
        phase = int(np.searchsorted(self.ends, index, side="right"))
        index -= int(self.ends[phase - 1]) if phase else 0
        return phase, index // len(self.phases[phase][1])

    def passes(self):
        """How often each phase reads its data, such as [4.5, 0.5]."""
        return [count / len(dataset) for count, dataset in self.phases]


def rows_of_a_step(training_args):
    """Rows of one update, of all processes, in a run that is one pass over its rows.

    Raises:
        DataError: an evaluation or a checkpoint is asked for at every pass.
    """
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if getattr(training_args, name) == "epoch":
            raise DataError(f"{name}: epoch is not possible here, where one pass is the whole run: give steps")
    return training_args.train_batch_size * training_args.gradient_accumulation_steps * training_args.world_size


def phases_of(datasets, training_args, last_share):
    """The rows of a run of one length, or of two, the second for the last share of the steps.

    Args:
        datasets: one or two.
        training_args: gives the rows of a step, and the steps or else the passes over the first data set; its max_steps is
            set, because one pass over the rows returned is the whole run.

    Returns:
        TrainingRows.

    Raises:
        DataError: an evaluation or a checkpoint is asked for at every pass.
    """
    rows_per_step = rows_of_a_step(training_args)
    if training_args.max_steps <= 0:
        rows = training_args.num_train_epochs * len(datasets[0])
        training_args.max_steps = max(1, round(rows / rows_per_step))
    steps = training_args.max_steps
    last = max(1, round(last_share * steps)) if len(datasets) > 1 and steps > 1 else 0
    counts = [steps - last] + ([last] if last else [])
    phases = [(count * rows_per_step, dataset) for count, dataset in zip(counts, datasets, strict=False)]
    return TrainingRows(phases, training_args.seed)
