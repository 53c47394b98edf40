"""Documents to batches: what is predicted from what, in any number of workers."""

import time

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hftoolkit.data.language_modeling import (
    PackedDocuments,
    StreamedDocuments,
    collate_packed,
    flatten,
    tokenize_documents,
)
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer


class Letters:
    """A tokenizer of lower-case letters: a is 0; bos 26, eos 27."""

    bos_token_id, eos_token_id = 26, 27

    def __call__(self, texts, **kwargs):
        return {"input_ids": [[ord(letter) - 97 for letter in text] for text in texts]}


def dataset(*documents):
    return datasets.Dataset.from_dict({"input_ids": [list(document) for document in documents]})


def random_documents(count=300, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 90, n).tolist() for n in generator.integers(1, 40, count)]


def test_tokenize_documents_begins_and_ends_each():
    texts = datasets.Dataset.from_dict({"text": ["ab", ""], "log_probability": [-1.0, -2.0]})
    assert tokenize_documents(texts, Letters())["input_ids"] == [[26, 0, 1, 27], [26, 27]]
    across = tokenize_documents(texts, Letters(), across=True)
    assert across["input_ids"] == [[0, 1, 27], [27]]
    assert across.column_names == ["input_ids"]


def test_a_document_cannot_end_itself():
    """The end token written out in a text is text: only the real ends carry its id."""
    tokenizer = train_tokenizer("byte", None)
    texts = datasets.Dataset.from_dict({"text": [f"a{tokenizer.eos_token}b"]})
    ids = tokenize_documents(texts, tokenizer)["input_ids"][0]
    assert ids.count(tokenizer.eos_token_id) == 2 and len(ids) == 4 + len(tokenizer.eos_token)


def test_a_tokenizer_without_eos_is_refused():
    tokenizer = Letters()
    tokenizer.eos_token_id = None
    with pytest.raises(DataError, match="no eos_token"):
        tokenize_documents(datasets.Dataset.from_dict({"text": ["a"]}), tokenizer)


def test_flatten_survives_selection_and_chunks():
    documents = datasets.concatenate_datasets([dataset([1, 2], [3]), dataset([4, 5, 6])]).select([2, 0])
    tokens, offsets = flatten(documents)
    assert tokens.tolist() == [4, 5, 6, 1, 2]
    assert offsets.tolist() == [0, 3, 5]


def test_collate_example():
    rows = PackedDocuments(dataset([1, 2, 3], [4, 5], [6, 7, 8]), 3)
    batch = collate_packed([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[1, 2, 4, 6, 7]]
    assert batch["shift_labels"].tolist() == [[2, 3, 5, 7, 8]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0, 1]]
    assert batch["labels"] is batch["shift_labels"]


def test_equal_rows_make_a_rectangle():
    rows = PackedDocuments(dataset(range(9)), 4, "stream")
    batch = collate_packed([rows[0], rows[1]])
    assert batch["input_ids"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert batch["shift_labels"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("packing", ["whole", "stream", "across"])
def test_every_pair_of_neighbours_is_seen_once(packing):
    documents = random_documents()
    rows = PackedDocuments(dataset(*documents), 16, packing)
    seen = []
    for batch in DataLoader(rows, batch_size=4, collate_fn=collate_packed):
        seen += zip(batch["input_ids"].flatten().tolist(), batch["shift_labels"].flatten().tolist(), strict=True)
    together = [[token for document in documents for token in document]]
    expected = [
        pair for d in (together if packing == "across" else documents) for pair in zip(d[:-1], d[1:], strict=True)
    ]
    assert sorted(seen) == sorted(expected)


def test_f18_an_id_outside_the_vocabulary_names_its_document():
    with pytest.raises(DataError, match=r"document 1 holds the token id 99, but the model's vocab_size is 50"):
        PackedDocuments(dataset([1, 2], [3, 99, 4]), 8, vocab_size=50)


def test_f14_documents_without_a_token_to_predict():
    with pytest.raises(DataError, match="2 documents, but none has a token to predict"):
        PackedDocuments(dataset([1], [2]), 8)


def test_f19_documents_longer_than_a_row_are_counted():
    summary = PackedDocuments(dataset(range(20), range(5)), 8).summary()
    assert summary["cut_documents"] == 1
    assert summary["tokens"] == 19 + 4
    assert summary["documents"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_order(workers):
    rows = PackedDocuments(dataset(*random_documents()), 16)

    def batches(num_workers):
        generator = torch.Generator().manual_seed(3)
        loader = DataLoader(rows, 4, True, generator=generator, num_workers=num_workers, collate_fn=collate_packed)
        return [batch["input_ids"] for batch in loader]

    assert all(torch.equal(a, b) for a, b in zip(batches(0), batches(workers), strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_read_by_workers_keeps_the_order_of_one(workers):
    documents = [{"input_ids": ids} for ids in random_documents()]
    stream = StreamedDocuments(documents, 16, batch_size=4, window=50)

    def batches(num_workers):
        return [b["input_ids"] for b in DataLoader(stream, 4, num_workers=num_workers, collate_fn=collate_packed)]

    alone = batches(0)
    assert sum(b.numel() for b in alone) == sum(len(d["input_ids"]) - 1 for d in documents)
    assert all(torch.equal(a, b) for a, b in zip(alone, batches(workers), strict=True))


def test_f28_a_stream_that_fails_says_where():
    def failing():
        yield from ({"input_ids": [1, 2, 3]} for _ in range(7))
        raise OSError("connection reset")

    with pytest.raises(DataError, match="failed after 7 documents: connection reset; the same command resumes"):
        list(StreamedDocuments(failing(), 16, batch_size=4))


def test_batches_are_made_fast():
    """A bound a Python loop over tokens cannot meet (it makes 1-2 M tokens per second); 20 M is the figure alone."""
    lengths = np.random.default_rng(0).lognormal(4.9, 0.7, 4000).astype(int).clip(2, 2000)
    rows = PackedDocuments(dataset(*(range(n) for n in lengths)), 1024)
    start = time.process_time()
    tokens = sum(batch["input_ids"].numel() for batch in DataLoader(rows, 8, True, collate_fn=collate_packed))
    assert tokens / (time.process_time() - start) > 5e6
