"""Tokens that another tokenizer made are never read from the cache (F29); those that fit are."""

import copy

import pytest
from transformers import AutoTokenizer

from hftoolkit.arguments import DataArguments
from hftoolkit.data.language_modeling import pack_documents, tokenize_documents
from hftoolkit.data.text import load_documents
from hftoolkit.tokenization import train_tokenizer

TEXTS = ["The Old Lobster lived alone.", "A road in Michigan", "the lobster"]


@pytest.fixture
def documents(write):
    path = write({"a.txt": "\n".join(TEXTS)}) / "a.txt"
    options = DataArguments(dataset=str(path), document_separator="line", validation_fraction=0.0)
    return load_documents(options)["train"]


def made(documents, tokenizer, **options):
    """(token ids, file of the cache that holds them)."""
    tokens = tokenize_documents(documents, tokenizer, **options)
    return tokens["input_ids"], tokens.cache_files[0]["filename"]


def expected(tokenizer):
    eos = tokenizer.eos_token_id
    bos = eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [[bos, *tokenizer(text, add_special_tokens=False)["input_ids"], eos] for text in TEXTS]


def larger(tokenizer):
    return train_tokenizer("byte_bpe", TEXTS * 5, 300)


def other_merges(tokenizer):
    """As many tokens, of other text."""
    return train_tokenizer("byte_bpe", ["quite other words: zebra, quagga"] * 5, len(tokenizer))


def other_end(tokenizer):
    tokenizer.eos_token = "!"
    return tokenizer


def more_tokens(tokenizer):
    tokenizer.add_tokens(["Lobster"])
    return tokenizer


@pytest.mark.parametrize("change", [larger, other_merges, other_end, more_tokens])
def test_another_tokenizer_never_reads_earlier_tokens(change, documents):
    tokenizer = train_tokenizer("byte_bpe", TEXTS * 5, 290)
    before, file = made(documents, tokenizer)
    assert before == expected(tokenizer)
    changed = change(copy.deepcopy(tokenizer))
    after, other_file = made(documents, changed)
    assert after == expected(changed) != before and other_file != file


def test_other_options_never_read_earlier_tokens(documents):
    tokenizer = train_tokenizer("byte_bpe", TEXTS * 5, 290)
    assert made(documents, tokenizer, across=True)[0] == [ids[1:] for ids in made(documents, tokenizer)[0]]
    tokens = tokenize_documents(documents, tokenizer)
    longest = [max(len(row[0]) for row in pack_documents(tokens, length, "stream", 300)) for length in (5, 7)]
    assert longest == [5, 7]  # rows are made anew for every max_length


def test_the_same_tokenizer_reads_them_again(documents, tmp_path):
    """Also one that was saved and loaded; otherwise every start of a run would tokenise anew."""
    tokenizer = train_tokenizer("byte_bpe", TEXTS * 5, 290)
    ids, file = made(documents, tokenizer)
    assert made(documents, tokenizer) == (ids, file)
    tokenizer.save_pretrained(tmp_path / "t")
    first, second = (AutoTokenizer.from_pretrained(tmp_path / "t") for _ in range(2))
    loaded = made(documents, first)
    assert made(documents, second) == loaded and loaded[0] == ids


def test_other_documents_are_tokenised(documents, write):
    tokenizer = train_tokenizer("byte_bpe", TEXTS * 5, 290)
    made(documents, tokenizer)
    path = write({"a.txt": "\n".join(TEXTS[::-1])}) / "a.txt"  # same name, same length
    options = DataArguments(dataset=str(path), document_separator="line", validation_fraction=0.0)
    assert made(load_documents(options)["train"], tokenizer)[0] == expected(tokenizer)[::-1]
