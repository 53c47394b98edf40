"""GLUE's scores, submission files and table, with figures worked out by hand."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from hftoolkit.data.glue_tasks import TASKS
from hftoolkit.errors import MachineError
from hftoolkit.evaluation.glue import (
    answers_only,
    averages,
    majority_baseline,
    results_table,
    scorer,
    task_results,
    write_submission,
)


def test_answers_are_classes_or_scores():
    logits = torch.tensor([[0.1, 2.0, 0.3], [1.0, 0.0, 0.0]])
    assert answers_only(logits, None).tolist() == [1, 0]
    assert answers_only((logits[:, :1], "hidden states"), None).tolist() == pytest.approx([0.1, 1.0])


def test_the_metrics_of_a_task():
    found = scorer(TASKS["mrpc"])(SimpleNamespace(predictions=[1, 1, 0, 0], label_ids=[1, 0, 0, 0]))
    assert found == {"f1": pytest.approx(2 / 3), "accuracy": 0.75}


def test_the_majority_is_that_of_the_training_data():
    splits = {
        "train": Dataset.from_dict({"label": [1, 1, 0]}),
        "validation": Dataset.from_dict({"label": [1, 0, 0, 0]}),
        "validation_mismatched": Dataset.from_dict({"label": [1, 1]}),
    }
    found = majority_baseline(TASKS["mrpc"], splits)
    assert found["eval_accuracy"] == 0.25 and found["eval_f1"] == pytest.approx(2 * 1 / (2 + 3))
    assert found["eval_mismatched_accuracy"] == 1
    assert majority_baseline(TASKS["cola"], splits)["eval_matthews_correlation"] == 0
    scores = {"train": splits["train"], "validation": Dataset.from_dict({"label": [1.0, 2.0]})}
    assert majority_baseline(TASKS["stsb"], scores) == {"eval_spearman": 0, "eval_pearson": 0}


@pytest.mark.parametrize(
    ("name", "answers", "expected"),
    [
        ("rte", [1, 0], "0\tentailment\n7\tnot_entailment\n"),
        ("cola", [1, 0], "0\t0\n7\t1\n"),
        ("mnli", [2, 1], "0\tneutral\n7\tcontradiction\n"),
        ("stsb", [5.25, 1.23456], "0\t1.235\n7\t5.000\n"),
    ],
)
def test_submission_files(tmp_path, name, answers, expected):
    """By index, with the labels of the files; scores within 0 and 5."""
    write_submission(tmp_path / "submission/X.tsv", TASKS[name], [7, 0], answers)
    assert (tmp_path / "submission/X.tsv").read_text() == "index\tprediction\n" + expected
    assert [path.name for path in (tmp_path / "submission").iterdir()] == ["X.tsv"]


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "submission").write_text("")
    with pytest.raises(MachineError, match="X.tsv cannot be written"):
        write_submission(tmp_path / "submission/X.tsv", TASKS["rte"], [0], [0])


def test_names_of_the_files():
    names = [(TASKS["mnli"].submission(split)) for split in ("test", "test_mismatched", "ax")]
    assert names == ["MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"] and TASKS["sst2"].submission("test") == "SST-2.tsv"


def runs(**metrics):
    """Results of as many seeds as there are values; the majority has 0.5 everywhere."""
    majority = {f"eval_{name}": 0.5 for name in metrics}
    count = len(next(iter(metrics.values())))
    return {
        seed: {f"eval_{name}": values[seed] for name, values in metrics.items()}
        | {"baselines": {"majority": majority}}
        for seed in range(count)
    }


@pytest.fixture
def tasks():
    return {
        "wnli": task_results(TASKS["wnli"], runs(accuracy=[0.1, 0.1]), {}),
        "mrpc": task_results(TASKS["mrpc"], runs(f1=[0.9, 0.8], accuracy=[0.6, 0.8]), runs(f1=[0.4], accuracy=[0.3])),
        "mnli": task_results(
            TASKS["mnli"],
            runs(accuracy=[0.6, 0.7], mismatched_accuracy=[0.5, 0.5], ax_matthews_correlation=[0.2, 0.3]),
            runs(accuracy=[0.4], mismatched_accuracy=[0.4]),
        ),
    }


def test_seeds_are_summarised(tasks):
    figures = tasks["mrpc"]["model"]["f1"]
    assert figures["mean"] == pytest.approx(0.85) and figures["std"] == pytest.approx(0.1 / 2**0.5)
    assert tasks["mrpc"]["best_seed"] == 0 and tasks["mnli"]["best_seed"] == 1
    assert tasks["mrpc"]["from_scratch"]["f1"]["std"] is None


def test_the_average_is_the_papers(tasks):
    """MNLI's two sets and the first metric of MRPC; not WNLI, accuracy beside F1, or the diagnostics."""
    found = averages(tasks)
    assert found["figures"] == 3 and found["model"] == pytest.approx((0.65 + 0.5 + 0.85) / 3)
    assert found["from_scratch"] == pytest.approx((0.4 + 0.4 + 0.4) / 3) and found["majority"] == 0.5


def test_the_average_of_the_papers_own_figures():
    """BERT-base in Table 1 of Devlin et al. 2018: 79.6 over nine columns."""
    paper = {"qqp": 71.2, "qnli": 90.5, "sst2": 93.5, "cola": 52.1, "stsb": 85.8, "mrpc": 88.9, "rte": 66.4}
    found = {
        name: task_results(TASKS[name], runs(**{metric: [value] for metric in TASKS[name].metrics}), {})
        for name, value in paper.items()
    }
    found["mnli"] = task_results(TASKS["mnli"], runs(accuracy=[84.6], mismatched_accuracy=[83.4]), {})
    assert round(averages(found)["model"], 1) == 79.6 and averages(found)["figures"] == 9


def test_the_table(tasks):
    table = results_table({"tasks": tasks, "seeds": [0, 1], "average": averages(tasks)})
    assert table.splitlines()[2:10] == [
        "| task | metric | model | from scratch | majority |",
        "| --- | --- | ---: | ---: | ---: |",
        "| MNLI-m | accuracy | 65.0 ± 7.1 | 40.0 | 50.0 |",
        "| MNLI-mm | accuracy | 50.0 ± 0.0 | 40.0 | 50.0 |",
        "| AX | matthews correlation | 25.0 ± 7.1 | - | 50.0 |",
        "| MRPC | f1 | 85.0 ± 7.1 | 40.0 | 50.0 |",
        "| MRPC | accuracy | 70.0 ± 14.1 | 30.0 | 50.0 |",
        "| WNLI | accuracy | 10.0 ± 0.0 | - | 50.0 |",
    ]
    assert "| average | of 3 | 66.7 | 40.0 | 50.0 |" in table and "seeds 0, 1" in table


def test_an_average_of_other_figures_is_not_shown(tasks):
    """A baseline that lacks a task has no average beside one over more of them."""
    del tasks["mnli"]["from_scratch"]
    assert "from_scratch" not in averages(tasks)
    assert "| average | of 3 | 66.7 | - | 50.0 |" in results_table(
        {"tasks": tasks, "seeds": [0, 1], "average": averages(tasks)}
    )
