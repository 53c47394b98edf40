"""One training step of HftTransformerForConditionalGeneration against torch.nn.Transformer and against MarianMTModel.

    python benchmarks/transformer_step.py            # about 5 minutes
    python benchmarks/transformer_step.py --quick    # under 45 seconds
    python benchmarks/transformer_step.py --device cuda --dtype bfloat16

All sides hold the same weights (post-norm, shared embeddings) and read the same padded rows, in two kinds of batches:
sentences and their translations, whose lengths differ as those of captions do, padded to the longest; and rows of 64
tokens without padding. torch.nn.Transformer gets embeddings, sinusoids and the output layer as its users write them.
The loss of all sides is smoothed by 0.1. The steps (forward, backward; no optimizer, no dropout) are timed in turn and the
median of the rounds' ratios is reported, with the memory each needs above the model, unless losses or gradients differ.
"""

import argparse
import json
import statistics
import sys

import torch
from bert_step import matmul_peak, peak_megabytes, seconds
from t5_step import corner, step
from torch import nn

WORDS, D, LAYERS, HEADS, WIDTH, SMOOTHING = 8000, 256, 3, 4, 1024, 0.1
PAD, END, FIRST_WORD = 0, 1, 2
KINDS = ("text", "full")
SIDES = ("torch", "marian", "ours")


def lengths_of(kind, rows, generator):
    """Tokens of each sentence and its translation, both (rows,)."""
    if kind == "full":
        return torch.full((2, rows), 64)
    source = (torch.randn(rows, generator=generator) * 0.35 + 2.7).exp()
    target = source * (torch.randn(rows, generator=generator) * 0.15).exp()
    return torch.stack([source, target]).round().long().clamp(4, 64)


def make_batch(kind, rows, generator):
    """Padded rows of random words that end with </s>; labels are -100 at padding."""
    result = {}
    for name, lengths in zip(("input_ids", "labels"), lengths_of(kind, rows, generator), strict=True):
        places, ends = torch.arange(int(lengths.max())), lengths.unsqueeze(1) - 1
        words = torch.randint(FIRST_WORD, WORDS, (rows, len(places)), generator=generator)
        words = torch.where(places == ends, END, words)
        result[name] = words.masked_fill(places > ends, PAD if name == "input_ids" else -100)
        if name == "input_ids":
            result["attention_mask"] = (places <= ends).long()
    return result


def smoothed(logits, labels):
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), label_smoothing=SMOOTHING)


class Loss:
    """What a step asks of an output."""

    def __init__(self, loss):
        self.loss = loss


