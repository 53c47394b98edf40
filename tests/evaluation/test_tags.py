"""Predicted tags come back to their words, are scored, and are written in CoNLL's columns."""

import numpy as np
import pytest
from datasets import Dataset

from hftoolkit.evaluation.tags import TagScorer, baseline_scores, majority_tag, score_tags

LABELS = ["O", "B-PER", "I-PER"]
SENTENCES = Dataset.from_list(
    [
        {"tokens": ["Anna", "Lee", "left", "\x07"], "tags": ["B-PER", "I-PER", "O", "O"]},
        {"tokens": ["Tom"], "tags": ["B-PER"]},
    ]
)
# the first sentence stands in two rows; its last word has no token
ROWS = Dataset.from_list(
    [
        {"words": [-1, 0, -1, -1], "sentence": 0},
        {"words": [-1, 1, 2, -1], "sentence": 0},
        {"words": [-1, 0, -1], "sentence": 1},
    ]
)


@pytest.fixture
def scorer():
    return TagScorer(SENTENCES, ROWS, LABELS, "ner", "O")


def test_tags_return_to_their_words(scorer, tmp_path):
    ids = np.array([[9, 1, 9, 9, 9], [9, 2, 0, 9, 9], [9, 0, 9, -100, -100]])  # what is no word's place does not count
    tags = scorer.tags(ids)
    assert tags == [["B-PER", "I-PER", "O", "O"], ["O"]]
    scores = scorer.score(tags)
    assert scores["precision"] == 1 and scores["recall"] == 0.5 and scores["f1"] == pytest.approx(2 / 3)
    scorer.write(tmp_path / "predictions.conll", tags)
    lines = "Anna\tB-PER\tB-PER\nLee\tI-PER\tI-PER\nleft\tO\tO\n\x07\tO\tO\n\nTom\tB-PER\tO\n"
    assert (tmp_path / "predictions.conll").read_text() == lines


def test_accuracy_for_parts_of_speech():
    assert score_tags(SENTENCES, [["B-PER"] * 4, ["B-PER"]], "pos") == {"accuracy": 0.4}


def test_baselines():
    train = Dataset.from_list([{"tokens": ["Anna", "left", "left"], "tags": ["B-PER", "O", "O"]}])
    more = Dataset.from_list([{"tokens": ["Anna", "is"], "tags": ["B-PER", "O"]}])
    assert majority_tag(train) == "O"
    scores = baseline_scores(train, SENTENCES, "ner")
    assert scores["each_words_tag"]["eval_recall"] == 0  # Anna alone is not the entity Anna Lee
    assert scores["majority"]["eval_f1"] == 0
    assert baseline_scores(train, more, "ner")["each_words_tag"]["eval_f1"] == 1
