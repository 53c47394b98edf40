"""GLUE's official TSV files, read as they are distributed.

They are not CSV: a quotation mark means itself and nothing is escaped (MRPC, STS-B). CoLA's have no header, MRPC's
begin with a byte order mark, and tests have an index of their own, which GLUE's server wants back.
"""

import math
from pathlib import Path

from hftoolkit.errors import DataError

from .glue_tasks import DIAGNOSTIC_FILES, SCORES

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def subfolder(source: Path, title: str) -> Path | None:
    """The folder of a task inside GLUE's, whatever its capitals; None where there is none."""
    if not source.is_dir():
        return None
    wanted = title.lower().replace("-", "")
    found = [path for path in source.iterdir() if path.is_dir() and path.name.lower().replace("-", "") == wanted]
    return found[0] if found else None


def read_folder(source: Path, task) -> tuple[dict[str, list[dict]], dict[str, int]]:
    """Read GLUE's folder, or the task's own.

    Returns:
        ({split: examples}, {split: how many broken rows were left out}).

    Raises:
        DataError: a file is missing or damaged; see read_examples.
    """
    folder = subfolder(source, task.title) or (source if (source / "train.tsv").is_file() else None)
    if folder is None:
        there = sorted(path.name for path in source.iterdir()) if source.is_dir() else ["a file, not a folder"]
        listed = ", ".join(there[:12]) or "nothing"
        raise DataError(f"{source} has no folder {task.title} and no train.tsv; it has {listed}")
    rows, broken = {}, {}
    for split, file in task.files.items():
        path = folder / file
        if path.is_file():
            rows[split], broken[split] = read_examples(path, task, split)
        elif split in ("train", "validation"):
            raise DataError(f"{task.title} needs the file {path}, which is not there")
    for file, texts, label in DIAGNOSTIC_FILES if task.title == "MNLI" else ():
        path = source / file
        if path.is_file() and "ax" not in rows:
            rows["ax"], broken["ax"] = _read(path, task, texts, label)
    return rows, broken


def read_examples(path: Path, task, split: str) -> tuple[list[dict], int]:
    """Examples of one file, and how many broken rows were left out.

    Raises:
        DataError: a column is missing, a row is malformed, a label is none of the task's, a text is empty; the message
            names the file and the line.
    """
    if split.startswith("test"):
        return _read(path, task, task.texts, None)
    return _read(path, task, task.texts, task.label, task.without_header)


def _read(path, task, texts, label, columns=None):
    """Examples with `texts` and, where it is not None, the column `label`; `columns` where there is no header."""
    rows, broken = _rows(path, columns, (*texts, label) if label else texts)
    if len(broken) > task.broken_share * len(rows):
        number, cells, expected = broken[0]
        raise DataError(f"{path}:{number}: the row has {cells} cells, not {expected}; is the file damaged?")
    examples = []
    for index, (number, row) in enumerate(rows):
        written, place = row.get("index", row.get("id", "")), f"{path}:{number}"
        example = make_example(place, int(written) if written.isdecimal() else index, [row[text] for text in texts])
        examples.append(example | ({"label": parse_label(place, row[label], task)} if label else {}))
    return examples, len(broken)


def _rows(path, columns, needed):
    """([(line number, {column: cell})], [(line number, cells, expected cells) of each broken row])."""
    rows, broken = [], []
    try:
        lines = path.read_bytes().removeprefix(BYTE_ORDER_MARK).removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            cells = line.removesuffix(b"\r").decode().split("\t")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8 at byte {error.start} of the line") from error
        if columns is None:
            columns = tuple(cells)
            if missing := [name for name in needed if name not in columns]:
                raise DataError(f"{path}:1: no column {missing[0]!r}; the header has {', '.join(columns)}")
        elif len(cells) != len(columns):
            broken.append((number, len(cells), len(columns)))
        else:
            rows.append((number, dict(zip(columns, cells, strict=True))))
    return rows, broken


def make_example(place: str, index: int, texts: list[str]) -> dict:
    """One example without its label; one of two texts may be empty, as in QQP.

    Raises:
        DataError: there is no text at all.
    """
    example = {"idx": index}
    for column, text in zip(("sentence1", "sentence2"), texts, strict=False):
        example[column] = (text or "").strip()
    if len(example) == 1 + sum(not text for text in example.values() if isinstance(text, str)):
        raise DataError(f"{place}: the example has no text")
    return example


def parse_label(place: str, value: str, task) -> int | float:
    """The class that a label in a file means, or a score.

    Raises:
        DataError: it is none of the task's.
    """
    if task.written is not None:
        if value not in task.written:
            raise DataError(f"{place}: the label {value!r} is none of {task.title}'s: {', '.join(task.written)}")
        return task.written.index(value)
    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if not SCORES[0] <= score <= SCORES[1]:
        raise DataError(f"{place}: the score {value!r} is no number from {SCORES[0]:g} to {SCORES[1]:g}")
    return score