class Torch(nn.Module):
    """torch.nn.Transformer with what it leaves to its user."""

    def __init__(self, table):
        super().__init__()
        self.embed = nn.Embedding(WORDS, D)
        self.body = nn.Transformer(D, HEADS, LAYERS, LAYERS, WIDTH, dropout=0.0, batch_first=True)
        self.body.encoder.norm = self.body.decoder.norm = None  # which the paper does not have
        self.register_buffer("table", table)

    def forward(self, input_ids, attention_mask, labels):
        written = nn.functional.pad(labels[:, :-1], (1, 0), value=PAD)
        written = written.masked_fill(written == -100, PAD)
        source, target = (self.embed(ids) * D**0.5 + self.table[: ids.shape[1]] for ids in (input_ids, written))
        later = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=labels.device).triu(1)
        padding = attention_mask == 0
        hidden = self.body(
            source,
            target,
            tgt_mask=later,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return Loss(smoothed(nn.functional.linear(hidden, self.embed.weight), labels))


class Marian(nn.Module):
    """MarianMTModel, whose loss has no label smoothing: computed from its logits, as Trainer does it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, labels, **inputs):
        ids = self.model.prepare_decoder_input_ids_from_labels(labels)
        logits = self.model(**inputs, decoder_input_ids=ids, use_cache=False).logits
        return Loss(smoothed(logits, labels))


def models(device):
    """The three sides with the same weights, no dropout, ready to train."""
    from transformers import MarianConfig, MarianMTModel

    from hftoolkit.models.layers_positions import sinusoids
    from hftoolkit.models.modeling_transformer import HftTransformerConfig, HftTransformerForConditionalGeneration

    torch.manual_seed(0)
    sizes = dict(vocab_size=WORDS, hidden_size=D, num_hidden_layers=LAYERS, num_attention_heads=HEADS)
    sizes |= dict(intermediate_size=WIDTH, hidden_dropout_prob=0.0, label_smoothing=SMOOTHING)
    ours = HftTransformerForConditionalGeneration(
        HftTransformerConfig(**sizes, position_layout="halves", pad_token_id=PAD, eos_token_id=END)
    )
    stock = dict(vocab_size=WORDS, d_model=D, activation_function="relu", dropout=0.0, scale_embedding=True)
    for side in ("encoder", "decoder"):
        stock |= {f"{side}_layers": LAYERS, f"{side}_attention_heads": HEADS, f"{side}_ffn_dim": WIDTH}
    ids = dict(pad_token_id=PAD, eos_token_id=END, forced_eos_token_id=None, decoder_start_token_id=PAD)
    marian = Marian(MarianMTModel(MarianConfig(**stock, **ids, attn_implementation="sdpa")))
    marian.model.model.shared.padding_idx = None  # it would keep that row's gradient at zero, as the others do not
    for stack in (marian.model.model.encoder, marian.model.model.decoder):
        stack.embed_tokens.padding_idx = None
    sides = dict(torch=Torch(sinusoids(torch.arange(64), D, in_halves=True)), marian=marian, ours=ours)
    with torch.no_grad():
        for name in ("torch", "marian"):
            for theirs, mine in zip(tensors[name](sides[name]), tensors["ours"](ours), strict=True):
                theirs.copy_(mine)
    return {name: side.to(device).train() for name, side in sides.items()}


def of_ours(ours, part=lambda parameter: parameter):
    """Each weight, or its gradient, in one order for all sides; query, key and value in one."""
    yield part(ours.model.encoder.embed_tokens.weight)
    for stack in (ours.model.encoder, ours.model.decoder):
        for layer in stack.layers:
            pairs = [(layer.self_attn, layer.attn_norm), (layer.cross_attn, layer.cross_attn_norm)]
            for attention, norm in pairs[: 1 if layer.cross_attn is None else 2]:
                inward = [attention.q_proj, attention.k_proj, attention.v_proj]
                yield from (torch.cat([part(getattr(x, name)) for x in inward]) for name in ("weight", "bias"))
                yield from (part(getattr(x, name)) for x in (attention.o_proj, norm) for name in ("weight", "bias"))
            rest = (layer.mlp.up_proj, layer.mlp.down_proj, layer.mlp_norm)
            yield from (part(getattr(x, name)) for x in rest for name in ("weight", "bias"))


def of_torch(side, part=lambda parameter: parameter):
    yield part(side.embed.weight)
    for stack in (side.body.encoder, side.body.decoder):
        for layer in stack.layers:
            pairs, last = [(layer.self_attn, layer.norm1)], layer.norm2
            if stack is side.body.decoder:
                pairs, last = [*pairs, (layer.multihead_attn, layer.norm2)], layer.norm3
            for attention, norm in pairs:
                yield from (part(attention.in_proj_weight), part(attention.in_proj_bias))
                yield from (part(getattr(x, name)) for x in (attention.out_proj, norm) for name in ("weight", "bias"))
            rest = (layer.linear1, layer.linear2, last)
            yield from (part(getattr(x, name)) for x in rest for name in ("weight", "bias"))


class Rows:
    """Parameters that lie apart, as the rows of one; copied into at once."""

    def __init__(self, parts):
        self.parts = parts

    def copy_(self, values):
        for part, rows in zip(self.parts, values.chunk(len(self.parts)), strict=True):
            part.copy_(rows)


def of_marian(side, part=None):
    join, part = (Rows, lambda parameter: parameter) if part is None else (torch.cat, part)
    body = side.model.model
    yield part(body.shared.weight)
    for stack in (body.encoder, body.decoder):
        for layer in stack.layers:
            pairs = [(layer.self_attn, layer.self_attn_layer_norm)]
            if stack is body.decoder:
                pairs.append((layer.encoder_attn, layer.encoder_attn_layer_norm))
            for attention, norm in pairs:
                inward = [attention.q_proj, attention.k_proj, attention.v_proj]
                yield from (join([part(getattr(x, name)) for x in inward]) for name in ("weight", "bias"))
                yield from (part(getattr(x, name)) for x in (attention.out_proj, norm) for name in ("weight", "bias"))
            rest = (layer.fc1, layer.fc2, layer.final_layer_norm)
            yield from (part(getattr(x, name)) for x in rest for name in ("weight", "bias"))


tensors = dict(torch=of_torch, marian=of_marian, ours=of_ours)


def flops(batch):
    """Floating-point operations that a step needs: 6 per weight and token that meets it, and the attention scores."""
    S, T = batch["attention_mask"].sum(1), (batch["labels"] != -100).sum(1)
    read, written = int(S.sum()), int(T.sum())
    encoder, decoder = read * (4 * D * D + 2 * D * WIDTH), written * (6 * D * D + 2 * D * WIDTH) + read * 2 * D * D
    return 6 * (LAYERS * (encoder + decoder) + written * D * WORDS) + 12 * LAYERS * D * int(
        (S**2 + T**2 + S * T).sum()
    )


def compare(kind, sides, batch, rounds, device, dtype):
    """Time and equality for one kind of batches; ends the program where the sides do not compute the same."""
    times, losses = {side: [] for side in SIDES}, {}
    for model in sides.values():
        step(model, corner(batch), dtype)  # the libraries prepare themselves
    for _ in range(rounds):
        for side, model in sides.items():
            times[side].append(seconds(lambda m=model, s=side: losses.update({s: step(m, batch, dtype)}), device))
    losses = {side: float(loss) for side, loss in losses.items()}
    gradients = {side: list(tensors[side](model, lambda parameter: parameter.grad)) for side, model in sides.items()}
    result = {}
    for side in ("torch", "marian"):
        difference = max(float((a - b).abs().max()) for a, b in zip(gradients[side], gradients["ours"], strict=True))
        if dtype == torch.float32 and (abs(losses[side] - losses["ours"]) > 1e-5 or difference > 1e-5):
            sys.exit(f"{side} and ours differ on {kind}: losses {losses}, gradients {difference}")
        ratios = sorted(a / b for a, b in zip(times[side], times["ours"], strict=True))
        result[side] = dict(
            time_ratio=round(statistics.median(ratios), 2),
            time_ratio_quartiles=[round(ratios[len(ratios) // 4], 2), round(ratios[-1 - len(ratios) // 4], 2)],
            loss_difference=abs(losses[side] - losses["ours"]),
            gradient_difference=difference,
        )
    median = {side: statistics.median(values) for side, values in times.items()}
    tokens = int(batch["attention_mask"].sum()), int((batch["labels"] != -100).sum())
    return result | dict(
        tokens=tokens,
        fill=round(sum(tokens) / (batch["attention_mask"].numel() + batch["labels"].numel()), 3),
        seconds={side: round(value, 3) for side, value in median.items()},
        tokens_per_second={side: round(sum(tokens) / value) for side, value in median.items()},
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
    rows, rounds = dict(text=128, full=32), arguments.rounds
    if arguments.quick:
        rows, rounds = {kind: count // 4 for kind, count in rows.items()}, 3
    generator = torch.Generator().manual_seed(1)
    batches = {kind: make_batch(kind, rows[kind], generator) for kind in KINDS}
    batches = {kind: {k: v.to(device) for k, v in batch.items()} for kind, batch in batches.items()}
    sides = models(device)
    memory = {
        kind: {side: peak_megabytes(model, batch, device, dtype, step, corner) for side, model in sides.items()}
        for kind, batch in batches.items()
    }
    peak = matmul_peak(device, dtype)
    results = {kind: compare(kind, sides, batch, rounds, device, dtype) for kind, batch in batches.items()}
    for kind, result in results.items():
        work = flops(batches[kind]) / 1e9 / peak
        result["share_of_matmul_peak"] = {side: round(work / s, 3) for side, s in result["seconds"].items()}
        result["megabytes"] = {side: round(value) for side, value in memory[kind].items()}
        tokens = result["tokens"]
        print(f"{kind}: {tokens[0]} tokens read, {tokens[1]} written, {result['fill']:.0%} of the batch")
        print(f"{'':28}" + "".join(f"{side:>10}" for side in SIDES))
        for row in ("seconds", "tokens_per_second", "share_of_matmul_peak", "megabytes"):
            print(f"{row:28}" + "".join(f"{result[row][side]:>10}" for side in SIDES))
        for side in ("torch", "marian"):
            result[side]["memory_ratio"] = round(memory[kind]["ours"] / memory[kind][side], 3)
            print(
                f"{result[side]['time_ratio']} x the {side} step, {result[side]['memory_ratio']} x its memory above the model"
            )
        print()
    summary = {
        f"{key}{end}": results[kind][side][key]
        for key in ("time_ratio", "memory_ratio")
        for kind, side, end in (
            *(("text", "torch", ""), ("full", "torch", "_full")),
            *(("text", "marian", "_marian"), ("full", "marian", "_marian_full")),
        )
    }
    summary |= results
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu, 1 thread"
    summary |= dict(rows=rows, matmul_gflops=round(peak, 1), device=name, dtype=arguments.dtype)
    print(json.dumps(summary | dict(torch=torch.__version__)))


if __name__ == "__main__":
    main()
