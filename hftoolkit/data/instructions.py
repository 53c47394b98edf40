"""Instructions with answers from any source, in the forms that TRL's SFTTrainer takes.

Files are JSON (a list of objects, or one per line), JSON lines, CSV, TSV and Parquet; a folder has one or more for each
split. What a row may look like stands in instructions_rows.py. Built-in data: `builtin` are questions about a story,
prompt and completion, the prompts that reward models and PPO use too; `builtin:instructions` are several kinds of
instructions in Alpaca's form.
"""

import logging
from collections.abc import Iterator
from itertools import chain
from types import SimpleNamespace

from datasets import DatasetDict

from hftoolkit.errors import DataError

from .instructions_rows import instruction_rows
from .labelled import load_examples
from .numbered_rows import numbered_rows
from .opening import ROW_SUFFIXES

logger = logging.getLogger(__name__)

BUILTIN_INSTRUCTIONS = "builtin:instructions"
SHOWN, LONGEST_REASON = 3, 150  # places that a message names, and characters of each


def load_instructions(
    data_args,
    *,
    validation_fraction: float = 0.05,
    chat: bool = False,
    columns: list[str] | None = None,
    on_bad_row: str = "stop",
    max_bad_rows: int = 10,
    skipped: list[str] | None = None,
) -> DatasetDict:
    """Load the splits train and, where there is one, validation and test; all their rows have the same form.

    Args:
        data_args: ExampleArguments.
        validation_fraction: share of the training data that is held out where the source has no validation data.
        chat: make conversations of texts (see instruction_rows).
        columns: what prompt and completion are called; None finds the columns of the known forms.
        on_bad_row: "stop", or "skip": leave out rows that cannot be used, at most max_bad_rows.
        skipped: gets a line for each row left out.

    Returns:
        Rows with exactly the columns prompt and completion (both texts, or both lists of messages), or messages.

    Raises:
        DataError: the data are missing, damaged or of different forms, or a row cannot be used.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    reader = _Reader(chat, columns, max_bad_rows if on_bad_row == "skip" else None, skipped)
    generate = _builtin(data_args.dataset)

    def builtin(number, seed, split):
        return list(reader.read(enumerate(generate(number, seed, split), start=1), f"builtin, {split}, row "))

    source = SimpleNamespace(**vars(data_args))
    source.dataset = "builtin" if generate else data_args.dataset
    return load_examples(
        source,
        None,
        builtin=builtin,
        read_file=lambda file: reader.read(numbered_rows(file), f"{file}:"),
        read_hub=lambda split, where: reader.read(enumerate(split), f"{where}, row "),
        suffixes=ROW_SUFFIXES,
        validation_fraction=validation_fraction,
    )


def is_conversational(row: dict) -> bool:
    """Whether an example is a conversation, for which a chat template is needed."""
    return not isinstance(row.get("prompt", []), str)


def texts_of(rows) -> Iterator[str]:
    """Every text of the examples, for a tokenizer to learn from."""
    for row in rows:
        if not is_conversational(row):
            yield row["prompt"] + row["completion"]
        else:
            yield from (message["content"] for message in chain.from_iterable(row.values()))


def _builtin(dataset):
    """The generator of built-in examples that a name means: (number, seed, split) -> rows; None for other data."""
    if dataset not in ("builtin", BUILTIN_INSTRUCTIONS):
        return None
    from .microworld import instruction_examples, question_prompts

    return question_prompts if dataset == "builtin" else instruction_examples


class _Reader:
    """Turns rows into examples; refuses or leaves out what cannot be used, and rows of another form than the first."""

    def __init__(self, chat, columns, may_skip, skipped):
        self.options, self.may_skip = {"chat": chat, "columns": columns}, may_skip
        self.skipped, self.form = [] if skipped is None else skipped, None

    def read(self, numbered, where):
        """The examples of one file or split, from (number, row or DataError); `where` stands before a number."""
        before = len(self.skipped)
        for number, row in numbered:
            try:
                if isinstance(row, DataError):
                    raise row
                yield from self._examples(row, f"{where}{number}")
            except DataError as error:
                self._skip(error)
        if len(self.skipped) > before:
            shown = "; ".join(self.skipped[before : before + SHOWN])
            logger.warning("%d rows are left out: %s", len(self.skipped) - before, shown)

    def _examples(self, row, place):
        examples = instruction_rows(row, place, **self.options)
        for example in examples:
            form = (*example, is_conversational(example))
            self.form = self.form or form
            if form != self.form:
                remedy = "" if self.options["chat"] else "; --chat true makes conversations of texts"
                raise DataError(f"{place}: {_named(form)}, but the rows before are {_named(self.form)}{remedy}")
        return examples

    def _skip(self, error):
        if self.may_skip is None:
            raise error
        self.skipped.append(str(error))
        if len(self.skipped) > self.may_skip:
            shown = "; ".join(line[:LONGEST_REASON] for line in self.skipped[:SHOWN])
            raise DataError(
                f"more than {self.may_skip} rows cannot be used: {shown}, ...; mend or remove them, or raise --max_bad_rows"
            )


def _named(form):
    *columns, conversational = form
    return f"{' and '.join(columns)} as {'messages' if conversational else 'text'}"


def describe_instructions(examples) -> dict[str, int]:
    """Numbers of examples and, of conversations, of messages."""
    first = examples[0]
    counts = {"examples": len(examples)}
    if is_conversational(first):
        counts["messages"] = sum(len(turns) for column in first for turns in examples[column])
    return counts
