"""Character-level Shakespeare on one CPU core: loss after 2000 steps, steps to 1.92, CPU seconds and GFLOP/s.

    python benchmarks/shakespeare_char.py --dataset tinyshakespeare/input.txt [--quick]

Runs the configs gpt/shakespeare_char and gpt/shakespeare_char_muon through the recipe: the model, batch and number of
steps of nanoGPT's CPU setting (https://github.com/karpathy/nanoGPT, README, "baby GPT on a CPU"), 1.54 M characters
seen. The loss covers the whole validation split, every character predicted once. Speed is taken from a second, shorter
run without evaluation. --quick takes AdamW alone for a twentieth of the steps, which says nothing about the loss.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET, STEPS = 1.92, 2000  # nats per character over the whole split, as nanoGPT's own train.py reached in 2000 steps
TOKENS_PER_STEP = 12 * 64


def run(config, folder, dataset, *options):
    """Run the recipe in a process of its own; (its output, CPU seconds)."""
    recipe = Path(__file__).parents[1] / "recipes/pretrain_gpt.py"
    command = [sys.executable, str(recipe), "--config", f"gpt/{config}", "--dataset", dataset, "--use_cpu"]
    command += ["--output_dir", str(folder), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = os.times()
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return done.stdout, seconds


def flops_per_token(parameters, embedding, layers, width, context):
    """Floating-point operations of forward and backward per token, as nanoGPT counts them."""
    return 6 * (parameters - embedding) + 12 * layers * width * context


def measure(config, dataset, steps):
    """One row: loss, steps to the target, seconds, GFLOP/s."""
    with tempfile.TemporaryDirectory() as place:
        every = max(steps // 40, 5)
        options = ["--max_steps", str(steps), "--warmup_steps", str(steps // 20), "--eval_steps", str(every)]
        output, _ = run(config, Path(place) / "curve", dataset, *options, "--save_steps", str(steps))
        curve = [(int(s), float(v)) for s, v in re.findall(r"step\s+(\d+)/\d+.*eval_loss (\S+)", output)]
        short = ["--eval_strategy", "no", "--validation_fraction", "0", "--warmup_steps", "1"]
        times = {}
        for name, count in (("few", 20), ("many", 20 + steps // 8)):  # the difference leaves out loading and saving
            options = [*short, "--max_steps", str(count), "--save_steps", str(count)]
            _, times[name] = run(config, Path(place) / name, dataset, *options)
        results = json.loads((Path(place) / "curve/all_results.json").read_text())
    per_step = (times["many"] - times["few"]) / (steps // 8)
    gigaflops = flops_per_token(810_240, 64 * 128, 4, 128, 64) * TOKENS_PER_STEP / per_step / 1e9
    return {
        "validation_loss": results["eval_loss"],
        "steps": steps,
        "steps_to_target": next((step for step, loss in curve if loss <= TARGET), None),
        "cpu_seconds": round(per_step * steps, 1),
        "gflops": round(gigaflops, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="tinyshakespeare's input.txt")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    start, steps = time.monotonic(), STEPS // 20 if arguments.quick else STEPS
    configs = {"adamw": "shakespeare_char"} | ({} if arguments.quick else {"muon": "shakespeare_char_muon"})
    result = {name: measure(config, arguments.dataset, steps) for name, config in configs.items()}
    for name, row in result.items():
        print(f"{name:6} {row}")
    reached = [result[name]["steps_to_target"] for name in configs]
    result["fewer_steps_to_target"] = round(reached[0] / reached[-1], 2) if all(reached) else None
    result["target"], result["wall_seconds"] = TARGET, round(time.monotonic() - start)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
