"""Inputs and targets in one row for a prefix LM, against the batch that an encoder-decoder gets."""

import numpy as np
import pytest
import torch

from hftoolkit.data.denoising_collator import DecoderDenoising, Denoising
from hftoolkit.tokenization import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("unigram", ["the red lamp stood in the old garden of the house"] * 3, 150)


@pytest.mark.parametrize(
    "objective, lengths", [("random_spans", (30, 30)), ("prefix_lm", (30, 30)), ("prefix_lm", (9, 30))]
)
def test_one_row_holds_both(tokenizer, objective, lengths):
    random = np.random.default_rng(0)
    rows = [
        {"input_ids": random.integers(5, 28, length).astype(np.uint16), "index": index, "epoch": 0}
        for index, length in enumerate(lengths)
    ]
    apart, together = (make(tokenizer, objective, seed=1)(rows) for make in (Denoising, DecoderDenoising))
    assert torch.equal(together["labels"], together["shift_labels"])
    assert ("attention_mask" in together) == (len(set(lengths)) > 1)
    for row in range(2):
        inputs = apart["input_ids"][row]
        if "attention_mask" in apart:
            inputs = inputs[apart["attention_mask"][row] == 1]
        targets = apart["labels"][row][apart["labels"][row] != -100]
        whole, S = torch.cat([inputs, targets]), len(inputs)
        width = min(len(whole), together["input_ids"].shape[1])
        assert torch.equal(together["input_ids"][row][:width], whole[:width])
        assert together["prefix_mask"][row].tolist() == [1] * S + [0] * (together["input_ids"].shape[1] - S)
        labels = together["shift_labels"][row]
        assert (labels[: S - 1] == -100).all() and torch.equal(labels[S - 1 : len(whole) - 1], targets)
        assert (labels[len(whole) - 1 :] == -100).all()
        if "attention_mask" in together:
            assert int(together["attention_mask"][row].sum()) == width
