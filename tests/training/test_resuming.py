"""Interrupted = uninterrupted: weights bit for bit, every logged number, after a signal and after kill -9."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny_run import At, reports, tiny_model, tiny_trainer, token_rows, weights_hash
from transformers import EarlyStoppingCallback, Trainer

from hftoolkit.errors import CheckpointError, RunInterruptedError
from hftoolkit.run import run_training
from hftoolkit.training.checkpoints import faults, list_checkpoints
from hftoolkit.training.disk import read_json

EACH_STEP = dict(eval_strategy="steps", eval_steps=2, save_total_limit=2)
KILLED = dict(max_steps=60, save_steps=4, save_total_limit=2)  # half a second of saving in a second of training


def interrupt(folder, step, callbacks=(), **options):
    """Start a run and stop it by SIGTERM at the end of `step`."""
    stop = At(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    trainer = tiny_trainer(folder, callbacks=[*callbacks, stop], **options)
    with pytest.raises(RunInterruptedError):
        run_training(trainer)


def assert_same_run(folder, resumed, reference, unbroken):
    assert weights_hash(folder) == weights_hash(reference)
    assert reports(resumed) == reports(unbroken)
    assert read_json(folder / "all_results.json") == read_json(reference / "all_results.json")


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ([8], {}),  # inside an epoch and between two reports, with accumulation and dropout
        ([6], dict(logging_strategy="epoch", eval_strategy="epoch", eval_rows=token_rows(8))),  # the end of an epoch
        ([3, 4, 13], EACH_STEP | dict(eval_rows=token_rows(8), lr_scheduler_type="cosine", warmup_steps=5)),
        ([14], {}),  # the last step
        ([5], dict(max_steps=-1, num_train_epochs=2, gradient_accumulation_steps=5, save_strategy="no")),
    ],
    ids=["mid-epoch", "end of an epoch", "three times", "last step", "ragged accumulation"],
)
def test_interrupted_equals_uninterrupted(tmp_path, steps, options):
    unbroken = tiny_trainer(tmp_path / "a", **options)
    run_training(unbroken)
    for step in steps:
        interrupt(tmp_path / "b", step, **options)
    resumed = tiny_trainer(tmp_path / "b", **options)
    run_training(resumed)
    assert_same_run(tmp_path / "b", resumed, tmp_path / "a", unbroken)


class Stream(torch.utils.data.IterableDataset):
    """24 rows without a known end, read anew in each pass."""

    def __iter__(self):
        return iter(token_rows())


@pytest.mark.parametrize("step", [4, 6, 8, 13])
def test_the_place_in_a_stream_is_found_in_any_pass(tmp_path, step):
    """A pass is six updates: the second of three is interrupted, and the first at its end."""
    unbroken = tiny_trainer(tmp_path / "a", rows=Stream())
    run_training(unbroken)
    interrupt(tmp_path / "b", step, rows=Stream())
    resumed = tiny_trainer(tmp_path / "b", rows=Stream())
    run_training(resumed)
    assert_same_run(tmp_path / "b", resumed, tmp_path / "a", unbroken)


class BestAtFour(Trainer):
    """Its evaluation says that the model is best at step 4."""

    def evaluation_loop(self, *args, **kwargs):
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics["eval_loss"] = abs(self.state.global_step - 4.0)
        return output


def test_the_best_checkpoint_and_the_patience_survive(tmp_path):
    """Two evaluations without progress are allowed: one before the interruption, one after it."""
    options = dict(metric_for_best_model="eval_loss", load_best_model_at_end=True, save_steps=2, save_total_limit=1)
    options |= dict(eval_strategy="steps", eval_steps=2, eval_rows=token_rows(8), trainer_class=BestAtFour)
    unbroken = tiny_trainer(tmp_path / "a", callbacks=[EarlyStoppingCallback(2)], **options)
    run_training(unbroken)
    interrupt(tmp_path / "b", 7, callbacks=[EarlyStoppingCallback(2)], **options)
    os.rename(tmp_path / "b", tmp_path / "c")  # the best checkpoint is found although the folder was moved
    resumed = tiny_trainer(tmp_path / "c", callbacks=[EarlyStoppingCallback(2)], **options)
    run_training(resumed)
    assert (unbroken.state.best_global_step, unbroken.state.global_step) == (4, 8)
    assert_same_run(tmp_path / "c", resumed, tmp_path / "a", unbroken)
    best = Path(resumed.state.best_model_checkpoint)
    assert best.parent == tmp_path / "c" and faults(best) == []


def test_an_allowed_change_takes_effect(tmp_path):
    """The step count and the moments go on; the learning rate and the weight decay are the new ones."""
    interrupt(tmp_path, 8)
    changed = tiny_trainer(tmp_path, learning_rate=1e-3, weight_decay=0.5, max_steps=20)
    changed.args.allowed_changes = ["learning_rate", "weight_decay", "max_steps"]
    run_training(changed)
    rates = {entry["step"]: entry["learning_rate"] for entry in reports(changed) if "learning_rate" in entry}
    # Reported is the rate of the last update: 12 steps of 20 are left before the 9th, 9 before the 12th.
    assert rates[6] == pytest.approx(1e-2 * 9 / 14) and rates[9] == pytest.approx(1e-3 * 12 / 20)
    assert rates[12] == pytest.approx(1e-3 * 9 / 20) and max(rates) == 18
    assert [group["weight_decay"] for group in changed.optimizer.param_groups] == [0.5, 0.0]


def test_a_checkpoint_holds_no_pickled_arguments(tmp_path):
    interrupt(tmp_path, 8)
    assert list(tmp_path.rglob("training_args.bin")) == []
    manifest = read_json(tmp_path / "checkpoint-8" / "manifest.json")
    assert manifest["arguments"]["learning_rate"] == 1e-2 and "hub_token" not in manifest["arguments"]


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_older_one(tmp_path, caplog):
    run_training(tiny_trainer(tmp_path / "a"))
    interrupt(tmp_path / "b", 8)
    (tmp_path / "b" / "checkpoint-8" / "optimizer.pt").unlink()
    run_training(tiny_trainer(tmp_path / "b"))
    assert "optimizer.pt is missing" in caplog.text and "falling back to" in caplog.text
    assert weights_hash(tmp_path / "b") == weights_hash(tmp_path / "a")


def test_without_a_whole_checkpoint_nothing_starts(tmp_path):
    interrupt(tmp_path, 3)
    (tmp_path / "checkpoint-3" / "optimizer.pt").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint .* is whole"):
        run_training(tiny_trainer(tmp_path))
    assert read_json(tmp_path / "run.json")["exit_code"] == 5 and len(list_checkpoints(tmp_path)) == 1


def test_another_model_does_not_resume(tmp_path):
    interrupt(tmp_path, 3)
    with pytest.raises(CheckpointError, match="belongs to another model"):
        run_training(tiny_trainer(tmp_path, model=tiny_model(vocab_size=64)))


def kill_until_done(process, folder, kills, seed):
    """Kill the run at `kills` random moments, then let it finish; returns how many kills met a living run."""
    moments, hits = random.Random(seed), 0
    for _ in range(kills):
        started = process(folder, KILLED)
        time.sleep(moments.uniform(0.05, 1.0))
        started.kill()
        hits += started.code() == -signal.SIGKILL
        for checkpoint in list_checkpoints(folder):
            assert faults(checkpoint) == []
    assert process(folder, KILLED).code() == 0
    return hits


@pytest.fixture(scope="module")
def unkilled(process, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unkilled")
    assert process(folder, KILLED).code() == 0
    return weights_hash(folder)


def test_kill_nine_at_random_moments(process, unkilled, tmp_path):
    kill_until_done(process, tmp_path, kills=4, seed=0)
    assert weights_hash(tmp_path) == unkilled
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("moment", "left"), [("seal", [4]), ("publish", [4]), ("rotate", [4, 8])])
def test_kill_nine_in_the_middle_of_saving(process, unkilled, tmp_path, moment, left):
    """Before the second checkpoint is sealed, before it is renamed, and before an older one is deleted."""
    before = f"""
