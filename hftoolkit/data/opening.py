"""Open text files strictly, plain or compressed: what is damaged is an error that names the place."""

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from hftoolkit.errors import DataError, MachineError

PLAIN_SUFFIXES = (".txt", ".text", ".md", ".raw", ".tokens")
ROW_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def data_suffix(path: Path) -> str:
    """The suffix that names the format: the last one, or the one before .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]


@contextlib.contextmanager
def opened(file: Path, newline: str | None = None, strict: bool = True) -> Iterator[io.TextIOWrapper]:
    """Open for reading; a damaged file is a DataError with its place.

    Args:
        strict: a byte that is not UTF-8 is an error; otherwise it becomes one of the characters U+DC80 to U+DCFF,
            which no UTF-8 holds.

    Raises:
        DataError: not UTF-8, or a gzip file that is damaged or cut off.
        MachineError: no permission.
    """
    options = {"encoding": "utf-8-sig", "errors": "strict" if strict else "surrogateescape", "newline": newline}
    try:
        with _binary(file) as binary, io.TextIOWrapper(binary, **options) as text:
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
