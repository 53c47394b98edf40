"""Documents of ten and a hundred megabytes: a bounded part is read, in bounded memory and time, and one is told."""

import csv
import io
import json
import logging
import time
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset

from hftoolkit.arguments import DataArguments
from hftoolkit.data import formats, hub
from hftoolkit.data.readers import Tally, read_documents
from hftoolkit.data.text import load_documents, source_facts
from hftoolkit.errors import DataError

ALL = {"validation_fraction": 0.0}
LONG = "word " * 2_400_000  # 12 MB, the limit is 10


@pytest.mark.parametrize("separator", ["line", "blank_line"])
def test_a_line_of_12_mb_is_shortened(separator, write, load, caplog):
    folder = write({"a.txt": f"{LONG}\n\nshort", "b.jsonl": json.dumps({"text": LONG}) + '\n{"text": "short"}'})
    start = time.process_time()
    for name in ("a.txt", "b.jsonl"):
        options = dict(dataset=str(folder / name), document_separator=separator, **ALL)
        with caplog.at_level(logging.WARNING):
            documents = load_documents(DataArguments(**options))
        assert [row["text"] for row in documents["train"]] == [LONG[:10_000_000], "short"]
        warning = "train: of 1 documents only the first 10,000,000 characters are read (--max_document_characters): "
        assert f"{warning}{name}:1" in caplog.text
        assert source_facts(DataArguments(**options), documents)["shortened_documents"] == 1
    assert time.process_time() - start < 5


@pytest.mark.parametrize("separator", ["line", "blank_line", "file"])
def test_what_is_not_kept_needs_no_memory(separator, write):
    """12 MB in one line, 2 MB in many: no more than the limit and a block or two are in memory."""
    folder = write({"one.txt": LONG, "many.txt": ("word " * 20 + "\n") * 20_000})
    for name, memory in (("one.txt", 6_000_000), ("many.txt", 1_000_000)):
        tracemalloc.start()
        try:
            documents = read_documents([str(folder / name)], "text", separator, max_document_characters=100_000)
            longest = max(map(len, documents))
            assert tracemalloc.get_traced_memory()[1] < memory
        finally:
            tracemalloc.stop()
        assert longest == (100 if (name, separator) == ("many.txt", "line") else 100_000)


LENGTHS = [4, 5, 6, 17]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_the_limit_is_exact_in_every_format(name, tmp_path):
    """Five characters stay, the sixth goes; what follows a long document is read as ever."""
    texts = ["abcdefghijklmnopqrstuvwxyz"[:length] for length in LENGTHS]
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / name)
    else:
        table = io.StringIO()
        csv.writer(table).writerows([["text"], *([text] for text in texts)])
        contents = {"a.txt": "\n\n".join(texts), "a.md": "\n".join(texts), "a.csv": table.getvalue()}
        rows = [{"text": text} for text in texts]
        contents |= {"a.json": json.dumps(rows), "a.jsonl": "\n".join(map(json.dumps, rows))}
        (tmp_path / name).write_text(contents[name], newline="")
    tally = Tally()
    separator = "line" if name == "a.md" else "blank_line"
    options = dict(max_document_characters=5, tally=tally)
    read = list(read_documents([str(tmp_path / name)], "text", separator, **options))
    assert read == [text[:5] for text in texts]
    assert (tally.documents, tally.shortened, len(tally.shortened_at)) == (4, 2, 2)


def test_a_document_of_lines_is_cut_in_the_middle_of_one(write):
    path = str(write({"a.txt": "ab\ncd\nef\n\ngh\n\nab\ncd"}) / "a.txt")
    tally = Tally()
    assert list(read_documents([path], "text", "blank_line", max_document_characters=5, tally=tally)) == [
        "ab\ncd",
        "gh",
        "ab\ncd",
    ]
    assert tally.shortened_at == ["a.txt:1"]


def test_a_file_that_was_declared_one_document_is_read_whole(write, load):
    folder = write({"a.txt": "x" * 50, "several/a.txt": "x" * 50, "several/b.txt": "y"})
    options = {"max_document_characters": 20, **ALL}
    assert load(folder / "a.txt", document_separator="file", **options) == {"train": ["x" * 50]}
    assert load(folder / "several", **options) == {"train": ["x" * 20, "y"]}
    assert load(folder / "several", validation_fraction=0.0, max_document_characters=None)["train"][0] == "x" * 50


@pytest.mark.parametrize("streaming", [False, True])
def test_streaming_and_the_cache_know_the_limit(streaming, write):
    path = str(write({"a.txt": "one two three\n\nfour five"}) / "a.txt")
    for longest, expected in (
        (3, ["one", "fou"]),
        (7, ["one two", "four fi"]),
        (None, ["one two three", "four five"]),
    ):
        options = DataArguments(dataset=path, streaming=streaming, max_document_characters=longest, **ALL)
        assert [row["text"] for row in load_documents(options)["train"]] == expected


def test_rows_that_must_be_read_whole_have_a_limit_too(write, load, monkeypatch):
    """Where a line of JSON or an open quote goes on and on, memory ends otherwise."""
    monkeypatch.setattr(formats, "LONGEST_ROW", 1000)
    row = json.dumps({"text": "x" * 2000})
    folder = write({"a.jsonl": f'{{"text": "a"}}\n{row}\n{{"text": "b"}}', "a.csv": 'text\na\n"' + "x\n" * 600})
    with pytest.raises(DataError, match=r"a.jsonl:2: a line of more than 1,000 characters"):
        load(folder / "a.jsonl")
    with pytest.raises(DataError, match=r"a.csv:\d+: broken CSV: field larger than field limit \(1000\)"):
        load(folder / "a.csv")
    assert load(folder / "a.jsonl", on_bad_row="skip", **ALL) == {"train": ["a", "b"]}


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_of_the_hub_are_shortened(streaming, monkeypatch, load, caplog):
    data = Dataset.from_dict({"text": ["one two three", "four"]})
    data = data.to_iterable_dataset() if streaming else data
    monkeypatch.setattr(hub, "load_dataset", lambda *_, **__: {"train": data})
    with caplog.at_level(logging.WARNING):
        assert load("a/b", streaming=streaming, max_document_characters=7, **ALL) == {"train": ["one two", "four"]}
    assert streaming or "a/b, split train: of 1 documents only the first 7 characters" in caplog.text
