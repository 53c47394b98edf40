"""Counts and ratios, worked out by hand."""

import pytest

from hftoolkit.tokenization import tokenizer_statistics, train_tokenizer, visible_pieces


def test_counts_by_hand():
    tokenizer = train_tokenizer("character", ["ab "], 6, progress=False)
    result = tokenizer_statistics(tokenizer, iter(["ab b", "\u00e9"]))
    assert result == {
        "documents": 2,
        "words": 3,
        "characters": 5,
        "bytes": 6,
        "tokens": 5,
        "tokens_per_word": pytest.approx(5 / 3),
        "characters_per_token": 1,
        "bytes_per_token": pytest.approx(6 / 5),
        "unknown_share": pytest.approx(1 / 5),
        "vocabulary": 6,
        "used_share": pytest.approx(4 / 6),
    }


def test_template_tokens_are_not_counted(texts):
    tokenizer = train_tokenizer("wordpiece", texts, 300, progress=False)
    assert tokenizer_statistics(tokenizer, ["walk walk"])["tokens"] == 2


def test_bytes_are_never_unknown():
    result = tokenizer_statistics(train_tokenizer("byte", None), ["\u00e9<|endoftext|>"])
    assert (result["tokens"], result["unknown_share"]) == (3, 0)


def test_no_documents():
    assert tokenizer_statistics(train_tokenizer("byte", None), [])["tokens_per_word"] == 0


def test_visible_pieces(texts):
    byte_bpe, wordpiece = (train_tokenizer(kind, texts, 400, progress=False) for kind in ("byte_bpe", "wordpiece"))
    assert visible_pieces(byte_bpe, " walk \u00e9") == [" walk", " ", "\ufffd", "\ufffd"]
    assert visible_pieces(wordpiece, "walksmall")[1].startswith("##")
