"""What a run shows: everything that matters before it starts, progress anywhere, and never a crash."""

import io
import sys
import types

import pytest
from tiny_run import tiny_model, tiny_trainer, token_rows

from hftoolkit.run import run_training
from hftoolkit.training import overview, progress


class Output(io.StringIO):
    """A stdout that may be a terminal."""

    def __init__(self, terminal=False):
        super().__init__()
        self.isatty = lambda: terminal


def test_one_screen_says_what_will_happen(tmp_path, capsys):
    summary = {"name": "random", "fingerprint": "1f3a", "train": {"documents": 24, "tokens": 1920, "packing": "whole"}}
    run_training(tiny_trainer(tmp_path, eval_rows=token_rows(8)), data_summary=summary, tokens_per_step=32)
    screen = capsys.readouterr().out.split("memory    after one step")[0]
    assert screen.splitlines() == [
        "model     GPT2LMHeadModel, 4,368 parameters",
        "data      random (1f3a); train 24 documents, 1,920 tokens; 24 training rows; 8 evaluation rows",
        "training  14 steps of 2 rows x 2 accumulated, 3 epochs at most",
        "device    cpu, 1 threads, float32",
        "memory    weights 17.5 kB, gradients 17.5 kB, optimizer 34.9 kB; activations not included",
        f"output    {tmp_path}",
        "start     from step 0",
    ]


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad"])
def test_the_estimate_of_memory_is_exact(tmp_path, optimizer):
    trainer = tiny_trainer(tmp_path, optim=optimizer, max_steps=1)
    run_training(trainer)
    measured = [state for state in overview.optimizer_states(trainer.optimizer) if state.ndim > 0]
    weights, gradients, states = overview.memory_estimate(trainer.model, trainer.optimizer)
    assert weights == gradients == 4368 * 4 and states == overview.tensor_bytes(measured)


def test_an_unknown_optimizer_is_not_guessed():
    assert overview.memory_estimate(tiny_model(), types.SimpleNamespace())[2] is None


def test_a_log_file_gets_a_line_per_report(tmp_path, capsys):
    run_training(tiny_trainer(tmp_path, eval_rows=token_rows(8)), tokens_per_step=32)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert len(lines) == 4 + 2 and lines[0].startswith("step  3/14  epoch 0.50  loss 3.")
    assert "tokens/s" in lines[0] and "eval_loss" in lines[-1] and "_runtime" not in "".join(lines)


def test_of_a_long_report_the_screen_shows_what_was_chosen(tmp_path, capsys):
    trainer = tiny_trainer(tmp_path, eval_rows=token_rows(8))
    run_training(trainer, shown_numbers=("grad_norm",))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert lines[0].startswith("step  3/14  epoch 0.50  grad_norm ") and "learning_rate" not in lines[0]
    assert lines[0].endswith("left") and "eval_loss" in lines[-2] + lines[-1]
    assert "learning_rate" in trainer.state.log_history[0]


def test_silence_is_broken_where_nothing_is_reported(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SILENCE_SECONDS", 0.0)
    run_training(tiny_trainer(tmp_path, logging_strategy="no"))
    assert "step  9/14" in capsys.readouterr().out


def test_a_narrow_terminal_is_not_overrun(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Output(terminal=True))
    monkeypatch.setattr(progress, "REDRAW_SECONDS", 0.0)
    monkeypatch.setenv("COLUMNS", "20")
    run_training(tiny_trainer(tmp_path, disable_tqdm=False))
    drawn = [line.split("\r")[0] for line in sys.stdout.getvalue().split("\r\x1b[K") if "\n" not in line]
    assert len(drawn) > 10 and max(map(len, drawn)) == 19


def test_text_that_stdout_cannot_encode_is_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    progress.say("runs/caf\u00e9")
    assert raw.getvalue() == b"runs/caf\\xe9\n"


def test_a_closed_stdout_is_no_error(tmp_path, monkeypatch):
    """A whole run ends as ever, also where it would ask whether stdout is a terminal."""
    stdout = io.StringIO()
    stdout.close()
    with pytest.raises(ValueError, match="closed"):
        stdout.write("nobody hears this")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run_training(tiny_trainer(tmp_path, disable_tqdm=False))["steps"] == 14


def test_a_reader_that_leaves_does_not_end_the_run(process, tmp_path):
    """As in `recipe | head -1`: the pipe is closed from the first line on."""
    broken = "import os; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1)"
    assert process(tmp_path, before=broken).code() == 0
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (187, "3:07"), (7205, "2:00:05"), (360000, "100:00:00")]
)
def test_durations(seconds, shown):
    assert progress.duration(seconds) == shown


@pytest.mark.parametrize(("size", "shown"), [(0, "0 B"), (999, "999 B"), (17472, "17.5 kB"), (4.2e12, "4.2 TB")])
def test_amounts(size, shown):
    assert overview.amount(size) == shown
