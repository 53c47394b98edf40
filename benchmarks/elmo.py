"""One training step of each part of ELMo's biLM, against the plain way to compute the same.

    python benchmarks/elmo.py            # about a minute
    python benchmarks/elmo.py --quick    # under 45 seconds
    python benchmarks/elmo.py --device cuda

words: vectors of 1,200 words drawn by Zipf's law from 20,000, from their characters; plain is every occurrence with all its
50 characters, padding and all, as bilm-tf and AllenNLP compute it. lstm: a layer and direction, clipped at 3, 48 rows of
25 words, 512 cells, projected to 128; plain is a loop of cells that multiplies each step's inputs by themselves; torch.nn.LSTM
with proj_size, which cannot clip, stands beside them. softmax: 1,200 words against 20,000; plain is logits of all of them in
memory, ours the same loss without them, and, learning from another loss, 1,024 drawn words. Outputs and gradients of the
first two are checked to be equal; steps are timed in turn, and the median of the rounds' ratios is reported. The scores of
taggers in elmo.md come from recipes/pretrain_elmo.py and recipes/finetune_tagging.py.
"""

import argparse
import json
import statistics
import sys

import torch
from bert_step import seconds
from torch import nn

from hftoolkit.models.layers_char_cnn import CharacterCnn, find_words
from hftoolkit.models.layers_losses import linear_cross_entropy
from hftoolkit.models.layers_sampled_softmax import sampled_cross_entropy, zipf
from hftoolkit.models.modeling_elmo import ElmoLstm

FILTERS = [(1, 16), (2, 32), (3, 64), (4, 96), (5, 128)]
WORDS, VOCABULARY, ROWS, STEPS, H, P = 1200, 20_000, 48, 25, 512, 128


def drawn_words(generator):
    """Rows of bytes: words of 1 to 12 letters, the frequent ones shorter."""
    numbers = torch.multinomial(zipf(VOCABULARY).float(), WORDS, replacement=True, generator=generator)
    spelt = [
        [97 + (int(n) * 7 + k * 13 + int(n) // (k + 1)) % 26 for k in range(1 + len(str(int(n))) * 2)] for n in numbers
    ]
    rows = [sum(([32, *word] for word in spelt[row::ROWS]), []) for row in range(ROWS)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [32] * (longest - len(row)) for row in rows])
    return ids


def words_sides(device):
    """Vectors of words: whole and repeated, or once and cut."""
    generator = torch.Generator().manual_seed(0)
    ids = drawn_words(generator).to(device)
    torch.manual_seed(0)
    network, embedding = CharacterCnn(16, FILTERS, 2, 512).to(device), nn.Embedding(261, 16).to(device)
    whole = find_words(ids, max_characters=50, margin=50).characters

    def plain():
        columns = embedding(whole).transpose(1, 2)
        found = torch.relu(torch.cat([convolution(columns).amax(-1) for convolution in network.convolutions], -1))
        for highway in network.highways:
            found = highway(found)
        return network.projection(found)

    def ours():
        return network(find_words(ids, max_characters=50, margin=5).characters, embedding)

    return dict(plain=plain, ours=ours), [*network.parameters(), *embedding.parameters()]


def lstm_sides(device):
    """A layer and direction."""
    torch.manual_seed(0)
    layer, kernel = ElmoLstm(H, P, 3.0, 3.0).to(device), nn.LSTM(P, H, batch_first=True, proj_size=P).to(device)
    weights = (kernel.weight_ih_l0, kernel.weight_hh_l0, kernel.bias_ih_l0, kernel.weight_hr_l0)
    for own, theirs in zip((layer.weight_ih, layer.weight_hh, layer.bias, layer.weight_hr), weights, strict=True):
        own.data.copy_(theirs.data)
    kernel.bias_hh_l0.data.zero_()
    rows = torch.randn(ROWS, STEPS, P, device=device)
    lengths = torch.full((ROWS,), STEPS, device=device)

    def plain():
        h, c, outputs = rows.new_zeros(ROWS, P), rows.new_zeros(ROWS, H), []
        matrix = torch.cat([layer.weight_ih, layer.weight_hh], 1)
        for step in rows.unbind(1):
            gates = nn.functional.linear(torch.cat([step, h], 1), matrix, layer.bias)
            i, f, g, o = gates.chunk(4, 1)
            c = (torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)).clamp(-3, 3)
            h = nn.functional.linear(torch.sigmoid(o) * torch.tanh(c), layer.weight_hr).clamp(-3, 3)
            outputs.append(h)
        return torch.stack(outputs, 1)

    sides = dict(plain=plain, ours=lambda: layer(rows, lengths)[0], kernel=lambda: kernel(rows)[0])
    return sides, list(layer.parameters())


def softmax_sides(device):
    """The loss of one direction."""
    generator = torch.Generator().manual_seed(0)
    head, hidden = nn.Linear(P, VOCABULARY).to(device), torch.randn(WORDS, P, generator=generator).to(device)
    hidden.requires_grad_()
    targets = torch.multinomial(zipf(VOCABULARY).float(), WORDS, replacement=True, generator=generator).to(device)
    sides = dict(
        plain=lambda: nn.functional.cross_entropy(head(hidden), targets),
        ours=lambda: linear_cross_entropy(hidden, head.weight, targets, bias=head.bias),
        sampled=lambda: sampled_cross_entropy(hidden, head.weight, targets, 1024, bias=head.bias),
    )
    return sides, [*head.parameters(), hidden]


def check_equal(part, sides, parameters):
    """End the program where ours and the plain way do not compute the same."""
    found = []
    for side in ("plain", "ours"):
        output = sides[side]()
        found.append([output.detach(), *torch.autograd.grad(output.square().sum(), parameters)])
    worst = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-3)) for a, b in zip(*found, strict=True))
    if worst > 1e-3:
        sys.exit(f"{part}: plain and ours differ by {worst:.1e} of the largest number")
    return worst


def compare(part, make_sides, rounds, device):
    """Times and equality of one part."""
    sides, parameters = make_sides(device)
    result, times = dict(difference=check_equal(part, sides, parameters)), {side: [] for side in sides}
    for _ in range(rounds):
        for side, step in sides.items():
            times[side].append(seconds(lambda s=step: s().sum().backward(), device))
    for side in sides:
        ratios = [a / b for a, b in zip(times["plain"], times[side], strict=True)]
        result |= {f"{side}_ms": round(1000 * statistics.median(times[side]), 1)}
        result |= {f"{side}_time_ratio": round(statistics.median(ratios), 2)} if side != "plain" else {}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    rounds, parts = (
        3 if arguments.quick else arguments.rounds,
        dict(words=words_sides, lstm=lstm_sides, softmax=softmax_sides),
    )
    results = {part: compare(part, sides, rounds, arguments.device) for part, sides in parts.items()}
    for part, found in results.items():
        print(f"{part:<9}" + "".join(f"{name} {value:<12.4g}" for name, value in found.items()))
    ratios = {f"{part}_time_ratio": found["ours_time_ratio"] for part, found in results.items()}
    print(json.dumps({"time_ratio": min(ratios.values()), "device": arguments.device} | ratios | results))


if __name__ == "__main__":
    main()
