"""What training refuses, and how it says so."""

import logging

import pytest

from hftoolkit.errors import DataError
from hftoolkit.tokenization import KINDS, train_tokenizer


def train(kind, texts, vocab_size, **options):
    if kind == "unigram":
        options.setdefault("num_sentinels", 10)
    return train_tokenizer(kind, texts, vocab_size, progress=False, **options)


@pytest.mark.parametrize("kind", ("byte_bpe", "gpt1_bpe", "wordpiece", "unigram", "word"))
def test_too_little_text_warns_with_the_size_reached(kind, caplog):
    with caplog.at_level(logging.WARNING, logger="hftoolkit"):
        tokenizer = train(kind, ["to be or not to be"], 5000)
    assert f"vocabulary of {len(tokenizer)} tokens, not the 5000" in caplog.text


@pytest.mark.parametrize(
    ("kind", "vocab_size", "needed"),
    [("byte_bpe", 200, 258), ("byte", 100, 258), ("gpt1_bpe", 12, 13), ("wordpiece", 14, 15), ("character", 7, 8)],
)
def test_too_small_a_vocabulary_names_both_numbers(kind, vocab_size, needed):
    with pytest.raises(DataError, match=rf"vocab_size {vocab_size} is smaller than the {needed} tokens"):
        train_tokenizer(kind, ["abcde abcde"] if kind != "character" else ["abcde"], vocab_size, progress=False)
    tokenizer = train_tokenizer(kind, ["abcde" * 2], needed, progress=False)
    assert len(tokenizer) == needed


def test_too_small_a_vocabulary_for_sentinels():
    with pytest.raises(DataError, match="vocab_size 50 is smaller than the 105 tokens"):
        train_tokenizer("unigram", ["a"], 50, progress=False)
    with pytest.raises(DataError, match="vocab_size 3 is smaller than the 4 tokens"):
        train_tokenizer("word", ["a"], 3, progress=False)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte"])
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "0 documents"),
        (["", ""], "2 documents with 0 characters"),
        (["a", None], "document 2 is NoneType"),
        ([{"text": "a"}], "document 1 is dict"),
        (["ok", "bad \ud800"], "document 2 has a lone surrogate .* position 4"),
        ("one string", "texts is one string"),
    ],
    ids=str,
)
def test_bad_texts_are_named(kind, texts, message):
    with pytest.raises(DataError, match=message):
        train_tokenizer(kind, texts, 1000, progress=False)


def test_texts_without_a_word():
    with pytest.raises(DataError, match="no words"):
        train_tokenizer("word", [" \n "], 100, progress=False)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bpe", {}, "unknown kind of tokenizer 'bpe'; the kinds are byte_bpe"),
        ("byte_bpe", {"lowercase": True}, "byte_bpe keeps every character"),
        ("word", {"num_sentinels": 3}, "only unigram has sentinels"),
        ("unigram", {"num_sentinels": -1}, "num_sentinels=-1"),
        ("word", {"min_frequency": 0}, "min_frequency=0"),
        ("byte", {"min_frequency": 2}, "does not apply to byte"),
    ],
)
def test_impossible_options_are_refused_before_reading(kind, options, message):
    def never():
        raise AssertionError("the texts were read")
        yield

    with pytest.raises(ValueError, match=message):
        train_tokenizer(kind, never(), 100, **options)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            "word",
            {"min_frequency": 9},
            "min_frequency 9 leaves none of the 3 distinct words; .* 3 times, .* 1 would keep 3",
        ),
        ("word", {"min_frequency": 3}, "min_frequency 3 leaves 1 of the 3 .* would keep 3 words, 2 at least two"),
        *(
            (kind, {"min_frequency": 5}, "min_frequency 5 leaves (none of the 3|1 of the 4) distinct characters")
            for kind in ("character", "unigram", "wordpiece", "gpt1_bpe")
        ),
    ],
)
def test_a_minimum_that_leaves_no_vocabulary_is_refused(kind, options, message):
    texts = ["a b b c c c"] if kind != "character" else ["abbccc"]
    with pytest.raises(DataError, match=message):
        train(kind, texts, 300, **options)
    assert len(train(kind, texts, 300, min_frequency=2)) > 2


def test_special_tokens_in_the_text_teach_nothing():
    """A text full of special tokens gives no second token of the same name."""
    for kind in KINDS:
        tokenizer = train(kind, ["</s> <unk> [SEP] <|endoftext|> <extra_id_0> word word"] * 50, 500)
        assert len(set(tokenizer.get_vocab())) == len(tokenizer) == max(tokenizer.get_vocab().values()) + 1
        for token, number in tokenizer.get_added_vocab().items():
            assert tokenizer.convert_tokens_to_ids(token) == number
