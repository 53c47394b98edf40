"""N-gram baselines against values worked out by hand and by loops."""

import math

import datasets
import numpy as np
import pytest

from hftoolkit.data.language_modeling import PackedDocuments, StreamedDocuments
from hftoolkit.evaluation.ngram import contexts, discounts, kneser_ney_loss, ngram_baselines, ngram_losses


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


def test_kneser_ney_by_hand():
    """Seen after the given token: 0 0 1, in the bigrams (3 0) (0 0) (0 1); too few for discounts but 1/2, 1 and 3/2.

    0 was seen after two words and 1 after one: p(1) = (1 - 1/2) / 3 + (1 + 1/2) / 3 * 1/4 = 7/24.
    p(1 | 0) = (1 - 1/2) / 2 + (1/2 + 1/2) / 2 * 7/24 = 19/48; after 2, which was never seen, 7/24.
    """
    train = corpus([3, 0, 0, 1])
    assert kneser_ney_loss(train, corpus([0, 1]), 4, 2) == pytest.approx(-math.log(19 / 48))
    assert kneser_ney_loss(train, corpus([2, 1]), 4, 2) == pytest.approx(-math.log(7 / 24))
    counted = -math.log((1 - 1 / 2) / 3 + (1 + 1 / 2) / 3 / 4)  # a unigram model counts 0 twice and 1 once, too
    assert kneser_ney_loss(train, corpus([2, 1]), 4, 1) == pytest.approx(counted)


def test_a_word_that_follows_one_word_only_is_unlikely_elsewhere():
    """San Francisco: 1 is as frequent as 2, but only after 0; 2 follows three words. By counts they would be equal."""
    train = corpus([9, 0, 1, 0, 1, 0, 1, 3, 2, 4, 2, 5, 2])
    after_unseen = [kneser_ney_loss(train, corpus([8, word]), 10, 2) for word in (1, 2)]
    assert after_unseen[0] > after_unseen[1] + 0.5
    alone = [kneser_ney_loss(train, corpus([8, word]), 10, 1) for word in (1, 2)]
    assert alone[0] == pytest.approx(alone[1])


def test_discounts_by_hand():
    """n1 = 8, n2 = 4, n3 = 2, n4 = 1: Y = 8/16; 1 - 2 Y 4/8 = 1/2, 2 - 3 Y 2/4 = 5/4, 3 - 4 Y 1/2 = 2."""
    counts = np.array([1] * 8 + [2] * 4 + [3] * 2 + [4])
    assert discounts(counts).tolist() == [0, 0.5, 1.25, 2]
    assert discounts(counts[:-1]).tolist() == [0, 0.5, 1, 1.5]


def test_the_beginning_of_documents_is_counted_not_its_surroundings():
    """9 begins every document, so nothing stands before it: 0 follows it three times of four, not one kind of two."""
    train = corpus([9, 0, 5], [9, 0, 6], [9, 0, 7], [9, 1, 8])
    after = [math.exp(-kneser_ney_loss(train, corpus([9, word]), 10, 3)) for word in (0, 1)]
    assert after[0] > 2 * after[1]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_kneser_ney_sums_to_one(order):
    generator = np.random.default_rng(0)
    train = corpus(*(generator.integers(0, 5, 60) for _ in range(3)))
    history = [1, 2, 1, 4]
    before = kneser_ney_loss(train, corpus(history), 5, order) * (len(history) - 1)
    losses = [kneser_ney_loss(train, corpus([*history, word]), 5, order) * len(history) for word in range(5)]
    assert sum(math.exp(before - loss) for loss in losses) == pytest.approx(1.0)


def test_kneser_ney_is_the_loop_of_its_definition():
    """Every probability again, by dictionaries."""
    generator = np.random.default_rng(1)
    text = (generator.zipf(1.5, 900) % 7).tolist()
    train, held_out = corpus(text[:800]), corpus(text[800:])
    assert kneser_ney_loss(train, held_out, 7, 3) == pytest.approx(loop(text[:800], text[800:], 7, 3))
    worse = kneser_ney_loss(train, held_out, 7, 1)
    assert abs(worse - kneser_ney_loss(train, held_out, 7, 3)) > 1e-3


def loop(seen, text, vocab_size, order):
    def grams(tokens, n):
        padded = [vocab_size] * order + tokens
        return [tuple(padded[i - n + 1 : i + 1]) for i in range(order + 1, len(padded))]

    tables = []
    for n in range(1, order + 1):
        counts = {}
        if n == order:
            for gram in grams(seen, n):
                counts[gram] = counts.get(gram, 0) + 1
        else:
            inside = grams(seen, n)[n - 1 :]
            for gram in grams(seen, n):
                if gram not in inside:
                    counts[gram] = counts.get(gram, 0) + 1
            for longer in set(grams(seen, n + 1)):
                if longer[1:] in inside:
                    counts[longer[1:]] = counts.get(longer[1:], 0) + 1
        tables.append(counts)

    def probability(gram):
        if not gram:
            return 1 / vocab_size
        counts = tables[len(gram) - 1]
        taken = discounts(np.array(list(counts.values())))
        followers = [count for other, count in counts.items() if other[:-1] == gram[:-1]]
        if not followers:
            return probability(gram[1:])
        own = counts.get(gram, 0)
        left = sum(taken[min(count, 3)] for count in followers) / sum(followers)
        return (own - taken[min(own, 3)]) / sum(followers) + left * probability(gram[1:])

    return float(np.mean([-math.log(probability(gram)) for gram in grams(text, order)]))
