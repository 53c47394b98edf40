"""Preferences as pairs of token rows: which pairs, where prompt and answers part, what is cut."""

import pytest
from datasets import Dataset

from hftoolkit.data.preferences_pairs import describe_pairs, pair_tokens, ranked_pairs, tokenize_pairs
from hftoolkit.tokenization import train_tokenizer

TEXTS = ["Who has the lamp? Anna has it.", "Tom went to the hall with a key and a lamp."] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("byte_bpe", TEXTS, vocab_size=300)


def test_every_pair_of_unequal_answers_once():
    assert ranked_pairs([0.0, 2.0, 2.0]) == [(1, 0), (2, 0)]
    assert sorted(ranked_pairs([3.0, 1.0, 2.0])) == [(0, 1), (0, 2), (2, 1)]


def test_the_rows_are_the_texts_with_an_end(tokenizer):
    row = pair_tokens(tokenizer, "Who has the lamp?", " Anna has it.", " Tom", 100)
    assert row["prompt_cut"] == 0
    decode = tokenizer.decode
    for name, text in (("chosen_ids", " Anna has it."), ("rejected_ids", " Tom")):
        assert row[name][-1] == tokenizer.eos_token_id and row[name].count(tokenizer.eos_token_id) == 1
        assert decode(row["prompt_ids"] + row[name][:-1]) == f"Who has the lamp?{text}"
    assert tokenizer(" Anna has it.")["input_ids"] == row["chosen_ids"][:-1]


def test_the_prompt_ends_where_the_answers_part_from_it(tokenizer):
    """Where prompt and answer share a token, it belongs to the answer: it is read as the whole text is."""
    whole = tokenizer("the lamp")["input_ids"]
    row = pair_tokens(tokenizer, "the la", "mp", "xx", 100)
    assert row["prompt_ids"] + row["chosen_ids"][:-1] == whole
    assert row["prompt_ids"] == whole[: len(row["prompt_ids"])] and len(row["prompt_ids"]) < len(
        tokenizer("the la")["input_ids"]
    )


def test_both_answers_have_the_same_prompt_also_when_it_is_cut(tokenizer):
    row = pair_tokens(tokenizer, "Tom went to the hall. Who has the lamp?", " Anna has it.", " Tom", 12)
    assert row["prompt_cut"] > 0 and len(row["prompt_ids"]) + len(row["chosen_ids"]) == 12
    assert "Tom went to the hall. Who has the lamp?".endswith(tokenizer.decode(row["prompt_ids"]))
    assert pair_tokens(tokenizer, "Who?", " Anna has it.", " Tom", len(row["chosen_ids"])) is None


def test_a_prompt_that_begins_with_the_first_token_gets_no_second(tokenizer):
    from tokenizers.processors import TemplateProcessing

    copy = train_tokenizer("byte_bpe", TEXTS, vocab_size=300)
    copy.add_special_tokens({"bos_token": "<s>"})
    number = copy.bos_token_id
    copy.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", number)])
    plain, written = (pair_tokens(copy, prompt, " Anna", " Tom", 50) for prompt in ("Who?", "<s>Who?"))
    assert plain["prompt_ids"].count(number) == 1 and plain["prompt_ids"][0] == number
    assert written == plain


def test_rankings_and_counts(tokenizer):
    rows = [
        {"prompt": "Who?", "completions": [" Anna", " Tom", " x"], "scores": [1.0, 0.0, 0.0], "margin": None},
        {"prompt": "Who has it? " * 9, "completions": [" Anna", " Tom"], "scores": [0.0, 1.0], "margin": 2.0},
        {"prompt": "Who?", "completions": [" Anna has the lamp and a key" * 5, " T"], "scores": [0.0, 1.0], "margin": None},
    ]  # fmt: skip
    tokens = tokenize_pairs(Dataset.from_list(rows), tokenizer, 20)
    assert len(tokens) == 3 and tokens.column_names == ["prompt_ids", "chosen_ids", "rejected_ids", "prompt_cut"]
    assert tokenizer.decode(tokens[2]["chosen_ids"][:-1]) == " Tom"
    counts = describe_pairs(tokens, num_pairs=4)
    rows = [2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in tokens]
    assert counts == {"token_pairs": 3, "tokens": sum(rows), "prompts_cut": 1, "left_out": 1}
