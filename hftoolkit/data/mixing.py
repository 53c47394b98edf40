"""Training on several tasks at once: how often each is drawn, and in which order rows come.

Paper: Raffel et al. 2020, "T5", https://arxiv.org/abs/1910.10683, Section 3.5.2: examples-proportional mixing with an
artificial limit K, and temperature-scaled mixing.
The order is a function of the seed alone, so that any number of workers, and a run that resumes anywhere, see the same.
"""

import numpy as np
import torch

from hftoolkit.errors import DataError

from .training_rows import rows_of_a_step

WINDOW = 50  # batches whose rows are sorted by length together, as Trainer's group_by_length


def mixing_rates(sizes, limit=None, temperature=1.0):
    """The share of each task, (tasks,): min(examples, limit) to the power 1/temperature, divided by the sum.

    Args:
        sizes: training examples of each task.
        limit: the paper's K, examples that a task counts for at most; None is no limit.
        temperature: 1 is in proportion to the examples; the larger, the more equal the tasks.

    Raises:
        ValueError: a limit below 1, or a temperature that is not above 0.
        DataError: a task without examples.

    Example:
        mixing_rates([900, 100])                 ->  [0.9, 0.1]
        mixing_rates([900, 100], limit=100)      ->  [0.5, 0.5]
        mixing_rates([900, 100], temperature=2)  ->  [0.75, 0.25]
    """
    if limit is not None and limit < 1:
        raise ValueError(f"mixing_limit must be at least 1 example, got {limit}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"mixing_temperature must be above 0 and finite, got {temperature}")
    sizes = np.asarray(sizes, dtype=np.float64)
    if not len(sizes) or sizes.min() < 1:
        raise DataError(f"tasks of {sizes.astype(int).tolist()} examples: each needs at least one")
    logs = np.log(sizes if limit is None else np.minimum(sizes, limit)) / temperature
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def mixed_order(sizes, rates, count, seed):
    """`count` draws of a task and, in each task, rows in shuffled passes over all of its examples.

    Returns:
        (task, row), both (count,) int64.

    Example (tasks a of 2 rows and b of 3):
        a1 b0 b2 a0 b1 a0 b1 ...
    """
    tasks = np.random.default_rng([seed, 0]).choice(len(sizes), size=count, p=rates)
    rows = np.empty(count, dtype=np.int64)
    for task, size in enumerate(sizes):
        places = np.flatnonzero(tasks == task)
        passes = [
            np.random.default_rng([seed, 1, task, number]).permutation(size)
            for number in range(-(-len(places) // size))
        ]
        rows[places] = np.concatenate(passes)[: len(places)] if passes else 0
    return tasks, rows


def grouped_by_length(lengths, batch_size, seed, window=WINDOW):
    """An order in which rows of like length lie in one batch, (N,).

    The rows of a window of batches stay in it; they are sorted there, and the whole batches come in random order.
    """
    order, random = [], np.random.default_rng([seed, 2])
    for begin in range(0, len(lengths), window * batch_size):
        places = begin + np.argsort(-lengths[begin : begin + window * batch_size], kind="stable")
        whole = len(places) // batch_size
        batches = places[: whole * batch_size].reshape(whole, batch_size)
        order += [batches[random.permutation(whole)].reshape(-1), places[whole * batch_size :]]
    return np.concatenate(order)


class MixedRows(torch.utils.data.Dataset):
    """The rows of a whole training run, drawn from several tasks, in batches of like length.

    Args:
        tasks: data sets by name, each with the columns input_ids and labels.
        rates: share of each, in their order.
        count: rows of the run.
        batch_size: of a forward pass.
    """

    def __init__(self, tasks, rates, count, batch_size, seed=0):
        self.tasks = list(tasks.values())
        sizes = [len(rows) for rows in self.tasks]
        drawn, rows = mixed_order(sizes, rates, count, seed)
        lengths = np.concatenate([_lengths(rows_of_task) for rows_of_task in self.tasks])
        order = grouped_by_length(lengths[np.cumsum([0, *sizes])[drawn] + rows], batch_size, seed)
        self.drawn, self.rows = drawn[order], rows[order]
        self.names, self.sizes, self.rates = list(tasks), sizes, rates

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return self.tasks[self.drawn[index]][int(self.rows[index])]

    def summary(self):
        """What the record of a run tells of each task: its share, and how often its examples are read."""
        counts = np.bincount(self.drawn, minlength=len(self.sizes))
        passes, rates = (counts / self.sizes).round(2).tolist(), np.round(self.rates, 4).tolist()
        found = zip(self.names, rates, passes, strict=True)
        return {name: {"rate": rate, "passes": number} for name, rate, number in found}


def rows_of_run(tokens, training_args, limit=None, temperature=1.0):
    """The rows of a whole run: max_steps batches, or num_train_epochs times the examples, each task's up to the limit.

    Args:
        tokens: {task: {"train": Dataset of input_ids and labels, ...}}.
        training_args: gives the rows of a step; its max_steps is set, because one pass over the rows is the whole run.
        limit, temperature: see mixing_rates.

    Returns:
        MixedRows.

    Raises:
        DataError: an evaluation or a checkpoint is asked for at every pass.
    """
    tasks = {name: splits["train"] for name, splits in tokens.items()}
    sizes = [len(rows) for rows in tasks.values()]
    rates, rows_per_step = mixing_rates(sizes, limit, temperature), rows_of_a_step(training_args)
    if training_args.max_steps <= 0:
        counted = sum(size if limit is None else min(size, limit) for size in sizes)
        training_args.max_steps = max(1, round(training_args.num_train_epochs * counted / rows_per_step))
    count = training_args.max_steps * rows_per_step
    return MixedRows(tasks, rates, count, training_args.train_batch_size, training_args.seed)


def _lengths(rows):
    """Tokens of the inputs and of the target together, (N,)."""
    columns = [rows.with_format("arrow")[:][name].combine_chunks() for name in ("input_ids", "labels")]
    return sum(column.value_lengths().to_numpy(zero_copy_only=False) for column in columns)
