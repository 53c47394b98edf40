"""decode(encode(x)) == x over all of Unicode, for the kinds that promise it."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hftoolkit.tokenization import KINDS, is_invertible, train_tokenizer

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))  # everything but surrogates
MIXED = st.lists(
    st.one_of(
        UNICODE,
        st.sampled_from(
            [
                "<|endoftext|>",
                "<|pad|>",
                "<|im_start|>",
                "<unk>",
                "\r\n",
                "\n",
                "  ",
                "\t",
                "\x00",
                "e\u0301",
                "\u200d",
            ]
            + [
                "\ufeff",
                "\u0120",
                "\u00a0",
                "\u2028",
                "\u0085",
                "don't",
                " 'll",
                "\U0001f469\u200d\U0001f680",
                "</w>",
                "##a",
            ]
        ),
    )
).map("".join)


@pytest.fixture(scope="module")
def tokenizers(texts):
    return {
        kind: train_tokenizer(kind, texts, 400, chat_template=True, progress=False)
        for kind in KINDS
        if is_invertible(kind)
    }


def test_who_promises():
    assert [kind for kind in KINDS if is_invertible(kind)] == ["byte_bpe", "character", "byte"]
    with pytest.raises(ValueError, match="unknown kind"):
        is_invertible("bpe")


@pytest.mark.parametrize("kind", ["byte_bpe", "byte"])
@settings(max_examples=100)
@given(text=MIXED)
@example(text="")
@example(text=" \x00 ")
@example(text="\r\n <|endoftext|>  <|pad|>\n")
def test_bytes_bring_every_text_back(kind, text, tokenizers):
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    as_text = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(as_text) == text
    assert not set(as_text) & set(tokenizer.all_special_ids), "special tokens in a text can be kept out"


@settings(max_examples=60)
@given(text=MIXED.filter(bool))
@example(text="\r\n <|endoftext|> <unk>\x00")
def test_characters_bring_back_what_they_have_seen(text):
    tokenizer = train_tokenizer("character", [text], 10_000, progress=False)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.decode(tokenizer(text, split_special_tokens=True)["input_ids"]) == text


@given(texts=st.lists(UNICODE, min_size=1, max_size=4))
def test_batches_decode_like_single_texts(texts, tokenizers):
    tokenizer = tokenizers["byte_bpe"]
    assert tokenizer.batch_decode(tokenizer(texts)["input_ids"]) == texts


def test_a_tokenizer_that_cleans_up_would_be_noticed(texts):
    """The property can fail: GPT-1's kind drops case, accents and white space."""
    tokenizer = train_tokenizer("gpt1_bpe", texts, 300, progress=False)
    assert tokenizer.decode(tokenizer("Walk  \u00efn")["input_ids"]) != "Walk  \u00efn"
