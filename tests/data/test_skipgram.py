"""Rows of a corpus, subsampling, noise, and the batches made of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from hftoolkit.data.skipgram import BLOCK, NO_SENTENCE, Noise, WindowCollator, WordRows, keep_probabilities
from hftoolkit.errors import DataError

COUNTS = np.array([0, 50, 30, 15, 5])


def make_store(length=100, sentence=8):
    tokens = np.random.default_rng(0).integers(1, 5, length).astype(np.uint16)
    return SimpleNamespace(tokens=tokens, sentence_offsets=np.append(np.arange(0, length, sentence), length))


def collate(rows, **changes):
    options = dict(window_size=3, num_negatives=2, shared_negatives=4, subsampling=0, seed=1)
    return WindowCollator(COUNTS, **options | changes)(rows)


def test_rows_are_the_corpus():
    rows = WordRows(make_store(), 30)
    parts = rows.rows(None, [0, 1, 2, 3], 0)
    assert len(rows) == 4 and [len(part["input_ids"]) for part in parts] == [30, 30, 30, 10]
    assert np.array_equal(np.concatenate([part["input_ids"] for part in parts]), rows.store.tokens)
    sentences = np.concatenate([part["sentences"] for part in parts])
    assert np.array_equal(np.unique(sentences, return_counts=True)[1], [8] * 12 + [4])


def test_subsampling_is_that_of_the_c_program():
    """A word that is 5% of the text stays with 0.161 at t = 1e-3; the paper's formula would say 0.141."""
    keep = keep_probabilities([5000, 95000 - 40, 40, 0], 1e-3)
    assert keep[0] == pytest.approx(0.1614, abs=1e-4)
    assert keep[2] == 1 and keep[3] == 0
    assert keep_probabilities([3, 0, 7], 0).tolist() == [1, 0, 1]


def test_noise_is_drawn_by_count_to_the_power():
    """The table itself holds the probabilities, exactly; and draws follow it."""
    noise = Noise(COUNTS, 0.75)
    expected = np.where(COUNTS > 0, COUNTS**0.75, 0) / (COUNTS[1:] ** 0.75).sum()
    held = np.zeros(5)
    for column, (split, other) in enumerate(zip(noise.split, noise.alias, strict=True)):
        held[column] += split / 5
        held[other] += (1 - split) / 5
    np.testing.assert_allclose(held, expected, atol=1e-12)
    draws = noise.draw((100, 400), np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(draws.ravel(), minlength=5) / draws.size, expected, atol=0.01)
    assert not np.allclose(held, COUNTS / COUNTS.sum(), atol=0.01)


def test_unknown_words_are_left_out_before_windows_are_laid():
    row = dict(index=0, epoch=0, input_ids=np.array([1, 0, 0, 2, 3]), sentences=np.array([1, 1, 1, 1, 2]))
    batch = collate([row], dynamic_window=False)
    assert batch["input_ids"][:4].tolist() == [1, 2, 3, 0] and len(batch["input_ids"]) == BLOCK
    sentences = batch["sentences"]
    assert sentences[0] == sentences[1] != sentences[2] and (sentences[3:] == NO_SENTENCE).all()
    assert batch["windows"][:3].tolist() == [3, 3, 3] and (batch["windows"][3:] == 0).all()


def test_a_row_is_thinned_the_same_in_any_batch_and_anew_in_any_epoch():
    rows = WordRows(make_store(400), 100).rows(None, [0, 1, 2], 0)
    alone = [collate([row], subsampling=0.05) for row in rows]
    lengths = [int((batch["windows"] > 0).sum()) for batch in alone]
    together = collate(rows, subsampling=0.05)
    for name in ("input_ids", "windows"):
        parts = [batch[name][:length] for batch, length in zip(alone, lengths, strict=True)]
        assert np.concatenate(parts).tolist() == together[name][: sum(lengths)].tolist()
    assert len(set(together["sentences"][: sum(lengths)].tolist())) == sum(
        len(set(batch["sentences"][:length].tolist())) for batch, length in zip(alone, lengths, strict=True)
    )
    again = collate([rows[0]], subsampling=0.05)
    assert all((again[name] == alone[0][name]).all() for name in again)
    other = collate([rows[0] | {"epoch": 1}], subsampling=0.05)
    assert (
        other["negatives"].shape != alone[0]["negatives"].shape or (other["negatives"] != alone[0]["negatives"]).any()
    )
    assert set(together["windows"][: sum(lengths)].tolist()) == {1, 2, 3}


def test_nothing_left_is_an_empty_block():
    row = dict(index=0, epoch=0, input_ids=np.array([0, 0]), sentences=np.array([1, 1]))
    batch = collate([row])
    assert len(batch["input_ids"]) == BLOCK and (batch["windows"] == 0).all() and batch["negatives"].shape == (1, 4)


@pytest.mark.parametrize(("counts", "found"), [([0, 9], "1 distinct word "), ([0, 0], "no distinct words")])
def test_a_corpus_of_one_word_is_refused(counts, found):
    with pytest.raises(DataError, match=f"the corpus has {found}.*lower min_count"):
        WindowCollator(np.array(counts), window_size=2, num_negatives=2)
