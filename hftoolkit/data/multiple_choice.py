"""Questions with several answers to choose from: SWAG, HellaSwag, ARC, RACE, PIQA, StoryCloze and others, in one form for all.

The form: {"context": "The lamp fell.", "choices": ["It broke.", "It sang."], "label": 0}, a line each (.jsonl), with
"id" where there is one; other rows may have another number of choices. Also read as they are distributed:
    SWAG        sent1, sent2, ending0 ... ending3, label (CSV, Hub)
    HellaSwag   ctx (or ctx_a, ctx_b), endings, label
    ARC, OpenBookQA   question {stem, choices [{text, label}]}, answerKey; question or question_stem, choices {text,
                label}, answerKey (Hub); question, choices [...], label
    PIQA        goal, sol1, sol2, label; in its own files the labels lie beside train.jsonl, in train-labels.lst
    CODAH       TSV without header: category, prompt, four endings, label
    RACE        article, question, options, answer (a letter); in its own files (.txt) an article has lists of them
    StoryCloze  InputSentence1 ... 4, RandomFifthSentenceQuiz1 and 2, AnswerRightEnding (CSV); the Hub's input_sentence_1

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 4.4 (the model reads context and choice as a pair).
"""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hftoolkit.errors import DataError

from .choice_builtin import choice_examples
from .choice_forms import context_choices_label, single_questions
from .labelled import load_examples, parse_json
from .opening import data_suffix, opened

FEATURES = Features(
    {"id": Value("string"), "context": Value("string"), "choices": List(Value("string")), "label": Value("int64")}
)
SUFFIXES = (".jsonl", ".json", ".tsv", ".csv", ".txt")
CODAH_COLUMNS = 7


def load_choices(data_args, *, validation_fraction: float = 0.1) -> DatasetDict:
    """Load questions with their choices (see FEATURES); the label is the number of the right choice, from 0.

    Args:
        data_args: ExampleArguments.
        validation_fraction: share of the questions held out where the source has no validation data.

    Raises:
        DataError: the data are missing or damaged, a label that is none of the choices, a row of no known form.
        HubError: the Hub cannot be reached, or does not have the data set.
    """

    def builtin(number, seed, split):
        rows = choice_examples(number, seed, split)
        return [check_choices(row, f"{split}-{n}", "builtin") for n, row in enumerate(rows)]

    return load_examples(
        data_args, FEATURES, builtin=builtin, read_file=read_choices, read_hub=_read_hub, suffixes=SUFFIXES,
        validation_fraction=validation_fraction,
    )  # fmt: skip


def describe_choices(questions: Dataset) -> dict:
    """Number of questions and, as text, how many have how many choices."""
    sizes = Counter(map(len, questions["choices"]))
    return {"questions": len(questions), "choices": ", ".join(f"{n} x {size}" for size, n in sorted(sizes.items()))}


def read_choices(file: Path) -> Iterator[dict]:
    """Read a file of any of the known forms.

    Raises:
        DataError: a row that is damaged or of no known form, with its line.
    """
    with opened(file, newline="") as text:
        read = {".tsv": _codah_rows, ".csv": _csv_rows, ".json": _json_rows}.get(data_suffix(file), _json_lines)
        for line, row in _with_labels(read(text, str(file)), file):
            for number, one in enumerate(single_questions(row, f"{file}:{line}")):
                name = f"{file.name.split('.')[0]}-{line}" + (f"-{number}" if number else "")
                yield check_choices(one, name, f"{file}:{line}")


def _with_labels(rows, file: Path):
    """The rows, with the labels of the file beside them where there is one: PIQA's train-labels.lst."""
    stem, _, _ = file.name.partition(".")
    labels_file = file.with_name(f"{stem}-labels.lst")
    if not labels_file.exists():
        yield from rows
        return
    with opened(labels_file) as text:
        labels = [line.strip() for line in text if line.strip()]
    number = 0
    for number, (line, row) in enumerate(rows, start=1):
        if number <= len(labels):
            yield line, row | {"label": labels[number - 1]} if isinstance(row, dict) else row
    if number != len(labels):
        raise DataError(f"{file} has {number} rows, but {labels_file.name} has {len(labels)} labels")


def _json_lines(text, file):
    for number, line in enumerate(text, start=1):
        if line.strip():
            yield number, parse_json(line, file, number)


def _json_rows(text, file):
    """A list of objects; the number of the row stands for the line."""
    rows = parse_json(text.read(), file)
    if not isinstance(rows, list):
        raise DataError(f"{file}: a .json file holds a list of objects; call a file with an object per line .jsonl")
    return enumerate(rows, start=1)


def _codah_rows(text, file):
    for number, row in enumerate(csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
        if row:
            if len(row) != CODAH_COLUMNS:
                raise DataError(f"{file}:{number}: {len(row)} columns; CODAH has category, prompt, 4 endings, label")
            yield number, {"context": row[1], "choices": row[2:6], "label": row[6]}


def _csv_rows(text, file):
    reader = csv.DictReader(text, strict=True, restkey="")
    try:
        for row in reader:
            if None in row.values() or "" in row:
                raise DataError(f"{file}:{reader.line_num}: another number of fields than the header")
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{file}:{reader.line_num}: broken CSV: {error}") from None


def _read_hub(split: Dataset, where: str) -> Iterator[dict]:
    kind = split.features.get("label")
    for number, row in enumerate(split):
        name = kind.int2str(row["label"]) if isinstance(kind, ClassLabel) and row["label"] >= 0 else None
        row = row | ({"label": name} if name is not None and name.isdigit() else {})
        yield check_choices(row, str(number), f"{where}, row {number}")


def check_choices(row: dict, name: str, where: str) -> dict:
    """Bring a row of any known form into the one form, and check it.

    Args:
        name: its id where it has none.

    Raises:
        DataError: no known form, fewer than two choices, or a label that is none of them.

    Example:
        {"goal": "To boil eggs,", "sol1": "use water.", "sol2": "use sand.", "label": 0}
        -> {"id": name, "context": "To boil eggs,", "choices": ["use water.", "use sand."], "label": 0}
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is an object with context, choices and label, not {type(row).__name__}")
    context, choices, label = context_choices_label(row, where)
    if not isinstance(context, str) or not all(isinstance(choice, str) for choice in choices):
        raise DataError(f"{where}: the context and the choices are texts")
    if len(choices) < 2:
        raise DataError(f"{where}: {len(choices)} choices; there must be two at least")
    if isinstance(label, str) and label.strip().isdigit():
        label = int(label)
    if label in (None, "", -1):
        raise DataError(f"{where}: no label; unlabelled test data cannot be trained on or scored")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(choices):
        raise DataError(f"{where}: the label {label!r} is none of the choices 0 to {len(choices) - 1}")
    return {"id": str(row.get("id", name)), "context": context, "choices": list(choices), "label": label}
