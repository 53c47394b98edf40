"""Several processes: one writes, all stop together, and two of them equal one with twice the batch."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_run import reports, tiny_model, tiny_trainer

from hftoolkit.run import run_training
from hftoolkit.training.checkpoints import faults, list_checkpoints
from hftoolkit.training.disk import read_json

OPTIONS = dict(logging_steps=1, max_steps=8, save_steps=4)
NO_DROPOUT = dict(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)


@pytest.fixture
def two_processes(process):
    """Start tiny_run.py as rank 0 and rank 1 of one run, as torchrun would."""

    def start(folder, options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        shown = folder.with_name(f"{folder.name}.txt")
        prepare = f"import os; os.dup2(os.open({str(shown)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)"
        ranks = [place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
        return [process(folder, options, f"{prepare}; os.environ.update({rank})") for rank in ranks]

    return start


def losses(history):
    return torch.tensor([[entry["loss"], entry["grad_norm"]] for entry in history if "loss" in entry])


def one_process_with_twice_the_batch(folder):
    trainer = tiny_trainer(folder, model=tiny_model(**NO_DROPOUT), **OPTIONS | {"per_device_train_batch_size": 4})
    run_training(trainer)
    return losses(reports(trainer))


def of_two(folder):
    return losses(read_json(folder / "checkpoint-8" / "trainer_state.json")["log_history"])


def test_two_processes_equal_one_with_twice_the_batch(two_processes, tmp_path):
    assert [rank.code() for rank in two_processes(tmp_path / "two", OPTIONS | {"model": NO_DROPOUT})] == [0, 0]
    shown = (tmp_path / "two.txt").read_text()
    assert shown.count("training  8 steps of 2 rows x 2 accumulated x 2 processes") == 1
    theirs = one_process_with_twice_the_batch(tmp_path / "one")
    torch.testing.assert_close(of_two(tmp_path / "two"), theirs, rtol=0, atol=1e-5)
    assert read_json(tmp_path / "two" / "run.json")["processes"] == 2
    assert {path.name for path in (tmp_path / "two" / "checkpoint-8").glob("rng*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }


def test_a_signal_to_one_stops_both_and_both_resume(two_processes, tmp_path):
    ranks = two_processes(tmp_path / "b", OPTIONS | {"pause_at": 5})
    while not list_checkpoints(tmp_path / "b"):
        time.sleep(0.02)
    ranks[1].send(signal.SIGTERM)
    assert [rank.code() for rank in ranks] == [75, 75]
    record = read_json(tmp_path / "b" / "run.json")
    assert record["status"] == "interrupted" and 4 <= record["steps"] < 8
    assert all(faults(path) == [] for path in list_checkpoints(tmp_path / "b"))
    assert [rank.code() for rank in two_processes(tmp_path / "b", OPTIONS)] == [0, 0]
    assert [rank.code() for rank in two_processes(tmp_path / "a", OPTIONS)] == [0, 0]
    assert torch.equal(of_two(tmp_path / "b"), of_two(tmp_path / "a"))


def test_a_refusal_reaches_every_process(two_processes, tmp_path):
    (tmp_path / ".lock").write_text(f'{{"pid": {os.getpid()}, "host": "{socket.gethostname()}"}}')
    assert [rank.code() for rank in two_processes(tmp_path, OPTIONS)] == [2, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


@pytest.mark.slow
def test_torchrun(tmp_path):
    script = Path(__file__).with_name("tiny_run.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    options = json.dumps(OPTIONS | {"model": NO_DROPOUT})
    subprocess.run([*command, str(tmp_path / "two"), options], check=True, timeout=300)
    theirs = one_process_with_twice_the_batch(tmp_path / "one")
    torch.testing.assert_close(of_two(tmp_path / "two"), theirs, rtol=0, atol=1e-5)
