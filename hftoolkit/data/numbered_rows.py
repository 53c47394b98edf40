"""The rows of any data file with the places they stand at: JSON (a list, or one row per line), CSV, TSV, Parquet."""

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from hftoolkit.errors import DataError

from .formats import LONGEST_ROW
from .labelled import parse_json
from .opening import data_suffix, opened


def numbered_rows(file: Path) -> Iterator[tuple[int, object]]:
    """Line or row number and content of each row of a file; a DataError stands for a row that is broken by itself."""
    if data_suffix(file) == ".parquet":
        yield from _parquet_rows(file)
        return
    with opened(file, newline="") as text:
        if data_suffix(file) in (".csv", ".tsv"):
            yield from _table_rows(text, file)
            return
        if data_suffix(file) == ".json":
            start = ""
            while (character := text.read(1)).isspace():
                start += character
            if character == "[":
                yield from enumerate(parse_json(start + "[" + text.read(), str(file)), start=1)
                return
            text.seek(0)
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, _parsed(line, file, number)


def _parsed(line, file, number):
    try:
        return parse_json(line, str(file), number)
    except DataError as error:
        return error


def _table_rows(text, file):
    csv.field_size_limit(LONGEST_ROW)
    options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if data_suffix(file) == ".tsv" else {}
    reader = csv.DictReader(text, strict=True, restkey="", **options)
    try:
        for row in reader:
            if None in row.values() or "" in row:
                yield reader.line_num, DataError(f"{file}:{reader.line_num}: another number of fields than the header")
            else:
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: broken CSV: {error}") from None


def _parquet_rows(file):
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            yield from enumerate(chain.from_iterable(batch.to_pylist() for batch in table.iter_batches(1000)), start=1)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: the Parquet file is damaged: {str(error).splitlines()[0]}") from error
