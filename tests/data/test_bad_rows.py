"""on_bad_row: rows that cannot be read stop the run, or are skipped, counted and limited, in every format alike."""

import json
import logging

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from hftoolkit.arguments import DataArguments
from hftoolkit.data import hub, survey
from hftoolkit.data.text import load_documents, source_facts
from hftoolkit.errors import DataError
from hftoolkit.training.overview import describe_data

GOOD = [f"document {number}" for number in range(6)]
BAD = ['{"text": null}', '{"txt": "missing"}', '{"text": 5}', '{"text": "\\ud800"}', '["list"]', '{"text": "cut']
BAD_BYTES = b'{"text": "caf\xe9"}'
SKIP = {"on_bad_row": "skip", "validation_fraction": 0.0}


def damaged(name):
    """The six good rows with bad ones between them, and how many and where the bad are."""
    rows = [json.dumps({"text": text}).encode() for text in GOOD]
    mixed = [line for pair in zip([bad.encode() for bad in BAD], rows, strict=True) for line in pair]
    if name == "a.jsonl":
        return b"\n".join([*mixed, BAD_BYTES]), 7, "a.jsonl:1 (null), a.jsonl:3 (missing), a.jsonl:5 (int)"
    if name == "a.json":
        kept = [line for line in mixed if line != BAD[-1].encode()]
        return b"[" + b",\n".join(kept) + b"]", 5, "a.json:1 (null), a.json:3 (missing), a.json:5 (int)"
    if name == "a.csv":
        lines = ["id,text", "0,document 0", "only one", *(f"1,{text}" for text in GOOD[1:4]), '2,"x" y']
        content = "\n".join([*lines, *(f'3,"{text}"' for text in GOOD[4:])]).encode() + b"\n4,caf\xe9\n"
        return content, 3, "a.csv:3 (1 fields, but the header has 2), a.csv:7 (broken CSV: ',' expected after '\"'), "
    lines = [text.encode() for text in GOOD]
    separator = b"\n\n" if name == "a.txt" else b"\n"
    content = separator.join([*lines[:2], b"caf\xe9", *lines[2:], b"\xff\xfe"])
    return content, 2, f"{name}:{5 if name == 'a.txt' else 3} (byte 0xe9 at position 3 is not UTF-8)"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.tokens"])
def test_skipped_rows_are_counted_and_named(name, streaming, write, caplog):
    content, number, places = damaged(name)
    separator = "line" if name == "a.tokens" else "blank_line"
    path = str(write({name: content}) / name)
    options = DataArguments(dataset=path, document_separator=separator, streaming=streaming, **SKIP)
    for _ in range(2):  # the second time from the cache
        with caplog.at_level(logging.WARNING):
            documents = load_documents(options)
        assert [row["text"] for row in documents["train"]] == GOOD
        assert f"train: {number} rows that cannot be read are skipped: {places}" in caplog.text
        caplog.clear()
        facts = source_facts(options, documents)
        assert facts["skipped_rows"] == number and (facts["fingerprint"] is None) == streaming
    with pytest.raises(DataError, match=name):
        load_documents(DataArguments(dataset=path, document_separator=separator, streaming=streaming))


def test_parquet_rows_are_skipped(tmp_path, load):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", None, "b", None]}), tmp_path / "a.parquet")
    assert load(tmp_path / "a.parquet", **SKIP) == {"train": ["a", "b"]}


@pytest.mark.parametrize("streaming", [False, True])
def test_more_than_the_limit_stop(streaming, write):
    content, number, places = damaged("a.jsonl")
    path = str(write({"a.jsonl": content}) / "a.jsonl")
    options = {"dataset": path, "streaming": streaming, **SKIP}
    assert len(list(load_documents(DataArguments(max_bad_rows=number, **options))["train"])) == len(GOOD)
    with pytest.raises(DataError, match="more than 6 rows cannot be read: a.jsonl:1 .*, ...; .*--max_bad_rows"):
        load_documents(DataArguments(max_bad_rows=number - 1, **options))


def test_the_limit_is_of_a_split_with_all_its_files(write, load):
    bad = '{"text": "a"}\n{"text": null}\n'
    folder = write({"train-0.jsonl": bad, "train-1.jsonl": bad, "test.jsonl": bad})
    assert load(folder, max_bad_rows=2, **SKIP) == {"train": ["a", "a"], "test": ["a"]}
    with pytest.raises(DataError, match=r"train-1.jsonl: more than 1 rows .*train-0.jsonl:2 \(null\), train-1"):
        load(folder, max_bad_rows=1, **SKIP)


def test_a_misspelt_column_is_not_skipped(write, load):
    folder = write({"a.jsonl": '{"txt": "a"}\n' * 3, "b.jsonl": '{"txt": "a"}\n' * 30})
    for name in ("a.jsonl", "b.jsonl"):
        with pytest.raises(DataError, match="no row has a field 'text'; name the right one with --text_column"):
            load(folder / name, **SKIP)


def test_a_damaged_file_is_not_skipped(write, load):
    folder = write({"a.txt.gz": b"no gzip", "a.parquet": b"PAR1 nonsense", "a.json": '[{"text": "a"},\n{"text"]'})
    for name, message in (("a.txt.gz", "gzip file is damaged"), ("a.parquet", "damaged"), ("a.json", "broken JSON")):
        with pytest.raises(DataError, match=message):
            load(folder / name, **SKIP)


def test_the_survey_is_remembered_until_something_changes(write, load, monkeypatch):
    folder, read = write({"a.jsonl": '{"text": "a"}\n{"text": null}'}), []
    really = survey.read_documents
    monkeypatch.setattr(survey, "read_documents", lambda **options: read.append(options) or really(**options))
    for _ in range(2):
        load(folder / "a.jsonl", **SKIP)
    assert len(read) == 1
    load(folder / "a.jsonl", max_bad_rows=3, **SKIP)
    assert len(read) == 2
    write({"a.jsonl": '{"text": "a"}\n{"text": "b"}'})
    assert load(folder / "a.jsonl", **SKIP) == {"train": ["a", "b"]} and len(read) == 3


def test_the_screen_before_a_run_tells(write):
    path = str(write({"a.jsonl": '{"text": "a"}\n{"text": null}\n{"text": "b"}'}) / "a.jsonl")
    options = DataArguments(dataset=path, **SKIP)
    trainer = type("Trainer", (), {"train_dataset": None, "eval_dataset": None})
    assert "; 1 skipped rows" in describe_data(trainer, source_facts(options, load_documents(options)))
    clean = DataArguments(builtin_documents=5)
    assert "skipped_rows" not in source_facts(clean, load_documents(clean))


def test_hub_rows_are_skipped_too(monkeypatch, load, caplog):
    rows = {"text": ["a", None, "b", None, "c"]}
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **options: {"train": stream(rows, **options)})
    with caplog.at_level(logging.WARNING):
        assert load("a/b", **SKIP) == {"train": ["a", "b", "c"]}
    assert "a/b, split train: 2 of 5 rows have no text in 'text': rows 1, 3; they are skipped" in caplog.text
    with pytest.raises(DataError, match="more than 1: raise --max_bad_rows"):
        load("a/b", max_bad_rows=1, **SKIP)
    with pytest.raises(DataError, match="a streamed Hub data set cannot be skipped"):
        load("a/b", streaming=True, **SKIP)


def stream(rows, streaming=False, **_):
    data = Dataset.from_dict(rows)
    return data.to_iterable_dataset() if streaming else data
