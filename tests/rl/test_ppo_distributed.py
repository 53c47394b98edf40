"""PPO in two processes equals PPO in one with the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("ppo_process.py")


def start(folder, options, ranks):
    """Run the script once, or as the ranks of one run; what each left."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(len(ranks))}
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps(options)]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | (place | {"RANK": rank, "LOCAL_RANK": rank} if len(ranks) > 1 else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-3000:] or "failed"
    return [torch.load(folder / f"{rank}.pt") for rank in (ranks if len(ranks) > 1 else ["alone"])]


@pytest.mark.parametrize("lora", [False, True])
def test_two_processes_equal_one(tmp_path, lora):
    """Sampling, whitening, the divisor of the losses, accumulation, pretraining text, evaluation and checkpoints."""
    options = {"learning_rate": 1e-3, "lora": lora, "rollout_forward_batch_size": 4}
    options |= {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2}
    options |= {} if lora else {"ptx_coef": 0.5, "ptx_batch_size": 2}
    (one,) = start(tmp_path / "one", options | {"per_device_train_batch_size": 2}, ["0"])
    two = start(tmp_path / "two", options | {"per_device_train_batch_size": 1}, ["0", "1"])
    assert torch.equal(two[0]["weights"], two[1]["weights"])
    torch.testing.assert_close(two[0]["weights"], one["weights"], rtol=0, atol=1e-5)
    for name, values in one["reports"].items():
        assert two[0]["reports"][name] == pytest.approx(values, abs=1e-4), name
    assert one["reports"]["objective/kl"][-1] != 0
    assert two[0]["eval"] == pytest.approx(one["eval"], abs=1e-3)
    saved = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one/checkpoint-8").rglob("*")}
    again = {path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two/checkpoint-8").rglob("*")}
    assert {name for name in saved ^ again if "rng_state" not in name} == set()
    if lora:
        return
    middle = {"resume": str(tmp_path / "two/checkpoint-6"), "per_device_train_batch_size": 2}
    (resumed,) = start(tmp_path / "resumed", options | middle, ["0"])  # in the middle of a rollout, by one process
    torch.testing.assert_close(resumed["weights"], one["weights"], rtol=0, atol=1e-5)


def test_a_reward_that_fails_in_one_process_ends_all(tmp_path):
    """None waits for the others: both name the reward."""
    with pytest.raises(AssertionError, match="raise_in_the_second raised OSError: no connection"):
        start(tmp_path / "run", {"raise_in_the_second": True, "per_device_train_batch_size": 2}, ["0", "1"])
