"""Rows of token ids, and batches of them by number of tokens."""

import numpy as np
import pytest
from datasets import Dataset

from hftoolkit.data.translation_rows import COLUMNS, TokenBatches, TranslationCollator, describe_rows, encode_pairs
from hftoolkit.errors import DataError
from hftoolkit.tokenization import end_texts, train_tokenizer

TEXTS = ["A dog runs.", "Two men eat at the sea.", "The sea is blue."]


@pytest.fixture(scope="module")
def tokenizer():
    return end_texts(train_tokenizer("byte_bpe", TEXTS, vocab_size=280, progress=False))


def of_lengths(pairs):
    rows = [{"input_ids": [5] * a, "labels": [6] * b} for a, b in pairs]
    return Dataset.from_list(rows, features=COLUMNS)


@pytest.mark.parametrize("kind", ["byte_bpe", "gpt1_bpe", "unigram", "wordpiece", "word"])
def test_texts_end(kind, tmp_path):
    from transformers import AutoTokenizer

    made = train_tokenizer(kind, TEXTS * 5, vocab_size=400, progress=False)
    plain = made("A dog runs.", add_special_tokens=False)["input_ids"]
    ended = end_texts(end_texts(made))
    ended.save_pretrained(tmp_path)
    for one in (ended, AutoTokenizer.from_pretrained(tmp_path)):
        ids = one("A dog runs.")["input_ids"]
        assert ids[-1] == one.eos_token_id
        assert ids.count(one.eos_token_id) == 1
        assert ids[-1 - len(plain) : -1] == plain
        assert one("A dog runs.", add_special_tokens=False)["input_ids"] == plain


def test_encode_pairs(tokenizer):
    pairs = Dataset.from_dict({"source": TEXTS, "target": TEXTS[::-1]})
    ids = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    rows = encode_pairs(pairs, tokenizer, max_length=64, drop_long=True)
    assert rows["input_ids"][:] == [one + [tokenizer.eos_token_id] for one in ids]
    assert rows["labels"][:] == rows["input_ids"][::-1]
    tokens = sum(map(len, ids)) + 3
    assert describe_rows(rows, pairs) == {"pairs": 3, "source_tokens": tokens, "target_tokens": tokens}


def test_what_is_too_long(tokenizer):
    pairs = Dataset.from_dict({"source": TEXTS, "target": ["A"] * 3})
    ids = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    longest = max(map(len, ids))
    kept = encode_pairs(pairs, tokenizer, max_length=longest, drop_long=True)
    assert len(kept) == sum(len(one) < longest for one in ids) < 3
    assert describe_rows(kept, pairs, 4)["too_long"] == 3 - len(kept)
    assert describe_rows(kept, pairs, 4)["empty"] == 4
    cut = encode_pairs(pairs, tokenizer, max_length=3, drop_long=False)
    assert cut["input_ids"][:] == [one[:2] + [tokenizer.eos_token_id] for one in ids]
    with pytest.raises(DataError, match="none of the 3 pairs has at most 2 tokens"):
        encode_pairs(pairs, tokenizer, max_length=2, drop_long=True)


@pytest.mark.parametrize("name", ["eos_token", "pad_token"])
def test_a_tokenizer_without_end_or_padding(name):
    pairs = Dataset.from_dict({"source": TEXTS, "target": TEXTS})
    lacking = train_tokenizer("byte_bpe", TEXTS, vocab_size=280, progress=False)
    setattr(lacking, name, None)
    with pytest.raises(DataError, match=f"no {name}.*--tokenizer byte_bpe"):
        encode_pairs(pairs, lacking, max_length=64, drop_long=True)
    if name == "eos_token":
        with pytest.raises(DataError, match="no eos_token"):
            end_texts(lacking)


def test_targets_in_a_vocabulary_of_their_own(tokenizer):
    """Marian's tokenizers read source and target with two models; text_target says which is meant."""

    def two(text=None, text_target=None, add_special_tokens=True):
        assert not add_special_tokens
        return {"input_ids": [[7] * len(one) for one in text] if text else [[8] * len(one) for one in text_target]}

    two.eos_token, two.pad_token, two.eos_token_id = "</s>", "<pad>", 1
    rows = encode_pairs(Dataset.from_dict({"source": ["ab"], "target": ["c"]}), two, max_length=9, drop_long=True)
    assert rows[0] == {"input_ids": [7, 7, 1], "labels": [8, 1]}


def test_batches_by_tokens():
    rows = of_lengths([(9, 8), (3, 2), (4, 4), (4, 3)])
    batches = TokenBatches(rows, 9)
    assert [[tuple(map(len, row.values())) for row in batch] for batch in batches] == [
        [(3, 2), (4, 3)],
        [(4, 4)],
        [(9, 8)],
    ]
    with pytest.raises(DataError, match="9 tokens, more than max_tokens 8 .*raise --tokens_per_batch"):
        TokenBatches(rows, 8)


def test_laws_of_the_batches():
    """Every row once; no side above the limit; no two neighbours that would fit together."""
    random = np.random.default_rng(0)
    rows = of_lengths(random.integers(1, 30, (300, 2)).tolist())
    batches = TokenBatches(rows, 100, seed=1)
    assert sorted(row for batch in batches.batches for row in batch) == list(range(300))
    sizes = [np.array([[len(row["input_ids"]), len(row["labels"])] for row in batch]).sum(0) for batch in batches]
    assert np.max(sizes) <= 100
    first = [[len(row[name]) for name in COLUMNS] for row in (batch[0] for batch in batches)]
    for full, following in zip(sizes, first[1:], strict=False):
        assert (full + following > 100).any()
    lengths = np.array([[len(row["input_ids"]) for row in batch] for batch in batches], dtype=object)
    assert [max(one) for one in lengths] == sorted(max(one) for one in lengths)
    assert TokenBatches(rows, 100, seed=1).batches == batches.batches != TokenBatches(rows, 100, seed=2).batches


def test_the_collator_takes_batches(tokenizer):
    batches = TokenBatches(of_lengths([(3, 2), (4, 3), (4, 4)]), 8)
    together = TranslationCollator(tokenizer)([batches[0], batches[1]])
    assert together["input_ids"].shape == (3, 4)
    assert together["labels"].tolist() == [[6, 6, -100, -100], [6, 6, 6, -100], [6, 6, 6, 6]]
    assert together["attention_mask"].sum().item() == 11
