"""What BERT has to beat: values worked out by hand, and data whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hftoolkit.evaluation.bert_baselines import (
    masked_unigram_baseline,
    overlap_baseline,
    pretraining_baselines,
)


def test_unigram_by_hand():
    """Counts 3, 1, 0 of three ids, two kinds: (3 + 2/3) / 6, (1 + 2/3) / 6, (2/3) / 6."""
    found = masked_unigram_baseline(np.array([0, 0, 1, 0]), np.array([[0, -100], [2, 0]]), 3)
    probabilities = np.array([11, 2, 11]) / 18
    assert found["unigram_loss"] == pytest.approx(-np.log(probabilities).mean())
    assert found["unigram_accuracy"] == pytest.approx(2 / 3)


def test_unigram_without_labels():
    assert masked_unigram_baseline(np.array([1]), np.array([-100]), 3)["unigram_loss"] is None


def pairs(number, shared, seed):
    """Pairs of 8 tokens a side; neighbours share `shared` of them, strangers none but the same two frequent ones."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(number):
        first, second = rng.choice(np.arange(10, 500), (2, 8), replace=False)
        label = int(rng.random() < 0.5)
        if not label:
            second[:shared] = first[:shared]
        first[-2:] = second[-2:] = 5, 6
        ids = np.concatenate([[2], first, [3], second, [3]])
        types = np.repeat([0, 1], [10, 9])
        rows.append({"input_ids": ids, "token_type_ids": types, "next_sentence_label": label})
    return rows


def test_overlap_finds_shared_words():
    found = overlap_baseline(pairs(300, 3, 0), pairs(200, 3, 1))
    assert found["overlap_accuracy"] > 0.98 and found["pairs"] == 200
    assert 0.35 < found["majority_accuracy"] < 0.65


def test_overlap_finds_nothing_where_nothing_is():
    assert 0.4 < overlap_baseline(pairs(300, 0, 0), pairs(300, 0, 1))["overlap_accuracy"] < 0.6


def test_overlap_reads_no_more_than_asked():
    assert overlap_baseline(pairs(50, 3, 0), pairs(50, 3, 1), max_pairs=20)["pairs"] == 20


def test_overlap_of_one_answer_only():
    """A training part without neighbours, or without strangers, leaves nothing to weigh."""
    rows = [row | {"next_sentence_label": 1} for row in pairs(50, 3, 0)]
    found = overlap_baseline(rows, pairs(50, 3, 1))
    assert found["overlap_accuracy"] == found["majority_accuracy"]


@pytest.mark.parametrize("with_pairs", [True, False])
def test_both_under_the_names_of_the_metrics(with_pairs):
    def collate(rows):
        return {"labels": torch.tensor([[-100, int(row["input_ids"][1])] for row in rows])}

    train, validation = pairs(100, 3, 0), pairs(70, 3, 1)
    if not with_pairs:
        validation = [{"input_ids": row["input_ids"]} for row in validation]
    trainer = SimpleNamespace(
        train_dataset=train, eval_dataset=validation, eval_collator=collate, processing_class=range(500)
    )
    stores = {"train": SimpleNamespace(tokens=np.concatenate([row["input_ids"] for row in train]))}
    found = pretraining_baselines(trainer, stores)["baselines"]
    assert found["unigram"]["eval_mlm_loss"] > 3
    assert ("word_overlap" in found) == with_pairs
    assert not with_pairs or found["word_overlap"]["eval_nsp_accuracy"] > 0.9
