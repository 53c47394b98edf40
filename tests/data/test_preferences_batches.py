"""Preferences as token ids and batches: every answer once, each with its prompt, ranks in their order."""

import pytest
import torch
from datasets import Dataset

from hftoolkit.data.preferences_batches import (
    PreferenceCollator,
    chosen_answers,
    demonstrations,
    dense_ranks,
    describe_batches,
    flat_answers,
    shared_rows,
    tokenize_preferences,
)
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

ROWS = [
    {"prompt": "ab", "completions": [" c", " def"], "scores": [0.5, 2.5], "margin": None},
    {"prompt": "x" * 30, "completions": [" g", " h", " i"], "scores": [-1.0, 3.0, -1.0], "margin": 0.25},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("byte", ["a"])


@pytest.fixture
def tokens(tokenizer):
    return tokenize_preferences(Dataset.from_list(ROWS), tokenizer, 20)


def test_rows(tokens, tokenizer):
    first, second = tokens
    assert [tokenizer.decode(ids) for ids in first["input_ids"]] == [
        f"ab{text}<|endoftext|>" for text in (" c", " def")
    ]
    assert first["ranks"] == [0, 1] and second["ranks"] == [0, 1, 0] and dense_ranks([3, -7, 3, 0.1]) == [2, 0, 2, 1]
    assert (first["margin"], second["margin"], first["characters"], first["length"]) == (None, 0.25, [1, 3], 7)
    assert describe_batches(tokens) == {"tokens": 5 + 7 + 3 * 20, "prompts_cut": 3}


def test_a_batch(tokens):
    batch = PreferenceCollator(9)(list(tokens))
    assert list(batch)[0] == "labels"  # Trainer takes the first tensor's length for the number of rows
    assert batch["labels"].tolist() == [2, 3] and batch["ranks"].tolist() == [0, 1, 0, 1, 0]
    assert batch["margins"].tolist() == [0.0, 0.25]
    assert batch["input_ids"].shape == (5, 20) and batch["attention_mask"].sum(1).tolist() == [5, 7, 20, 20, 20]
    assert batch["input_ids"][0, 5:].unique().tolist() == [9]
    answers = flat_answers(list(tokens))
    for number, row in enumerate(answers):
        real = batch["input_ids"][number][batch["attention_mask"][number].bool()]
        assert torch.equal(real, torch.tensor(row["input_ids"]))


def test_answers_share_what_they_begin_with():
    p, q, a, b, c, end = 1, 2, 3, 4, 5, 0
    rows = [{"input_ids": [[p, q, a, end], [p, q, b, c, end]], "ranks": [0, 1]}]
    rows.append({"input_ids": [[p, a], [p, a, b], [c]], "ranks": [0, 1, 2]})  # the second begins as the whole first
    found = shared_rows(rows, 9)
    assert found["input_ids"].tolist() == [[p, q, a, end, b, c, end], [p, a, p, a, b, c, 9]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4], [0, 1, 0, 1, 2, 0, 0]]
    assert found["last_positions"].tolist() == [[3, 6, -1], [1, 4, 5]]
    readable = found["attention_mask"][:, 0].long()
    assert readable[0].tolist() == [
        *([1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]),
        *([1, 1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 1, 1, 0], [1, 1, 0, 0, 1, 1, 1]),
    ]
    assert readable[1, :6, 6].sum() == 0  # nobody reads padding
    batch = PreferenceCollator(9, share_prompts=True)([row | {"margin": None} for row in rows])
    assert batch["labels"].tolist() == [2, 3] and batch["ranks"].tolist() == [0, 1, 0, 1, 2]


def test_a_pair_tokenizer_keeps_its_segments():
    bert = train_tokenizer("wordpiece", ["who has it anna tom"], vocab_size=40)
    rows = [{"prompt": "who", "completions": ["anna", "tom has it"], "scores": [1.0, 0.0], "margin": None}]
    batch = PreferenceCollator(0)(list(tokenize_preferences(Dataset.from_list(rows), bert, 20)))
    assert batch["token_type_ids"].shape == batch["input_ids"].shape
    assert batch["token_type_ids"].sum(1).min() > 0


def test_chosen_answers_are_the_best_of_the_first_prompts(tokens, tokenizer):
    found = [tokenizer.decode(row["input_ids"]) for row in chosen_answers(tokens, 9)]
    assert found[0].startswith("ab def") and found[1].endswith(" h<|endoftext|>") and len(found) == 2
    assert len(chosen_answers(tokens, 1)) == 1


def test_demonstrations(tokenizer):
    texts = Dataset.from_list([{"prompt": "ab", "completion": " cd"}] * 3)
    found = demonstrations(texts, tokenizer, 20, 2)
    assert [tokenizer.decode(row["input_ids"]) for row in found] == ["ab cd<|endoftext|>"] * 2
    talks = [{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Yes."}]}]
    (row,) = demonstrations(Dataset.from_list(talks), tokenizer, 60, 2)
    assert tokenizer.decode(row["input_ids"]) == "\n\nHuman: Hi\n\nAssistant: Yes.<|endoftext|>"
    with pytest.raises(DataError, match="not whole conversations"):
        demonstrations(Dataset.from_list([{"messages": []}]), tokenizer, 60, 2)
