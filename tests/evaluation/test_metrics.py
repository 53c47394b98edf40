"""Metrics against values worked out by hand, against the official definitions, and as evaluate.Metric."""

import gzip
import json
import logging
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.errors import DataError, DivergedError, MachineError
from hftoolkit.evaluation import metrics
from hftoolkit.evaluation.metrics import (
    FUNCTIONS,
    accuracy,
    entity_f1,
    f1,
    matthews_correlation,
    metric,
    pearson,
    spearman,
    token_accuracy,
)
from hftoolkit.evaluation.squad import exact_match, normalize_answer, squad, squad_v2, word_f1

# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
PREDICTED = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
RIGHT = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]


def test_classification_by_hand():
    assert accuracy(PREDICTED, RIGHT) == {"accuracy": 0.7}
    assert f1(PREDICTED, RIGHT)["f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    expected = (3 * 4 - 1 * 2) / (4 * 5 * 5 * 6) ** 0.5  # (tp tn - fp fn) / sqrt of the four margins
    assert matthews_correlation(PREDICTED, RIGHT)["matthews_correlation"] == pytest.approx(expected)


def test_matthews_of_three_classes():
    """Gorodkin 2004: (c s - sum p t) / sqrt((s^2 - sum p^2)(s^2 - sum t^2)), s examples, c right ones."""
    predicted, right = [0, 1, 2, 2, 1, 0], [0, 1, 2, 1, 1, 2]
    expected = (4 * 6 - (2 * 1 + 2 * 3 + 2 * 2)) / ((36 - 12) * (36 - 14)) ** 0.5
    assert matthews_correlation(predicted, right)["matthews_correlation"] == pytest.approx(expected)


def test_correlations_by_hand():
    """Of (1, 2, 3, 5) and (2, 1, 4, 9): covariance sum 16.0, variance sums 8.75 and 38; ranks differ by (1, 1, 0, 0)."""
    predicted, right = [1, 2, 3, 5], [2.0, 1.0, 4.0, 9.0]
    assert pearson(predicted, right)["pearson"] == pytest.approx(17 / (8.75 * 38) ** 0.5)
    assert spearman(predicted, right)["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_ranks_of_ties_are_shared():
    """Ranks (1, 2.5, 2.5, 4) against (1, 2, 3, 4): their Pearson correlation."""
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4])["spearman"] == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize("constant", [0, 1])
def test_one_class_for_all_is_defined(constant):
    assert matthews_correlation([constant] * 10, RIGHT) == {"matthews_correlation": 0.0}
    assert f1([constant] * 10, RIGHT)["f1"] == pytest.approx(2 / 3 if constant else 0)
    assert matthews_correlation([1, 1], [1, 1]) == {"matthews_correlation": 0.0}


