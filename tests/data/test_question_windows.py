"""Windows over a context: nothing is lost between them, and the labelled tokens are the answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.question_answering import load_questions
from hftoolkit.data.question_windows import (
    describe_windows,
    drop_lost_answers,
    find_tokens,
    lost_answers,
    make_windows,
)
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

KINDS = ("wordpiece", "unigram", "byte_bpe")
LENGTHS = {"max_length": 40, "doc_stride": 12, "max_question_length": 8}


@pytest.fixture(scope="module")
def questions():
    return load_questions(ExampleArguments(builtin_examples=54, dataset_config="unanswerable"))["train"]


@pytest.fixture(scope="module")
def tokenizers(questions):
    texts = [text for row in questions for text in (row["question"], row["context"])]
    return {kind: train_tokenizer(kind, texts, vocab_size=400) for kind in KINDS}


def answer_text(questions, row):
    start, end = row["first_characters"][row["start_positions"]], row["last_characters"][row["end_positions"]]
    return questions[row["question_row"]]["context"][start:end].strip()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS)
def test_laws(questions, tokenizers, kind, side):
    """Rows fit, every context token is in a window, and a labelled span reads as the answer."""
    tokenizer = tokenizers[kind]
    tokenizer.truncation_side = side
    windows = make_windows(questions, tokenizer, **LENGTHS)
    assert max(map(len, windows["input_ids"])) <= 40
    covered = [set() for _ in range(len(questions))]
    for row in windows:
        for first, last in zip(row["first_characters"], row["last_characters"], strict=True):
            covered[row["question_row"]].update(range(first, last) if first >= 0 else ())
        if row["has_answer"]:
            answer, text = questions[row["question_row"]]["answers"]["text"][0], answer_text(questions, row)
            assert answer == text if kind != "unigram" else answer in text  # its pieces may hold a full stop, too
        else:
            assert row["start_positions"] == row["end_positions"] == row["null_position"]
            if tokenizer.cls_token_id is not None:
                assert row["input_ids"][row["null_position"]] == tokenizer.cls_token_id
    for context, characters in zip(questions["context"], covered, strict=True):
        assert all(context[place].isspace() for place in set(range(len(context))) - characters)
    answerable = {row for row, span in enumerate(questions["span"]) if span}
    found = {row["question_row"] for row in windows if row["has_answer"]}
    assert found == answerable  # all answers are shorter than what windows share


def test_neighbouring_windows_share_doc_stride_tokens(questions, tokenizers):
    windows = make_windows(questions, tokenizers["wordpiece"], **LENGTHS)
    pairs = [
        (np.array(a["first_characters"]), np.array(b["first_characters"]))
        for a, b in zip(windows, windows.select(range(1, len(windows))), strict=False)
        if a["question_row"] == b["question_row"]
    ]
    shared = [len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in pairs]
    assert shared and set(shared) == {12}


def test_an_answer_longer_than_the_windows_is_lost_and_counted(questions, tokenizers):
    one = questions.select([0])
    whole = one.map(lambda row: {"span": [0, len(row["context"])]})
    mixed = make_windows(whole, tokenizers["wordpiece"], **LENGTHS)
    counts = describe_windows(whole, mixed)
    assert counts["answers_lost_by_truncation"] == 1 and counts["windows_without_answer"] == len(mixed)
    assert lost_answers(whole, mixed) == {0}
    assert len(drop_lost_answers(whole, mixed)) == 0
    enough = make_windows(whole, tokenizers["wordpiece"], max_length=400, doc_stride=12, max_question_length=8)
    assert "answers_lost_by_truncation" not in describe_windows(whole, enough)
    assert len(drop_lost_answers(whole, enough)) == len(enough) == 1


def test_long_questions_are_cut_and_counted(questions, tokenizers):
    asked = questions.select([0, 1]).map(lambda row, n: {"question": "who " * (50 if n else 1)}, with_indices=True)
    windows = make_windows(asked, tokenizers["wordpiece"], **LENGTHS)
    assert describe_windows(asked, windows)["questions_cut"] == 1
    rows = [row for row in windows if row["question_row"] == 1]
    assert all(row["first_characters"].count(-1) == 8 + 3 for row in rows)


def test_settings_that_leave_no_room(questions, tokenizers):
    with pytest.raises(DataError, match="max_length 23 leaves 12 tokens .* more than doc_stride 12"):
        make_windows(questions, tokenizers["wordpiece"], max_length=23, doc_stride=12, max_question_length=8)
    make_windows(questions.select([0]), tokenizers["wordpiece"], max_length=24, doc_stride=12, max_question_length=8)
    tokenizer = train_tokenizer("wordpiece", ["a b c"], vocab_size=50)
    tokenizer.model_max_length = 30
    with pytest.raises(DataError, match="the model reads at most 30 tokens"):
        make_windows(questions, tokenizer, **LENGTHS)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.data())
def test_found_tokens_are_the_fewest_that_hold_the_answer(sizes, data):
    bounds = np.cumsum([0, *sizes])
    first, last = np.array([-1, *bounds[:-1], -1]), np.array([-1, *bounds[1:], -1])
    start = data.draw(st.integers(0, int(bounds[-1]) - 1))
    end = data.draw(st.integers(start + 1, int(bounds[-1]) + 2))
    found = find_tokens(first, last, [start, end])
    assert (found is None) == (end > bounds[-1])
    if found:
        a, b = found
        assert first[a] <= start < last[a] and first[b] < end <= last[b]
    assert find_tokens(first, last, []) is None


@pytest.mark.parametrize("context", ["", " \n ", "\u200b\x07", "a" * 500])
def test_odd_contexts_make_a_row(questions, tokenizers, context):
    odd = questions.select([0]).map(lambda row: {"context": context, "span": []})
    windows = make_windows(odd, tokenizers["wordpiece"], **LENGTHS)
    assert len(windows) >= 1 and not any(windows["has_answer"])
