"""The rows of a file in each format: (line or row number, value), where a value that cannot be read is a DataError.

A damaged file ends with an error; a row that is damaged by itself is given as one, and reading goes on after it.
Of very long lines only the beginning is held in memory.
"""

import csv
import difflib
import json
import re
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from hftoolkit.errors import DataError

from .opening import ROW_SUFFIXES, data_suffix, opened

SEPARATORS = ("blank_line", "line", "file", "wikitext")
WIKITEXT_TITLE = re.compile(r"= (?!= ).+ =")  # of level one; " = = Career = = " is a section
MISSING = object()
LONGEST_ROW = 2**27  # characters of a line of JSON or a field of CSV, which must be read whole
DISCARDED = 2**20  # characters read at a time of what is not kept


def read_rows(
    file: Path, text_column: str, separator: str, longest: int | None = None, strict: bool = True
) -> Iterator[tuple[int, object]]:
    """Number and text of each row; the text is MISSING, a DataError or another type where the row is bad.

    Args:
        longest: of a longer document of plain text, at least one character more than this is given, not all.
        strict: see `opened`.

    Raises:
        DataError: the file is damaged, or has no such column.
    """
    if data_suffix(file) == ".parquet":
        return _parquet_rows(file, text_column)
    if data_suffix(file) in ROW_SUFFIXES:
        read = {".json": _json_rows, ".csv": _table_rows, ".tsv": _table_rows}
        return read.get(data_suffix(file), _json_line_rows)(file, text_column, strict)
    return _plain_documents(file, separator, longest, strict)


def bounded_lines(text, longest: int | None) -> Iterator[tuple[int, str]]:
    """Number and text of each line; of one longer than `longest` its first longest + 1 characters."""
    if longest is None:
        yield from enumerate(text, start=1)
        return
    for number in count(1):
        line = text.readline(longest + 1)
        if not line:
            return
        rest = line
        while len(rest) and not rest.endswith(("\n", "\r")):
            rest = text.readline(DISCARDED)
        yield number, line


def _plain_documents(file: Path, separator: str, longest: int | None, strict: bool) -> Iterator[tuple[int, str]]:
    with opened(file, strict=strict) as text:
        if separator == "file":
            yield 1, text.read(-1 if longest is None else longest + 1)
        elif separator == "line":
            for number, line in bounded_lines(text, longest):
                yield number, line.removesuffix("\n")
        elif separator == "wikitext":
            yield from _articles(bounded_lines(text, longest), longest)
        else:
            yield from _blocks(bounded_lines(text, longest), longest)


def _blocks(lines: Iterable[tuple[int, str]], longest: int | None) -> Iterator[tuple[int, str]]:
    block = _Document(1, longest)
    for number, line in lines:
        if line.strip():
            block = block if block.lines else _Document(number, longest)
            block.add(line)
        elif block.lines:
            yield block.start, block.text()
            block = _Document(number, longest)
    if block.lines:
        yield block.start, block.text()


def _articles(lines: Iterable[tuple[int, str]], longest: int | None) -> Iterator[tuple[int, str]]:
    """Articles of WikiText: each begins with its title, a line ` = Title = ` between two blank ones.

    A formula can stand in the text as a line ` = x = `, but not between blank lines.
    """
    article, title, after_blank = _Document(1, longest), None, True
    for number, line in lines:
        is_blank = not line.strip()
        if title is not None and is_blank:
            yield article.start, article.text()
            article = _Document(title[0], longest)
        if title is not None:
            article.add(title[1])
        title = (number, line) if after_blank and WIKITEXT_TITLE.fullmatch(line.strip()) else None
        if title is None:
            article.add(line)
        after_blank = is_blank
    if title is not None:
        article.add(title[1])
    yield article.start, article.text()


class _Document:
    """The lines of a document, as far as they are kept."""

    def __init__(self, start: int, longest: int | None):
        self.start, self.longest, self.lines, self.length, self.is_cut = start, longest, [], 0, False

    def add(self, line: str) -> None:
        self.is_cut = self.longest is not None and self.length > self.longest + 1  # 1 for a line break at the end
        if not self.is_cut:
            self.lines.append(line)
            self.length += len(line)

    def text(self) -> str:
        """All lines, without blank ones at the end."""
        while self.lines and not self.is_cut and not self.lines[-1].strip():
            self.lines.pop()
        return "".join(self.lines).removesuffix("\n")


def _json_line_rows(file: Path, text_column: str, strict: bool) -> Iterator[tuple[int, object]]:
    with opened(file, strict=strict) as text:
        for number, line in bounded_lines(text, LONGEST_ROW):
            if len(line) > LONGEST_ROW:
                yield number, DataError(f"{file}:{number}: a line of more than {LONGEST_ROW:,} characters")
            elif line.strip():
                yield number, _field(_parse_json(line.removesuffix("\n"), file, number), text_column)


def _json_rows(file: Path, text_column: str, strict: bool) -> Iterator[tuple[int, object]]:
    """A list of objects, or JSON lines under the name .json."""
    with opened(file, strict=strict) as text:
        while (character := text.read(1)).isspace():
            pass
        if character != "[":
            yield from _json_line_rows(file, text_column, strict)
            return
        rows = _parse_json("[" + text.read(), file, None)
    if isinstance(rows, DataError):
        raise rows
    for number, row in enumerate(rows, start=1):
        yield number, _field(row, text_column)


def _parse_json(text: str, file: Path, line: int | None):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{file}:{line or error.lineno}:{error.colno}"
        form = "; .json is a list of objects, or an object per line" if data_suffix(file) == ".json" else ""
        return DataError(f"{place}: broken JSON: {error.msg.lower()}{form}")
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        return DataError(f"{file}:{line or 1}: JSON that cannot be read: {error}")


def _field(row, text_column: str):
    if isinstance(row, DataError):
        return row
    return row.get(text_column, MISSING) if isinstance(row, dict) else MISSING


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


def _table_rows(file: Path, text_column: str, strict: bool) -> Iterator[tuple[int, object]]:
    csv.field_size_limit(LONGEST_ROW)  # the default stops at 131,072 characters
    options = {"strict": True}
    if data_suffix(file) == ".tsv":
        options |= {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    with opened(file, newline="", strict=strict) as text:
        reader, header = csv.reader((line for _, line in bounded_lines(text, LONGEST_ROW)), **options), None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                broken = DataError(f"{file}:{reader.line_num}: broken CSV: {error}")
                if header is None:
                    raise broken from None
                yield line, broken
                continue
            if header is None:
                header = row
                if header:
                    check_column(header, text_column, file)
                    column = header.index(text_column)
            elif len(row) == len(header):
                yield line, row[column]
            elif row:
                yield line, DataError(f"{file}:{line}: {len(row)} fields, but the header has {len(header)}")


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