def test_a_constant_score_correlates_0_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert pearson([2.5] * 3, [1, 2, 3]) == {"pearson": 0.0}
        assert spearman([1, 2, 3], [4, 4, 4]) == {"spearman": 0.0}
    assert "all 3 predictions are 2.5" in caplog.text and "all 3 references are 4" in caplog.text


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: accuracy([1], [1, 0]), DataError, r"\(1,\) predictions, but \(2,\) references"),
        (lambda: accuracy([], []), DataError, "not a single example"),
        (lambda: f1([0, 2], [0, 1]), DataError, "binary.*got 2"),
        (lambda: pearson([float("nan"), 1], [0, 1]), DivergedError, "1 of 2 predictions are not finite"),
        (lambda: token_accuracy([["N"]], [["N", "V"]]), DataError, "sentence 0 has 1 predicted labels and 2 tokens"),
        (lambda: token_accuracy([[]], [[]]), DataError, "not a single token"),
        (lambda: metric("acuracy"), ValueError, "no metric 'acuracy'; the metrics are accuracy, f1"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


# spans


@pytest.mark.parametrize(
    ("text", "normal"),
    [("The  Denver Broncos!", "denver broncos"), ("an apple a day", "apple day"), ("U.S.", "us"), ("“A”", "“ ”")],
)
def test_normalisation(text, normal):
    """The typographic quotes stay: the official script takes away string.punctuation, which is ASCII."""
    assert normalize_answer(text) == normal


def test_word_f1_by_hand():
    assert word_f1("the Denver Broncos team", "Denver Broncos") == pytest.approx(2 * 2 / (3 + 2))
    assert word_f1("red red lamp", "red lamp lamp") == pytest.approx(2 * 2 / (3 + 3))
    assert word_f1("the", "") == 1.0 and word_f1("the", "", empty_agree=False) == 0.0


def test_the_version_decides_what_two_empty_texts_score():
    """Version 1.1 calls it no overlap, version 2.0 agreement; both call the match exact."""
    assert word_f1("the", "A", empty_agree=False) == 0.0 and word_f1("the", "A") == 1.0
    assert word_f1("the lamp", "an") == word_f1("", "lamp") == 0.0
    assert exact_match("the", "A") == 1.0


texts = st.lists(st.sampled_from(["The", "a", "lamp", "Lamp,", "red", "(red)", ".", "tea's"]), max_size=5).map(
    " ".join
)


@given(texts, texts)
def test_laws_of_the_scores(prediction, answer):
    """F1 is symmetric, 1 for an exact match and for reordered words; normalising twice changes nothing."""
    assert word_f1(prediction, answer) == word_f1(answer, prediction)
    assert exact_match(prediction, answer) <= word_f1(prediction, answer) <= 1
    assert word_f1(" ".join(reversed(answer.split())), answer) == 1
    assert normalize_answer(normalize_answer(answer)) == normalize_answer(answer)


def question(name, *answers):
    return {"id": name, "answers": {"text": list(answers), "answer_start": [0] * len(answers)}}


def answer(name, text, **more):
    return {"id": name, "prediction_text": text} | more


def test_squad_takes_the_best_answer():
    references = [question("1", "the red lamp", "lamp"), question("2", "Anna"), question("3", "tea")]
    found = squad([answer("2", "Anna Smith"), answer("1", "a lamp")], references)
    assert found == {"exact_match": pytest.approx(1 / 3), "f1": pytest.approx((1 + 2 / 3 + 0) / 3)}


def test_squad_v2_by_hand():
    references = [question("1", "lamp"), question("2", "Anna"), question("3"), question("4")]
    predictions = [answer("1", "lamp"), answer("2", "Anna Smith"), answer("3", ""), answer("4", "tea")]
    assert squad_v2(predictions, references) == {
        **{"exact": 0.5, "f1": pytest.approx((1 + 2 / 3 + 1) / 4), "total": 4},
        **{"HasAns_exact": 0.5, "HasAns_f1": pytest.approx((1 + 2 / 3) / 2), "HasAns_total": 2},
        **{"NoAns_exact": 0.5, "NoAns_f1": 0.5, "NoAns_total": 2},
    }


def test_squad_v2_with_a_threshold():
    """Above it a prediction counts as "no answer", whatever its text."""
    references = [question("1", "lamp"), question("2")]
    predictions = [answer("1", "lamp", no_answer_probability=0.9), answer("2", "tea", no_answer_probability=0.9)]
    assert squad_v2(predictions, references)["exact"] == 0.5
    strict = squad_v2(predictions, references, no_answer_threshold=0.5)
    assert strict["HasAns_exact"] == 0.0 and strict["NoAns_exact"] == 1.0


def test_squad_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="question 9 belongs to none of the 1"):
        squad([answer("9", "x")], [question("1", "x")])
    with pytest.raises(DataError, match="question 1 has two predictions"):
        squad([answer("1", "x")] * 2, [question("1", "x")])
    with pytest.raises(DataError, match="SQuAD 2.0, use the metric squad_v2"):
        squad([answer("1", "x")], [question("1")])
    with pytest.raises(DataError, match="not a single question"):
        squad_v2([], [])


def test_a_question_without_prediction_scores_0():
    references = [question("1", "lamp"), question("2")]
    assert squad_v2([answer("1", "lamp")], references)["exact"] == 0.5
    assert squad_v2([], references)["NoAns_f1"] == 0


