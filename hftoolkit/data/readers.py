"""Read documents from files, strictly: what cannot be read is an error that names the place, never a silent loss.

Rules: text is UTF-8 (a byte order mark at the start is skipped); in plain text CRLF and CR end a line like LF; NUL is
a character like others; documents of white space only are skipped. CSV is read as Python's csv module does (quotes,
line breaks inside quotes), with a header; TSV has a header and no quoting, as GLUE's files. Text formats may be
compressed with gzip.
"""

import codecs
import contextlib
import csv
import difflib
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from hftoolkit.errors import DataError, MachineError

PLAIN_SUFFIXES = (".txt", ".text", ".md", ".raw", ".tokens")
ROW_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SEPARATORS = ("blank_line", "line", "file")
_MISSING = object()


def data_suffix(path: Path) -> str:
    """The suffix that names the format: the last one, or the one before .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]


def read_documents(
    files: Iterable[str], text_column: str, separator: str, max_documents: int | None = None
) -> Iterator[str]:
    """Yield the documents of files in their order.

    Args:
        text_column: field of JSON, column of CSV, TSV and Parquet.
        separator: "blank_line", "line" or "file": where a document of plain text ends.
        max_documents: stop after so many.

    Raises:
        DataError: a file is damaged, or rows have no text; rows without text are reported when all were read, with
            their number and the first three.
    """
    number = 0
    for file in map(Path, files):
        bad_rows = _BadRows(file, text_column)
        for row, value in _read_rows(file, text_column, separator):
            if bad_rows.accepts(row, value) and value.strip():
                number += 1
                yield value
                if number == max_documents:
                    break
        bad_rows.refuse()
        if number == max_documents:
            return


def _read_rows(file: Path, text_column: str, separator: str) -> Iterator[tuple[int, object]]:
    if data_suffix(file) in ROW_SUFFIXES:
        read = {".json": _json_rows, ".csv": _table_rows, ".tsv": _table_rows, ".parquet": _parquet_rows}
        return read.get(data_suffix(file), _json_line_rows)(file, text_column)
    return enumerate(_plain_documents(file, separator), start=1)


class _BadRows:
    """Rows of a file that hold no text, counted; the first three are kept."""

    def __init__(self, file: Path, column: str):
        self.file, self.column = file, column
        self.total, self.bad, self.absent, self.first = 0, 0, 0, []

    def accepts(self, row: int, value) -> bool:
        self.total += 1
        problem = _problem(value)
        if problem:
            self.bad += 1
            self.absent += value is _MISSING
            if len(self.first) < 3:
                self.first.append(f"{self.file.name}:{row} ({problem})")
        return not problem

    def refuse(self) -> None:
        if self.bad and self.absent == self.total:
            raise DataError(f"{self.file}: no row has a field '{self.column}'; name the right one with --text_column")
        if self.bad:
            more = ", ..." if self.bad > len(self.first) else ""
            raise DataError(
                f"{self.file}: {self.bad} of {self.total} rows have no text in '{self.column}': "
                f"{', '.join(self.first)}{more}; mend or remove them"
            )


def _problem(value) -> str | None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"half a surrogate pair at position {error.start}"
        return None
    if value is _MISSING:
        return "missing"
    return "null" if value is None else type(value).__name__


@contextlib.contextmanager
def _opened(file: Path, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
    """Open for strict reading; a damaged file is a DataError with its place."""
    try:
        with _binary(file) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline=newline) as text:
            yield text
    except UnicodeDecodeError:
        raise DataError(_describe_bad_byte(file)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: the gzip file is damaged or cut off ({error}); get it again") from error
    except PermissionError as error:
        raise MachineError(f"{file}: no permission to read it") from error


def _binary(file: Path):
    return gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb")


def _describe_bad_byte(file: Path) -> str:
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with _binary(file) as binary:
        start = binary.read(2)
        binary.seek(0)
        while chunk := binary.read(1 << 20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                position += error.start - pending
                break
            position += len(chunk)
        else:
            position -= len(decoder.getstate()[0])
    guess = "UTF-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "LATIN1"
    return f"{file}: byte {position} is not UTF-8; if the file is {guess}, convert it: iconv -f {guess} -t UTF-8"


def _plain_documents(file: Path, separator: str) -> Iterator[str]:
    with _opened(file) as text:
        if separator == "file":
            yield text.read()
        elif separator == "line":
            for line in text:
                yield line.removesuffix("\n")
        else:
            block = []
            for line in text:
                if line.strip():
                    block.append(line)
                elif block:
                    yield "".join(block).removesuffix("\n")
                    block = []
            if block:
                yield "".join(block).removesuffix("\n")


def _json_line_rows(file: Path, text_column: str) -> Iterator[tuple[int, object]]:
    with _opened(file) as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                yield number, _field(_parse_json(line.removesuffix("\n"), file, number), text_column)


def _json_rows(file: Path, text_column: str) -> Iterator[tuple[int, object]]:
    """A list of objects, or JSON lines under the name .json."""
    with _opened(file) as text:
        while (character := text.read(1)).isspace():
            pass
        if character != "[":
            yield from _json_line_rows(file, text_column)
            return
        rows = _parse_json("[" + text.read(), file, None)
    for number, row in enumerate(rows, start=1):
        yield number, _field(row, text_column)


def _parse_json(text: str, file: Path, line: int | None):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{file}:{line or error.lineno}:{error.colno}"
        form = "; .json is a list of objects, or an object per line" if data_suffix(file) == ".json" else ""
        raise DataError(f"{place}: broken JSON: {error.msg.lower()}{form}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise DataError(f"{file}:{line or 1}: JSON that cannot be read: {error}") from None


def _field(row, text_column: str):
    return row.get(text_column, _MISSING) if isinstance(row, dict) else _MISSING


def check_column(columns: Iterable[str], text_column: str, where) -> None:
    """Refuse a column that is not there, naming those that are.

    Raises:
        DataError: it is not there.
    """
    columns = list(columns)
    if text_column not in columns:
        near = difflib.get_close_matches(text_column, columns, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        shown = ", ".join(columns[:20]) or "none"
        raise DataError(f"{where}: no column '{text_column}'{hint} (the columns: {shown}); set --text_column")


def _table_rows(file: Path, text_column: str) -> Iterator[tuple[int, object]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default stops at 131,072 characters
    options = {"strict": True}
    if data_suffix(file) == ".tsv":
        options |= {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with _opened(file, newline="") as text:
        reader = csv.reader(text, **options)
        try:
            header = next(reader, [])
            if header:
                check_column(header, text_column, file)
                column = header.index(text_column)
            line = reader.line_num + 1
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(f"{file}:{line}: {len(row)} fields, but the header has {len(header)}")
                if row:
                    yield line, row[column]
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{file}:{reader.line_num}: broken CSV: {error}") from None


def _parquet_rows(file: Path, text_column: str) -> Iterator[tuple[int, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            check_column(table.schema_arrow.names, text_column, file)
            row = 1
            for batch in table.iter_batches(batch_size=1000, columns=[text_column]):
                yield from enumerate(batch.column(0).to_pylist(), start=row)
                row += len(batch)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{file}: the Parquet file is damaged: {str(error).splitlines()[0]}") from error
