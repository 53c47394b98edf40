"""Read documents from files, strictly: what cannot be read is an error that names the place, never a silent loss.

Rules: text is UTF-8 (a byte order mark at the start is skipped); in plain text CRLF and CR end a line like LF; NUL is
a character like others; documents of white space only are skipped. CSV is read as Python's csv module does (quotes,
line breaks inside quotes), with a header; TSV has a header and no quoting, as GLUE's files. Text formats may be
compressed with gzip. Rows that cannot be read stop the run; with on_bad_row=skip they are left out and counted, up to
max_bad_rows in a split. Of a document longer than max_document_characters, only so much is read.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hftoolkit.errors import DataError

from .formats import MISSING, read_rows

SHOWN = 3  # places that a message names


@dataclass
class Tally:
    """What one reading of the files of a split has found."""

    documents: int = 0
    skipped: int = 0
    skipped_at: list[str] = field(default_factory=list)  # the first places, with the reason
    shortened: int = 0
    shortened_at: list[str] = field(default_factory=list)


def read_documents(
    files: Iterable[str],
    text_column: str,
    separator: str,
    max_documents: int | None = None,
    on_bad_row: str = "stop",
    max_bad_rows: int = 10,
    max_document_characters: int | None = None,
    tally: Tally | None = None,
) -> Iterator[str]:
    """Yield the documents of files in their order.

    Args:
        text_column: field of JSON, column of CSV, TSV and Parquet.
        separator: one of formats.SEPARATORS: where a document of plain text ends.
        max_documents: stop after so many.
        on_bad_row: "stop", or "skip": leave out rows that cannot be read, and plain documents that are not UTF-8.
        max_bad_rows: rows that may be skipped in all files together.
        max_document_characters: what follows in a longer document is left out.
        tally: counts what is read.

    Raises:
        DataError: a file is damaged, or rows cannot be read: broken ones are reported at once, rows without text when
            all were read, with their number and the first three; when skipping, as soon as there are too many.
    """
    tally = Tally() if tally is None else tally
    for file in map(Path, files):
        bad_rows = _BadRows(file, text_column, max_bad_rows if on_bad_row == "skip" else None, tally)
        for row, value in read_rows(file, text_column, separator, max_document_characters, on_bad_row == "stop"):
            if not bad_rows.accepts(row, value):
                continue
            if max_document_characters is not None and len(value) > max_document_characters:
                value = value[:max_document_characters]
                tally.shortened += 1
                tally.shortened_at += [f"{file.name}:{row}"] * (len(tally.shortened_at) < SHOWN)
            if value.strip():
                tally.documents += 1
                yield value
                if tally.documents == max_documents:
                    break
        bad_rows.refuse()
        if tally.documents == max_documents:
            return


class _BadRows:
    """Rows of a file that hold no text, counted; the first three are kept."""

    def __init__(self, file: Path, column: str, may_skip: int | None, tally: Tally):
        self.file, self.column, self.may_skip, self.tally = file, column, may_skip, tally
        self.total, self.bad, self.absent, self.first = 0, 0, 0, []

    def accepts(self, row: int, value) -> bool:
        self.total += 1
        if isinstance(value, DataError) and self.may_skip is None:
            raise value
        problem = self._problem(value)
        if problem:
            self.bad += 1
            self.absent += value is MISSING
            place = f"{self.file.name}:{row} ({problem})"
            self.first += [place] * (len(self.first) < SHOWN)
            self.tally.skipped += 1
            self.tally.skipped_at += [place] * (len(self.tally.skipped_at) < SHOWN)
        if self.absent < self.total:  # otherwise the column may be misspelt: refuse() says so
            self._refuse_too_many()
        return not problem

    def _refuse_too_many(self) -> None:
        if self.may_skip is not None and self.tally.skipped > self.may_skip:
            raise DataError(
                f"{self.file}: more than {self.may_skip} rows cannot be read: {', '.join(self.tally.skipped_at)}"
                f"{', ...' * (self.tally.skipped > SHOWN)}; mend or remove them, or raise --max_bad_rows"
            )

    def _problem(self, value) -> str | None:
        if isinstance(value, str):
            try:
                value.encode()
            except UnicodeEncodeError as error:
                code = ord(value[error.start])
                if self.may_skip is not None and 0xDC80 <= code <= 0xDCFF:
                    return f"byte {code - 0xDC00:#x} at position {error.start} is not UTF-8"
                return f"half a surrogate pair at position {error.start}"
            return None
        if isinstance(value, DataError):
            return re.sub(r"^[:\d]*: ", "", str(value).removeprefix(str(self.file)))
        if value is MISSING:
            return "missing"
        return "null" if value is None else type(value).__name__

    def refuse(self) -> None:
        """The file is read: was its column there, and were its rows right?"""
        if self.bad and self.absent == self.total:
            raise DataError(f"{self.file}: no row has a field '{self.column}'; name the right one with --text_column")
        self._refuse_too_many()
        if self.bad and self.may_skip is None:
            more = ", ..." if self.bad > len(self.first) else ""
            raise DataError(
                f"{self.file}: {self.bad} of {self.total} rows have no text in '{self.column}': "
                f"{', '.join(self.first)}{more}; mend or remove them"
            )
