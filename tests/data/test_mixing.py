"""Mixing tasks: rates worked out by hand, orders that obey them, and batches of like length."""

import numpy as np
import pytest
from datasets import Dataset

from hftoolkit.data.mixing import MixedRows, grouped_by_length, mixed_order, mixing_rates
from hftoolkit.errors import DataError


@pytest.mark.parametrize(
    "sizes, options, rates",
    [
        ([900, 100], {}, [0.9, 0.1]),
        ([900, 100], {"limit": 100}, [0.5, 0.5]),
        ([900, 100], {"limit": 300}, [0.75, 0.25]),
        ([900, 100], {"temperature": 2}, [0.75, 0.25]),  # 30 to 10
        ([900, 100], {"temperature": 0.5}, [81 / 82, 1 / 82]),
        ([900, 100, 100], {"limit": 400, "temperature": 2}, [0.5, 0.25, 0.25]),  # 20 to 10 to 10
        ([10**9, 1], {"temperature": 1e9}, [0.5, 0.5]),
    ],
)
def test_rates(sizes, options, rates):
    np.testing.assert_allclose(mixing_rates(sizes, **options), rates, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"limit": 0}, "mixing_limit must be at least 1"),
        ({"temperature": 0}, "mixing_temperature must be above 0"),
        ({"temperature": -1.0}, "got -1.0"),
        ({"temperature": float("inf")}, "finite"),
    ],
)
def test_impossible_mixtures(options, message):
    with pytest.raises(ValueError, match=message):
        mixing_rates([5, 5], **options)
    with pytest.raises(DataError, match=r"\[5, 0\]"):
        mixing_rates([5, 0])


def test_the_order_obeys_the_rates_and_reads_every_row():
    tasks, rows = mixed_order([7, 300], [0.3, 0.7], 10_000, seed=0)
    assert abs((tasks == 0).mean() - 0.3) < 5 * (0.3 * 0.7 / 10_000) ** 0.5
    for task, size in ((0, 7), (1, 300)):
        counts = np.bincount(rows[tasks == task], minlength=size)
        assert len(counts) == size and counts.max() - counts.min() <= 1  # whole passes
    again, others = (
        mixed_order([7, 300], [0.3, 0.7], 10_000, seed=0),
        mixed_order([7, 300], [0.3, 0.7], 10_000, seed=1),
    )
    assert (again[0] == tasks).all() and (again[1] == rows).all() and (others[0] != tasks).any()


def test_a_longer_run_begins_as_a_shorter_one():
    short, long = (mixed_order([5, 9], [0.5, 0.5], count, seed=3) for count in (20, 60))
    assert (long[0][:20] == short[0]).all() and (long[1][:20] == short[1]).all()


def test_groups_of_length():
    lengths = np.random.default_rng(0).integers(1, 100, 405)
    order = grouped_by_length(lengths, 8, seed=0, window=25)
    assert sorted(order) == list(range(405))
    assert set(order[:200]) == set(range(200))  # a window stays where it is
    spans = [np.ptp(lengths[order[begin : begin + 8]]) for begin in range(0, 400, 8)]
    assert np.mean(spans) < 8 and np.mean([np.ptp(lengths[begin : begin + 8]) for begin in range(0, 400, 8)]) > 60
    first = lengths[order[np.arange(0, 200, 8)]]
    assert (np.diff(first) > 0).any() and (np.diff(first) < 0).any()  # batches are not in the order of length


def test_rows_of_several_tasks():
    tasks = {
        "a": Dataset.from_dict({"input_ids": [[1], [1, 1]], "labels": [[2], [2]]}),
        "b": Dataset.from_dict({"input_ids": [[3, 3, 3]], "labels": [[4]]}),
    }
    rows = MixedRows(tasks, [0.5, 0.5], 100, 4, seed=0)
    found = [row["labels"][0] for row in (rows[index] for index in range(100))]
    assert len(rows) == 100 and 30 < found.count(4) < 70 and found.count(2) + found.count(4) == 100
    summary = rows.summary()
    assert summary["a"]["rate"] == 0.5 and summary["b"]["passes"] == found.count(4)
    with pytest.raises(IndexError, match="row 100 of 100"):
        rows[100]
