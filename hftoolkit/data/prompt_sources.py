"""Prompts for PPO from files, the Hub or the built-in world; whatever instructions can be read from serves too."""

from pathlib import Path

from datasets import DatasetDict

from hftoolkit.errors import DataError

from .instructions_rows import instruction_rows
from .labelled import load_examples
from .numbered_rows import numbered_rows
from .opening import ROW_SUFFIXES

ANSWERS = ("completion", "messages", "output", "response", "conversations", "chosen", "completions")


def load_prompts(data_args, validation_fraction=0.05) -> DatasetDict:
    """The splits train, validation and test where there are such; every row has `prompt`, text or conversation.

    A row with `prompt` and no answer keeps its other columns, for the reward functions; of rows with answers (see
    hftoolkit.data.instructions; preferences too) only the prompt is kept, in conversations all before the last answer. `builtin` are
    questions about a story of the microworld, with their kind.

    Raises:
        DataError: the data are missing or damaged, or a row has no prompt; naming file and line.
        HubError: the Hub cannot be reached, or does not have the data set.
    """

    def builtin(number, seed, split):
        from .microworld import question_prompts

        rows = question_prompts(number, seed, split)
        return [{"prompt": row["prompt"], "kind": row["kind"]} for row in rows]

    def read(numbered, where):
        for number, row in numbered:
            if isinstance(row, DataError):
                raise row
            yield from prompt_rows(row, f"{where}:{number}")

    return load_examples(
        data_args,
        None,
        builtin=builtin,
        read_file=lambda file: read(numbered_rows(Path(file)), str(file)),
        read_hub=lambda split, where: read(enumerate(split, start=1), where),
        suffixes=ROW_SUFFIXES,
        validation_fraction=validation_fraction,
    )


def prompt_rows(row, place):
    """The prompts of one row, as rows themselves.

    Example:
        {"prompt": "Name a colour.", "level": 1} -> [{"prompt": "Name a colour.", "level": 1}]
        {"messages": [user, assistant, user, assistant]} -> [{"prompt": [user, assistant, user]}]

    Raises:
        DataError: no prompt, or an empty one; naming the place.
    """
    if isinstance(row, dict) and "prompt" in row and not set(ANSWERS) & row.keys():
        prompt = row["prompt"]
        if not isinstance(prompt, str | list) or not prompt:
            raise DataError(f"{place}: the prompt is {prompt!r}; it has to be text or a conversation, and not empty")
        return [row]
    found = []
    for example in instruction_rows(row, place):
        prompt = example.get("prompt")
        if prompt is None:
            prompt = example["messages"]
            while prompt and prompt[-1]["role"] == "assistant":
                prompt = prompt[:-1]
        if not prompt:
            raise DataError(f"{place}: there is no prompt before the answer")
        found.append({"prompt": prompt})
    return found
