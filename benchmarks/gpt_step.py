"""One training step of HftGpt against transformers' GPT2LMHeadModel on the same documents.

    python benchmarks/gpt_step.py            # about 3 minutes
    python benchmarks/gpt_step.py --quick    # under 45 seconds
    python benchmarks/gpt_step.py --device cuda --dtype bfloat16

Both sides hold the same weights and read the same documents: the stock class as a padded batch (its attention is sdpa),
ours as one flat row. Loss and gradients are compared first. Then the two steps (forward, backward; no optimizer) are
timed alternately and the median of the pairs' ratios is reported, with the memory each needs above the model.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

SIZES = dict(vocab_size=8192, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=256)


def documents(count, context, vocab_size, generator):
    """Token ids of documents whose lengths are log-normal (median 134 tokens, as paragraphs), cut at the context."""
    lengths = (torch.randn(count, generator=generator) * 0.7 + 4.9).exp().round().long().clamp(8, context)
    return [torch.randint(vocab_size, (int(n),), generator=generator) for n in lengths]


def padded(docs, context):
    """The stock batch: (documents, context), padded on the right."""
    ids, mask = torch.zeros(len(docs), context, dtype=torch.long), torch.zeros(len(docs), context, dtype=torch.long)
    for i, doc in enumerate(docs):
        ids[i, : len(doc)], mask[i, : len(doc)] = doc, 1
    return dict(input_ids=ids, attention_mask=mask, labels=torch.where(mask.bool(), ids, -100))


def flat(docs):
    """Our batch: one row without padding; the last token of a document predicts nothing, so it is not read."""
    return dict(
        input_ids=torch.cat([doc[:-1] for doc in docs])[None],
        shift_labels=torch.cat([doc[1:] for doc in docs])[None],
        position_ids=torch.cat([torch.arange(len(doc) - 1) for doc in docs])[None],
    )


def models(device):
    """The stock model and ours with the same randomised weights, no dropout, ready to train."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM

    none = dict(embedding_dropout_prob=0.0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    ours = HftGptForCausalLM(HftGptConfig(**SIZES, **none)).to(device).train()
    config = GPT2Config(
        vocab_size=SIZES["vocab_size"],
        n_embd=SIZES["hidden_size"],
        n_layer=SIZES["num_hidden_layers"],
        n_head=SIZES["num_attention_heads"],
        n_positions=SIZES["max_position_embeddings"],
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    stock = GPT2LMHeadModel(config).to(device).train()
    copy_weights(ours, stock)
    return stock, ours


def copy_weights(ours, stock):
    """Write our weights into the stock model (its matrices are transposed, its attention is fused)."""
    model, transformer = ours.model, stock.transformer
    with torch.no_grad():
        transformer.wte.weight.copy_(model.embed_tokens.weight)
        transformer.wpe.weight.copy_(model.embed_positions.weight)
        transformer.ln_f.load_state_dict(model.norm.state_dict())
        for layer, h in zip(model.layers, transformer.h, strict=True):
            h.ln_1.load_state_dict(layer.attn_norm.state_dict())
            h.ln_2.load_state_dict(layer.mlp_norm.state_dict())
            attn = layer.self_attn
            qkv = (attn.q_proj, attn.k_proj, attn.v_proj)
            h.attn.c_attn.weight.copy_(torch.cat([p.weight for p in qkv]).T)
            h.attn.c_attn.bias.copy_(torch.cat([p.bias for p in qkv]))
            pairs = (
                (h.attn.c_proj, attn.o_proj),
                (h.mlp.c_fc, layer.mlp.up_proj),
                (h.mlp.c_proj, layer.mlp.down_proj),
            )
            for theirs, mine in pairs:
                theirs.weight.copy_(mine.weight.T)
                theirs.bias.copy_(mine.bias)


def step(model, batch, dtype):
    """Forward and backward; gradients are kept as buffers so that both sides write into existing memory."""
    model.zero_grad(set_to_none=False)
    with torch.autocast(next(model.parameters()).device.type, dtype=dtype, enabled=dtype != torch.float32):
        loss = model(**batch).loss
    loss.backward()
    return loss.detach()


def largest_difference(stock, ours):
    """Largest absolute difference of any gradient, over the tensors that hold most of them and the embeddings."""
    layers = zip(ours.model.layers, stock.transformer.h, strict=True)
    pairs = [(ours.model.embed_tokens.weight.grad, stock.transformer.wte.weight.grad)]
    pairs += [(ours.model.embed_positions.weight.grad, stock.transformer.wpe.weight.grad)]
    for layer, h in layers:
        attn = layer.self_attn
        qkv = torch.cat([p.weight.grad for p in (attn.q_proj, attn.k_proj, attn.v_proj)])
        pairs += [(qkv, h.attn.c_attn.weight.grad.T), (attn.o_proj.weight.grad, h.attn.c_proj.weight.grad.T)]
        pairs += [(layer.mlp.up_proj.weight.grad, h.mlp.c_fc.weight.grad.T)]
        pairs += [(layer.mlp.down_proj.weight.grad, h.mlp.c_proj.weight.grad.T)]
        pairs += [(layer.attn_norm.weight.grad, h.ln_1.weight.grad), (layer.mlp_norm.bias.grad, h.ln_2.bias.grad)]
    return max(float((a - b).abs().max()) for a, b in pairs)


def seconds(function, device):
    """CPU seconds of the process, or wall seconds on a synchronised GPU."""
    if device == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_megabytes(side, arguments):
    """Memory above the model (weights and gradients) in a process of its own, which runs three steps of one side."""
    command = [sys.executable, __file__, "--memory-of", side, "--device", arguments.device, "--dtype", arguments.dtype]
    command += ["--documents", str(arguments.documents)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory_of(side, batch, device, dtype):
    """Megabytes that a step needs at its peak, above what the process holds before it."""
    model = dict(zip(("stock", "ours"), models(device), strict=True))[side]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    if device != "cpu":
        step(model, batch, dtype)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, batch, dtype)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    tiny = {key: value[:1, :8] for key, value in batch.items()}
    step(model, tiny, dtype)  # the libraries' own buffers
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = process_kilobytes("VmRSS")
    for _ in range(3):
        step(model, batch, dtype)
    return (process_kilobytes("VmHWM") - before) / 1024


def process_kilobytes(name):
    """A figure of this process as Linux counts it."""
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(name)).split()[1])


