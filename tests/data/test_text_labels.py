"""Texts with labels from files: columns, classes, and what is refused with its place."""

import json

import pytest

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.text_labels import load_labelled_texts
from hftoolkit.errors import DataError

ROWS = [{"text": f"text {n}", "label": label} for n, label in enumerate(["10", "9", "10", "2", "9", "2"])]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ExampleArguments(dataset=str(path))


def test_classes_are_in_order_and_rows_keep_theirs(tmp_path):
    task, splits, summary = load_labelled_texts(write(tmp_path / "a.jsonl", ROWS), validation_fraction=0.3)
    assert task.names == ("2", "9", "10")
    assert splits["train"]["sentence1"][:] == [f"text {n}" for n in range(4)]
    assert splits["train"]["label"][:] == [2, 1, 2, 0]
    assert splits["validation"]["label"][:] == [1, 0]
    assert (summary["classes"], summary["train"], summary["validation"]) == (3, {"examples": 4}, {"examples": 2})
    words = [row | {"label": {"10": "b", "9": "B", "2": "a"}[row["label"]]} for row in ROWS]
    assert load_labelled_texts(write(tmp_path / "b.jsonl", words), validation_fraction=0.3)[0].names == (
        "B",
        "a",
        "b",
    )


def test_the_column_of_texts(tmp_path):
    two = [{"title": "t", "body": f"b{n}", "label": n % 2} for n in range(6)]
    with pytest.raises(DataError, match="several columns of texts, title, body; choose one with --text_column"):
        load_labelled_texts(write(tmp_path / "a.jsonl", two))
    found = load_labelled_texts(ExampleArguments(dataset=str(tmp_path / "a.jsonl")), text_column="body")
    assert found[1]["train"]["sentence1"][0] == "b0"
    with pytest.raises(DataError, match="no column of texts 'words'"):
        load_labelled_texts(ExampleArguments(dataset=str(tmp_path / "a.jsonl")), text_column="words")
    named = [{"title": "t", "text": f"b{n}", "label": n % 2} for n in range(6)]
    assert load_labelled_texts(write(tmp_path / "b.jsonl", named))[1]["train"]["sentence1"][0] == "b0"


def test_builtin_topics_and_a_limit():
    arguments = ExampleArguments(dataset="builtin", builtin_examples=50, max_examples=40)
    task, splits, _ = load_labelled_texts(arguments)
    assert {split: len(part) for split, part in splits.items()} == {"train": 40, "validation": 10, "test": 10}
    assert len(task.names) > 2 and list(task.names) == sorted(task.names)


def test_glue_by_name():
    task, splits, _ = load_labelled_texts(ExampleArguments(dataset="builtin", builtin_examples=40), "cola")
    assert task.metrics == ("matthews_correlation",) and splits["train"].column_names == ["idx", "sentence1", "label"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": "x"}] * 6, "all training examples have the label 'x'"),
        ([*ROWS[:4], {"text": " ", "label": "2"}, *ROWS[4:]], r"a\.jsonl:5: the text is blank"),
        ([*ROWS, {"text": "a", "label": "7"}], r"a\.jsonl:7: the label '7' does not occur .* which has 2, 9, 10"),
        ([*ROWS, {"text": "a"}], r"a\.jsonl:7: no 'label' \(--label_column\)"),
    ],
)
def test_refuses(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        load_labelled_texts(write(tmp_path / "a.jsonl", rows), validation_fraction=0.1)


def test_refuses_to_go_without_validation_data(tmp_path):
    with pytest.raises(DataError, match="no validation data"):
        load_labelled_texts(write(tmp_path / "a.jsonl", ROWS), validation_fraction=0.0)