import os, signal
from hftoolkit.training import saving
calls, plain = [], saving.{moment}
def die_at_the_second_call(*args):
    calls.append(args)
    os.kill(os.getpid(), signal.SIGKILL) if len(calls) == 2 else None
    return plain(*args)
saving.{moment} = die_at_the_second_call
"""
    assert process(tmp_path, KILLED, before).code() == -signal.SIGKILL
    assert [path.name for path in list_checkpoints(tmp_path)] == [f"checkpoint-{step}" for step in left]
    assert process(tmp_path, KILLED).code() == 0
    assert weights_hash(tmp_path) == unkilled
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_kill_nine_twenty_times(process, unkilled, tmp_path):
    hits = sum(kill_until_done(process, tmp_path / str(seed), kills=4, seed=seed) for seed in range(1, 6))
    assert hits >= 5 and {weights_hash(tmp_path / str(seed)) for seed in range(1, 6)} == {unkilled}


def test_two_signals_end_the_process_at_once(process, tmp_path):
    """The first one finds a step that does not end, the second one does not wait for it."""
    started = process(tmp_path, KILLED | {"max_steps": 100000})
    while not list_checkpoints(tmp_path):
        time.sleep(0.05)
    started.send(signal.SIGSTOP)
    for _ in range(2):
        started.send(signal.SIGINT)
        started.send(signal.SIGTERM)
    started.send(signal.SIGCONT)
    assert started.code() in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert read_json(tmp_path / "run.json")["status"] == "running"


def test_sigterm_ends_the_process_with_75_and_it_resumes(process, unkilled, tmp_path):
    started = process(tmp_path, KILLED)
    while not list_checkpoints(tmp_path):
        time.sleep(0.02)
    asked = time.monotonic()
    started.send(signal.SIGTERM)
    code = started.code()
    assert code == 75 and time.monotonic() - asked < 10
    assert process(tmp_path, KILLED).code() == 0
    assert weights_hash(tmp_path) == unkilled


def test_the_same_seed_gives_the_same_weights(tmp_path):
    """Whoever loads the rows: this process, or two workers."""
    hashes = {}
    for name, seed, workers in (("a", 3, 0), ("b", 3, 0), ("c", 4, 0), ("d", 3, 2)):
        run_training(tiny_trainer(tmp_path / name, seed=seed, max_steps=4, dataloader_num_workers=workers))
        hashes[name] = weights_hash(tmp_path / name)
    assert hashes["a"] == hashes["b"] == hashes["d"] != hashes["c"]


def test_accumulation_does_not_change_the_run(tmp_path):
    """8 rows at once and 8 times 1 row: the same losses and gradient norms."""
    rows = []
    for name, size, times in (("a", 8, 1), ("b", 1, 8)):
        options = dict(
            per_device_train_batch_size=size, gradient_accumulation_steps=times, logging_steps=1, max_steps=6
        )
        model = tiny_model(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
        trainer = tiny_trainer(tmp_path / name, model=model, **options)
        run_training(trainer)
        rows.append([[entry["loss"], entry["grad_norm"]] for entry in reports(trainer) if "loss" in entry])
    torch.testing.assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), rtol=0, atol=1e-5)
