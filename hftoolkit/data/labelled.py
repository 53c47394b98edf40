"""Labelled examples from any source: the built-in microworld, files in a task's official format, or the Hub.

What tagging, question answering and multiple choice share: which file is which split, and what is held out where a
source has no validation data. How a file is read is each task's own affair; whatever cannot be read is a DataError
with file and line.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from datasets import Dataset, DatasetDict, Features

from hftoolkit.errors import DataError

from . import hub
from .opening import data_suffix
from .splits import SPLIT_NAMES, held_out, local_source

BUILTIN_SHARE = 5  # the built-in validation and test data have one example for so many of training
SPLIT_IN_A_NAME = {  # `wnut17train.conll` and `emerging.dev.conll`, but not `trained.txt`
    split: re.compile(rf"(?<![a-z])({'|'.join(names)})(?![a-z])") for split, names in SPLIT_NAMES.items()
}


def load_examples(
    data_args,
    features: Features,
    *,
    builtin: Callable[[int, int, str], list[dict]],
    read_file: Callable[[Path], Iterator[dict]],
    read_hub: Callable[[Dataset, str], Iterator[dict]],
    suffixes: tuple[str, ...],
    validation_fraction: float,
    group: str | None = None,
) -> DatasetDict:
    """Load the splits train and, where there is one, validation and test.

    Args:
        data_args: ExampleArguments; max_examples limits the training data.
        features: columns of the result.
        builtin: (number, seed, split) -> examples.
        read_file: a path -> the examples in it.
        read_hub: (split of the Hub data set, its name in an error) -> examples.
        suffixes: of files in the official format; .gz may follow.
        validation_fraction: share of the training data that is held out where the source has no validation data:
            the last examples, or the last groups of examples.
        group: column whose values must not be in two splits, such as the article.

    Raises:
        DataError: the data are missing, damaged or empty.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    if data_args.dataset == "builtin":
        number = data_args.builtin_examples
        numbers = {"train": number, "validation": math.ceil(number / BUILTIN_SHARE)}
        numbers["test"] = numbers["validation"]
        rows = {split: builtin(count, data_args.builtin_seed, split) for split, count in numbers.items()}
    elif (source := local_source(data_args.dataset)) is not None:
        files = files_by_split(source, suffixes)
        rows = {split: [row for file in of_split for row in read_file(file)] for split, of_split in files.items()}
    else:
        rows = {split: list(read_hub(part, f"{data_args.dataset}, {split}")) for split, part in _from_hub(data_args)}
    for split, found in rows.items():
        if not found:
            raise DataError(f"{data_args.dataset}: the {split} data hold no examples")
    splits = {split: Dataset.from_list(found, features=features) for split, found in rows.items()}
    if "validation" not in splits and validation_fraction > 0:
        splits |= hold_out(splits["train"], validation_fraction, group, data_args.dataset)
    if data_args.max_examples is not None:
        splits["train"] = splits["train"].take(min(data_args.max_examples, len(splits["train"])))
    return DatasetDict(splits)


def files_by_split(source: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Sort the files of a source into splits, by the words in their names; a single file is training data.

    Raises:
        DataError: a file of another format, a folder without data or without training data.
    """
    formats = f"the formats are {', '.join(suffixes)}, also with .gz"
    if source.is_file():
        if data_suffix(source) not in suffixes:
            raise DataError(f"{source}: unknown format {data_suffix(source) or '(no suffix)'}; {formats}")
        return {"train": [source]}
    files = sorted(path for path in source.rglob("*") if path.is_file() and data_suffix(path) in suffixes)
    if not files:
        raise DataError(f"{source}: the folder holds no data files; {formats}")
    splits = {}
    for path in files:
        for split, name in SPLIT_IN_A_NAME.items():
            if name.search(str(path.relative_to(source)).lower()):
                splits.setdefault(split, []).append(path)
                break
    if "train" in splits:
        return {split: splits[split] for split in SPLIT_NAMES if split in splits}
    if splits or len(files) > 1:
        names = ", ".join(str(path.relative_to(source)) for path in files[:5])
        raise DataError(f"{source}: none of the files is named train ({names}); name one so, or give one file")
    return {"train": files}


def _from_hub(data_args) -> Iterator[tuple[str, Dataset]]:
    wanted = SimpleNamespace(**vars(data_args), streaming=False)
    found = hub.fetch(wanted)
    named = {split: [name for name in names if name in found] for split, names in SPLIT_NAMES.items()}
    if not named["train"]:
        raise DataError(f"{data_args.dataset} has no split train, only {', '.join(found)}")
    for split, names in named.items():
        if names:
            yield split, found[names[0]]


def hold_out(train: Dataset, fraction: float, group: str | None, where: str) -> dict[str, Dataset]:
    """Cut the last share off as validation data, whole groups of it.

    Raises:
        DataError: there is only one group, or one example.
    """
    names = train[group] if group else range(len(train))
    groups = list(dict.fromkeys(names))
    if len(groups) < 2:
        what = f"{group} only" if group else "example only"
        raise DataError(f"{where}: one {what}, so no validation data can be held out; set --validation_fraction 0")
    held = set(groups[len(groups) - held_out(len(groups), fraction) :])
    parts = {"train": [], "validation": []}
    for row, name in enumerate(names):
        parts["validation" if name in held else "train"].append(row)
    return {split: train.select(rows) for split, rows in parts.items()}


def parse_json(text: str, where: str, line: int | None = None):
    """What a JSON text says.

    Args:
        where: the file, in an error.
        line: of the file, where the text is one line of it.

    Raises:
        DataError: broken or cut off; the message says where.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}:{line or error.lineno}:{error.colno}"
        cut_off = "; the file ends too early: get it again" if line is None and error.pos >= len(text.rstrip()) else ""
        raise DataError(f"{place}: broken JSON: {error.msg.lower()}{cut_off}") from None
    except (RecursionError, ValueError) as error:  # nested too deeply; a number of thousands of digits
        raise DataError(f"{where}:{line or 1}: JSON that cannot be read: {error}") from None


def fingerprint(examples: Dataset) -> str:
    """First 16 hex digits of the SHA-256 of all rows, in their order."""
    digest = hashlib.sha256()
    for row in examples:
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]
