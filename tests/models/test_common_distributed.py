"""Two processes compute what one computes: DDP through Trainer, and FSDP2, over gloo on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from distributed_step import ROWS, trainer_steps
from small_models import HEADS_WITH_LOSS

pytestmark = pytest.mark.slow  # each starts two processes that import torch and transformers: 20 CPU seconds


def in_two_processes(kind, tmp_path):
    """The results of distributed_step.py by head."""
    script, result = Path(__file__).parent / "distributed_step.py", tmp_path / "result.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, script, kind, result], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(result.read_text())


def test_two_processes_with_ddp_are_one_with_twice_the_batch(tmp_path):
    both = in_two_processes("trainer", tmp_path)
    for head in HEADS_WITH_LOSS:
        alone, together = trainer_steps(head, processes=1), both[str(head)]
        assert len(alone["history"]) == 4
        for key in ("history", "weights"):
            assert together[key] == pytest.approx(alone[key], rel=1e-5), (str(head), key)


def test_fsdp_shards_every_block_and_trains_the_same(tmp_path):
    for name, result in in_two_processes("fsdp", tmp_path).items():
        head = next(head for head in HEADS_WITH_LOSS if str(head) == name)
        assert result["losses"][0] == pytest.approx(head.model().double()(**head.labelled(ROWS)).loss.item(), rel=1e-5)
        assert result["losses"][1] < result["losses"][0]
        assert result["difference"] < 1e-5, name
