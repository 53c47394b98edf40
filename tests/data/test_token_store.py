"""The store of tokenised sentences: what it holds, when it is made anew, and what stops it."""

import errno
import json
import multiprocessing

import datasets
import numpy as np
import pytest

from hftoolkit.data import token_store
from hftoolkit.data.token_store import SentenceStore, tokenize_sentences
from hftoolkit.errors import DataError, MachineError
from hftoolkit.tokenization import train_tokenizer

TEXTS = ["The cat sat. Mr. Lee ran!\n= Notes =", "", "A dog [SEP] barked.", "\u200b\n \u200b"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("wordpiece", TEXTS * 3, 120, progress=False)


@pytest.fixture
def documents():
    return datasets.Dataset.from_dict({"text": TEXTS})


def make(documents, tokenizer, tmp_path, **options):
    return tokenize_sentences(documents, tokenizer, cache_dir=tmp_path, **options)


def sentences_of(store, tokenizer):
    pieces = np.split(store.tokens, store.sentence_offsets[1:-1])
    return [tokenizer.decode(piece) for piece in pieces]


def test_holds_sentences_and_documents(documents, tokenizer, tmp_path):
    store = make(documents, tokenizer, tmp_path)
    expected = ["the cat sat.", "mr. lee ran!", "= notes =", "a dog [SEP] barked."]
    assert [text.replace(" ", "") for text in sentences_of(store, tokenizer)] == [
        x.lower().replace(" ", "") for x in expected
    ]
    assert store.document_offsets.tolist() == [0, 3, 3, 4, 4]  # documents without a token keep their place
    assert store.tokens.dtype == np.uint16 and store.summary()["sentences"] == 4
    assert tokenizer.sep_token_id not in store.tokens  # what looks like a special token in a text is text


def test_lines_as_sentences(documents, tokenizer, tmp_path):
    assert make(documents, tokenizer, tmp_path, splitter="lines").document_offsets.tolist() == [0, 2, 2, 3, 3]


def test_workers_change_nothing(documents, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_store, "BATCH_CHARACTERS", 20)
    one, two = (make(documents, tokenizer, tmp_path / str(n), num_workers=n) for n in (None, 2))
    for name in ("tokens", "sentence_offsets", "document_offsets"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name


def test_large_vocabularies_take_four_bytes(documents, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "get_vocab", lambda self: {"a": 0, "b": 70_000})
    assert make(documents, tokenizer, tmp_path).tokens.dtype == np.int32


def test_is_made_once(documents, tokenizer, tmp_path, monkeypatch):
    first = make(documents, tokenizer, tmp_path)
    tokenizer.padding_side, kept = "left", tokenizer.padding_side  # decides no id of a store
    monkeypatch.setattr(token_store, "_write", None)
    again = make(documents, tokenizer, tmp_path)
    tokenizer.padding_side = kept
    assert again.folder == first.folder and np.array_equal(again.tokens, first.tokens)


def test_other_texts_tokenizers_and_rules_have_other_stores(documents, tokenizer, tmp_path):
    other = train_tokenizer("wordpiece", TEXTS, 60, progress=False)
    folders = {
        make(documents, tokenizer, tmp_path).folder,
        make(documents, other, tmp_path).folder,
        make(documents, tokenizer, tmp_path, splitter="lines").folder,
        make(documents.select([0, 1]), tokenizer, tmp_path).folder,
    }
    assert len(folders) == 4


@pytest.mark.parametrize("damage", ["truncated", "description", "missing"])
def test_a_damaged_store_is_made_anew(documents, tokenizer, tmp_path, damage):
    store = make(documents, tokenizer, tmp_path)
    kept = store.tokens.copy()
    if damage == "truncated":
        with open(store.folder / "sentence_offsets", "r+b") as file:
            file.truncate(8)
    elif damage == "description":
        content = json.loads((store.folder / "store.json").read_text())
        (store.folder / "store.json").write_text(json.dumps(content | {"dtype": "int32"}))
    else:
        (store.folder / "tokens").unlink()
    with pytest.raises(DataError, match="not a whole store"):
        SentenceStore(store.folder)
    assert np.array_equal(make(documents, tokenizer, tmp_path).tokens, kept)


def test_a_full_disk_is_a_machine_error(documents, tokenizer, tmp_path, monkeypatch):
    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_store.os, "fsync", no_space)
    with pytest.raises(MachineError, match="No space left.*set HF_HOME"):
        make(documents, tokenizer, tmp_path)
    assert not list((tmp_path / "sentences").glob("*.tmp"))  # nothing half made is left


def test_documents_without_a_token(tokenizer, tmp_path):
    with pytest.raises(DataError, match="2 documents with 0 tokens"):
        make(datasets.Dataset.from_dict({"text": ["", "\u200b"]}), tokenizer, tmp_path)


def test_an_unknown_splitter(documents, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="rules, lines, none, got 'nltk'"):
        make(documents, tokenizer, tmp_path, splitter="nltk")


def test_streams_are_stored_alike(documents, tokenizer, tmp_path):
    one = make(documents, tokenizer, tmp_path / "a")
    two = make(documents.to_iterable_dataset(), tokenizer, tmp_path / "b")
    assert np.array_equal(one.tokens, two.tokens) and one.folder.name == two.folder.name


def _in_process(arguments):
    return make(*arguments).tokens.tolist()


def test_processes_at_once_share_one_store(documents, tokenizer, tmp_path):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.map(_in_process, [(documents, tokenizer, tmp_path)] * 3)
    assert results[0] == results[1] == results[2]
    assert len([path for path in (tmp_path / "sentences").iterdir() if path.is_dir()]) == 1
