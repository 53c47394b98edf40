"""Which files, and which documents, are training, validation and test data."""

import difflib
import re
from pathlib import Path

from hftoolkit.errors import DataError

from .opening import PLAIN_SUFFIXES, ROW_SUFFIXES, data_suffix

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def local_source(dataset: str) -> Path | None:
    """The file or folder that a data set's name means; None where it can only be on the Hub.

    Raises:
        DataError: it is a path, and nothing is there.
    """
    path = Path(dataset).expanduser()
    if "\0" in dataset:
        raise DataError(f"{dataset!r} is no name of a data set")
    if path.exists():
        return path
    is_data_file = data_suffix(path) in (*PLAIN_SUFFIXES, *ROW_SUFFIXES, ".gz", ".zip")
    in_a_folder = "/" in dataset and path.parent.is_dir() and str(path.parent) != "."
    if HUB_ID.fullmatch(dataset) and not is_data_file and not in_a_folder:
        return None
    names = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, [*names, *(name.split(".")[0] for name in names)], n=1)
    close = sorted(name for name in names if name.startswith(near[0]))[:3] if near else []
    hint = f"; did you mean {' or '.join(str(path.parent / name) for name in close)}?" if close else ""
    raise DataError(f"there is no file or folder {dataset}{hint}")


def find_files(source: Path) -> tuple[dict[str, list[Path]], bool]:
    """Sort the files of a source into splits.

    A single file, and a folder without a file named after a split, are training data. File names count by their
    parts: `train.jsonl`, `train-00000-of-00002.parquet` and `wiki.train.raw` are training data; so is `train/x.txt`.

    Returns:
        (split to files in the order of their names, whether each plain text file is one document).

    Raises:
        DataError: a file of an unknown format, a folder without data, or with validation data only.
    """
    known = (*PLAIN_SUFFIXES, *ROW_SUFFIXES)
    formats = f"the formats are {', '.join(known)}, the text ones also with .gz"
    if source.is_file():
        if data_suffix(source) not in (*known, ""):
            raise DataError(f"{source}: unknown format {data_suffix(source)}; {formats}")
        return {"train": [source]}, False
    files = sorted(
        path
        for path in source.rglob("*")
        if path.is_file()
        and data_suffix(path) in known
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not files:
        raise DataError(f"{source}: the folder holds no data files; {formats}")
    splits = {}
    for path in files:
        split = _split_of(path.relative_to(source))
        if split:
            splits.setdefault(split, []).append(path)
    if "train" in splits:
        return splits, False
    if set(splits) and sum(map(len, splits.values())) == len(files):
        raise DataError(f"{source}: there is {' and '.join(splits)} data, but no file train.*")
    return {"train": files}, all(data_suffix(path) in PLAIN_SUFFIXES for path in files)


def _split_of(path: Path) -> str | None:
    parts = [part for name in path.parts for part in re.split(r"[._\-]", name.lower())]
    for split, names in SPLIT_NAMES.items():
        if any(name in parts for name in names):
            return split
    return None


def held_out(number: int, fraction: float) -> int:
    """How many of the last documents (or characters) are validation data: at least one of two, never all.

    Example:
        int(0.9 * n) of n stay for training where the fraction is 0.1.
    """
    if fraction == 0 or number < 2:
        return 0
    return min(max(number - int(number * (1 - fraction)), 1), number - 1)
