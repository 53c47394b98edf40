"""One training step of a bidirectional LSTM layer on rows of different lengths: ours against torch's packed sequences.

    python benchmarks/classifiers.py            # about a minute
    python benchmarks/classifiers.py --quick    # under 45 seconds
    python benchmarks/classifiers.py --device cuda

All sides hold the same weights and read the same rows (64 rows, 128 inputs, 256 cells a direction), whose lengths are
those of SST-2's phrases, even from 5 to 60, grouped (45 to 60), or one long row among short ones. Packed sequences and
our layer give the same outputs and gradients, which is checked first. torch.nn.LSTM on the padded rows, which is wrong in
the backward direction, stands beside them for its time. Steps (forward and backward of the layer) are timed in turn; the
median of the rounds' ratios is reported. The scores on SST-2 in classifiers.md come from recipes/train_classifier.py.
"""

import argparse
import json
import statistics
import sys

import torch
from bert_step import seconds
from torch import nn

B, D, H = 64, 128, 256
KINDS = {"phrases": (1, 20), "even": (5, 60), "grouped": (45, 60), "one long": (2, 8)}
SIDES = ("packed", "padded", "ours")


def make_batch(kind, device):
    """Rows (B, T, D) and their lengths (B,)."""
    generator = torch.Generator().manual_seed(1)
    low, high = KINDS[kind]
    lengths = torch.randint(low, high + 1, (B,), generator=generator)
    lengths[0] = 60 if kind == "one long" else high
    rows = torch.randn(B, int(lengths.max()), D, generator=generator)
    return rows.to(device).requires_grad_(), lengths.to(device)


def sides(device):
    """Functions from (rows, lengths) to outputs (B, T, 2 * H), all with the same weights; and their modules."""
    from hftoolkit.models.layers_recurrent import RecurrentLayer

    torch.manual_seed(0)
    ours = RecurrentLayer("lstm", D, H, bidirectional=True).to(device)
    theirs = nn.LSTM(D, H, batch_first=True, bidirectional=True).to(device)
    for rnn, suffix in ((ours.forward_rnn, ""), (ours.backward_rnn, "_reverse")):
        for name, parameter in rnn.named_parameters():
            getattr(theirs, name + suffix).data.copy_(parameter.data)

    def packed(rows, lengths):
        together = nn.utils.rnn.pack_padded_sequence(rows, lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, _ = theirs(together)
        return nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=rows.shape[1])[0]

    functions = dict(packed=packed, padded=lambda rows, lengths: theirs(rows)[0], ours=lambda *batch: ours(*batch)[0])
    return functions, dict(packed=theirs, padded=theirs, ours=ours)


def check_equal(functions, modules, batch, kind):
    """End the program where ours and packed sequences do not compute the same."""
    found = {}
    for side in ("packed", "ours"):
        batch[0].grad = None
        modules[side].zero_grad()
        output = functions[side](*batch)
        output.square().sum().backward()
        weights = modules[side].forward_rnn if side == "ours" else modules[side]
        found[side] = output.detach(), batch[0].grad, weights.weight_hh_l0.grad / weights.weight_hh_l0.grad.abs().max()
    differences = [float((a - b).abs().max()) for a, b in zip(found["packed"], found["ours"], strict=True)]
    if max(differences) > 2e-5:
        sys.exit(f"packed and ours differ on {kind}: outputs, gradients {differences}")
    return max(differences)


def compare(kind, functions, modules, rounds, device):
    """Time and equality for one kind of rows."""
    batch = make_batch(kind, device)
    result = dict(difference=check_equal(functions, modules, batch, kind))
    times = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side in SIDES:
            step = functions[side]
            times[side].append(seconds(lambda s=step: s(*batch).sum().backward(), device))
    for side in ("packed", "padded"):
        ratios = [a / b for a, b in zip(times[side], times["ours"], strict=True)]
        result[f"{side}_time_ratio"] = round(statistics.median(ratios), 2)
    rows, lengths = batch
    result["fill"] = round(float(lengths.sum()) / (rows.shape[0] * rows.shape[1]), 2)
    return result | {f"{side}_ms": round(1000 * statistics.median(values), 1) for side, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    functions, modules = sides(arguments.device)
    rounds = 3 if arguments.quick else arguments.rounds
    results = {kind: compare(kind, functions, modules, rounds, arguments.device) for kind in KINDS}
    print(f"{'rows':<10}{'filled':>8}{'packed ms':>12}{'padded ms':>12}{'ours ms':>10}{'packed / ours':>15}")
    for kind, found in results.items():
        print(
            f"{kind:<10}{found['fill']:>8.0%}{found['packed_ms']:>12}{found['padded_ms']:>12}{found['ours_ms']:>10}"
            f"{found['packed_time_ratio']:>15}"
        )
    worst = min(found["packed_time_ratio"] for found in results.values())
    print(json.dumps({"time_ratio": worst, "device": arguments.device} | results))


if __name__ == "__main__":
    main()
