"""Sentences with a tag for every word: entities or parts of speech, from files, the Hub or the microworld.

CoNLL columns: a word per line, columns parted by tabs (or, without a tab, by spaces), sentences by blank lines,
documents by -DOCSTART-; .conllu also has comments and numbers like 1-2 and 1.1, which are skipped. JSON lines:
{"tokens": ["Anna", "smiled"], "tags": ["B-PER", "O"]}. Every row of a file has as many columns as the first.

Entity tags become IOB2 (B- begins every entity): IOB1 (B- only between neighbours), BIOES, BILOU and BMES are
recognised by their letters; an I- that nothing begins becomes a B-, as conlleval reads it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hftoolkit.errors import DataError

from .labelled import load_examples, parse_json
from .opening import data_suffix, opened

FEATURES = Features({"tokens": List(Value("string")), "tags": List(Value("string")), "converted": Value("int32")})
CONLL_SUFFIXES = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".txt", ".tsv")
BEGINS, GOES_ON, ENDS = "BSU", "IEML", "ESLU"  # letters of IOB, BIOES, BILOU and BMES
TAG = re.compile(rf"([{BEGINS}{GOES_ON}])-(.+)")
HUB_COLUMNS = {"ner": ("ner_tags", "tags", "labels"), "pos": ("pos_tags", "upos", "tags", "labels")}
DOCUMENT_START = "-DOCSTART-"
BLANK = " \t\ufeff"  # a byte order mark may stand in the middle, where files were joined
SKIPPED_ID = re.compile(r"\d+[-.]\d+")  # CoNLL-U: words of several tokens, and empty ones


def load_tagged(
    data_args,
    *,
    task: Literal["ner", "pos"] = "ner",
    validation_fraction: float = 0.1,
    word_column: int | None = None,
    tag_column: int | None = None,
) -> DatasetDict:
    """Load sentences with the columns tokens, tags, and converted: the number of tags that were changed to IOB2.

    Args:
        data_args: ExampleArguments.
        task: "ner": tags are entities, and become IOB2; "pos": any tags.
        validation_fraction: share of the sentences held out where the source has no validation data.
        word_column, tag_column: of CoNLL files, from 0, negative from the end; None is the first and the last, and
            FORM and UPOS in .conllu.

    Raises:
        DataError: the data are missing or damaged, tags of no known scheme, another number of tags than words.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    if data_args.dataset == "builtin" and task == "pos":
        raise DataError("the built-in sentences have entity tags only: set --task ner, or give another --dataset")

    def builtin(number, seed, split):
        from hftoolkit.data.microworld import tagging_examples

        return [check_sentence(row["tokens"], row["tags"], task) for row in tagging_examples(number, seed, split)]

    def read_file(path):
        if data_suffix(path) in CONLL_SUFFIXES:
            return read_conll(path, task, word_column, tag_column)
        return read_json_lines(path, task)

    def read_hub(split, where):
        return _read_hub(split, where, task)

    return load_examples(
        data_args, FEATURES, builtin=builtin, read_file=read_file, read_hub=read_hub,
        suffixes=(*CONLL_SUFFIXES, ".jsonl"), validation_fraction=validation_fraction,
    )  # fmt: skip


def describe_sentences(sentences: Dataset) -> dict[str, int]:
    """Numbers of sentences and words, of tags changed to IOB2, and of tags."""
    tags = Counter(tag for tags in sentences["tags"] for tag in tags)
    converted = sum(sentences["converted"])
    counts = {"sentences": len(sentences), "words": sum(tags.values())}
    return counts | ({"tags_converted": converted} if converted else {}) | {"different_tags": len(tags)}


def read_conll(file: Path, task: str, word_column: int | None, tag_column: int | None) -> Iterator[dict]:
    """Read sentences in CoNLL's columns.

    Raises:
        DataError: a row with fewer or more columns than the first, an empty word, a tag of no known scheme.
    """
    is_conllu = data_suffix(file) == ".conllu"
    word_column = (1 if is_conllu else 0) if word_column is None else word_column
    tag_column = (3 if is_conllu else -1) if tag_column is None else tag_column
    columns, words, tags, lines = None, [], [], []
    with opened(file) as text:
        for number, line in enumerate(text, start=1):
            row = line.strip("\n")
            if is_conllu and (row.startswith("#") or SKIPPED_ID.match(row)):
                continue
            if row.strip(BLANK) and not row.startswith(DOCUMENT_START):
                parts = row.split("\t") if "\t" in row else re.split(" +", row.strip(" "))
                columns = columns or _check_columns(len(parts), word_column, tag_column, f"{file}:{number}")
                if len(parts) != columns:
                    raise DataError(
                        f"{file}:{number}: {len(parts)} columns, but the rows before have {columns}: {row!r}"
                    )
                words.append(parts[word_column])
                tags.append(parts[tag_column])
                lines.append(number)
            elif words:
                yield check_sentence(words, tags, task, str(file), lines)
                words, tags, lines = [], [], []
    if words:
        yield check_sentence(words, tags, task, str(file), lines)


