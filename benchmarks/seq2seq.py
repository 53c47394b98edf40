"""One training step of HftSeq2SeqForConditionalGeneration against a plain loop over torch.nn.LSTMCell.

    python benchmarks/seq2seq.py            # about 4 minutes
    python benchmarks/seq2seq.py --quick    # under 45 seconds
    python benchmarks/seq2seq.py --device cuda --dtype bfloat16

Both hold the same weights: a bidirectional LSTM that reads, one that writes, attention, shared embeddings. The loop is what
tutorials write: torch.nn.LSTM over packed sequences, then for each token the cell and the attention, and the output layer
once over all of them. The batches are captions and their translations, of like length, as train_translation makes them,
or of any. The steps (forward, backward; no optimizer, no dropout) are timed in turn and the median of the rounds' ratios is
reported, with the memory each needs above the model, unless losses or gradients differ.
"""

import argparse
import json
import statistics
import sys

import torch
from bert_step import matmul_peak, peak_megabytes, seconds
from t5_step import corner, step
from torch import nn
from transformer_step import PAD, WORDS, Loss, make_batch

D = 512
KINDS = {
    "none": dict(attention_type="none"),
    "general": dict(attention_type="general"),
    "feeding": dict(attention_type="general", input_feeding=True),
    "additive": dict(attention_type="additive"),
}


class Loop(nn.Module):
    """The same model as a loop over the tokens that are written."""

    def __init__(self, attention_type, input_feeding=False):
        super().__init__()
        self.kind, self.feeding = attention_type, input_feeding
        self.embed = nn.Embedding(WORDS, D)
        self.encoder = nn.LSTM(D, D // 2, bidirectional=True, batch_first=True)
        additive = attention_type == "additive"
        self.cell = nn.LSTMCell(2 * D if additive or input_feeding else D, D)
        self.query = nn.Linear(D, D, bias=False)
        self.key, self.energy = nn.Linear(D, D, bias=False), nn.Linear(D, 1, bias=False)
        self.combine = nn.Linear(3 * D, 2 * D) if additive else nn.Linear(2 * D, D, bias=False)

    def attend(self, h, source, keys, padding):
        if self.kind == "additive":
            scores = self.energy(torch.tanh(self.query(h).unsqueeze(1) + keys)).squeeze(-1)
        else:
            scores = (source @ self.query(h).unsqueeze(-1)).squeeze(-1)
        weights = scores.masked_fill(padding, float("-inf")).softmax(-1)
        return (weights.unsqueeze(1).to(source.dtype) @ source).squeeze(1)

    def forward(self, input_ids, attention_mask, labels):
        lengths = attention_mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embed(input_ids), lengths, True, enforce_sorted=False)
        source, (h, c) = self.encoder(packed)
        source, _ = nn.utils.rnn.pad_packed_sequence(source, batch_first=True, total_length=input_ids.shape[1])
        h, c = (torch.cat([part[0], part[1]], -1) for part in (h, c))
        keys, padding = self.key(source) if self.kind == "additive" else None, attention_mask == 0
        written = nn.functional.pad(labels[:, :-1], (1, 0), value=PAD)
        words, found, fed = self.embed(written.masked_fill(written == -100, PAD)), [], torch.zeros_like(h)
        for t in range(words.shape[1]):
            word = words[:, t]
            if self.kind == "additive":
                context = self.attend(h, source, keys, padding)
                h, c = self.cell(torch.cat([word, context], -1), (h, c))
                found.append(self.combine(torch.cat([h, word, context], -1)).unflatten(-1, (-1, 2)).amax(-1))
                continue
            h, c = self.cell(torch.cat([word, fed], -1) if self.feeding else word, (h, c))
            if self.kind == "none":
                found.append(h)
                continue
            context = self.attend(h, source, keys, padding)
            found.append(torch.tanh(self.combine(torch.cat([context, h], -1))))
            fed = found[-1]
        logits = nn.functional.linear(torch.stack(found, 1), self.embed.weight)
        return Loss(nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten()))


def models(kind, device):
    """Both sides with the same weights and no dropout, ready to train."""
    from hftoolkit.models.modeling_seq2seq import HftSeq2SeqConfig, HftSeq2SeqForConditionalGeneration

    torch.manual_seed(0)
    sizes = dict(vocab_size=WORDS, hidden_size=D, embedding_dropout_prob=0.0, hidden_dropout_prob=0.0)
    ours = HftSeq2SeqForConditionalGeneration(HftSeq2SeqConfig(**sizes, **KINDS[kind], pad_token_id=PAD))
    loop = Loop(**KINDS[kind])
    with torch.no_grad():
        for theirs, mine in pairs(loop, ours):
            theirs.copy_(mine)
    return {"loop": loop.to(device).train(), "ours": ours.to(device).train()}


