"""What test_common_distributed.py starts in two processes: torchrun distributed_step.py {trainer,fsdp} RESULT_FILE.

Both also run in one process, on all rows, which is what they are compared with; in float64, because the large weights
of these models blow up the rounding of float32, which differs with the order of the sums.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch
from small_models import HEADS_WITH_LOSS, batch, gradients, layers
from transformers import Trainer, TrainingArguments

ROWS = batch((12, 7, 9, 3, 12, 4, 8, 11))


def trainer_steps(head, processes):
    """Loss and gradient norm of two steps of Trainer over eight rows, and a fingerprint of the weights after them."""
    rows = head.labelled(ROWS)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=8 // processes,
            max_steps=2,
            learning_rate=0.1,
            optim="sgd",  # Adam would make a step of a gradient that is 0 but for rounding
            logging_steps=1,
            train_sampling_strategy="sequential",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        examples = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        trainer = Trainer(head.model().double(), arguments, train_dataset=examples)
        assert trainer.accelerator.num_processes == processes
        trainer.train()
    history = [entry[key] for entry in trainer.state.log_history for key in ("loss", "grad_norm") if key in entry]
    weights = [
        float(p.detach().double().abs().sum()) for p in trainer.accelerator.unwrap_model(trainer.model).parameters()
    ]
    return dict(history=history, weights=weights)


def sharded_step(head):
    """The largest difference of any gradient to one process, with every block sharded over two; and two losses."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mesh, rank = init_device_mesh("cpu", (2,)), torch.distributed.get_rank()
    rows = head.labelled(ROWS)
    model = head.model().double().train()
    labels = rows.get("labels", rows.get("start_positions"))
    labels = labels[:, 1:] if "CausalLM" in head.auto else labels
    inputs = rows | dict(num_items_in_batch=labels.ne(-100).sum())
    expected = gradients(model, **inputs)
    blocks = layers(model)
    reads_twice = head.writes or (model.config.is_encoder_decoder and head.auto.endswith("SequenceClassification"))
    if model._no_split_modules:
        reads_twice &= head.architecture != "seq2seq"  # whose decoder is no block
        assert len(blocks) == model.config.num_hidden_layers + (model.config.num_decoder_layers if reads_twice else 0)
    for module in [*blocks, model]:
        fully_shard(module, mesh=mesh)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    mine = inputs | {name: values[4 * rank : 4 * rank + 4] for name, values in rows.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses, difference = [], 0.0
    for step in range(2):
        loss = model(**mine).loss
        (2 * loss).backward()  # the gradients of the two processes are averaged, the shares of the loss add up
        torch.distributed.all_reduce(loss := loss.detach().clone())
        losses.append(float(loss))
        if step == 0:
            full = {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()}
            difference = max(float((full[name] - expected[name]).abs().max()) for name in full)
        optimizer.step()
        optimizer.zero_grad()
    return dict(losses=losses, difference=difference)


def main(kind, result_file):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    step = {"trainer": lambda head: trainer_steps(head, processes=2), "fsdp": sharded_step}[kind]
    results = {str(head): step(head) for head in HEADS_WITH_LOSS}
    if os.environ["RANK"] == "0":
        Path(result_file).write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