def matmul_peak(device, dtype):
    """Measured GFLOP/s of a large matrix product."""
    a, b = (torch.randn(2048, 2048, device=device, dtype=dtype) for _ in range(2))
    a @ b
    return 2 * 2048**3 / min(seconds(lambda: a @ b, device) for _ in range(5)) / 1e9


def flops(batch):
    """Floating-point operations of a step on the real tokens: 6 per weight and token, and the attention scores."""
    D, L, V = SIZES["hidden_size"], SIZES["num_hidden_layers"], SIZES["vocab_size"]
    lengths = torch.diff(
        (batch["position_ids"][0] == 0).nonzero()[:, 0], append=torch.tensor([batch["input_ids"].numel()])
    )
    return 6 * int(lengths.sum()) * (12 * L * D * D + D * V) + 6 * 2 * L * D * int((lengths**2).sum()) // 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--documents", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory-of", choices=["stock", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    dtype, rounds = getattr(torch, arguments.dtype), 5 if arguments.quick else arguments.rounds
    context, vocabulary = SIZES["max_position_embeddings"], SIZES["vocab_size"]
    docs = documents(arguments.documents, context, vocabulary, torch.Generator().manual_seed(1))
    batches = dict(stock=padded(docs, context), ours=flat(docs))
    batches = {side: {k: v.to(arguments.device) for k, v in batch.items()} for side, batch in batches.items()}
    if arguments.memory_of:
        print(json.dumps(memory_of(arguments.memory_of, batches[arguments.memory_of], arguments.device, dtype)))
        return
    stock, ours = models(arguments.device)
    sides = dict(stock=stock, ours=ours)
    losses = {side: float(step(model, batches[side], dtype)) for side, model in sides.items()}
    gradients = largest_difference(stock, ours)
    if dtype == torch.float32 and (abs(losses["stock"] - losses["ours"]) > 1e-5 or gradients > 1e-5):
        sys.exit(f"the two sides differ: losses {losses}, gradients {gradients}")
    times = dict(stock=[], ours=[])
    for _ in range(rounds):
        for side, model in sides.items():
            times[side].append(seconds(lambda m=model, s=side: step(m, batches[s], dtype), arguments.device))
    ratios = sorted(a / b for a, b in zip(times["stock"], times["ours"], strict=True))
    memory = {side: peak_megabytes(side, arguments) for side in sides}
    tokens, peak = sum(len(doc) for doc in docs), matmul_peak(arguments.device, dtype)
    median = {side: statistics.median(values) for side, values in times.items()}
    result = dict(
        time_ratio=round(statistics.median(ratios), 2),
        time_ratio_quartiles=[round(ratios[len(ratios) // 4], 2), round(ratios[-1 - len(ratios) // 4], 2)],
        memory_ratio=round(memory["ours"] / memory["stock"], 3),
        loss_difference=abs(losses["stock"] - losses["ours"]),
        gradient_difference=gradients,
        documents=len(docs),
        tokens=tokens,
        fill=round(tokens / (len(docs) * context), 3),
        seconds={side: round(value, 3) for side, value in median.items()},
        megabytes={side: round(value) for side, value in memory.items()},
        tokens_per_second={side: round(tokens / value) for side, value in median.items()},
        share_of_matmul_peak={
            side: round(flops(batches["ours"]) / value / 1e9 / peak, 3) for side, value in median.items()
        },
        matmul_gflops=round(peak, 1),
        device=torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu, 1 thread",
        dtype=arguments.dtype,
        torch=torch.__version__,
    )
    print(f"{'':28}{'stock':>10}{'ours':>10}")
    for row in ("seconds", "tokens_per_second", "share_of_matmul_peak", "megabytes"):
        print(f"{row:28}{result[row]['stock']:>10}{result[row]['ours']:>10}")
    print(f"{len(docs)} documents, {tokens} tokens, {result['fill']:.0%} of the padded batch is text")
    print(f"{result['time_ratio']} x the stock step, {result['memory_ratio']} x its memory above the model")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
