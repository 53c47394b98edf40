"""No update from a number that is not finite, no green end of a run that learned nothing, and stops that can resume."""

import json
import logging
import os
import signal
import types

import pytest
import torch
from tiny_run import At, tiny_model, tiny_trainer, token_rows
from transformers import Trainer

from hftoolkit.errors import DataError, DivergedError, RunInterruptedError
from hftoolkit.run import run_training
from hftoolkit.training.callbacks import SPIKE_QUIET_STEPS, FiniteCheck, require_finite_weights
from hftoolkit.training.checkpoints import list_checkpoints
from hftoolkit.training.disk import read_json


def poison(value, step, what):
    """A trainer class whose loss, or whose gradient alone, is `value` at one step."""

    class Poisoned(Trainer):
        def compute_loss(self, model, *args, **kwargs):
            loss = super().compute_loss(model, *args, **kwargs)
            if self.state.global_step + 1 != step:
                return loss
            if what == "gradient":
                loss = loss * 1.0
                loss.register_hook(lambda gradient: gradient * value)
                return loss
            return loss * value

    return Poisoned


@pytest.mark.parametrize("max_grad_norm", [1.0, 0.0], ids=["clipped", "not clipped"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_number_that_is_not_finite_stops_before_the_update(tmp_path, value, what, max_grad_norm):
    trainer = tiny_trainer(tmp_path, trainer_class=poison(value, 7, what), max_grad_norm=max_grad_norm)
    with pytest.raises(
        DivergedError, match="at step 7, learning rate.*The last good checkpoint is .*checkpoint-5"
    ) as e:
        run_training(trainer)
    assert e.value.exit_code == 4 and trainer.state.global_step == 6
    require_finite_weights(trainer.model, "after the stop")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-5"]
    record = read_json(tmp_path / "run.json")
    assert (record["status"], record["exit_code"]) == ("diverged", 4) and "at step 7" in record["reason"]
    assert not (tmp_path / "model.safetensors").exists() and not (tmp_path / ".lock").exists()


def test_an_absurd_learning_rate_does_not_end_green(tmp_path):
    """Trainer alone ends here with loss 0.0, exit code 0 and no finite weight."""
    with pytest.raises(DivergedError):
        run_training(tiny_trainer(tmp_path, learning_rate=1e30))


def test_a_gradient_norm_that_overflows_is_seen(tmp_path):
    """Every gradient is finite, their norm is not: clipping by it would silently make the update zero."""

    class Huge(Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * 1e37

    with pytest.raises(DivergedError, match="gradient norm inf"):
        run_training(tiny_trainer(tmp_path, trainer_class=Huge))


def test_weights_that_are_not_finite_are_refused_at_the_start(tmp_path):
    model = tiny_model()
    model.transformer.wte.weight.data[3, 3] = float("nan")
    with pytest.raises(DivergedError, match="1 weights are not finite before training.*transformer.wte.weight"):
        run_training(tiny_trainer(tmp_path, model=model))
    assert not (tmp_path / "run.json").exists()


def test_a_batch_without_labels_is_a_mistake_in_the_data(tmp_path):
    rows = [row | {"labels": torch.full_like(row["labels"], -100)} for row in token_rows()]
    with pytest.raises(DataError, match=r"every label of its batch is ignored \(-100\)") as caught:
        run_training(tiny_trainer(tmp_path, rows=rows))
    assert caught.value.exit_code == 3 and read_json(tmp_path / "run.json")["status"] == "failed"


def test_a_run_that_learned_nothing_does_not_end_green(tmp_path):
    class Zero(Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) * 0.0

    with pytest.raises(DataError, match="exactly 0 at each of 14 steps"):
        run_training(tiny_trainer(tmp_path, trainer_class=Zero))


def test_an_evaluation_loss_that_is_not_finite_does_not_end_green(tmp_path):
    rows = [row | {"labels": torch.full_like(row["labels"], -100)} for row in token_rows(8)]
    with pytest.raises(DivergedError, match="eval_loss is nan at step 14"):
        run_training(tiny_trainer(tmp_path, eval_rows=rows))
    assert read_json(tmp_path / "run.json")["status"] == "diverged"


def test_a_spike_too_many_stops_the_run(tmp_path):
    check = FiniteCheck(tiny_trainer(tmp_path), max_spikes=1)
    spikes = (SPIKE_QUIET_STEPS + 5, 2 * SPIKE_QUIET_STEPS + 10)
    with pytest.raises(DivergedError, match=f"spike 2 .*30, usually 1.* at step {spikes[1]}; max_spikes is 1"):
        for step in range(4 * SPIKE_QUIET_STEPS):
            check._report_spike(step, 30.0 if step in spikes else 1.0)
    assert step == spikes[1]


def test_a_spike_is_reported_once(tmp_path, caplog):
    check = FiniteCheck(types.SimpleNamespace())
    with caplog.at_level(logging.WARNING):
        for step in range(1, 2 * SPIKE_QUIET_STEPS):
            check._report_spike(step, 30.0 if step in (SPIKE_QUIET_STEPS + 5, SPIKE_QUIET_STEPS + 6) else 1.0)
    assert check.spikes == 1 and "step 25: gradient norm 30, usually 1: a spike" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_between_updates_and_ends_with_75(tmp_path, number):
    before = signal.getsignal(number)
    trainer = tiny_trainer(tmp_path, callbacks=[At(8, lambda: os.kill(os.getpid(), number))])
    with pytest.raises(
        RunInterruptedError, match=f"{number.name} after step 8 of 14; checkpoint-8 is saved"
    ) as caught:
        run_training(trainer)
    assert caught.value.exit_code == 75 and signal.getsignal(number) is before
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-8"]
    record = read_json(tmp_path / "run.json")
    assert (record["status"], record["exit_code"], record["steps"]) == ("interrupted", 75, 8)
    assert not (tmp_path / ".lock").exists()


def test_a_signal_saves_also_where_trainer_would_not(tmp_path):
    """save_strategy "best" cancels any saving that an evaluation at the same step does not ask for."""
    options = dict(save_strategy="best", eval_strategy="steps", eval_steps=1, metric_for_best_model="eval_runtime")
    actions = [At(8, lambda: os.kill(os.getpid(), signal.SIGTERM))]
    with pytest.raises(RunInterruptedError, match="checkpoint-8 is saved"):
        run_training(tiny_trainer(tmp_path, eval_rows=token_rows(4), callbacks=actions, **options))


def test_a_signal_in_the_last_evaluation_is_obeyed_at_once(tmp_path):
    class Slow(Trainer):
        def prediction_step(self, *args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().prediction_step(*args, **kwargs)

    with pytest.raises(RunInterruptedError, match="after step 14 of 14"):
        run_training(
            tiny_trainer(tmp_path, trainer_class=Slow, eval_rows=token_rows(16), per_device_eval_batch_size=8)
        )
    assert run_training(tiny_trainer(tmp_path, eval_rows=token_rows(16)))["steps"] == 14


def test_the_trainer_is_left_as_it_was(tmp_path):
    trainer = tiny_trainer(tmp_path, eval_rows=token_rows(4))
    names = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    arguments, attributes = dict(vars(trainer.args)), set(vars(trainer))
    run_training(trainer)
    after = [type(callback).__name__ for callback in trainer.callback_handler.callbacks]
    assert after == [name for name in names if name != "PrinterCallback"]
    assert vars(trainer.args) == arguments
    assert not {"_save_checkpoint", "_run_epoch", "training_step", "_get_output_dir"} & set(vars(trainer)) - attributes
    assert "clip_grad_norm_" not in vars(trainer.accelerator)
    assert json.loads((tmp_path / "config.json").read_text())["use_cache"] is True
    assert trainer.model.config.use_cache is False
