"""Minimal pairs: does a language model find the grammatical sentence of two the likelier one?

Paper: Warstadt et al. 2020, "BLiMP", https://aclanthology.org/2020.tacl-1.25, Section 3 (the whole-sentence method).
"""

import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

from hftoolkit.errors import DataError
from hftoolkit.evaluation.perplexity import log_probabilities, token_ids

FIELDS = ("sentence_good", "sentence_bad")


def read_pairs(path):
    """Pairs from BLiMP's JSON lines (.jsonl or .jsonl.gz); a folder is read file by file.

    Raises:
        DataError: no such file, a line that is not JSON or lacks a sentence, no pair at all.
    """
    path = Path(path).expanduser()
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]
    pairs = []
    for file in files:
        try:
            with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    pairs.append(_pair(line, f"{file}:{number}", file))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read: {error}") from error
    if not pairs:
        raise DataError(f"0 minimal pairs in {path}")
    return pairs


def _pair(line, place, file):
    try:
        pair = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}:{error.colno}  not JSON: {error.msg}") from error
    for field in FIELDS:
        if not isinstance(pair, dict) or not isinstance(pair.get(field), str) or not pair[field].strip():
            raise DataError(f"{place}  needs the text field {field!r}; see BLiMP's format")
    return {"UID": file.name.split(".")[0]} | pair


def evaluate_pairs(model, tokenizer, pairs, batch_size=32):
    """Share of the pairs whose good sentence is the likelier one; a tie counts as half.

    Returns:
        {"accuracy": over all pairs, "pairs": their number, "by_paradigm": {UID: accuracy}}.
    """
    was_training = model.training
    model.eval()
    sequences = [(token_ids(tokenizer, pair[field]), 1) for pair in pairs for field in FIELDS]
    limit = getattr(model.config, "max_position_embeddings", math.inf)
    too_long = next((i for i, (ids, _) in enumerate(sequences) if len(ids) - 1 > limit), None)
    if too_long is not None:
        raise DataError(f"pair {too_long // 2} has {len(sequences[too_long][0]) - 1} tokens; the model reads {limit}")
    totals = [float(scores.sum()) for scores in log_probabilities(model, sequences, batch_size)]
    model.train(was_training)
    results = defaultdict(list)
    for pair, good, bad in zip(pairs, totals[::2], totals[1::2], strict=True):
        results[pair["UID"]].append(0.5 if good == bad else float(good > bad))
    everything = [value for values in results.values() for value in values]
    return {
        "accuracy": sum(everything) / len(everything),
        "pairs": len(everything),
        "by_paradigm": {name: sum(values) / len(values) for name, values in sorted(results.items())},
    }
