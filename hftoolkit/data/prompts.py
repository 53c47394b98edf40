"""Prompts for reinforcement learning: text, conversations or token ids, checked before anything is sampled."""

from datasets import Dataset, IterableDataset

from hftoolkit.errors import DataError

COLUMNS = ("prompt", "messages", "input_ids")


def tokenize_prompts(dataset, tokenizer, *, max_prompt_length, on_long="stop", name="training", num_workers=None):
    """A data set with the column `prompt_ids`, the prompt as text or conversation, and all other columns as they are.

    Args:
        dataset: with a column `prompt`: text, or a conversation (list of messages with role and content), to which the
            chat template adds the turn of the assistant; or with `input_ids`.
        max_prompt_length: tokens; the context less the longest response.
        on_long: of a longer prompt: "stop" is an error, "skip" leaves it out, "truncate" cuts its beginning.
        name: of the split, for messages.
        num_workers: processes that tokenize; None for none beside this one.

    Raises:
        DataError: no such column; an empty prompt; a conversation that no chat template can write; one that is too long,
            naming its row and length; none left.
    """
    column = next((column for column in COLUMNS if column in dataset.column_names), None)
    if column is None:
        raise DataError(
            f"the {name} prompts have the columns {', '.join(dataset.column_names)}, but none of {', '.join(COLUMNS)}"
        )

    def encode(row, index):
        ids = checked_prompt_ids(row[column], tokenizer, f"row {index} of the {name} prompts")
        if not ids:
            raise DataError(
                f"row {index} of the {name} prompts is empty: a response needs at least one token before it"
            )
        if len(ids) > max_prompt_length:
            if on_long == "stop":
                raise DataError(
                    f"row {index} of the {name} prompts has {len(ids)} tokens, and the limit is {max_prompt_length}: "
                    "leave such prompts out with on_long_prompt skip, cut their beginning with on_long_prompt truncate, "
                    "or raise max_prompt_length if the model can read more"
                )
            ids = ids[-max_prompt_length:] if on_long == "truncate" else []
        text = tokenizer.decode(ids) if column == "input_ids" else row[column]
        return {"prompt": text, "prompt_ids": ids}

    replaced = [column for column in COLUMNS if column in dataset.column_names]
    found = dataset.map(encode, with_indices=True, remove_columns=replaced, num_proc=num_workers)
    if on_long == "skip":
        found = found.filter(lambda ids: len(ids) > 0, input_columns="prompt_ids")
    if len(found) == 0:
        raise DataError(f"no {name} prompt is left: all {len(dataset)} have more than {max_prompt_length} tokens")
    return found


def checked_prompt_ids(prompt, tokenizer, place):
    """prompt_ids of one prompt, whose place an error names.

    Raises:
        DataError: a conversation, and the tokenizer has no chat template, or one that refuses it.
    """
    import jinja2

    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict) and not tokenizer.chat_template:
        raise DataError(
            f"{place} is a conversation, and the tokenizer has no chat template: begin with a model that was fine-tuned on "
            "conversations (recipes/sft.py), or give prompts as text"
        )
    try:
        return prompt_ids(prompt, tokenizer)
    except (jinja2.TemplateError, TypeError) as error:
        raise DataError(f"{place} cannot be written by the tokenizer's chat template: {error}") from error


def prompt_ids(prompt, tokenizer):
    """Token ids of one prompt: of a text as the tokenizer encodes it (no end token behind it), or of a conversation."""
    if isinstance(prompt, str):
        ids = tokenizer(prompt)["input_ids"]
        ends = (
            ids
            and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id)
            and not prompt.endswith(tuple(filter(None, (tokenizer.eos_token, tokenizer.sep_token))))
        )
        return ids[:-1] if ends and len(ids) > 1 else ids
    if prompt and isinstance(prompt[0], int):
        return list(prompt)
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False))


def as_dataset(rows):
    """A list of rows, or of texts, as a data set.

    Raises:
        DataError: a stream, whose prompts cannot be drawn in a fresh order.
    """
    if isinstance(rows, IterableDataset):
        raise DataError(
            "prompts cannot be a stream: take as many as you need, Dataset.from_list(list(stream.take(n)))"
        )
    if isinstance(rows, Dataset):
        return rows
    return Dataset.from_list([{"prompt": row} if isinstance(row, str) else dict(row) for row in rows])
