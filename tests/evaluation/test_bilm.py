"""Perplexities of a bidirectional language model, and words whose context tells their sense."""

import math

import numpy as np
import pytest
import torch

from hftoolkit.data.bilm import BilmCollator, bilm_rows
from hftoolkit.errors import DataError
from hftoolkit.evaluation.bilm import bilm_perplexities, counted_baselines, direction_losses
from hftoolkit.evaluation.contextual_neighbours import (
    Occurrences,
    contextual_neighbours,
    embed_occurrences,
    same_sense_share,
)
from hftoolkit.models.modeling_elmo import HftElmoConfig, HftElmoForPreTraining
from hftoolkit.tokenization.character_ids import character_tokenizer

SENTENCES = [["two", "dogs", "ran", "."], ["at", "two", "it", "rained", "."], ["dogs", "slept", "."]]
VOCABULARY = ["<S>", "</S>", ".", "two", "dogs", "<UNK>", "ran", "at", "it"]
SPECIAL = {"<S>": 256, "</S>": 257}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = dict(filter_widths=[1, 2], filter_counts=[8, 8], num_highways=1, hidden_size=16, projection_size=8)
    return HftElmoForPreTraining(HftElmoConfig(**sizes, num_words=len(VOCABULARY), max_characters=12))


def test_losses_are_means_over_words_whatever_the_batches(model):
    rows, collate = bilm_rows(SENTENCES, VOCABULARY, SPECIAL), BilmCollator(260)
    expected = [[], []]
    model.eval()
    for row in rows:
        with torch.no_grad():
            output = model(**collate([row]))
        for side, logits in enumerate((output.logits[0], output.backward_logits[0])):
            labels = torch.tensor(row[("labels", "backward_labels")[side]])
            scores = logits.log_softmax(-1)
            expected[side] += [-float(scores[place, label]) for place, label in enumerate(labels) if label != -100]
    assert len(expected[0]) == len(expected[1]) == 15
    model.train()
    for batch_size in (1, 2, 3):
        found = direction_losses(model, rows, collate, batch_size)
        assert found == pytest.approx([np.mean(side) for side in expected], rel=1e-5)
    assert model.training
    perplexities = bilm_perplexities(model, rows, collate)
    assert perplexities["eval_backward_perplexity"] == pytest.approx(math.exp(np.mean(expected[1])), rel=1e-5)


def test_the_baselines_count_the_same_words():
    """Two rows <S> a </S>: 4 predicted words, a and </S>; Witten-Bell's unigram by hand."""
    rows = bilm_rows([["a"], ["a"]], ["<S>", "</S>", "a", "<UNK>"], SPECIAL)
    found = counted_baselines(rows, rows, 4)
    assert found["unigram_loss"] == pytest.approx(-math.log((2 + 2 / 4) / (4 + 2)))
    assert found["bigram_loss"] < found["unigram_loss"]


def test_one_vector_for_each_word_and_the_bottom_layer_knows_no_context(model):
    tokenizer = character_tokenizer()
    bottom, top = (embed_occurrences(model, tokenizer, SENTENCES, layer) for layer in (0, -1))
    assert [bottom.word(place) for place in bottom.places] == sum(SENTENCES, [])
    first, second = bottom.find("two")
    np.testing.assert_allclose(np.linalg.norm(top.vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(bottom.vectors[first], bottom.vectors[second], atol=1e-6)
    assert np.abs(top.vectors[first] - top.vectors[second]).max() > 1e-3
    ((similarity, nearest),) = bottom.nearest(first, 1)
    assert nearest == second and similarity == pytest.approx(1, abs=1e-5)


def test_how_often_the_nearest_has_the_same_sense():
    """Four occurrences, senses a a b b; the first two lie together, of the others each lies nearer to an a."""
    vectors = np.array([[1, 0], [0.99, 0.14], [0.6, 0.8], [0.0, -1.0]], dtype="float32")
    occurrences = Occurrences([["x"]] * 4, np.array([[row, 0] for row in range(4)]), vectors)
    senses = {0: "a", 1: "a", 2: "b", 3: "b"}
    assert same_sense_share(occurrences, senses) == (0.5, pytest.approx(1 / 3))
    same_row = Occurrences([["x"]] * 4, np.array([[0, 0], [0, 1], [1, 0], [2, 0]]), vectors)
    assert same_sense_share(same_row, senses)[0] == 0.0  # the first two no longer see each other


def test_the_demonstration_and_a_word_that_is_not_there(model):
    tokenizer = character_tokenizer()
    (found,) = contextual_neighbours(model, tokenizer, SENTENCES, ["two"], shown=2, count=2)
    assert [context["sentence"] for context in found["in_context"]] == ["[two] dogs ran .", "at [two] it rained ."]
    assert all(len(context["nearest"]) == 2 for context in found["in_context"])
    assert len(set(found["without_context"])) == 2 and "two" not in found["without_context"]
    with pytest.raises(DataError, match="'dgos' does not occur in the 3 sentences.*did you mean 'dogs'"):
        contextual_neighbours(model, tokenizer, SENTENCES, ["dgos"])
