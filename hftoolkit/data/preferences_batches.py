"""Preferences as token ids, and batches of them: every answer is one row, however many answers a prompt has.

Shapes: B = prompts, N = answers of all prompts, one prompt after another, T = tokens of the longest.
"""

from dataclasses import dataclass

from datasets import Dataset, Features, List, Value

from hftoolkit.errors import DataError

from .preferences_rows import split_dialogue
from .preferences_tokens import answer_tokens, pad_right

ABSENT = -100  # rank of an answer that a prompt does not have


def dense_ranks(scores):
    """Places of scores from the lowest, equal ones in the same place.

    Example:
        [0.5, 3.0, 0.5, -1.0] -> [1, 2, 1, 0]
    """
    places = {score: place for place, score in enumerate(sorted(set(scores)))}
    return [places[score] for score in scores]


def tokenize_preferences(preferences: Dataset, tokenizer, max_length: int, num_workers: int | None = None) -> Dataset:
    """A row for each prompt: the token ids of every answer with the prompt, and the ranks of the answers.

    Columns: input_ids (and token_type_ids), lists of each answer's; ranks, see dense_ranks; margin; characters of each
    answer; length, tokens of the longest; prompts_cut and answers_cut, answers that lost tokens of either.
    """
    numbers = List(Value("int32"))
    columns = {"input_ids": List(numbers), "ranks": numbers, "margin": Value("float64"), "characters": numbers}
    columns |= {name: Value("int32") for name in ("length", "prompts_cut", "answers_cut")}
    if "token_type_ids" in tokenizer.model_input_names:
        columns["token_type_ids"] = List(List(Value("int8")))
    return preferences.map(
        _tokenize,
        features=Features(columns),
        remove_columns=preferences.column_names,
        num_proc=num_workers,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length},
    )


def _tokenize(row, tokenizer, max_length):
    answers = row["completions"]
    rows = answer_tokens(tokenizer, [row["prompt"]] * len(answers), answers, max_length)
    columns = {name: [one[name] for one in rows] for name in ("input_ids", "token_type_ids") if name in rows[0]}
    return columns | {
        "ranks": dense_ranks(row["scores"]),
        "margin": row["margin"],
        "characters": [len(text.strip()) for text in answers],
        "length": max(len(one["input_ids"]) for one in rows),
        "prompts_cut": sum(one["prompt_cut"] > 0 for one in rows),
        "answers_cut": sum(one["answer_cut"] > 0 for one in rows),
    }


def describe_batches(tokens: Dataset) -> dict[str, int]:
    """Numbers of tokens, and of answers whose prompt, or which themselves, lost some."""
    counts = {"tokens": sum(len(ids) for answers in tokens["input_ids"] for ids in answers)}
    cut = {name: sum(tokens[name]) for name in ("prompts_cut", "answers_cut")}
    return counts | {name: number for name, number in cut.items() if number}


def flat_answers(rows) -> list[dict]:
    """The answers of rows of tokenize_preferences as rows of preferences_tokens.answer_tokens."""
    names = [name for name in ("input_ids", "token_type_ids") if name in rows[0]]
    return [{name: row[name][number] for name in names} for row in rows for number in range(len(row["ranks"]))]


def chosen_answers(tokens: Dataset, most: int) -> list[dict]:
    """The best answer of each of the first `most` prompts of tokenize_preferences, as rows of answer_tokens."""
    rows = tokens.select(range(min(most, len(tokens))))
    best = [max(range(len(row["ranks"])), key=row["ranks"].__getitem__) for row in rows]
    return [flat_answers([row])[number] for row, number in zip(rows, best, strict=True)]


