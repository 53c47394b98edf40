"""N-gram baselines against values worked out by hand and by loops."""

import math

import datasets
import numpy as np
import pytest

from hftoolkit.data.language_modeling import PackedDocuments, StreamedDocuments
from hftoolkit.evaluation.ngram import contexts, ngram_baselines, ngram_losses


def corpus(*documents):
    return np.concatenate([np.array(d) for d in documents]), np.cumsum([0, *map(len, documents)])


def test_contexts_example():
    tokens, offsets = corpus([7, 8, 9])
    assert contexts(tokens, offsets, 3, 10).tolist() == [10 * 11 + 10, 10 * 11 + 7, 7 * 11 + 8]


def test_contexts_do_not_cross_documents():
    tokens, offsets = corpus([1, 2], [3, 4])
    assert contexts(tokens, offsets, 2, 9).tolist() == [9, 1, 9, 3]


def test_unigram_by_hand():
    """Seen: a a b after the given token, two kinds, V = 4: p(a) = (2 + 2/4) / 5, p(b) = 1.5 / 5, p(c) = 0.5 / 5."""
    loss = ngram_losses(corpus([3, 0, 0, 1]), corpus([3, 0, 2]), 4, 1)[1]
    assert loss == pytest.approx(-(math.log(2.5 / 5) + math.log(0.5 / 5)) / 2)


def test_bigram_by_hand():
    """After a: a, b (n 2, t 2). p(b | a) = (1 + 2 p(b)) / 4 with p(b) = 1.5 / 5."""
    loss = ngram_losses(corpus([3, 0, 0, 1]), corpus([0, 1]), 4, 2)[2]
    assert loss == pytest.approx(-math.log((1 + 2 * 0.3) / 4))


def test_an_unseen_context_falls_back():
    losses = ngram_losses(corpus([3, 0, 0, 1]), corpus([2, 0]), 4, 2)
    assert losses[2] == pytest.approx(losses[1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_sum_to_one(order):
    generator = np.random.default_rng(0)
    train = corpus(*(generator.integers(0, 5, 30) for _ in range(3)))
    history = [1, 2]
    total = sum(
        math.exp(-_last(ngram_losses(train, corpus([*history, word]), 5, order)[order], train, history, order))
        for word in range(5)
    )
    assert total == pytest.approx(1.0)


def _last(mean, train, history, order):
    """Loss of the last token alone: the mean covers the earlier ones, which are the same for every word."""
    before = ngram_losses(train, corpus(history), 5, order)[order] * (len(history) - 1)
    return mean * len(history) - before


def test_orders_help_on_ordered_text():
    text = [int(c) for c in "0123" * 200]
    losses = ngram_losses(corpus(text), corpus(text[:50]), 4, 3)
    assert losses[1] > 1.3 and losses[2] < 0.1


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="max_order must be 1, 2 or 3"):
        ngram_losses(corpus([0, 1]), corpus([0, 1]), 4, 4)
    with pytest.raises(ValueError, match="V = 5000000"):
        ngram_losses(corpus([0, 1]), corpus([0, 1]), 5_000_000, 3)


def test_baselines_of_a_stream_say_how_much_of_it_was_counted():
    """Read to the end they are those of the data set; of a beginning they are those of its documents, and say so."""
    documents = [np.random.default_rng(seed).integers(0, 9, 20).tolist() for seed in range(30)]
    data = [
        datasets.Dataset.from_dict({"input_ids": part}) for part in (documents[:20], documents[20:], documents[:3])
    ]
    train, held_out, beginning = (PackedDocuments(part, 16) for part in data)
    stream = StreamedDocuments(data[0].to_iterable_dataset(), 16, batch_size=2)
    whole = ngram_baselines(train, held_out, 9)
    assert whole.keys() == {"unigram_loss", "bigram_loss"}
    assert whole == ngram_baselines(stream, held_out, 9) == ngram_baselines(stream, held_out, 9, max_tokens=400)
    of_three = ngram_baselines(beginning, held_out, 9)
    assert ngram_baselines(stream, held_out, 9, max_tokens=41) == {
        "unigram_of_the_first_60_tokens_loss": of_three["unigram_loss"],
        "bigram_of_the_first_60_tokens_loss": of_three["bigram_loss"],
    }
    assert of_three != whole
