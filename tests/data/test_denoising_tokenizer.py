"""Special tokens that an objective needs: their number counted by corrupting rows, and what is added or refused."""

import numpy as np
import pytest

from hftoolkit.data.denoising import OBJECTIVES, corrupt, mixture_of_denoisers, span_corruption
from hftoolkit.data.denoising_tokenizer import parts_of, prepare_tokenizer, sentinels_needed
from hftoolkit.data.masking import row_keys
from hftoolkit.data.spans_tokens import Vocabulary
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

TEXT = ["the red lamp stood in the old garden of the house"] * 3


def most_used(objective, length, rows=300):
    """The most sentinels that any of some rows has in its inputs or targets."""
    vocabulary = Vocabulary(np.arange(1000, 1400), np.arange(1000))
    keys = row_keys(0, [0] * rows, np.arange(rows))
    ids, lengths = np.zeros((rows, length), dtype=np.int64), np.full(rows, length)
    sides = corrupt(objective, ids, lengths, keys, vocabulary)
    return max(int(((tokens >= 1000) & keep).sum(1).max()) for tokens, keep in sides)


def test_the_papers_row_of_568():
    assert sentinels_needed(span_corruption(), 568) == 28 == most_used(span_corruption(), 568)


@pytest.mark.parametrize("length", [2, 9, 64, 510])
def test_enough_and_not_many_too_many(length):
    for objective in (*OBJECTIVES["ul2"].objectives, span_corruption(0.3, 1.0)):
        if "mean_length" in objective.noise:
            assert sentinels_needed(objective, length) == most_used(objective, length)
    needed, used = (
        sentinels_needed(OBJECTIVES["iid_replace_spans"], length),
        most_used(OBJECTIVES["iid_replace_spans"], length),
    )
    assert used <= needed <= length // 2 + 1


def test_objectives_of_one_sentinel():
    assert {
        sentinels_needed(OBJECTIVES[name], 512) for name in ("prefix_lm", "mass_style", "bart", "deshuffling")
    } == {1}
    assert sentinels_needed(OBJECTIVES["ul2"], 510) == max(
        sentinels_needed(o, 510) for o in parts_of(OBJECTIVES["ul2"])
    )


def test_a_new_tokenizer_gets_what_is_missing():
    tokenizer = train_tokenizer("byte_bpe", TEXT, 300)
    before = len(tokenizer)
    prepare_tokenizer(tokenizer, mixture_of_denoisers(), 60, is_new=True)
    needed = sentinels_needed(mixture_of_denoisers(), 60)
    assert len(tokenizer) == before + needed + 3 and len(Vocabulary.of(tokenizer).sentinels) == needed
    again = len(tokenizer)
    prepare_tokenizer(tokenizer, mixture_of_denoisers(), 60, is_new=True)
    assert len(tokenizer) == again
    added = tokenizer.convert_tokens_to_ids(["[R]", "<extra_id_0>"])
    assert set(added) <= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}


def test_a_given_tokenizer_must_have_enough():
    tokenizer = train_tokenizer("unigram", TEXT, 150, num_sentinels=9)
    prepare_tokenizer(tokenizer, span_corruption(), 180, is_new=False)
    with pytest.raises(
        DataError, match="9 sentinels, but rows of 568 tokens need 28 .*<extra_id_27>.*num_sentinels 28"
    ):
        prepare_tokenizer(tokenizer, span_corruption(), 568, is_new=False)
    with pytest.raises(DataError, match="0 sentinels, but rows of 60 tokens need 3"):
        prepare_tokenizer(train_tokenizer("byte_bpe", TEXT, 300), span_corruption(), 60, is_new=False)
    wordpiece = train_tokenizer("wordpiece", TEXT, 150)  # its [MASK] will do where one sentinel does
    prepare_tokenizer(wordpiece, OBJECTIVES["mass_style"], 60, is_new=False)
    assert "<extra_id_0>" not in wordpiece.get_vocab()
