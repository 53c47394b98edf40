"""Documents from files in every format, their splits, streaming, and the built-in data."""

import gzip
import json
import re
import sys
import tracemalloc
from itertools import count, islice
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
from datasets import IterableDataset, IterableDatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from hftoolkit.arguments import DataArguments
from hftoolkit.data.readers import read_documents
from hftoolkit.data.splits import held_out
from hftoolkit.data.text import fingerprint, load_documents

ALL = {"validation_fraction": 0.0}


@pytest.mark.parametrize(
    ("separator", "documents"),
    [
        ("blank_line", ["a\n b", "c  ", "d"]),
        ("line", ["a", " b", "c  ", "d"]),
        ("file", ["\n\na\n b\n\n \t\nc  \n\nd\n"]),
    ],
)
def test_plain_text_separators(separator, documents, write, load):
    folder = write({"a.txt": "\n\na\n b\n\n \t\nc  \n\nd\n"})
    assert load(folder / "a.txt", document_separator=separator, **ALL) == {"train": documents}


def test_byte_order_mark_crlf_and_nul_are_fine(write, load):
    folder = write({"a.txt": b"\xef\xbb\xbfone\r\ntwo\r\n\r\nth\x00ree\rfour\xe2\x80\xa8five"})
    assert load(folder / "a.txt", **ALL) == {"train": ["one\ntwo", "th\x00ree\nfour\u2028five"]}


TEXTS = ["plain", 'with "quotes", commas\nand a line break', "tab\there", "na\u00efve \U0001f600"]


def csv_line(fields):
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields) + "\n"


def as_file(suffix, texts):
    """The same rows in each format."""
    rows = [{"id": number, "text": text} for number, text in enumerate(texts)]
    if suffix == "jsonl":
        return "\n\n".join(map(json.dumps, rows))
    if suffix in ("json", "indented.json"):
        return json.dumps(rows, indent=2 if suffix == "indented.json" else None)
    return "".join(map(csv_line, [["id", "text"], *([str(row["id"]), row["text"]] for row in rows)]))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "indented.json", "csv"])
@pytest.mark.parametrize("compress", [False, True])
def test_rows_of_every_format(suffix, compress, write, load):
    content = as_file(suffix, TEXTS).encode()
    name = f"a.{suffix}.gz" if compress else f"a.{suffix}"
    folder = write({name: gzip.compress(content) if compress else content})
    assert load(folder / name, **ALL) == {"train": TEXTS}


def test_json_lines_under_the_name_json(write, load):
    folder = write({"a.json": '\n{"text": "x"}\n{"text": "y"}\n'})
    assert load(folder / "a.json", **ALL) == {"train": ["x", "y"]}


def test_tsv_knows_no_quotes_as_glues(write, load):
    folder = write({"a.tsv": 'sentence\tlabel\nan " open quote\t1\n"quoted"\t0\n'})
    assert load(folder / "a.tsv", text_column="sentence", **ALL) == {"train": ['an " open quote', '"quoted"']}


