"""Parallel text: pairs of a sentence and its translation, from any source.

A folder holds a file per split and language, a sentence a line, named by both: train.en and train.de, val.en.gz and
val.de.gz, test_2016_flickr.en.txt and test_2016_flickr.de.txt. A file of rows (JSON, JSON lines, CSV, TSV, Parquet) and a Hub data set name the
languages in their columns, `en` and `de`, or in one column `translation` {"en": ..., "de": ...}. `builtin` is English
and Tamo, the microworld's second language.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value

from hftoolkit.errors import DataError

from . import hub
from .labelled import BUILTIN_SHARE, SPLIT_IN_A_NAME, files_by_split, hold_out
from .microworld import translation_examples
from .numbered_rows import numbered_rows
from .opening import ROW_SUFFIXES, opened
from .splits import SPLIT_NAMES, local_source

FEATURES = Features({"source": Value("string"), "target": Value("string")})
BUILTIN_LANGUAGES = ("en", "tamo")
LANGUAGE = re.compile(r"[A-Za-z]+([-_][A-Za-z0-9]+)*")  # of a file's name: en, pt-br, zh_CN, es-419
SHOWN = 3  # places that a message names
COMPARED = 200  # sentences of each side, to see whether two files were exchanged
BY_CHANCE = 3.0  # deviations of a count: languages that share their words differ by less


def load_parallel(
    data_args, languages: tuple[str, str], *, skip_empty: bool = False, validation_fraction: float = 0.05
) -> tuple[DatasetDict, dict[str, int]]:
    """Load the splits train, validation and test, each with the columns source and target.

    Where a folder has several test sets, each is a split with the name of its files.

    Args:
        data_args: ExampleArguments; max_examples limits the training data.
        languages: (of the source, of the target), as the files or columns are named.
        skip_empty: leave out pairs of which one side or both are blank; they are an error otherwise.
        validation_fraction: share of the training pairs held out where there is no validation data: the last ones.

    Returns:
        (splits, number of pairs left out of each).

    Raises:
        DataError: a language is missing or both are the same, files of different length, blank lines, damaged rows,
            no pairs, or languages exchanged between the splits.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    if languages[0] == languages[1]:
        raise DataError(f"source and target language are both {languages[0]!r}; name the two of the data")
    if data_args.dataset == "builtin":
        number = data_args.builtin_examples
        numbers = {"train": number} | dict.fromkeys(("validation", "test"), -(-number // BUILTIN_SHARE))
        found = {
            split: _pairs_of_rows(
                enumerate(translation_examples(count, data_args.builtin_seed, split), start=1), languages, "builtin"
            )
            for split, count in numbers.items()
        }
    elif (source := local_source(data_args.dataset)) is None:
        found = _from_hub(data_args, languages)
    elif source.is_dir() and (files := _files_by_language(source)):
        found = {split: _pairs_of_files(pairs, source) for split, pairs in _chosen(files, languages, source).items()}
    else:
        try:
            files = files_by_split(source, ROW_SUFFIXES)
        except DataError as error:
            raise DataError(f"{error}; or give a folder with train.{languages[0]} and train.{languages[1]}") from None
        found = {
            split: itertools.chain.from_iterable(
                _pairs_of_rows(numbered_rows(file), languages, file) for file in of_split
            )
            for split, of_split in files.items()
        }
    splits, left_out = DatasetDict(), {}
    for split, pairs in found.items():
        kept, left_out[split] = _without_empty(pairs, skip_empty)
        if not kept:
            raise DataError(f"{data_args.dataset}: the {split} data hold no pairs")
        splits[split] = Dataset.from_dict({"source": [a for a, _ in kept], "target": [b for _, b in kept]}, FEATURES)
    if "validation" not in splits and validation_fraction > 0:
        splits |= hold_out(splits["train"], validation_fraction, None, data_args.dataset)
    _refuse_exchanged(splits, languages, data_args.dataset)
    if data_args.max_examples is not None:
        splits["train"] = splits["train"].take(min(data_args.max_examples, len(splits["train"])))
    return splits, left_out


def _files_by_language(folder: Path) -> dict[str, dict[str, Path]]:
    """Stem -> language -> file, of the files whose last part can be a language: `train.en`, `val.zh_CN.gz`, `test.de.txt`."""
    found = {}
    for path in sorted(folder.iterdir()):
        name = path.name
        for ending in (".gz", ".txt"):
            name = name[: -len(ending)] if name.lower().endswith(ending) else name
        stem, _, language = name.rpartition(".")
        is_named = path.is_file() and not name.startswith(".") and f".{language.lower()}" not in ROW_SUFFIXES
        if is_named and LANGUAGE.fullmatch(language) and _split_of(stem):
            other = found.setdefault(stem, {}).setdefault(language, path)
            if other is not path:
                raise DataError(
                    f"{folder}: {other.name} and {path.name} are the same side of {stem}; keep one of them"
                )
    return found


def _split_of(stem: str) -> str | None:
    return next((split for split, name in SPLIT_IN_A_NAME.items() if name.search(stem.lower())), None)


def _chosen(files, languages, folder) -> dict[str, list[tuple[Path, Path]]]:
    """Split -> pairs of files; several test sets are splits of their own."""
    known = sorted({language for of_stem in files.values() for language in of_stem})
    for language in languages:
        if language not in known:
            raise DataError(f"{folder}: no file is named train.{language}; the languages are {', '.join(known)}")
    splits = {}
    for stem, of_stem in files.items():
        if any(language in of_stem for language in languages):
            if missing := [language for language in languages if language not in of_stem]:
                raise DataError(f"{folder}: there is {stem}.{(set(languages) - set(missing)).pop()}, but no "
                                f"{stem}.{missing[0]}; both sides of a pair are needed")  # fmt: skip
            splits.setdefault(_split_of(stem), {})[stem] = tuple(of_stem[language] for language in languages)
    if "train" not in splits:
        raise DataError(f"{folder}: none of the files is named train ({', '.join(files)})")
    tests = splits.pop("test", {})
    chosen = {split: list(splits[split].values()) for split in SPLIT_NAMES if split in splits}
    if len(tests) == 1:
        return chosen | {"test": list(tests.values())}
    return chosen | {stem: [pair] for stem, pair in tests.items()}


def _pairs_of_files(pairs, folder) -> Iterator[tuple[str, str, str]]:
    for first, second in pairs:
        with opened(first, "\n") as source, opened(second, "\n") as target:  # no other sign ends a line
            number = 0
            for number, (a, b) in enumerate(itertools.zip_longest(source, target), start=1):
                if a is None or b is None:
                    shorter, longer, rest = (first, second, target) if a is None else (second, first, source)
                    total = number + sum(1 for _ in rest)
                    text = (b if a is None else a).strip()
                    raise DataError(
                        f"{longer} has {total} lines, but {shorter} has {number - 1}: line {number} of the first, "
                        f"{text[:60]!r}, has no partner; a line is missing in the second, or one too many here"
                    )
                yield f"{first.name}:{number}", a.strip(), b.strip()


def _pairs_of_rows(rows, languages, where) -> Iterator[tuple[str, str, str]]:
    for number, row in rows:
        if isinstance(row, DataError):
            raise row
        texts = row["translation"] if isinstance(row, dict) and isinstance(row.get("translation"), dict) else row
        if not isinstance(texts, dict):
            raise DataError(f"{where}:{number}: a row is an object with the languages {' and '.join(languages)}")
        for language in languages:
            if not isinstance(texts.get(language), str):
                columns = ", ".join(map(str, texts)) or "none"
                what = "no text" if language in texts else "no column"
                raise DataError(
                    f"{where}:{number}: {what} in the language {language!r} (the columns: {columns}); set "
                    "--source_language and --target_language"
                )
        yield f"{where}:{number}", *(texts[language].strip() for language in languages)


def _from_hub(data_args, languages):
    found = hub.fetch(_Whole(data_args))
    splits = {split: next((name for name in names if name in found), None) for split, names in SPLIT_NAMES.items()}
    if splits["train"] is None:
        raise DataError(f"{data_args.dataset} has no split train, only {', '.join(found)}")
    return {
        split: _pairs_of_rows(enumerate(found[name]), languages, f"{data_args.dataset}, {name}, row")
        for split, name in splits.items()
        if name is not None
    }


class _Whole:
    """The arguments, of a data set that is not streamed."""

    streaming = False

    def __init__(self, data_args):
        vars(self).update(vars(data_args))


def _without_empty(pairs, skip_empty) -> tuple[list[tuple[str, str]], int]:
    kept, empty = [], []
    for place, source, target in pairs:
        if source and target:
            kept.append((source, target))
        else:
            sides = [name for name, text in (("source", source), ("target", target)) if not text]
            empty.append(f"{place} ({' and '.join(sides)})")
    if empty and not skip_empty:
        raise DataError(
            f"{len(empty)} pairs have a blank side: {', '.join(empty[:SHOWN])}{', ...' * (len(empty) > SHOWN)}; mend "
            "the data, or leave such pairs out with --skip_empty"
        )
    return kept, len(empty)


def _refuse_exchanged(splits, languages, where) -> None:
    """Compare the words of the splits: are source and target of one exchanged?"""
    words = {
        split: [Counter(word for text in part[:COMPARED][side] for word in text.lower().split()) for side in FEATURES]
        for split, part in splits.items()
    }
    for split, (source, target) in words.items():
        own, other = words["train"]
        straight = _shared(source, own) + _shared(target, other)
        crossed = _shared(source, other) + _shared(target, own)
        if crossed - straight > BY_CHANCE * (crossed + straight) ** 0.5:
            raise DataError(
                f"{where}: the {split} data look exchanged: their {languages[0]} side has more words in common with "
                f"the {languages[1]} side of the training data ({crossed} against {straight} in {COMPARED} pairs)"
            )


def _shared(a: Counter, b: Counter) -> int:
    return (a & b).total()