def _check_columns(number: int, word_column: int, tag_column: int, where: str) -> int:
    for name, column in (("word", word_column), ("tag", tag_column)):
        if not -number <= column < number:
            raise DataError(f"{where}: {number} columns, so there is no {name}_column {column} (they count from 0)")
    if word_column % number == tag_column % number:
        raise DataError(f"{where}: word and tag are both in column {word_column % number} of {number}")
    return number


def read_json_lines(file: Path, task: str) -> Iterator[dict]:
    """Read {"tokens": [...], "tags": [...]} line by line.

    Raises:
        DataError: broken JSON, or a line of another form.
    """
    with opened(file) as text:
        for number, line in enumerate(text, start=1):
            if line.strip():
                row = parse_json(line, str(file), number)
                lists = [row.get(key) if isinstance(row, dict) else None for key in ("tokens", "tags")]
                if not all(isinstance(part, list) and all(isinstance(x, str) for x in part) for part in lists):
                    raise DataError(f'{file}:{number}: a line is {{"tokens": [words], "tags": [tags]}}')
                if lists[0]:
                    yield check_sentence(*lists, task, str(file), [number] * len(lists[0]))


def _read_hub(split: Dataset, where: str, task: str) -> Iterator[dict]:
    column = next((name for name in HUB_COLUMNS[task] if name in split.column_names), None)
    if column is None or "tokens" not in split.column_names:
        wanted = f"tokens and one of {', '.join(HUB_COLUMNS[task])}"
        raise DataError(f"{where}: columns {wanted} are needed; it has {', '.join(split.column_names)}")
    kind = getattr(split.features[column], "feature", None)
    for number, row in enumerate(split):
        tags = [kind.int2str(tag) if isinstance(kind, ClassLabel) else tag for tag in row[column]]
        if not all(isinstance(tag, str) for tag in tags):
            raise DataError(f"{where}, row {number}: '{column}' holds numbers without names")
        if row["tokens"]:
            yield check_sentence(row["tokens"], tags, task, f"{where}, row {number}")


def check_sentence(tokens: list, tags: list, task: str, where: str = "builtin", lines: list | None = None) -> dict:
    """Check a sentence and turn its entity tags into IOB2.

    Args:
        lines: number of the line of each word, for errors.

    Raises:
        DataError: another number of tags than words, an empty word, a tag of no known scheme.
    """
    place = where if lines is None else f"{where}:{lines[0] if lines else 1}"
    if len(tokens) != len(tags):
        raise DataError(f"{place}: {len(tokens)} words, but {len(tags)} tags")
    places = [where if lines is None else f"{where}:{line}" for line in lines or [0] * len(tokens)]
    for token, tag, place in zip(tokens, tags, places, strict=True):
        if not token or not tag:
            raise DataError(f"{place}: an empty {'word' if not token else 'tag'}")
        if task == "ner" and tag != "O" and not TAG.fullmatch(tag):
            raise DataError(
                f"{place}: the tag {tag!r} is of no known scheme (O and B-X, I-X, or BIOES); for tags that are not "
                "entities set --task pos, for another column --tag_column"
            )
    new = to_iob2(tags) if task == "ner" else list(tags)
    return {"tokens": list(tokens), "tags": new, "converted": sum(a != b for a, b in zip(new, tags, strict=True))}


def to_iob2(tags: list[str]) -> list[str]:
    """The same entities with B- at the start of each and I- after it.

    Example:
        IOB1   I-PER I-PER B-PER O I-LOC  -> B-PER I-PER B-PER O B-LOC
        BIOES  B-PER E-PER S-PER O S-LOC  -> B-PER I-PER B-PER O B-LOC
    """
    result, open_type = [], None  # the type of an entity that the next tag may continue
    for tag in tags:
        if tag == "O":
            result.append(tag)
            open_type = None
            continue
        letter, kind = TAG.fullmatch(tag).groups()
        result.append(f"{'B' if letter in BEGINS or kind != open_type else 'I'}-{kind}")
        open_type = None if letter in ENDS else kind
    return result
