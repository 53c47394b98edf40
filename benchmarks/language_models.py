"""Language models of five kinds on the same tokens: counts, a feed-forward network, an RNN, an LSTM, a GPT.

    python benchmarks/language_models.py --train wiki.train.raw --validation wiki.valid.raw [--passes 1] [--words 4000]
    python benchmarks/language_models.py --quick

All read the same words (the most frequent of the training text, lower-case), have about as many parameters, and see the
training text as many times; each runs through its recipe, in a process of its own with one thread. --quick takes 400
built-in documents, which says nothing about the models. CPU seconds are those of the whole process.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors import safe_open

ROOT = Path(__file__).parents[1]
ROWS, LENGTH = 16, 32
SIZES = {  # recipe, config, what differs from it
    "feed-forward, 4 words": ("train_recurrent_lm", "nnlm/lm_tiny", dict(embedding_size=100, hidden_size=100)),
    "RNN": ("train_recurrent_lm", "rnn/lm_tiny", dict(cell_type="rnn", embedding_size=100, hidden_size=100)),
    "LSTM": ("train_recurrent_lm", "rnn/lm_tiny", dict(cell_type="lstm", embedding_size=100, hidden_size=100)),
    "GPT, 64 words": ("pretrain_gpt", "gpt/tiny", dict(hidden_size=128, num_hidden_layers=2)),
}
SIZES["feed-forward, 4 words"][2]["direct_connections"] = False
RATES = {"RNN": 2e-3, "LSTM": 5e-3}


def run(recipe, config, *options):
    """Run a recipe in a process of its own; CPU seconds."""
    command = [sys.executable, str(ROOT / f"recipes/{recipe}.py"), "--config", config, *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def measure(name, data, folder, steps):
    """One row: perplexity, parameters, seconds; and all results of the run."""
    recipe, config, sizes = SIZES[name]
    options = [f"--model_config.{key}={value}" for key, value in sizes.items()]
    options += ["--learning_rate", RATES.get(name, 3e-3), "--use_cpu"]
    options += ["--max_steps", steps, "--eval_steps", steps, "--save_steps", steps, "--output_dir", folder]
    if recipe == "pretrain_gpt":  # half as many rows that are twice as long, for it has no other memory
        options += ["--packing", "across", "--max_length", 2 * LENGTH, "--per_device_train_batch_size", ROWS // 2]
        options += ["--warmup_steps", max(steps // 20, 1)]
    else:
        options += ["--max_length", LENGTH, "--per_device_train_batch_size", ROWS]
    seconds = run(recipe, config, *data, *options)
    results = json.loads((folder / "all_results.json").read_text())
    with safe_open(folder / "model.safetensors", "pt") as file:
        parameters = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    row = {"perplexity": math.exp(results["eval_loss"]), "parameters": parameters, "cpu_seconds": round(seconds)}
    return row, results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train"), parser.add_argument("--validation")
    parser.add_argument("--passes", type=float, default=1.0), parser.add_argument("--words", type=int, default=4000)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    table = {}
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        if given.quick:
            data, steps = ["--dataset", "builtin", "--builtin_documents", "400"], 5
        else:
            (place / "data").mkdir()
            for split in ("train", "validation"):
                text = Path(getattr(given, split)).read_text()
                (place / f"data/{split}.txt").write_text(text)
            data = ["--dataset", place / "data"]
            steps = None
        first = next(iter(SIZES))
        options = ["--tokenizer", "word", "--tokenizer_vocab_size", given.words, "--eval_strategy", "no"]
        measured = [*data, *options, "--validation_fraction", "0.05"]
        if steps is None:  # the tokens are counted once, by a run of one step, which also makes the tokenizer
            measure(first, measured, place / "count", 1)
            tokens = json.loads((place / "count/run.json").read_text())["data"]["train"]["tokens"]
            steps = max(int(given.passes * tokens / (ROWS * LENGTH)), 20)
            data += ["--tokenizer", place / "count"]
        else:
            data += options[:4]
        for name in SIZES:
            table[name], results = measure(name, data, place / name.split(",")[0], steps)
            print(json.dumps({name: table[name]}), flush=True)
            for baseline, found in results["baselines"].items():
                if isinstance(found, dict):
                    table.setdefault(baseline.replace("_", " "), {"perplexity": found["eval_perplexity"]})
    for name, row in sorted(table.items(), key=lambda entry: -entry[1]["perplexity"]):
        print(f"| {name} | {row['perplexity']:.1f} | {row.get('parameters', '')} | {row.get('cpu_seconds', '')} |")
    print(json.dumps({name: round(row["perplexity"], 2) for name, row in table.items()}))


if __name__ == "__main__":
    main()
