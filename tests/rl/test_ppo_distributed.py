"""PPO in two processes, by DDP and by FSDP2, equals PPO in one with the same global batch."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import DistributedType
from safetensors.torch import load_file

from hftoolkit.errors import DataError
from hftoolkit.rl.sharding import require_sharding_that_works

SCRIPT = Path(__file__).with_name("ppo_process.py")
RUN = """
import os, runpy, sys
os.environ.update({variables})
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
os.dup2(os.open({errors!r}, os.O_WRONLY | os.O_CREAT), 2)
sys.argv = {words}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def start(forked):
    """`start(folder, options, ranks)` runs the script once, or as the ranks of one run; what each left."""

    def run(folder, options, ranks):
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(len(ranks))}
        running = []
        for rank in ranks:
            words = [str(SCRIPT), str(folder), json.dumps(options)]
            variables = place | {"RANK": rank, "LOCAL_RANK": rank} if len(ranks) > 1 else {}
            running.append(forked(RUN.format(variables=variables, errors=str(folder / f"{rank}.err"), words=words)))
        for rank, process in zip(ranks, running, strict=True):
            assert process.code(300) == 0, (folder / f"{rank}.err").read_text()[-3000:] or "failed"
        return [torch.load(folder / f"{rank}.pt") for rank in (ranks if len(ranks) > 1 else ["alone"])]

    return run


@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_equal_one(start, tmp_path, lora):
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


SHARDED = {"fsdp": True, "per_device_train_batch_size": 1}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared", "separate", "lora"])
def test_shared_out_weights_train_as_whole_ones(start, tmp_path, kind):
    """FSDP2: sampling, scoring, updates, evaluation of policy and reference, and a resumed checkpoint."""
    options = {"learning_rate": 1e-3, "rollout_forward_batch_size": 4, "gradient_accumulation_steps": 2}
    options |= {} if kind == "shared" else {kind: True}
    (one,) = start(tmp_path / "one", options | {"per_device_train_batch_size": 2}, ["0"])
    saving = {"save_strategy": "steps", "save_steps": 3}
    two = start(tmp_path / "two", options | SHARDED | saving, ["0", "1"])
    assert two[0]["held"] + two[1]["held"] == len(one["weights"])  # no weight is held twice
    torch.testing.assert_close(two[0]["weights"], one["weights"], rtol=0, atol=1e-5)
    for name, values in one["reports"].items():
        assert two[0]["reports"][name] == pytest.approx(values, abs=1e-4), name
    for name in ("eval", "before"):
        assert two[0][name] == pytest.approx(one[name], abs=1e-3)
    saved, whole = (load_file(path) for path in sorted(tmp_path.glob("*/*model.safetensors")))
    assert saved.keys() == whole.keys()
    assert all(torch.allclose(saved[name], whole[name], rtol=0, atol=1e-5) for name in whole)
    resumed = start(tmp_path / "again", options | SHARDED | {"resume": str(tmp_path / "two/checkpoint-3")}, ["0", "1"])
    torch.testing.assert_close(resumed[0]["weights"], two[0]["weights"], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_with_shared_out_weights_in_bfloat16_nothing_has_moved_at_the_first_update(start, tmp_path):
    """The log-probabilities that sampling noted, the reference's and those of the update are of one precision."""
    found, _ = start(tmp_path / "run", SHARDED | {"bf16": True, "per_device_train_batch_size": 2}, ["0", "1"])
    reports = found["reports"]
    assert reports["val/ratio"][0] == pytest.approx(1, abs=1e-6) and reports["policy/approxkl_avg"][0] < 1e-12
    assert reports["objective/kl"][0] == pytest.approx(0, abs=1e-6) != reports["objective/kl"][-1]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"is_fsdp_enabled": False}, "Accelerate runs MULTI_CPU here, with all weights in every process"),
        ({"fsdp_version": 1}, "this is FSDP1.*set fsdp_version: 2"),
        ({"cpu_ram_efficient_loading": True}, "the reference of the others would be empty"),
        ({"zero_stage": 3}, "which ZeRO-3 does not give it"),
    ],
)
def test_what_would_train_on_other_numbers_is_refused(state, message):
    plugin = SimpleNamespace(**{"fsdp_version": 2, "cpu_ram_efficient_loading": False} | state)
    states = SimpleNamespace(fsdp_plugin=plugin, deepspeed_plugin=plugin if "zero_stage" in state else None)
    accelerator = SimpleNamespace(state=states, distributed_type=DistributedType.MULTI_CPU)
    trainer = SimpleNamespace(
        accelerator=accelerator, args=SimpleNamespace(fsdp=True), is_fsdp_enabled=state.get("is_fsdp_enabled", True)
    )
    with pytest.raises(DataError, match=message):
        require_sharding_that_works(trainer)


def test_a_reward_that_fails_in_one_process_ends_all(start, tmp_path):
    """None waits for the others: both name the reward."""
    with pytest.raises(AssertionError, match="raise_in_the_second raised OSError: no connection"):
        start(tmp_path / "run", {"raise_in_the_second": True, "per_device_train_batch_size": 2}, ["0", "1"])
