"""Rows for an encoder-decoder that translates, and batches of them with so many tokens each.

Paper: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Section 5.1 (pairs batched by length, 25,000 tokens).
"""

import numpy as np
from datasets import Dataset, Features, List, Value
from transformers import DataCollatorForSeq2Seq

from hftoolkit.errors import DataError

COLUMNS = Features({"input_ids": List(Value("int32")), "labels": List(Value("int32"))})
IGNORE_INDEX = -100


def encode_pairs(pairs: Dataset, tokenizer, *, max_length: int, drop_long: bool, num_workers=None) -> Dataset:
    """A row for each pair: the tokens of both sides, each with the end of sequence behind it.

    Args:
        max_length: tokens of a side, the end of sequence included.
        drop_long: leave pairs out of which a side is longer; they are cut otherwise.

    Raises:
        DataError: the tokenizer has no eos_token or no pad_token, or no pair is left.
    """
    for name in ("eos_token", "pad_token"):
        if getattr(tokenizer, name) is None:
            raise DataError(f"the tokenizer has no {name}; use one that has, or train one: --tokenizer byte_bpe")
    rows = pairs.map(
        _encode,
        batched=True,
        remove_columns=pairs.column_names,
        features=COLUMNS,
        num_proc=num_workers,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length, "drop_long": drop_long},
    )
    if len(rows) == 0:
        raise DataError(f"none of the {len(pairs)} pairs has at most {max_length} tokens; raise --max_length")
    return rows


def _encode(batch, tokenizer, max_length, drop_long):
    rows = {"input_ids": [], "labels": []}
    sources = tokenizer(batch["source"], add_special_tokens=False)["input_ids"]
    targets = tokenizer(text_target=batch["target"], add_special_tokens=False)["input_ids"]
    for source, target in zip(sources, targets, strict=True):
        if not drop_long or max(len(source), len(target)) < max_length:
            rows["input_ids"].append(source[: max_length - 1] + [tokenizer.eos_token_id])
            rows["labels"].append(target[: max_length - 1] + [tokenizer.eos_token_id])
    return rows


def describe_rows(rows: Dataset, pairs: Dataset, empty: int = 0) -> dict[str, int]:
    """Numbers of pairs and tokens, and of pairs that were left out as too long or blank."""
    counts = {"pairs": len(rows)} | {
        f"{side}_tokens": sum(map(len, rows[name])) for side, name in (("source", "input_ids"), ("target", "labels"))
    }
    left_out = {"too_long": len(pairs) - len(rows), "empty": empty}
    return counts | {name: number for name, number in left_out.items() if number}


class TokenBatches:
    """A sequence of batches, each of rows of like length: a data set whose rows are batches.

    A batch has as many pairs as fit into `max_tokens` tokens of each side. The batches stay; Trainer shuffles them.

    Args:
        rows: of encode_pairs.
        max_tokens: of the sources, and of the targets, of a batch.
        seed: decides between pairs of the same lengths.

    Raises:
        DataError: a single pair has more tokens.

    Example:
        lengths (9, 8) (3, 2) (4, 4) (4, 3), max_tokens 9  ->  [(3, 2), (4, 3)], [(4, 4)], [(9, 8)]
    """

    def __init__(self, rows: Dataset, max_tokens: int, seed: int = 0):
        self.rows = rows
        lengths = np.stack([_lengths(rows, name) for name in COLUMNS])
        if lengths.max() > max_tokens:
            raise DataError(
                f"a sentence has {lengths.max()} tokens, more than max_tokens {max_tokens} of a batch; raise "
                "--tokens_per_batch, or lower --max_length"
            )
        order = np.random.default_rng(seed).permutation(len(rows))
        order = order[np.lexsort((lengths[1][order], lengths[0][order]))]
        self.batches, start, sums = [], 0, np.zeros(2, dtype=np.int64)
        for place, row in enumerate(order):
            if (sums + lengths[:, row] > max_tokens).any():
                self.batches.append(order[start:place].tolist())
                start, sums = place, np.zeros(2, dtype=np.int64)
            sums += lengths[:, row]
        self.batches.append(order[start:].tolist())

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        batch = self.rows[self.batches[index]]
        return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def _lengths(rows, name):
    return np.fromiter(map(len, rows[name]), dtype=np.int64, count=len(rows))


class TranslationCollator(DataCollatorForSeq2Seq):
    """transformers' collator, for lists of rows too: what TokenBatches gives is put together whole."""

    def __call__(self, features, return_tensors=None):
        if features and isinstance(features[0], list):
            features = [row for batch in features for row in batch]
        return super().__call__(features, return_tensors)
