"""Masking: the shares of the paper, words and spans against their definitions, and rows that decide for themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.data.masking import (
    NARROW,
    choose_spans,
    choose_tokens,
    choose_words,
    number_to_mask,
    random_bits,
    row_keys,
    shuffled_places,
    words_of,
)
from hftoolkit.data.mlm import IGNORE_INDEX, UNITS, MaskedLanguageModeling, mask_tokens
from hftoolkit.data.word_starts import WordStarts
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

MASK, FIRST = 4, 5
TEXT = "unlikely walking talked walked, unhappily; the cat isn't talking!"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("wordpiece", [TEXT] * 3, 60, progress=False)


def batch_of(number, width, seed=0, share_of_starts=0.7):
    """(ids, maskable, starts, keys): rows framed and split by special tokens, of different length."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(FIRST, 1000, (number, width))
    ids[:, 0], ids[:, width // 2], ids[:, -1] = 2, 3, 3
    ids[np.arange(width) >= rng.integers(2, width + 1, number)[:, None]] = 0
    maskable = ids >= FIRST
    starts = maskable & (rng.random((number, width)) < share_of_starts)
    starts[:, 1:] |= maskable[:, 1:] & ~maskable[:, :-1]
    return ids, maskable, starts, row_keys(seed, np.zeros(number), np.arange(number))


def masked(ids, maskable, starts, keys, **options):
    return mask_tokens(
        ids, maskable, keys, mask_token_id=MASK, replacements=np.arange(FIRST, 1000), starts=starts, **options
    )


@pytest.mark.parametrize("unit", UNITS)
def test_shares_of_the_paper(unit):
    ids, maskable, starts, keys = batch_of(2000, 100)
    kept = ids.copy()
    lengths = (ids > 0).sum(1)
    inputs, labels = masked(ids, maskable, starts, keys, unit=unit, lengths=lengths)
    chosen = labels != IGNORE_INDEX
    assert np.array_equal(ids, kept) and np.array_equal(labels[chosen], ids[chosen])
    assert not chosen[~maskable].any() and np.array_equal(inputs[~chosen], ids[~chosen])
    wanted = np.minimum(np.maximum(np.rint(0.15 * lengths), 1), maskable.sum(1))
    if unit == "whole_word":
        assert (chosen.sum(1) <= wanted).all() and chosen.sum() > 0.97 * wanted.sum()
    else:
        assert np.array_equal(chosen.sum(1), wanted)
    same, swapped = inputs[chosen] == ids[chosen], (inputs[chosen] != ids[chosen]) & (inputs[chosen] != MASK)
    tolerance = 0.03 if "span" in unit else 0.012  # spans decide together, so their shares vary more
    assert (inputs[chosen] == MASK).mean() == pytest.approx(0.8, abs=tolerance)
    assert swapped.mean() == pytest.approx(0.1, abs=tolerance) and same.mean() == pytest.approx(0.1, abs=tolerance)
    assert inputs[chosen][swapped].min() >= FIRST  # no special token stands in
    assert len(np.unique(inputs[chosen][swapped])) > 500


def test_every_place_is_chosen_alike():
    maskable = np.ones((20000, 10), dtype=bool)
    keys = row_keys(0, np.zeros(20000), np.arange(20000))
    chosen, draws = choose_tokens(maskable, np.full(20000, 3), keys)
    assert np.allclose(np.bincount(chosen % 10) / 20000, 0.3, atol=0.015)
    assert draws.min() < 2**18 and draws.max() > 2**32 - 2**18 and abs(draws.mean() / 2**31 - 1) < 0.01
    pairs = np.sort(chosen.reshape(-1, 3) % 10, axis=1)
    assert len(np.unique(pairs, axis=0)) == 120  # all combinations of 3 of 10


@given(number=st.integers(1, 5), width=st.integers(3, 40), seed=st.integers(0, 50), unit=st.sampled_from(UNITS))
def test_laws(number, width, seed, unit):
    ids, maskable, starts, keys = batch_of(number, width, seed)
    inputs, labels = masked(ids, maskable, starts, keys, unit=unit, max_predictions=3)
    chosen = labels != IGNORE_INDEX
    assert not chosen[~maskable].any()
    assert (chosen.sum(1) <= 3).all()
    assert ((chosen.sum(1) > 0) == maskable.any(1)).all()  # a row of special tokens has no label
    assert np.array_equal(labels[chosen], ids[chosen])


@pytest.mark.parametrize("unit", UNITS)
def test_a_row_is_masked_alike_in_any_batch(unit):
    ids, maskable, starts, keys = batch_of(12, 64)
    lengths = (ids > 0).sum(1)
    inputs, labels = masked(ids, maskable, starts, keys, unit=unit, lengths=lengths)
    for row in range(12):
        width = max(int(lengths[row]), 3)
        one = slice(row, row + 1)
        alone = masked(
            ids[one, :width], maskable[one, :width], starts[one, :width], keys[one], unit=unit, lengths=lengths[one]
        )
        assert np.array_equal(alone[0][0], inputs[row, :width]) and np.array_equal(alone[1][0], labels[row, :width])


def words_by_loop(begins, sizes, number):
    """create_pretraining_data.py, `create_masked_lm_predictions` with whole words, from words in random order."""
    chosen = []
    for begin, size in zip(begins, sizes, strict=True):
        if len(chosen) >= number:
            break
        if len(chosen) + size > number:
            continue
        chosen += range(begin, begin + size)
    return sorted(chosen)


@given(
    width=st.integers(4, 60),
    seed=st.integers(0, 200),
    share=st.sampled_from([0.2, 0.5, 0.9]),
    number=st.integers(1, 12),
)
def test_whole_words_are_those_of_the_reference(width, seed, share, number):
    _, maskable, starts, keys = batch_of(1, width, seed, share)
    number = min(number, int(maskable.sum()))
    begins, sizes = words_of(starts, maskable)
    size = dict(zip(begins.tolist(), sizes.tolist(), strict=True))
    order = shuffled_places(starts, keys)[0][0, : len(begins)].tolist()
    expected = words_by_loop(order, [size[place] for place in order], number)
    ours = sorted(choose_words(maskable, starts, np.array([number]), keys).tolist())
    if expected or not number:
        assert ours == expected
    else:  # no word fits: the first one, cut
        assert ours == list(range(order[0], order[0] + number))


def test_words_end_where_the_next_begins_or_at_a_special_token():
    maskable = np.array([[0, 1, 1, 1, 0, 1, 1, 0]], dtype=bool)
    starts = np.array([[0, 1, 0, 1, 0, 1, 0, 0]], dtype=bool)
    begins, sizes = words_of(starts, maskable)
    assert begins.tolist() == [1, 3, 5] and sizes.tolist() == [2, 1, 2]


def test_spans_are_as_long_as_in_the_paper():
    maskable = np.ones((4000, 400), dtype=bool)
    number = np.full(4000, 10)
    chosen, first = choose_spans(maskable, maskable, number, row_keys(0, np.zeros(4000), np.arange(4000)))
    lengths = np.unique(first, return_counts=True)[1]
    by_row = first.reshape(4000, 10)
    whole = np.array([len(np.unique(row)) for row in by_row])  # the last span of a row may be cut
    assert lengths.max() == 10 and lengths.min() == 1 and np.bincount(chosen // 400).tolist() == [10] * 4000
    chances = 0.8 ** np.arange(10) / (0.8 ** np.arange(10)).sum()
    assert chances @ np.arange(1, 11) == pytest.approx(3.8, abs=0.01)
    draws = np.random.default_rng(0).choice(np.arange(1, 11), p=chances, size=(4000, 10)).cumsum(axis=1)
    simulated = (draws < 10).sum(axis=1) + 1
    assert whole.mean() == pytest.approx(simulated.mean(), abs=0.1)


def test_spans_hold_whole_words_and_stop_at_special_tokens():
    ids, maskable, starts, keys = batch_of(300, 60)
    number = number_to_mask((ids > 0).sum(1), 60)
    chosen, first = choose_spans(maskable, starts, number, keys)
    assert starts.ravel()[first].all()  # a span begins with a word
    mask = np.zeros(ids.size, dtype=bool)
    mask[chosen] = True
    for begin in np.unique(first):
        inside = chosen[first == begin]
        assert maskable.ravel()[begin : inside.max() + 1].all()  # nothing special inside
        assert mask[begin : inside.max() + 1].all()


def test_spans_decide_together():
    ids, maskable, starts, keys = batch_of(500, 100)
    inputs, labels = masked(ids, maskable, starts, keys, unit="token_span", mask_share=0.5, random_share=0.0)
    chosen, first = choose_spans(maskable, maskable, number_to_mask(np.full(500, 100), 100), keys)
    hidden = (inputs.ravel() == MASK)[chosen]
    shares = np.bincount(first, hidden)[np.unique(first)] / np.bincount(first)[np.unique(first)]
    assert set(shares.tolist()) == {0.0, 1.0}


def test_rows_beyond_4096_tokens():
    eligible = np.ones((2, NARROW + 9), dtype=bool)
    order, _ = shuffled_places(eligible, row_keys(0, [0, 0], [0, 1]))
    assert np.array_equal(np.sort(order, axis=1), np.tile(np.arange(NARROW + 9), (2, 1)))
    assert not np.array_equal(order[0], order[1])


def test_splitmix_is_the_published_one():
    """The first outputs for the seed 1234567, as other implementations give them."""
    gamma_inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    start = 1234567 * gamma_inverse % 2**64
    places = np.array([(start + i) % 2**64 for i in (1, 2, 3)], dtype=np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert random_bits(places).tolist() == expected


def test_keys_differ_by_seed_epoch_and_row():
    keys = [row_keys(*numbers)[0] for numbers in ((0, [0], [0]), (1, [0], [0]), (0, [1], [0]), (0, [0], [1]))]
    assert len(set(keys)) == 4


# The collator


def rows_of(tokenizer, texts):
    return [{"input_ids": ids} for ids in tokenizer(texts)["input_ids"]]


def test_pads_and_passes_columns_through(tokenizer):
    rows = [
        {
            "input_ids": [2, 20, 3, 21, 3],
            "token_type_ids": [0, 0, 0, 1, 1],
            "next_sentence_label": 1,
            "index": 0,
            "epoch": 0,
        },
        {"input_ids": [2, 20, 3], "token_type_ids": [0, 0, 0], "next_sentence_label": 0, "index": 1, "epoch": 0},
    ]
    batch = MaskedLanguageModeling(tokenizer)(rows)
    assert set(batch) == {"input_ids", "labels", "attention_mask", "token_type_ids", "next_sentence_label"}
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1], [0] * 5]
    assert batch["next_sentence_label"].tolist() == [1, 0]
    assert batch["input_ids"][1, 3:].tolist() == [tokenizer.pad_token_id] * 2
    assert (batch["labels"] != IGNORE_INDEX).sum(1).tolist() == [1, 1]
    assert all(column.dtype == torch.int64 for column in batch.values())


def test_packed_rows_are_not_padded(tokenizer):
    rows = [
        {"input_ids": [2, 20, 3, 2, 21, 3], "position_ids": [0, 1, 2, 0, 1, 2], "index": 0, "epoch": 0},
        {"input_ids": [2, 20, 3], "position_ids": [0, 1, 2], "index": 1, "epoch": 0},
    ]
    batch = MaskedLanguageModeling(tokenizer)(rows)
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 2]]
    assert (batch["labels"] != IGNORE_INDEX).sum() == 2
    assert MaskedLanguageModeling(tokenizer)(rows[:1] * 2)["position_ids"].shape == (2, 6)


