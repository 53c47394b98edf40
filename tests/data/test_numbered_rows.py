"""Rows of data files in every format, with the places they stand at."""

import gzip
import json

import pytest
from datasets import Dataset

from hftoolkit.data.numbered_rows import numbered_rows
from hftoolkit.errors import DataError

ROWS = [{"a": "one, two", "b": "1"}, {"a": 'a "quoted" word', "b": "2"}]


def write(folder, suffix):
    file = folder / f"rows{suffix}"
    if suffix == ".parquet":
        Dataset.from_list(ROWS).to_parquet(file)
    elif suffix == ".json":
        file.write_text("\n " + json.dumps(ROWS))
    elif suffix == ".jsonl.gz":
        file.write_bytes(gzip.compress("\n\n".join(map(json.dumps, ROWS)).encode()))
    elif suffix == ".csv":
        file.write_text('a,b\n"one, two",1\n"a ""quoted"" word",2\n')
    else:
        file.write_text('a\tb\none, two\t1\na "quoted" word\t2\n')
    return file


@pytest.mark.parametrize(
    ("suffix", "places"),
    [(".json", (1, 2)), (".jsonl.gz", (1, 3)), (".csv", (2, 3)), (".tsv", (2, 3)), (".parquet", (1, 2))],
)
def test_every_format_gives_the_same_rows(tmp_path, suffix, places):
    assert list(numbered_rows(write(tmp_path, suffix))) == list(zip(places, ROWS, strict=True))


def test_lines_in_a_file_called_json(tmp_path):
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, ROWS)))
    assert [row for _, row in numbered_rows(tmp_path / "rows.json")] == ROWS


def test_a_broken_row_is_an_error_in_its_place_and_the_others_are_read(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a":\n{"a": 3}\n')
    rows = list(numbered_rows(tmp_path / "rows.jsonl"))
    assert [number for number, _ in rows] == [1, 2, 3] and isinstance(rows[1][1], DataError)
    (tmp_path / "rows.csv").write_text("a,b\n1\n2,3\n")
    rows = list(numbered_rows(tmp_path / "rows.csv"))
    assert "rows.csv:2: another number of fields" in str(rows[0][1]) and rows[1] == (3, {"a": "2", "b": "3"})
    (tmp_path / "rows.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="rows.parquet: the Parquet file is damaged"):
        list(numbered_rows(tmp_path / "rows.parquet"))