def test_parquet(tmp_path, load):
    table = pyarrow.table({"n": list(range(2500)), "body": [f"document {i}" for i in range(2500)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    texts = load(tmp_path / "a.parquet", text_column="body", **ALL)["train"]
    assert texts == [f"document {i}" for i in range(2500)]


def test_long_fields_of_csv(write, load):
    """The csv module stops at 131,072 characters unless told otherwise."""
    folder = write({"a.csv": "text\n" + "x" * 200_000 + "\n"})
    assert [len(text) for text in load(folder / "a.csv", **ALL)["train"]] == [200_000]


def test_a_folder_with_splits(write, load):
    folder = write({"train.txt": "a\n\nb", "dev.txt": "c", "test.txt": "d", "README.rst": "no data"})
    assert load(folder) == {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}


def test_names_of_splits(write, load):
    folder = write(
        {
            "wiki.train.raw": "a",
            "wiki.valid.raw": "b",
            "more/train-00000-of-00002.jsonl": '{"text": "t0"}',
            "more/train-00001-of-00002.jsonl": '{"text": "t1"}',
            "contest.txt": "no split is named here",
        }
    )
    assert load(folder) == {"train": ["t0", "t1", "a"], "validation": ["b"]}


def test_a_folder_of_text_files_has_one_document_per_file(write, load):
    folder = write({"b.txt": "two\n\nparts\n", "a.txt": "first", "sub/c.txt": "third", ".hidden.txt": "x"})
    assert load(folder, **ALL) == {"train": ["first", "two\n\nparts\n", "third"]}


def test_a_folder_of_shards(write, load):
    folder = write({"part-1.jsonl": '{"text": "b"}', "part-0.jsonl": '{"text": "a"}'})
    assert load(folder, **ALL) == {"train": ["a", "b"]}


def test_the_last_documents_are_held_out(write, load):
    folder = write({"a.txt": "\n".join(f"d{i}" for i in range(40))})
    splits = load(folder / "a.txt", document_separator="line", validation_fraction=0.05)
    assert splits == {"train": [f"d{i}" for i in range(38)], "validation": ["d38", "d39"]}


def test_one_document_is_cut_where_nanogpt_cuts(write, load):
    text = "".join(chr(97 + i % 26) for i in range(1003)) + "\n"
    folder = write({"input.txt": text})
    splits = load(folder / "input.txt", document_separator="file", validation_fraction=0.1)
    cut = int(0.9 * len(text))
    assert splits == {"train": [text[:cut]], "validation": [text[cut:]]}


@pytest.mark.realdata
def test_tinyshakespeare(real_data, load):
    path = real_data / "lm" / "tinyshakespeare" / "input.txt"
    text = path.read_text(encoding="utf-8")
    splits = load(path, document_separator="file", validation_fraction=0.1)
    assert splits == {"train": [text[: int(0.9 * len(text))]], "validation": [text[int(0.9 * len(text)) :]]}
    speeches = load(path, validation_fraction=0.1)
    assert "\n\n".join(speeches["train"] + speeches["validation"]) + "\n" == re.sub("\n{3,}", "\n\n", text)


@given(number=st.integers(0, 10**7), fraction=st.floats(0, 0.999))
def test_held_out_is_some_but_never_all(number, fraction):
    cut = held_out(number, fraction)
    assert 0 <= cut < max(number, 1)
    assert (cut > 0) == (fraction > 0 and number >= 2)
    if number > 1000 and 0.01 < fraction < 0.99:
        assert abs(cut - fraction * number) <= 1


@pytest.mark.parametrize(("number", "fraction", "expected"), [(1115394, 0.1, 111540), (40, 0.05, 2), (2, 0.05, 1)])
def test_held_out_by_hand(number, fraction, expected):
    assert held_out(number, fraction) == expected


def test_max_documents_limits_every_split(write, load):
    lines = "\n".join("abcdefghij")
    folder = write({"train.txt": lines, "valid.txt": lines})
    options = {"document_separator": "line", "max_documents": 4}
    assert load(folder, **options) == {"train": list("abcd"), "validation": list("abcd")}
    assert load(folder / "train.txt", validation_fraction=0.25, **options) == {
        "train": list("abc"),
        "validation": ["d"],
    }


@pytest.mark.parametrize("separator", ["blank_line", "line", "file", "wikitext"])
@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_streaming_gives_the_same_documents(separator, fraction, write, load):
    folder = write({"a.txt": "\n\n".join(f"d{i}\nx" for i in range(25)), "s/train.txt": "t", "s/test.txt": "u"})
    options = {"document_separator": separator, "validation_fraction": fraction}
    for source in ("a.txt", "s"):
        streamed = load_documents(DataArguments(dataset=str(folder / source), streaming=True, **options))
        assert isinstance(streamed, IterableDatasetDict)
        assert all(isinstance(split, IterableDataset) for split in streamed.values())
        assert load(folder / source, **options) == {k: [row["text"] for row in v] for k, v in streamed.items()}
        for split in streamed.values():
            assert split.column_names == ["text"]
            assert [row["text"] for row in split] == [row["text"] for row in split], "a second epoch"


def test_streaming_holds_few_documents_at_a_time(write):
    """The first thousandth of 10 MB goes through less than 1 MB of memory."""
    folder = write({"a.txt": ("word " * 20 + "\n") * 100_000})
    streamed = load_documents(DataArguments(dataset=str(folder / "a.txt"), document_separator="line", streaming=True))
    rows = iter(streamed["train"])
    next(rows)
    tracemalloc.start()
    try:
        assert len(list(islice(rows, 100))) == 100
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_changed_file_is_read_again(write, load):
    folder = write({"a.txt": "old"})
    assert load(folder / "a.txt", **ALL) == {"train": ["old"]}
    write({"a.txt": "new, longer\n\nand more"})
    assert load(folder / "a.txt", **ALL) == {"train": ["new, longer", "and more"]}


@settings(max_examples=40)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, max_size=5))
def test_rows_come_back_unchanged(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for suffix in ("jsonl", "json", "csv"):
        (folder / f"a.{suffix}").write_text(as_file(suffix, texts), encoding="utf-8", newline="")
        assert list(read_documents([str(folder / f"a.{suffix}")], "text", "line")) == texts


def iterate_documents(seed, split, start):
    for i in count(start):
        yield {"text": f"{split} {seed} {i}", "log_probability": -1.5 * i, "topic": "x"}


@pytest.fixture
def microworld(monkeypatch, tmp_path):
    fake = SimpleNamespace(iterate_documents=iterate_documents, __file__=str(tmp_path / "__init__.py"))
    monkeypatch.setitem(sys.modules, "hftoolkit.data.microworld", fake)


@pytest.mark.parametrize("streaming", [False, True])
def test_builtin_with_its_probabilities(microworld, streaming):
    arguments = DataArguments(builtin_documents=40, builtin_seed=3, validation_fraction=0.1, streaming=streaming)
    splits = load_documents(arguments)
    assert {name: len(list(split)) for name, split in splits.items()} == {"train": 40, "validation": 4, "test": 4}
    assert list(splits["validation"])[2] == {"text": "validation 3 2", "log_probability": -3.0}
    assert isinstance(splits, IterableDatasetDict) == streaming


def test_builtin_limits(microworld):
    assert len(load_documents(DataArguments(builtin_documents=40, max_documents=5))["train"]) == 5
    assert list(load_documents(DataArguments(builtin_documents=3, validation_fraction=0.0))) == ["train"]


def test_fingerprint_depends_on_texts_only(write):
    folder = write({"a.txt": "a\nb\nc", "b.jsonl": '{"text": "a"}\n{"text": "b"}\n{"text": "c"}', "c.txt": "ab\nc\nd"})

    def of(name, **options):
        return load_documents(DataArguments(dataset=str(folder / name), document_separator="line", **options))

    ours = fingerprint(of("a.txt"))
    assert len(ours) == 16 and int(ours, 16) >= 0
    assert ours == fingerprint(of("b.jsonl")) == fingerprint(of("a.txt", streaming=True))
    assert ours != fingerprint(of("c.txt")) != fingerprint(of("a.txt", **ALL))
    assert fingerprint(of("a.txt")["train"]) != fingerprint(of("a.txt")["validation"])
