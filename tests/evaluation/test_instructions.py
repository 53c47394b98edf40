"""What an instructed model is measured by: literals by hand, and a model of which it is known what it writes."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from hftoolkit.data.microworld import question_prompts
from hftoolkit.evaluation.instructions import (
    AnswerJudge,
    before_training,
    describe_data,
    describe_token_rows,
    generate_answers,
    judge_answers,
    scored_tokens,
    unigram_baseline,
)

ROWS = [{"input_ids": [5, 6, 7, 0], "labels": [-100, -100, 7, 0]}, {"input_ids": [5, 7, 0], "labels": [-100, 7, 0]}]


class Tokenizer:
    """Numbers as words: 0 ends, 1 pads."""

    eos_token_id, pad_token_id = 0, 1

    def __call__(self, text):
        return {"input_ids": [2 + len(word) for word in text.split()]}

    def decode(self, ids, skip_special_tokens):
        return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = dict(n_embd=16, n_layer=2, n_head=2, n_positions=16, vocab_size=20, initializer_range=1.0)
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).eval()


def test_answers_are_greedy_and_do_not_see_the_padding(model):
    """Step by step by hand, without padding and cache; the end is cut off; one in a batch is as alone."""
    prompts = [[3, 4, 5, 6, 7], [9], [4, 9, 2], [8, 8]]
    expected, endless = [], 0
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and (len(ids) == len(prompt) or ids[-1] != 0):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        endless += 0 not in ids[len(prompt) :]
        expected.append(" ".join(map(str, [token for token in ids[len(prompt) :] if token != 0])))
    for size in (1, 4):
        found = generate_answers(model, Tokenizer(), prompts, batch_size=size, max_new_tokens=6)
        assert found == (expected, endless)
    assert len(set(expected)) > 1


def test_a_prompt_without_room(model):
    """The context has 16 positions: one token fits behind 15, none behind 16."""
    texts, endless = generate_answers(model, Tokenizer(), [[3] * 16, [3] * 15], max_new_tokens=6)
    assert texts[0] == "" and len(texts[1].split()) <= 1 and endless >= 1


def test_the_mode_of_the_model_is_restored(model):
    model.train()
    generate_answers(model, Tokenizer(), [[3]], max_new_tokens=1)
    assert model.training
    model.eval()


def test_judged_answers():
    rows = question_prompts(4)
    prompts = [row["prompt"] for row in rows]
    right = [row["completion"] for row in rows]
    assert judge_answers(prompts, right) == {"true_answers": 1, "false_answers": 0, "malformed_answers": 0}
    assert judge_answers(prompts, ["What?", *right[1:]])["malformed_answers"] == 0.25


def test_baselines_of_the_judge():
    """Three training answers, one of them twice: it is given to every question, and is true of its own only."""
    rows = question_prompts(5)
    train = [rows[0], rows[0], rows[1]]
    found = AnswerJudge(rows, Tokenizer(), limit=3).baselines(train)
    assert found["most_frequent_answer"]["eval_true_answers"] == pytest.approx(1 / 3)
    guess = found["guess_of_right_form"]
    assert 0 < guess["eval_true_answers"] < 0.5 and sum(guess.values()) == pytest.approx(1)
    turns = [
        [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["completion"]}] for r in rows
    ]
    chat = AnswerJudge([{"messages": one} for one in turns], Tokenizer(), limit=3)
    assert chat.questions == [row["prompt"] for row in rows[:3]]
    assert chat.max_new_tokens == 8 + max(len(row["completion"].split()) for row in rows[:3])


def test_scored_tokens_and_their_frequencies():
    assert scored_tokens(ROWS).tolist() == [7, 0, 7, 0]
    assert scored_tokens([{"labels": [9, 9, -100, 3]}]).tolist() == [9, 3]  # nothing predicts the first
    found = unigram_baseline(ROWS, ROWS[:1], vocab_size=10)
    assert found["eval_loss"] == pytest.approx(-math.log(3 / 14)) and found["eval_token_accuracy"] == 0.5


def test_before_training():
    history = [{"step": 0, "eval_loss": 5.0, "eval_runtime": 2.0, "epoch": 0}, {"step": 4, "eval_loss": 1.0}]
    assert before_training(history) == {"eval_loss": 5.0}
    assert before_training(history[1:]) == {}


def test_counts_of_token_rows():
    counts = describe_token_rows(ROWS, max_length=4, num_examples=3)
    assert counts == {"rows": 2, "tokens": 7, "answer_tokens": 4, "at_max_length": 1, "left_out": 1}
    packed = [{"input_ids": [5] * 7, "labels": [-100] * 5 + [7, 0], "seq_lengths": [4, 3]}]
    assert describe_token_rows(packed, max_length=9, num_examples=2) == {"rows": 1, "tokens": 7, "answer_tokens": 2}


def test_the_record_of_the_data(caplog):
    """A test split is not counted: nothing is done with it."""
    texts = Dataset.from_list([{"prompt": "a", "completion": "b"}] * 2)
    splits, rows = {"train": texts, "test": texts}, {"train": ROWS, "validation": None}
    found = describe_data("mine", splits, rows, 9, ["row 3: empty"])
    assert found.pop("fingerprint") == describe_data("mine", splits, rows, 9)["fingerprint"]
    assert not caplog.records
    describe_data("mine", splits, rows, 4)
    assert "1 of 2 training examples have max_length 4 tokens" in caplog.text
    assert found == {
        "name": "mine",
        "train": {"examples": 2, "rows": 2, "tokens": 7, "answer_tokens": 4},
        "skipped_rows": 1,
    }
