"""Damaged or missing data: one line with the place and the remedy, exit code 3; the Hub's troubles, exit code 7."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from datasets.exceptions import DatasetNotFoundError

from hftoolkit.arguments import DataArguments
from hftoolkit.data import hub
from hftoolkit.data.text import load_documents
from hftoolkit.errors import DataError, HubError

ROWS = [{"text": "a"}, {"text": None}, {"body": "b"}, {"text": 5}, {"text": "\ud800"}, ["c"], {"text": "d"}]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "ok\n" * 5 + "caf\xe9", r"a.txt: byte 18 is not UTF-8.* LATIN1"),
        ("a.txt", "\ufeffab".encode("utf-16-le"), r"a.txt: byte 0 is not UTF-8.* UTF-16"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', r"a.jsonl: byte 24 is not UTF-8"),
        ("a.txt", b"x" * 3_000_000 + b"\xe2\x82", r"a.txt: byte 3000000 is not UTF-8"),
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b" "c"}\n', r"a.jsonl:3:14: broken JSON: expecting ',' delimiter"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b', r"a.jsonl:2:10: broken JSON: unterminated string"),
        ("a.json", '[\n{"text": "a"},\n{"text" "b"}]', r"a.json:3:9: broken JSON"),
        (
            "a.json",
            '{\n"data": [{"text": "a"}]\n}',
            r"a.json:1:2: broken JSON: .*; .json is a list of objects",
        ),
        ("a.jsonl", "[" * 200_000, r"a.jsonl:1: JSON that cannot be read"),
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)), r"5 of 7 rows have no text in 'text': a.jsonl:2 \(null\), "),
        (
            "a.json",
            json.dumps(ROWS),
            r"a.json:2 \(null\), a.json:3 \(missing\), a.json:4 \(int\), ...; mend or remove",
        ),
        ("a.jsonl", '{"txt": "a"}\n{"txt": "b"}', r"a.jsonl: no row has a field 'text'; .*--text_column"),
        ("a.csv", "id,txt\n1,a\n", r"no column 'text'; did you mean 'txt'\? \(the columns: id, txt\); set --text_c"),
        ("a.csv", "id;text\n1;a\n", r"no column 'text'.*\(the columns: id;text\)"),
        ("a.csv", 'text,id\n"a\nb",1\nc\n', r"a.csv:4: 1 fields, but the header has 2"),
        ("a.csv", 'text\n"a" b\n', r"a.csv:2: broken CSV"),
        ("a.csv", 'text\n"never closed\n', r"a.csv:2: broken CSV: unexpected end of data"),
        ("a.txt", "", "0 documents in .*a.txt"),
        ("a.txt", "\n \n\t\r\n", "0 documents in .*a.txt"),
        ("a.jsonl", "\n\n", "0 documents in .*a.jsonl"),
        ("a.csv", "text\n", "0 documents in .*a.csv"),
        ("a.csv", "", "0 documents in .*a.csv"),
        ("a.json", "[]", "0 documents in .*a.json"),
        ("a.json", "", "0 documents in .*a.json"),
        ("a.txt.gz", gzip.compress(b"text " * 100, mtime=0)[:-9], "a.txt.gz: the gzip file is damaged or cut off"),
        ("a.txt.gz", b"no gzip", "a.txt.gz: the gzip file is damaged"),
        ("a.parquet", b"PAR1 nonsense", "a.parquet: the Parquet file is damaged"),
        ("a.docx", b"PK", "unknown format .docx; the formats are .txt"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:40],
)
def test_damaged_files_are_named(name, content, message, streaming, write):
    if isinstance(content, str):
        content = content.encode("latin1" if "\xe9" in content else "utf-8")
    path = write({name: content}) / name
    with pytest.raises(DataError, match=message) as caught:
        load_documents(DataArguments(dataset=str(path), document_separator="line", streaming=streaming))
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value) and str(path.parent) in str(caught.value)


def test_parquet_with_nulls_and_other_types(tmp_path):
    table = pyarrow.table({"text": ["a", None, "b", None], "n": [1, 2, 3, 4]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    for column, message in (
        ("text", r"2 of 4 rows have no text in 'text': a.parquet:2 \(null\), a.parquet:4 \(null\); mend"),
        ("n", r"4 of 4 rows have no text in 'n': a.parquet:1 \(int\)"),
        ("m", r"no column 'm'.* \(the columns: text, n\)"),
    ):
        with pytest.raises(DataError, match=message):
            load_documents(DataArguments(dataset=str(tmp_path / "a.parquet"), text_column=column))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:30] + b"\xff" * 200 + data[230:]])
def test_damaged_parquet(damage, tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [f"text {i} {i * i}" for i in range(500)]}), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match="a.parquet: the Parquet file is damaged"):
        load_documents(DataArguments(dataset=str(path)))


def test_bad_rows_beyond_the_limit_do_not_matter(write, load):
    folder = write({"a.jsonl": '{"text": "a"}\n{"text": "b"}\n{"text": null}'})
    assert load(folder / "a.jsonl", max_documents=2, validation_fraction=0.0) == {"train": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corpus.txt", r"there is no file or folder .*corpus.txt; did you mean .*corpus1.txt\?"),
        ("missing/corpus1.txt", "there is no file or folder"),
        ("nothing", "there is no file or folder"),
        ("a/b/c", "there is no file or folder"),
    ],
)
def test_a_missing_path_is_no_network_error(name, message, write, monkeypatch):
    folder = write({"corpus1.txt": "a"})
    monkeypatch.chdir(folder)
    for dataset in (str(folder / name), f"./{name}"):
        with pytest.raises(DataError, match=message) as caught:
            load_documents(DataArguments(dataset=dataset))
        assert "Hub" not in str(caught.value)


def test_a_misspelt_file_in_an_existing_folder_is_no_hub_id(write, monkeypatch):
    monkeypatch.chdir(write({"data/train.jsonl": "{}"}))
    with pytest.raises(DataError, match=r"no file or folder data/trian; did you mean data/train.jsonl"):
        load_documents(DataArguments(dataset="data/trian"))


def test_folders_without_data(write, tmp_path):
    (tmp_path / "empty").mkdir()
    write({"v/valid.txt": "a", "p/picture.png": b"x"})
    for name, message in (
        ("empty", "the folder holds no data files"),
        ("p", "the folder holds no data files"),
        ("v", r"there is validation data, but no file train\.\*"),
    ):
        with pytest.raises(DataError, match=message):
            load_documents(DataArguments(dataset=str(tmp_path / name)))


def test_impossible_arguments():
    with pytest.raises(DataError, match="document_separator is one of"):
        load_documents(DataArguments(document_separator="paragraph"))
    with pytest.raises(DataError, match="column of the built-in data set is 'text'"):
        load_documents(DataArguments(text_column="body"))
    with pytest.raises(DataError, match="no name of a data set"):
        load_documents(DataArguments(dataset="a\0b"))


@pytest.mark.parametrize("streaming", [False, True])
def test_offline_hub_says_so(streaming):
    with pytest.raises(HubError, match=r"owner/name could not be fetched.*HF_HUB_OFFLINE is set; unset it") as caught:
        load_documents(DataArguments(dataset="owner/name", streaming=streaming))
    assert caught.value.exit_code == 7 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (DatasetNotFoundError("Dataset 'a/b' doesn't exist\nmore"), HubError, r"a/b is not on the Hub \(or private"),
        (ConnectionError("refused"), HubError, "could not be fetched from the Hub: refused"),
        (
            ValueError("Config name is missing.\nPick one"),
            DataError,
            r"Config name is missing. \(see --dataset_config",
        ),
        (RuntimeError("Dataset scripts are no longer supported"), DataError, "scripts are no longer supported"),
    ],
)
def test_troubles_of_the_hub(error, kind, message, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(hub, "load_dataset", fail)
    with pytest.raises(kind, match=message):
        load_documents(DataArguments(dataset="a/b"))


@pytest.fixture
def on_the_hub(monkeypatch):
    """Let load_dataset return these splits."""

    def publish(streaming=False, **splits):
        data = {name: Dataset.from_dict(columns) for name, columns in splits.items()}
        if streaming:
            data = IterableDatasetDict({name: split.to_iterable_dataset() for name, split in data.items()})
        calls = []
        monkeypatch.setattr(hub, "load_dataset", lambda *a, **o: calls.append((a, o)) or data or DatasetDict(data))
        return calls

    return publish


def test_hub_data_become_texts(on_the_hub, load):
    calls = on_the_hub(train={"body": ["a", "", "b", " ", "c"], "n": [1] * 5}, dev={"body": ["d"], "n": [1]})
    options = {"text_column": "body", "dataset_config": "x", "dataset_revision": "main", "max_documents": 2}
    assert load("a/b", **options) == {"train": ["a", "b"], "validation": ["d"]}
    assert calls == [(("a/b", "x"), {"revision": "main", "streaming": False})]


def test_hub_data_without_validation(on_the_hub, load):
    on_the_hub(train={"text": list("abcdefghij")})
    assert load("a/b", validation_fraction=0.2) == {"train": list("abcdefgh"), "validation": ["i", "j"]}


def test_a_hub_stream_holds_out_its_first_documents(on_the_hub):
    on_the_hub(streaming=True, train={"text": ["a", " ", *"bcdefghij"], "n": [1] * 11})
    arguments = DataArguments(dataset="a/b", streaming=True, max_documents=5, validation_fraction=0.4)
    splits = load_documents(arguments)
    assert all(isinstance(split, IterableDataset) for split in splits.values())
    texts = {name: [row["text"] for row in split] for name, split in splits.items()}
    assert texts == {"train": ["c", "d", "e"], "validation": ["a", "b"]}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": {"txt": ["a"]}}, r"a/b, split train: no column 'text'; did you mean 'txt'"),
        ({"train": {"text": ["a", None, "b", None]}}, "rows have no text|a document is null"),
        ({"train": {"text": [1, 2]}}, "holds int64, not text|a document is int"),
        ({"test": {"text": ["a"]}}, "has no split train, only test"),
    ],
)
def test_bad_hub_data_are_named(splits, message, streaming, on_the_hub):
    on_the_hub(streaming=streaming, **splits)
    with pytest.raises(DataError, match=message):
        for split in load_documents(DataArguments(dataset="a/b", streaming=streaming)).values():
            list(split)


def test_hub_data_of_blank_texts(on_the_hub):
    on_the_hub(train={"text": ["", "  "]})
    with pytest.raises(DataError, match="0 documents in a/b, split train"):
        load_documents(DataArguments(dataset="a/b"))