def test_the_mask_depends_on_seed_epoch_and_row_alone(tokenizer):
    ids = tokenizer(TEXT)["input_ids"]

    def labels(seed, epoch, index):
        torch.manual_seed(np.random.randint(99))  # noqa: NPY002 - the global states must not matter
        batch = MaskedLanguageModeling(tokenizer, seed=seed)([{"input_ids": ids, "index": index, "epoch": epoch}])
        return batch["labels"].tolist()

    assert labels(0, 1, 2) == labels(0, 1, 2)
    others = [labels(seed, epoch, index) for seed, epoch, index in ((1, 1, 2), (0, 2, 2), (0, 1, 3))]
    assert all(other != labels(0, 1, 2) for other in others)


def test_plain_rows_are_told_apart_by_their_tokens(tokenizer):
    first, second = rows_of(tokenizer, [TEXT, TEXT + " the cat"])
    collator = MaskedLanguageModeling(tokenizer)
    alone, both = collator([first]), collator([first, second])
    width = len(first["input_ids"])
    assert alone["labels"][0].tolist() == both["labels"][0, :width].tolist()
    assert both["labels"][0].tolist() != both["labels"][1].tolist()


def test_special_tokens_are_left_alone(tokenizer):
    rows = [{"input_ids": [2, tokenizer.unk_token_id, 3, 3]}, {"input_ids": [2, 3]}]
    batch = MaskedLanguageModeling(tokenizer, probability=0.9)(rows)
    assert (batch["labels"] == IGNORE_INDEX).all() and batch["input_ids"][0].tolist() == rows[0]["input_ids"]


