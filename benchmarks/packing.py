"""Speed of planning packed rows and of making batches from them, against transformers' padding collator.

    python benchmarks/packing.py [--quick]

One thread, CPU seconds. Documents have log-normal lengths (median 134 tokens), rows hold 1024 inputs, batches 8 rows.
The padding collator is DataCollatorForLanguageModeling(mlm=False) on the same documents, 8 at a time.
"""

import argparse
import json
import time

import datasets
import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from hftoolkit.data.language_modeling import PACKINGS, PackedDocuments, collate_packed

BATCH, ROW = 8, 1024


def stock_tokens_per_second(documents):
    """Real tokens per second of the padding collator."""
    backend = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    collator = DataCollatorForLanguageModeling(
        PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>"), mlm=False
    )
    loader = DataLoader(documents, BATCH, collate_fn=collator)
    start = time.process_time()
    tokens = sum(int(batch["attention_mask"].sum()) for batch in loader)
    return tokens / (time.process_time() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    lengths = generator.lognormal(4.9, 0.7, 5_000 if quick else 40_000).astype(int).clip(2, 4096)
    documents = datasets.Dataset.from_dict({"input_ids": [generator.integers(1, 8000, n).tolist() for n in lengths]})
    result = {"documents": len(lengths), "tokens": int(lengths.sum())}
    for packing in PACKINGS:
        start = time.process_time()
        rows = PackedDocuments(documents, ROW, packing)
        planned = time.process_time() - start
        rates = []
        for _ in range(2 if quick else 5):
            start = time.process_time()
            tokens = sum(b["input_ids"].numel() for b in DataLoader(rows, BATCH, True, collate_fn=collate_packed))
            rates.append(tokens / (time.process_time() - start))
        result[packing] = {
            "efficiency": rows.summary()["packing_efficiency"],
            "plan_million_tokens_per_second": round(tokens / planned / 1e6, 1),
            "batch_million_tokens_per_second": round(float(np.median(rates)) / 1e6, 1),
        }
        print(f"{packing:8} {result[packing]}")
    stock = stock_tokens_per_second(documents.select(range(2000)))
    result["stock_million_tokens_per_second"] = round(stock / 1e6, 2)
    result["time_ratio"] = round(result["whole"]["batch_million_tokens_per_second"] * 1e6 / stock, 1)
    print(f"padding collator of transformers: {stock / 1e6:.2f} million real tokens per second")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
