"""A run of half a second: a one-layer GPT-2 on random tokens; as a script, a process to interrupt.

python tests/training/tiny_run.py FOLDER '{"max_steps": 20}'
"""

import hashlib
import json
import sys
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from hftoolkit.errors import one_line_errors
from hftoolkit.run import run_training

VOCAB = 50
SIZES = dict(vocab_size=VOCAB, n_layer=1, n_embd=16, n_head=2, n_positions=16)
ARGUMENTS = dict(
    **dict(per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=14, learning_rate=1e-2),
    **dict(logging_steps=3, save_steps=5, use_cpu=True, disable_tqdm=True, seed=3),
)


def tiny_model(seed=0, **changes):
    """A GPT-2 with dropout 0.1, so that the state of the random generators matters."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**SIZES | changes))


def token_rows(count=24, length=8, seed=0):
    """Rows of random tokens, each with itself as labels."""
    tokens = torch.randint(VOCAB, (count, length), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in tokens]


def tiny_trainer(folder, *, model=None, rows=None, eval_rows=None, trainer_class=Trainer, callbacks=(), **changes):
    """A trainer of the tiny model: 24 rows are 6 updates an epoch, so that step 14 lies within the third."""
    return trainer_class(
        model=tiny_model() if model is None else model,
        args=TrainingArguments(str(folder), **ARGUMENTS | changes),
        train_dataset=token_rows() if rows is None else rows,
        eval_dataset=eval_rows,
        callbacks=list(callbacks),
    )


class At(TrainerCallback):
    """Calls a function at the end of one step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()


def weights_hash(folder):
    """SHA-256 of the saved weights."""
    return hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()


def content(folder):
    """Every file with its bytes and the time of its last change."""
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def reports(trainer):
    """What was logged, without timings."""
    hidden = ("_runtime", "_per_second", "total_flos")
    return [
        {key: value for key, value in entry.items() if not key.endswith(hidden)} for entry in trainer.state.log_history
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    options = json.loads(sys.argv[2])
    model, pause_at = tiny_model(**options.pop("model", {})), options.pop("pause_at", None)
    callbacks = [At(pause_at, lambda: time.sleep(2))] if pause_at else []
    with one_line_errors():
        run_training(tiny_trainer(sys.argv[1], model=model, callbacks=callbacks, **options))
