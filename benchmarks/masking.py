"""Speed of masking, of whole batches and of planning sentence pairs, against transformers' collator.

    python benchmarks/masking.py [--quick]

One thread, CPU seconds, in one run; the two sides take turns, and each figure is the median of its rounds. `mask` is
mask_tokens alone, arrays in and out; `collate` the whole collator, a list of rows in and a batch of tensors out. The
other side is DataCollatorForLanguageModeling on the same rows, with the special_tokens_mask it asks for to be fast
(and without, as it is mostly used). Rows are sentence pairs of a random text, a tenth of the documents short.
"""

import argparse
import json
import time
from types import SimpleNamespace

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from hftoolkit.data.masking import row_keys
from hftoolkit.data.mlm import UNITS, MaskedLanguageModeling, mask_tokens
from hftoolkit.data.nsp import NextSentencePairs

VOCABULARY = 30522
SHAPES = ((32, 128), (256, 128), (32, 512))


def make_tokenizer():
    """BERT's special tokens and, of its vocabulary's other entries, a quarter pieces that go on with a word."""
    roles = dict(pad="[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]")
    tokens = [*roles.values(), *(f"{'##' if i % 4 == 0 else ''}t{i}" for i in range(5, VOCABULARY))]
    backend = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    names = {f"{role}_token": token for role, token in roles.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def make_store(tokens):
    """A corpus in memory: sentences of 5 to 45 tokens, documents of 33 sentences on average."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(5, 46, tokens // 25))])
    sentences = len(offsets) - 1
    edges = np.unique(np.concatenate([[0], rng.integers(0, sentences, sentences // 33), [sentences]]))
    ids = rng.integers(5, VOCABULARY, offsets[-1]).astype(np.uint16)
    summary = {"tokens": int(offsets[-1])}
    return SimpleNamespace(tokens=ids, sentence_offsets=offsets, document_offsets=edges, summary=lambda: dict(summary))


def rates(jobs, rounds, seconds):
    """Million real tokens per CPU second of each job, {name: (function, tokens)}; jobs take turns."""
    found = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, (job, tokens) in jobs.items():
            done, start = 0, time.process_time()
            while (spent := time.process_time() - start) < seconds:
                job()
                done += tokens
            found[name].append(done / spent / 1e6)
    return {name: round(float(np.median(each)), 2) for name, each in found.items()}


def jobs_of(pairs, tokenizer, batch_size):
    """What is measured on one batch of rows."""
    rows = pairs.__getitems__(np.random.default_rng(1).choice(len(pairs), batch_size, replace=False).tolist())
    tokens = sum(len(row["input_ids"]) for row in rows)
    special = {0, 1, 2, 3, 4}
    plain = [{"input_ids": row["input_ids"].tolist()} for row in rows]
    marked = [row | {"special_tokens_mask": [int(i in special) for i in row["input_ids"]]} for row in plain]
    theirs, jobs = DataCollatorForLanguageModeling(tokenizer), {}
    for unit in UNITS:
        ours = MaskedLanguageModeling(tokenizer, unit=unit)
        lengths = np.array([len(row["input_ids"]) for row in rows])
        ids = np.zeros((batch_size, lengths.max()), dtype=np.int64)
        for row, item in zip(ids, rows, strict=True):
            row[: len(item["input_ids"])] = item["input_ids"]
        maskable, keys = ids > 4, row_keys(0, np.zeros(batch_size), np.arange(batch_size))
        options = dict(
            lengths=lengths, starts=None if ours.words is None else ours.words(ids, maskable), **ours.options
        )
        jobs[f"mask {unit}"] = lambda a=(ids, maskable, keys), o=options: mask_tokens(*a, **o), tokens
        jobs[f"collate {unit}"] = lambda c=ours: c(rows), tokens
    jobs["transformers, special_tokens_mask given"] = lambda: theirs(marked), tokens
    jobs["transformers"] = lambda: theirs(plain), tokens
    return jobs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    tokenizer, store, result = make_tokenizer(), make_store(2_000_000 if quick else 20_000_000), {}
    for batch_size, max_length in SHAPES:
        pairs = NextSentencePairs(store, tokenizer, max_length, seed=0)
        found = rates(jobs_of(pairs, tokenizer, batch_size), 3 if quick else 7, 0.05 if quick else 0.3)
        start = time.process_time()
        pairs.set_epoch(1)
        found["plan an epoch"] = round(len(store.tokens) / (time.process_time() - start) / 1e6, 2)
        chosen, rng = [], np.random.default_rng(2)
        for _ in range(10):
            chosen.append(rng.integers(0, len(pairs), batch_size).tolist())
        tokens = batch_size * pairs.tokens_per_row
        every = iter(chosen * 10**6)
        found |= rates({"make rows": (lambda p=pairs, e=every: p.__getitems__(next(e)), tokens)}, 3, 0.1)
        result[f"{batch_size}x{max_length}"] = found
        print(f"\n{batch_size} x {max_length}: million real tokens per CPU second")
        for name, rate in found.items():
            print(f"  {name:42}{rate:10.2f}")
    first = result["32x128"]
    result["time_ratio"] = round(first["collate token"] / first["transformers, special_tokens_mask given"], 1)
    print(f"\nthe whole collator is {result['time_ratio']} times as fast as transformers' at 32 x 128")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
