"""Files appear whole or not at all, and what the machine refuses is said in words."""

import errno
import json
import math
import resource

import numpy
import pytest
import torch

from hftoolkit.errors import MachineError
from hftoolkit.training import disk


@pytest.fixture
def small_files():
    """No file may grow beyond 2000 bytes: what is written meets a real failure in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_the_old_file(tmp_path, small_files):
    path = tmp_path / "results.json"
    disk.write_json(path, {"loss": 1.5})
    with pytest.raises(MachineError, match="could not be written.*File too large") as caught, disk.explained(tmp_path):
        disk.write_whole(path, b"x" * 5000)
    assert caught.value.exit_code == 6
    assert disk.read_json(path) == {"loss": 1.5}
    assert [found.name for found in tmp_path.iterdir()] == ["results.json"]


def test_torch_and_safetensors_say_it_in_their_own_words(tmp_path, small_files):
    from safetensors.torch import save_file

    tensors = {"weight": torch.zeros(2000)}
    for save in (torch.save, save_file):
        with pytest.raises(MachineError, match="MB are free"), disk.explained(tmp_path):
            save(tensors, tmp_path / "weights")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_refusals_of_the_system_are_explained(tmp_path, number):
    with pytest.raises(MachineError), disk.explained(tmp_path):
        raise OSError(number, "refused", str(tmp_path / "file"))


def test_a_vanished_folder_is_explained(tmp_path):
    with pytest.raises(MachineError, match="is gone"), disk.explained(tmp_path / "run"):
        disk.write_json(tmp_path / "run" / "run.json", {})


def test_other_errors_pass(tmp_path):
    for error in (RuntimeError("shape"), ValueError("no"), OSError(errno.ECONNRESET, "reset")):
        with pytest.raises(type(error)), disk.explained(tmp_path):
            raise error


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(MachineError, match="is a file"):
        disk.require_writable(tmp_path / "run")


def test_too_little_space_is_refused_before_training(tmp_path):
    disk.require_space(tmp_path, 1000)
    with pytest.raises(MachineError, match="of which three must fit"):
        disk.require_space(tmp_path, 10**18)


def test_json_has_no_nan_and_no_secret(tmp_path):
    value = {
        "loss": math.nan,
        "best": numpy.float32(1.5),
        "steps": torch.tensor(3),
        "hub_token": "hf_x",
        "nats_per_token": 1.25,
        "path": tmp_path,
    }
    disk.write_json(tmp_path / "a.json", value | {"inner": [{"push_token": 1, "infinite": -math.inf}]})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {
        **{"loss": None, "best": 1.5, "steps": 3, "path": str(tmp_path), "nats_per_token": 1.25},
        "inner": [{"infinite": None}],
    }