def test_whole_words_on_rows_of_different_length(tokenizer):
    """Transformers' collator stops here: offset_mapping is not padded."""
    collator = MaskedLanguageModeling(tokenizer, unit="whole_word", probability=0.4, mask_share=1.0, random_share=0.0)
    texts = [TEXT, "walking", TEXT * 2]
    batch = collator(rows_of(tokenizer, texts))
    for row, text in enumerate(texts):
        encoding = tokenizer(text)
        words = encoding.word_ids()
        chosen = {words[i] for i in range(len(words)) if batch["labels"][row, i] != IGNORE_INDEX}
        whole = [i for i, word in enumerate(words) if word in chosen]
        if row != 1:
            assert (batch["labels"][row, whole] != IGNORE_INDEX).all()
        assert chosen and None not in chosen


@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe", "unigram", "word", "gpt1_bpe"])
def test_words_of_each_kind_of_tokenizer(kind):
    options = {"num_sentinels": 0} if kind == "unigram" else {}
    trained = train_tokenizer(kind, [TEXT] * 3, 300 if kind == "byte_bpe" else 70, progress=False, **options)
    comma = " " if kind == "unigram" else ", "  # its pieces may end with one
    text = f"the cat walked{comma}unhappily talking"
    encoding = trained(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array([encoding["input_ids"]])
    starts = WordStarts(trained)(ids, np.ones(ids.shape, dtype=bool))[0]
    joined = [text[begin:end].strip() for begin, end in _spans(starts, encoding["offset_mapping"])]
    assert joined == ["the", "cat", "walked", *comma.split(), "unhappily", "talking"]


def _spans(starts, offsets):
    begins = np.flatnonzero(starts).tolist()
    for begin, end in zip(begins, [*begins[1:], len(starts)], strict=True):
        yield offsets[begin][0], offsets[end - 1][1]


def test_words_begin_after_a_special_token(tokenizer):
    piece = next(i for token, i in tokenizer.get_vocab().items() if token.startswith("##"))
    ids = np.array([[2, piece, piece, 3, piece]])
    starts = WordStarts(tokenizer)(ids, np.array([[False, True, True, False, True]]))
    assert starts.tolist() == [[False, True, False, False, True]]


def test_rows_robbed_of_their_number_are_refused(tokenizer):
    with pytest.raises(DataError, match="remove_unused_columns: false"):
        MaskedLanguageModeling(tokenizer)([{"input_ids": [2, 20, 3], "next_sentence_label": 1}])


def test_ids_of_another_tokenizer_are_refused(tokenizer):
    with pytest.raises(DataError, match="token id 5000 is outside"):
        MaskedLanguageModeling(tokenizer)([{"input_ids": [2, 5000, 3]}])


@pytest.mark.parametrize("role", ["mask", "pad"])
def test_a_tokenizer_without_a_token_is_refused(role):
    tokenizer = train_tokenizer("wordpiece", [TEXT], 60, progress=False)
    setattr(tokenizer, f"{role}_token", None)
    with pytest.raises(DataError, match=f"no {role}_token"):
        MaskedLanguageModeling(tokenizer)


@pytest.mark.parametrize(
    "options",
    [{"unit": "words"}, {"probability": 0}, {"probability": 1}, {"mask_share": 0.95}, {"max_predictions": 0}],
    ids=str,
)
def test_wrong_options_are_refused(tokenizer, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MaskedLanguageModeling(tokenizer, **options)
