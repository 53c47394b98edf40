"""From logits to answers: against a double loop, and the no-answer threshold against all thresholds."""

import itertools
import json

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.evaluation.answer_scores import AnswerScorer, baseline_scores
from hftoolkit.evaluation.answers import best_spans, best_threshold, choose_texts, find_answers, write_predictions
from hftoolkit.evaluation.squad import word_f1

CONTEXTS = ["Anna took the red lamp .", "Tom saw Eve"]


def token_places(context):
    """Characters of [CLS] and the words."""
    starts = [0, *itertools.accumulate(len(word) + 1 for word in context.split())][:-1]
    ends = [start + len(word) for start, word in zip(starts, context.split(), strict=True)]
    return [-1, *starts], [-1, *ends]


@pytest.fixture
def example():
    """Two questions; the first context is read in two windows."""
    texts = [["red lamp"], []]
    rows = [
        {"id": f"q{n}", "context": context, "question": "Who is it?", "state": "exact" if text else "unanswerable",
         "answers": {"text": text, "answer_start": [0] * len(text)}}
        for n, (context, text) in enumerate(zip(CONTEXTS, texts, strict=True))
    ]  # fmt: skip
    (first, last), (other_first, other_last) = map(token_places, CONTEXTS)
    windows = [
        {"question_row": 0, "null_position": 0, "first_characters": first[:5], "last_characters": last[:5]},
        {"question_row": 0, "null_position": 0, "first_characters": [-1, *first[3:]],
         "last_characters": [-1, *last[3:]]},
        {"question_row": 1, "null_position": 0, "first_characters": other_first, "last_characters": other_last},
    ]  # fmt: skip
    logits = np.full((2, 3, 6), -100.0)  # as Trainer pads
    for window, row in enumerate(windows):
        T = len(row["first_characters"])
        logits[:, window, :T] = np.random.default_rng(window).normal(size=(2, T))
    return Dataset.from_list(rows), Dataset.from_list(windows), *logits


def naive(questions, windows, start_logits, end_logits, max_answer_length):
    """All spans of all windows, by score, one per text."""
    found = {}
    for number, question in enumerate(questions):
        spans, nulls = [], []
        for w, window in enumerate(windows):
            if window["question_row"] != number:
                continue
            T = len(window["first_characters"])
            nulls.append(start_logits[w, 0] + end_logits[w, 0])
            for start, end in itertools.product(range(1, T), repeat=2):
                if start <= end < start + max_answer_length:
                    text = question["context"][window["first_characters"][start] : window["last_characters"][end]]
                    spans.append((start_logits[w, start] + end_logits[w, end], text))
        best = {}
        for score, text in sorted(spans, reverse=True):
            best.setdefault(text, score)
        found[question["id"]] = list(best.items()), min(nulls)
    return found


@pytest.mark.parametrize("max_answer_length", [1, 2, 30])
def test_matches_all_spans(example, max_answer_length):
    ours = find_answers(*example, n_best=30, max_answer_length=max_answer_length)
    for name, (answers, null) in naive(*example, max_answer_length).items():
        assert [answer["text"] for answer in ours[name]["answers"]] == [text for text, _ in answers]
        scores = [answer["start_logit"] + answer["end_logit"] for answer in ours[name]["answers"]]
        np.testing.assert_allclose(scores, [score for _, score in answers])
        assert ours[name]["null_odds"] == pytest.approx(null - answers[0][1])


def test_only_the_n_best_are_combined_and_kept(example):
    assert all(len(one["answers"]) <= 2 for one in find_answers(*example, n_best=2).values())
    start, end = np.array([[9.0, 8, 7, 0]]), np.array([[0.0, 0, 9, 7]])
    scores, starts, ends = best_spans(start, end, np.ones((1, 4), bool), n_best=2)
    assert list(zip(scores[0], starts[0], ends[0], strict=True)) == [(18, 0, 2), (17, 1, 2), (16, 0, 3), (15, 1, 3)]
    assert np.isinf(best_spans(start, end, np.zeros((1, 4), bool))[0]).all()