@pytest.mark.realdata
def test_published_predictions(real_data):
    """A published system's answers to the questions of XQuAD, which are 1190 of SQuAD's."""
    with gzip.open(real_data / "qa/BERT_ensemble_v1.1_dev_predictions.json.gz", "rt") as file:
        answers = json.load(file)
    articles = json.loads((real_data / "qa/xquad.en.json").read_text())["data"]
    rows = [row for article in articles for paragraph in article["paragraphs"] for row in paragraph["qas"]]
    references = [question(row["id"], *(found["text"] for found in row["answers"])) for row in rows]
    predictions = [answer(row["id"], answers[row["id"]]) for row in rows]
    assert len(references) == 1190
    raw = sum(answers[row["id"]] == row["answers"][0]["text"] for row in rows) / len(rows)
    assert raw == pytest.approx(0.7034, abs=1e-4)
    found = squad(predictions, references)
    assert raw < found["exact_match"] < found["f1"]
    assert 0.7 < found["exact_match"] < 0.88 and 0.85 < found["f1"] < 0.95


# tags

TAGS = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-OBJ", "I-OBJ"]]


def test_entities_by_hand():
    """Of three entities one is found whole, one cut short, one not; one more is invented."""
    predicted = [["B-PER", "I-PER", "O", "O"], ["B-LOC", "B-OBJ", "O"]]
    found = entity_f1(predicted, TAGS, by_type=True)
    types = found.pop("by_type")
    assert found == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3, "accuracy": 4 / 7})
    assert types["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1}
    assert types["OBJ"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1}


def test_an_entity_without_its_beginning():
    """As conlleval, which lets an I- begin an entity; strict IOB2 does not count it."""
    predicted = [["I-PER", "I-PER", "O", "B-LOC"], ["O", "B-OBJ", "I-OBJ"]]
    assert entity_f1(predicted, TAGS)["f1"] == 1.0
    assert entity_f1(predicted, TAGS, strict=True)["f1"] == pytest.approx(2 * 2 / (2 + 3))


@pytest.mark.parametrize("strict", [True, False])
def test_no_entities_anywhere(strict):
    nothing = [["O", "O"]]
    assert entity_f1(nothing, nothing, strict) == {"precision": 0, "recall": 0, "f1": 0, "accuracy": 1}
    assert entity_f1(nothing, [["B-PER", "O"]], strict)["f1"] == 0
    assert entity_f1([["B-PER", "O"]], nothing, strict)["f1"] == 0


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(MachineError, match=r"pip install 'hftoolkit\[text\]'"):
        entity_f1(TAGS, TAGS)


def test_token_accuracy_counts_tokens():
    assert token_accuracy([["N", "V", "N"], ["N"]], [["N", "V", "V"], ["N"]]) == {"accuracy": 0.75}


# as evaluate.Metric

EXAMPLES = {
    "squad": ([answer("1", "lamp")], [question("1", "lamp")]),
    "squad_v2": ([answer("1", "lamp", no_answer_probability=0.0)], [question("1", "lamp")]),
    "entity_f1": (TAGS, TAGS),
    "token_accuracy": (TAGS, TAGS),
    "pearson": ([0.5, 1.5, 3.0], [1.0, 2.0, 2.5]),
    "spearman": ([0.5, 1.5, 3.0], [1.0, 2.0, 2.5]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_evaluate_metric(name):
    import evaluate

    predictions, references = EXAMPLES.get(name, (PREDICTED, RIGHT))
    ours = metric(name)
    assert isinstance(ours, evaluate.Metric)
    assert ours.compute(predictions=predictions, references=references) == FUNCTIONS[name](predictions, references)
    ours.add_batch(predictions=predictions[:1], references=references[:1])
    ours.add_batch(predictions=predictions[1:], references=references[1:])
    assert ours.compute() == FUNCTIONS[name](predictions, references)


def test_options_reach_the_metric():
    predicted = [["I-PER", "I-PER", "O", "B-LOC"], ["O", "B-OBJ", "I-OBJ"]]
    assert metric("entity_f1").compute(predictions=predicted, references=TAGS, strict=True)["f1"] < 1


def test_the_classes_are_attributes_and_combine():
    import evaluate

    assert pickle.loads(pickle.dumps(metrics.MatthewsCorrelation)) is metrics.MatthewsCorrelation
    both = evaluate.combine([metrics.Accuracy(), metrics.F1()])
    assert both.compute(predictions=PREDICTED, references=RIGHT) == {"accuracy": 0.7, "f1": pytest.approx(2 / 3)}
    with pytest.raises(AttributeError, match="no attribute 'Rouge'"):
        _ = metrics.Rouge


def test_evaluate_is_imported_late():
    code = "import sys; from hftoolkit.evaluation import metrics; print({'evaluate', 'sklearn', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