def demonstrations(instructions: Dataset, tokenizer, max_length: int, most: int) -> list[dict]:
    """The first `most` answers of data.instructions, prompt and completion, as rows of answer_tokens.

    Raises:
        DataError: the rows are whole conversations, so that prompt and answer are not told apart.
    """
    if "prompt" not in instructions.column_names:
        raise DataError("demonstrations are rows of prompt and completion, not whole conversations (messages)")
    rows = instructions.select(range(min(most, len(instructions))))
    texts = [_texts_of(row["prompt"], row["completion"], tokenizer) for row in rows]
    return answer_tokens(tokenizer, *map(list, zip(*texts, strict=True)), max_length)


def _texts_of(prompt, completion, tokenizer):
    if isinstance(prompt, str):
        return prompt, completion
    return split_dialogue(prompt, completion, "the demonstrations", tokenizer)


@dataclass
class PreferenceCollator:
    """Batches rows of tokenize_preferences: the answers padded on the right, and to which prompt they belong.

    labels (B,) is the number of each prompt's answers: so Trainer counts prompts. ranks (N,); margins (B,), 0 where a
    row has none.

    Args:
        share_prompts: one row for each prompt with all its answers, see shared_rows, for models that read such.
    """

    pad_token_id: int | None
    share_prompts: bool = False

    def __call__(self, rows: list[dict]) -> dict:
        import torch

        batch = {"labels": torch.tensor([len(row["ranks"]) for row in rows])}
        batch |= (shared_rows if self.share_prompts else _own_rows)(rows, self.pad_token_id)
        batch["ranks"] = torch.tensor([rank for row in rows for rank in row["ranks"]])
        batch["margins"] = torch.tensor([row["margin"] or 0.0 for row in rows])
        return batch


def _own_rows(rows, pad_token_id):
    return pad_right(flat_answers(rows), pad_token_id)


def shared_rows(rows, pad_token_id):
    """A row for each prompt: what its answers begin with, once, and then the rest of each.

    Returns:
        input_ids and position_ids (B, T); attention_mask (B, 1, T, T), True where a token may be read: the common
        beginning, and earlier tokens of the same answer; last_positions (B, K), where each answer ends, -1 where a prompt
        has fewer. A causal model reads every answer as if it were alone.

    Example:
        answers [p, q, a, 0] and [p, q, b, c, 0] -> input_ids [p, q, a, 0, b, c, 0], position_ids [0, 1, 2, 3, 2, 3, 4],
        last_positions [3, 6]
    """
    import torch

    B, K = len(rows), max(len(row["ranks"]) for row in rows)
    built = [_shared_row(row["input_ids"]) for row in rows]
    T = max(len(ids) for ids, *_ in built)
    input_ids = torch.full((B, T), pad_token_id or 0)
    position_ids, owners = torch.zeros(B, T, dtype=torch.long), torch.full((B, T), -1)
    last_positions = torch.full((B, K), -1)
    for number, (ids, places, owner, ends) in enumerate(built):
        input_ids[number, : len(ids)], position_ids[number, : len(ids)] = torch.tensor(ids), torch.tensor(places)
        owners[number, : len(ids)], last_positions[number, : len(ends)] = torch.tensor(owner), torch.tensor(ends)
    same = owners[:, :, None].eq(owners[:, None, :]) | owners[:, None, :].eq(0)  # (B, T, T); 0 is the common beginning
    attention_mask = (same & torch.ones(T, T, dtype=torch.bool).tril()).unsqueeze(1)
    return {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "attention_mask": attention_mask,
        "last_positions": last_positions,
    }


def _shared_row(answers):
    """Token ids, positions, owners (0 the common beginning, k answer k) and ends of the answers to one prompt."""
    shortest = min(map(len, answers)) - 1  # every answer keeps a token of its own, from which its score is read
    common = next((n for n in range(shortest) if len({ids[n] for ids in answers}) > 1), shortest)
    ids, places, owners, ends = list(answers[0][:common]), list(range(common)), [0] * common, []
    for number, answer in enumerate(answers, start=1):
        ids += answer[common:]
        places += range(common, len(answer))
        owners += [number] * (len(answer) - common)
        ends.append(len(ids) - 1)
    return ids, places, owners, ends