def test_a_question_without_a_token_of_context_has_no_answer():
    questions = Dataset.from_list([{"id": "q", "context": ""}])
    windows = Dataset.from_list(
        [{"question_row": 0, "null_position": 0, "first_characters": [-1, -1], "last_characters": [-1, -1]}]
    )
    found = find_answers(questions, windows, np.zeros((1, 2)), np.zeros((1, 2)))
    assert found["q"]["answers"] == [] and choose_texts(found, None) == {"q": ""}


def with_odds(odds, texts):
    answer = {"start_logit": 0.0, "end_logit": 0.0}
    return {
        f"q{n}": {
            "null_odds": odd,
            "answers": [answer | {"text": text}] if text else [],
            "null": answer | {"text": ""},
        }
        for n, (odd, text) in enumerate(zip(odds, texts, strict=True))
    }


@given(
    st.lists(
        st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 1.5]), st.sampled_from(["x", "y", ""]), st.sampled_from([["x"], []])),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_no_threshold_is_better(rows):
    """Tried with every threshold; the score is that of the answers chosen with the threshold."""
    odds, texts, answers = zip(*rows, strict=True)
    found, golds = with_odds(odds, texts), {f"q{n}": answer for n, answer in enumerate(answers)}

    def mean(threshold):
        chosen = choose_texts(found, threshold)
        scores = [max((word_f1(chosen[name], gold) for gold in right), default=float(not chosen[name]))
                  for name, right in golds.items()]  # fmt: skip
        return sum(scores) / len(scores)

    threshold, best = best_threshold(found, golds)
    assert mean(threshold) == pytest.approx(best)
    assert best == pytest.approx(max(mean(t) for t in (-np.inf, -2.0, -1.0, 0.0, 1.5)))


def test_scores_and_files(example, tmp_path):
    questions, windows, start, end = example
    start[0, 3], end[0, 4] = 50, 50  # "the red" in the first window
    start[1, 2], end[1, 3] = 60, 60  # "red lamp" stands in the second
    start[2, 0], end[2, 0] = 90, 90  # no answer
    found = find_answers(questions, windows, start, end)
    scorer = AnswerScorer(questions, windows, unanswerable=True)
    scores = scorer.score(found)
    assert scores["exact"] == scores["best_f1"] == scores["HasAns_f1"] == scores["NoAns_f1"] == 1
    assert found["q0"]["null_odds"] <= scores["best_f1_thresh"] < found["q1"]["null_odds"]
    assert AnswerScorer(questions, windows, unanswerable=True, threshold=1e6).score(found)["NoAns_f1"] == 0
    write_predictions(tmp_path, found, scores["best_f1_thresh"], unanswerable=True)
    files = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert files["predictions.json"] == {"q0": "red lamp", "q1": ""}
    for name, answers in files["nbest_predictions.json"].items():
        assert sum(answer["probability"] for answer in answers) == pytest.approx(1)
        assert answers[0]["text"] == files["predictions.json"][name]
        assert set(answers[0]) == {"text", "probability", "start_logit", "end_logit"}
    assert files["null_odds.json"]["q1"] > 0 > files["null_odds.json"]["q0"]


def test_baselines():
    def row(n, question, context, text):
        answers = {"text": [text] if text else [], "answer_start": [0] if text else []}
        return {"id": str(n), "question": question, "context": context, "answers": answers}

    train = [row(n, "What colour is it?", "x", text) for n, text in enumerate(["red", "red", "blue"])]
    dev = [row(0, "What colour is she?", "a blue or red hat", "red"), row(1, "Who is it?", "Tom is", "Tom")]
    train, dev = Dataset.from_list(train), Dataset.from_list(dev)
    scores = baseline_scores(train, dev)
    assert scores["frequent_answer"] == {"eval_exact_match": 1.0, "eval_f1": 1.0}
    assert scores["first_words"]["eval_exact_match"] == 0.5
    nothing = baseline_scores(
        train, Dataset.from_list([row(0, "Why?", "x", None), row(1, "Who?", "Tom", "Tom")]), True
    )
    assert nothing["no_answer"]["eval_f1"] == 0.5
