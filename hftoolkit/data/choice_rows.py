"""Rows for a model that scores choices: each choice of a question as a pair with the context."""

from datasets import Dataset, Features, List, Value
from transformers import DataCollatorForMultipleChoice

from hftoolkit.errors import DataError

COLUMNS = {"input_ids": List(List(Value("int32"))), "label": Value("int64"), "choices_cut": Value("int32")}


def pair_choices(questions: Dataset, tokenizer, *, max_length=128, num_workers=None) -> Dataset:
    """A row for each question: every choice as a pair (context, choice), the longer one cut where both are too long.

    The column choices_cut counts the pairs of the row that lost tokens.

    Raises:
        DataError: the model does not read so many tokens.
    """
    if max_length > tokenizer.model_max_length:
        raise DataError(f"max_length {max_length}: the model reads at most {tokenizer.model_max_length} tokens")
    if max_length <= tokenizer.num_special_tokens_to_add(pair=True) + 1:
        raise DataError(f"max_length {max_length} leaves no room for a context and a choice")
    inputs = {name: List(List(Value("int8"))) for name in tokenizer.model_input_names if name != "input_ids"}
    return questions.map(
        _rows,
        batched=True,
        remove_columns=questions.column_names,
        features=Features(COLUMNS | inputs),
        num_proc=num_workers,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length},
    )


def _rows(batch, tokenizer, max_length):
    pairs = [
        (context, choice)
        for context, choices in zip(batch["context"], batch["choices"], strict=True)
        for choice in choices
    ]
    sides = [list(side) for side in zip(*pairs, strict=True)]
    whole = [len(ids) for ids in tokenizer(*sides, verbose=False)["input_ids"]]
    encoded = tokenizer(*sides, truncation="longest_first", max_length=max_length)
    rows = {name: [] for name in (*tokenizer.model_input_names, "choices_cut")}
    start = 0
    for choices in batch["choices"]:
        stop = start + len(choices)
        for name in tokenizer.model_input_names:
            rows[name].append(encoded[name][start:stop])
        rows["choices_cut"].append(sum(length > max_length for length in whole[start:stop]))
        start = stop
    return rows | {"label": batch["label"]}


def describe_rows(rows: Dataset) -> dict[str, int]:
    """Numbers of tokens, and of pairs that lost some."""
    cut = sum(rows["choices_cut"])
    counts = {"tokens": sum(len(ids) for choices in rows["input_ids"] for ids in choices)}
    return counts | ({"choices_cut": cut} if cut else {})


class ChoiceCollator(DataCollatorForMultipleChoice):
    """transformers' collator for questions with different numbers of choices.

    A question with fewer choices gets its first one again; `choice_mask` (B, choices) is False there, and
    hftoolkit.training.choice_trainer gives such a choice no probability.
    """

    def torch_call(self, examples):
        import torch

        sizes = torch.tensor([len(example["input_ids"]) for example in examples])
        most = int(sizes.max())
        filled = [
            {
                name: value + [value[0]] * (most - len(value)) if isinstance(value, list) else value
                for name, value in example.items()
            }
            for example in examples
        ]
        return super().torch_call(filled) | {"choice_mask": torch.arange(most) < sizes[:, None]}