def pairs(loop, ours):
    """Each weight of both sides."""
    encoder, decoder = ours.model.encoder, ours.model.decoder
    yield loop.embed.weight, encoder.embed_tokens.weight
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        layer = encoder.layers[0]
        yield getattr(loop.encoder, f"{name}_l0"), getattr(layer.forward_rnn, f"{name}_l0")
        yield getattr(loop.encoder, f"{name}_l0_reverse"), getattr(layer.backward_rnn, f"{name}_l0")
        yield getattr(loop.cell, name), getattr(decoder.layers[0], f"{name}_l0")
    if decoder.attention is not None:
        yield from zip(loop.combine.parameters(), decoder.combine.parameters(), strict=True)
        yield loop.query.weight, decoder.attention.q_proj.weight
    if loop.kind == "additive":
        yield loop.key.weight, decoder.attention.k_proj.weight
        yield loop.energy.weight, decoder.attention.energy.weight


def batches(rows, generator):
    """Rows of like length, a slice of many sorted by the source's, and rows of any."""
    many = make_batch("text", 8 * rows, generator)
    order = many["attention_mask"].sum(1).argsort()
    found = {"like": order[4 * rows : 5 * rows], "any": order[::8]}
    cut = {}
    for name, chosen in found.items():
        batch = {key: values[chosen] for key, values in many.items()}
        S, T = int(batch["attention_mask"].sum(1).max()), int((batch["labels"] != -100).sum(1).max())
        cut[name] = {key: values[:, : T if key == "labels" else S] for key, values in batch.items()}
    return cut


def compare(sides, batch, rounds, device, dtype):
    """Time and equality; ends the program where the sides do not compute the same."""
    times, losses = {side: [] for side in sides}, {}
    for model in sides.values():
        step(model, corner(batch), dtype)  # the libraries prepare themselves
    for _ in range(rounds):
        for side, model in sides.items():
            times[side].append(seconds(lambda m=model, s=side: losses.update({s: step(m, batch, dtype)}), device))
    losses = {side: float(loss) for side, loss in losses.items()}
    difference = max(float((a.grad - b.grad).abs().max()) for a, b in pairs(sides["loop"], sides["ours"]))
    if dtype == torch.float32 and (abs(losses["loop"] - losses["ours"]) > 1e-5 or difference > 1e-5):
        sys.exit(f"the sides differ: losses {losses}, gradients {difference}")
    ratios = sorted(a / b for a, b in zip(times["loop"], times["ours"], strict=True))
    tokens = int(batch["attention_mask"].sum()) + int((batch["labels"] != -100).sum())
    median = {side: statistics.median(values) for side, values in times.items()}
    return dict(
        time_ratio=round(statistics.median(ratios), 2),
        time_ratio_quartiles=[round(ratios[len(ratios) // 4], 2), round(ratios[-1 - len(ratios) // 4], 2)],
        seconds={side: round(value, 3) for side, value in median.items()},
        tokens_per_second={side: round(tokens / value) for side, value in median.items()},
        fill=round(tokens / (batch["attention_mask"].numel() + batch["labels"].numel()), 3),
        gradient_difference=difference,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows, three rounds")
    arguments = parser.parse_args()
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    if device == "cpu":
        torch.set_num_threads(1)
    rows, rounds = (32, 3) if arguments.quick else (128, arguments.rounds)
    results = {}
    for kind in KINDS:
        sides = models(kind, device)
        for lengths, batch in batches(rows, torch.Generator().manual_seed(1)).items():
            batch = {name: values.to(device) for name, values in batch.items()}
            memory = {side: peak_megabytes(model, batch, device, dtype, step, corner) for side, model in sides.items()}
            result = compare(sides, batch, rounds, device, dtype)
            result["megabytes"] = {side: round(value) for side, value in memory.items()}
            result["memory_ratio"] = round(memory["ours"] / memory["loop"], 3)
            results[f"{kind}_{lengths}"] = result
            print(
                f"{kind:9} {lengths:5} {result['fill']:4.0%} text  {result['time_ratio']:5} x the loop "
                f"{result['time_ratio_quartiles']}, {result['memory_ratio']} x its memory  {result['seconds']} s"
            )
    summary = {
        f"{key}_{name}": result[key] for name, result in results.items() for key in ("time_ratio", "memory_ratio")
    }
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu, 1 thread"
    summary |= dict(results, rows=rows, matmul_gflops=round(matmul_peak(device, dtype), 1), device=name)
    summary |= dict(time_ratio=results["general_like"]["time_ratio"], dtype=arguments.dtype, torch=torch.__version__)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
