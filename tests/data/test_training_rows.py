"""The place in the run alone decides the row: every pass complete, phases in turn, the same with any worker."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from hftoolkit.data.training_rows import TrainingRows, phases_of
from hftoolkit.errors import DataError


class Numbers:
    """Rows (name, pass, number)."""

    def __init__(self, name, size):
        self.name, self.size = name, size

    def __len__(self):
        return self.size

    def draw(self, epoch):
        return f"plan {epoch}"

    def rows(self, plan, indices, epoch):
        assert plan == f"plan {epoch}"
        return [(self.name, epoch, index) for index in indices]


def all_rows(rows):
    return [rows[i] for i in range(len(rows))]


def arguments(**changes):
    values = dict(eval_strategy="no", save_strategy="steps", logging_strategy="steps", seed=0, num_train_epochs=2.0)
    values |= dict(train_batch_size=4, gradient_accumulation_steps=2, world_size=2, max_steps=-1)
    return SimpleNamespace(**values | changes)


def test_every_pass_reads_every_row_once_and_in_another_order():
    seen = all_rows(TrainingRows([(25, Numbers("a", 10))]))
    passes = [[row for _, epoch, row in seen if epoch == number] for number in range(3)]
    assert [sorted(rows) for rows in passes[:2]] == [list(range(10))] * 2
    assert len(passes[2]) == len(set(passes[2])) == 5
    assert passes[0] != passes[1] and passes[0] != list(range(10))


def test_the_phases_follow_each_other():
    seen = all_rows(TrainingRows([(7, Numbers("a", 3)), (4, Numbers("b", 9))]))
    assert [name for name, _, _ in seen] == ["a"] * 7 + ["b"] * 4
    assert [epoch for _, epoch, _ in seen] == [0] * 3 + [1] * 3 + [2] + [0] * 4


def test_the_seed_decides_the_order():
    first, same, other = (all_rows(TrainingRows([(10, Numbers("a", 10))], seed)) for seed in (1, 1, 2))
    assert first == same != other


def test_a_row_does_not_depend_on_what_was_read_before():
    whole = all_rows(TrainingRows([(25, Numbers("a", 10)), (5, Numbers("b", 4))]))
    rows = TrainingRows([(25, Numbers("a", 10)), (5, Numbers("b", 4))])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()
    assert {i: rows[i] for i in order} == dict(enumerate(whole))
    assert rows.__getitems__(order) == [whole[i] for i in order]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_workers_gives_the_same_batches(workers):
    rows = TrainingRows([(25, Numbers("a", 10))])
    loader = torch.utils.data.DataLoader(rows, batch_size=4, num_workers=workers, collate_fn=list)
    assert [row for batch in loader for row in batch] == all_rows(rows)


@pytest.mark.parametrize("phases", [[], [(0, Numbers("a", 3))], [(3, Numbers("a", 0))]])
def test_nothing_to_read_is_an_error(phases):
    with pytest.raises(ValueError):
        TrainingRows(phases)


def test_a_place_outside_the_run_is_an_error():
    rows = TrainingRows([(3, Numbers("a", 3))])
    for index in (3, -1):
        with pytest.raises(IndexError, match=f"row {index} of 3"):
            rows[index]


def test_one_length_takes_all_steps():
    args = arguments(max_steps=30)
    assert len(phases_of([Numbers("a", 10)], args, 0.1)) == 30 * 16
    assert args.max_steps == 30


def test_the_last_share_of_the_steps_is_long():
    rows = phases_of([Numbers("a", 10), Numbers("b", 10)], arguments(max_steps=30), 0.1)
    assert Counter(name for name, _, _ in all_rows(rows)) == {"a": 27 * 16, "b": 3 * 16}
    assert rows.passes() == [43.2, 4.8]


def test_passes_become_steps():
    args = arguments(num_train_epochs=2.5)
    assert len(phases_of([Numbers("a", 160)], args, 0.1)) == 400
    assert args.max_steps == 25


@pytest.mark.parametrize("name", ["eval_strategy", "save_strategy", "logging_strategy"])
def test_events_at_every_pass_are_refused(name):
    with pytest.raises(DataError, match=name):
        phases_of([Numbers("a", 10)], arguments(**{name: "epoch"}), 0.1)
