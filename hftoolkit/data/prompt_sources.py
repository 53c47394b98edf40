"""Prompts for PPO from files, the Hub or the built-in world; whatever instructions can be read from serves too."""

import logging
from pathlib import Path

from datasets import DatasetDict

from hftoolkit.errors import DataError

from .instructions_rows import instruction_rows
from .labelled import load_examples
from .numbered_rows import numbered_rows
from .opening import ROW_SUFFIXES
from .preferences import SHOWN, BadRows
from .preferences_rows import preference_prompt

logger = logging.getLogger(__name__)

ANSWERS = ("completion", "messages", "output", "response", "conversations", "chosen", "completions")
PREFERENCES = (("chosen", "rejected"), ("prompt", "completions"))


def load_prompts(
    data_args, validation_fraction=0.05, *, on_bad_row="stop", max_bad_rows=10, skipped=None
) -> DatasetDict:
    """The splits train, validation and test where there are such; every row has `prompt`, text or conversation.

    A row with `prompt` and no answer keeps its other columns, for the reward functions; of rows with answers (see
    hftoolkit.data.instructions; preferences too) only the prompt is kept, in conversations all before the last answer. `builtin` are
    questions about a story of the microworld, with their kind.

    Args:
        on_bad_row: "stop", or "skip": leave out rows that cannot be used, at most max_bad_rows. The answers of a
            preference, which are not read, need not be good.
        skipped: a dictionary that gets the number of rows left out, if any, and the first places.

    Raises:
        DataError: the data are missing or damaged, or a row has no prompt, or one of another form (text, conversation,
            token ids) than the rows before; naming file and line.
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    bad, form, skipped = BadRows(on_bad_row, max_bad_rows), {}, {} if skipped is None else skipped

    def builtin(number, seed, split):
        from .microworld import question_prompts

        rows = question_prompts(number, seed, split)
        return [{"prompt": row["prompt"], "kind": row["kind"]} for row in rows]

    def read(numbered, where):
        for number, row in numbered:
            try:
                if isinstance(row, DataError):
                    raise row
                found = prompt_rows(row, place := f"{where}:{number}")
                for one in found:
                    _require_form(one["prompt"], form, place)
            except DataError as error:
                bad.refuse(error)
            else:
                yield from found

    splits = load_examples(
        data_args,
        None,
        builtin=builtin,
        read_file=lambda file: read(numbered_rows(Path(file)), str(file)),
        read_hub=lambda split, where: read(enumerate(split, start=1), where),
        suffixes=ROW_SUFFIXES,
        validation_fraction=validation_fraction,
    )
    if bad.skipped:
        logger.warning("%d rows are left out: %s", len(bad.skipped), "; ".join(bad.skipped[:SHOWN]))
        skipped |= {"skipped": len(bad.skipped), "skipped_at": bad.skipped[:SHOWN]}
    return splits


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
        if not isinstance(prompt, str | list) or not prompt or (isinstance(prompt, list) and not _form(prompt)):
            raise DataError(
                f"{place}: the prompt is {str(prompt)[:100]!r}; it has to be text or a conversation, and not empty"
            )
        return [row]
    if isinstance(row, dict) and any(all(row.get(name) is not None for name in names) for names in PREFERENCES):
        if not (prompt := preference_prompt(row, place)):
            raise DataError(f"{place}: there is no prompt before the answers")
        return [{"prompt": prompt}]
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


def _form(prompt):
    """What kind of prompt it is; None where it is none."""
    if isinstance(prompt, str):
        return "text"
    kinds = {dict: "a conversation", int: "token ids"}
    return next((name for kind, name in kinds.items() if all(type(part) is kind for part in prompt)), None)


def _require_form(prompt, first, place):
    """Refuse a prompt of another form than the first one, which is noted."""
    form = _form(prompt)
    if form != first.setdefault("form", form):
        raise DataError(f"{place}: the prompt is {form}, but those before are {first['form']}: give files of one form")
