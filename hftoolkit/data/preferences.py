r"""Preferences between answers, in one form for all: a prompt, two or more answers, and a number for each.

    {"prompt": "Who has it?", "completions": [" Anna.", " Tom."], "scores": [1.0, 0.0], "margin": None}

A higher score is a better answer; of answers with the same score none is preferred. Rows are read as distributed:
    HH-RLHF     chosen, rejected: "\n\nHuman: ...\n\nAssistant: ..." (jsonl.gz, Hub); the prompt is their common beginning
    TRL         prompt, chosen, rejected, also margin; as texts or as lists of {role, content}, also without prompt
    LLaMA-Factory   conversations, chosen, rejected: {from, value}; instruction, input, chosen, rejected
    rankings    prompt, completions and ranks (1 is the best) or scores (the highest is the best)

Papers: Bai et al. 2022, https://arxiv.org/abs/2204.05862 (HH-RLHF); Ouyang et al. 2022, https://arxiv.org/abs/2203.02155,
Section 3.5 (rankings of K answers).
"""

from collections.abc import Iterator
from copy import copy
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, List, Value

from hftoolkit.errors import DataError

from .labelled import load_examples, parse_json
from .opening import data_suffix, opened
from .preferences_builtin import builtin_pairs, builtin_rankings
from .preferences_rows import read_preference

FEATURES = Features(
    {
        "prompt": Value("string"),
        "completions": List(Value("string")),
        "scores": List(Value("float64")),
        "margin": Value("float64"),
    }
)
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
RANKINGS = "builtin:rankings"
SHOWN = 3  # places that a message names


class BadRows:
    """Rows that cannot be read: the first stops the run, or they are left out and counted.

    Args:
        on_bad_row: "stop" or "skip".
        max_bad_rows: rows that may be skipped, in all files together.
    """

    def __init__(self, on_bad_row="stop", max_bad_rows=10):
        self.may_skip = max_bad_rows if on_bad_row == "skip" else None
        self.skipped = []

    def refuse(self, error: DataError) -> None:
        """Note a bad row.

        Raises:
            DataError: the run has to stop.
        """
        if self.may_skip is None:
            raise DataError(
                f"{error}. Mend or remove the row, or leave such rows out with --on_bad_row skip"
            ) from None
        self.skipped.append(str(error))
        if len(self.skipped) > self.may_skip:
            shown = "; ".join(self.skipped[:SHOWN])
            raise DataError(
                f"more than {self.may_skip} rows cannot be read: {shown}; mend them, or raise --max_bad_rows"
            )


def load_preferences(
    data_args, *, tokenizer=None, on_bad_row="stop", max_bad_rows=10, validation_fraction=0.1
) -> tuple[DatasetDict, dict]:
    """Load preferences (see FEATURES); no prompt is in two splits where validation data are held out.

    Args:
        data_args: ExampleArguments; dataset may also be builtin:rankings.
        tokenizer: its chat template writes the prompts of conversations; without one they are written as in HH-RLHF.
        on_bad_row, max_bad_rows: see BadRows.
        validation_fraction: share of the prompts held out, the last ones, where the source has no validation data.

    Returns:
        (splits, {"skipped": number, "skipped_at": [the first places]} or {}).

    Raises:
        DataError: the data are missing or damaged, an answer is empty, no answer is better than another.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    bad = BadRows(on_bad_row, max_bad_rows)
    wanted, builtin = data_args, builtin_pairs
    if data_args.dataset == RANKINGS:
        wanted, builtin = copy(data_args), builtin_rankings
        wanted.dataset = "builtin"
    splits = load_examples(
        wanted, FEATURES, builtin=builtin, suffixes=SUFFIXES, validation_fraction=validation_fraction, group="prompt",
        read_file=lambda file: _checked(_file_rows(file), tokenizer, bad),
        read_hub=lambda split, where: _checked(
            ((f"{where}, row {number}", row) for number, row in enumerate(split)), tokenizer, bad
        ),
    )  # fmt: skip
    return splits, {"skipped": len(bad.skipped), "skipped_at": bad.skipped[:SHOWN]} if bad.skipped else {}


def preference_texts(data_args, **options) -> Iterator[str]:
    """Prompts with their answers in the training data, for a tokenizer to learn from; nothing is read before the first.

    Args:
        options: of load_preferences.
    """
    for row in load_preferences(data_args, **options)[0]["train"]:
        yield from (row["prompt"] + answer for answer in row["completions"])


def read_preferences(file: Path, tokenizer=None, bad: BadRows | None = None) -> Iterator[dict]:
    """Read a file of any of the known forms.

    Raises:
        DataError: a row that is damaged, of no known form, or no preference, with its line.
    """
    return _checked(_file_rows(Path(file)), tokenizer, bad or BadRows())


def _checked(rows, tokenizer, bad):
    for where, row in rows:
        try:
            if isinstance(row, DataError):
                raise row
            found = read_preference(row, where, tokenizer)
        except DataError as error:
            bad.refuse(error)
        else:
            yield found


def _file_rows(file: Path) -> Iterator[tuple[str, object]]:
    """(place, row) of a file; a line of JSON that cannot be read is given as its DataError."""
    if data_suffix(file) == ".parquet":
        yield from _parquet_rows(file)
        return
    with opened(file) as text:
        if data_suffix(file) == ".json":
            while (first := text.read(1)).isspace():
                pass
            if first == "[":
                rows = parse_json(first + text.read(), str(file))
                yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, start=1))
                return
            text.seek(0)
        for number, line in enumerate(text, start=1):
            if line.strip():
                try:
                    row = parse_json(line, str(file), number)
                except DataError as error:
                    row = error
                yield f"{file}:{number}", row


def _parquet_rows(file: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: the Parquet file is damaged: {str(error).splitlines()[0]}") from error


def describe_preferences(preferences: Dataset) -> dict:
    """Numbers of prompts, answers and pairs, and of pairs that are no preference because their scores are equal.

    Example:
        scores [[1, 0], [3, 1, 1]] -> {"prompts": 2, "answers": 5, "pairs": 3, "tied_pairs": 1}
    """
    pairs = tied = 0
    for scores in preferences["scores"]:
        for first, one in enumerate(scores):
            equal = sum(one == other for other in scores[first + 1 :])
            tied, pairs = tied + equal, pairs + len(scores) - first - 1 - equal
    counts = {"prompts": len(preferences), "answers": sum(map(len, preferences["scores"])), "pairs": pairs}
    return counts | ({"tied_pairs": tied} if tied else {})
