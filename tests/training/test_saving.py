"""What was whole stays whole when a save meets a full disk or a folder that is gone, and nothing else comes to exist."""

import json
import resource
import shutil

import pytest
from tiny_run import At, tiny_model, tiny_trainer, weights_hash
from transformers import AutoModelForCausalLM, PretrainedConfig

from hftoolkit.errors import MachineError
from hftoolkit.run import run_training
from hftoolkit.training.checkpoints import faults, list_checkpoints
from hftoolkit.training.disk import read_json
from hftoolkit.training.saving import exported_config


@pytest.fixture
def limit_files():
    """Call it with bytes: from then on no file may grow beyond them, as on a full disk; None lifts the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [12_000, 30_000], ids=["in the weights", "in the optimizer"])
def test_a_full_disk_costs_no_older_checkpoint(tmp_path, limit_files, caplog, size):
    trainer = tiny_trainer(tmp_path / "a", save_total_limit=1, callbacks=[At(7, lambda: limit_files(size))])
    with pytest.raises(MachineError, match="could not be written.*MB are free") as caught:
        run_training(trainer)
    limit_files(None)
    assert caught.value.exit_code == 6 and "tried once more" in caplog.text
    assert [path.name for path in list_checkpoints(tmp_path / "a")] == ["checkpoint-5"]
    assert faults(tmp_path / "a" / "checkpoint-5") == []
    assert not [path.name for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]
    record = read_json(tmp_path / "a" / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 6)
    run_training(tiny_trainer(tmp_path / "a", save_total_limit=1))
    run_training(tiny_trainer(tmp_path / "b"))
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")


def test_space_that_returns_is_used(tmp_path, limit_files, monkeypatch):
    """The second attempt, after what the first one left is removed, succeeds."""
    plain_remove = shutil.rmtree

    def remove(*args, **kwargs):
        limit_files(None)
        plain_remove(*args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", remove)
    run_training(tiny_trainer(tmp_path, callbacks=[At(7, lambda: limit_files(12_000))]))
    assert all(faults(path) == [] for path in list_checkpoints(tmp_path)) and len(list_checkpoints(tmp_path)) == 3


def test_a_folder_deleted_while_running_is_not_made_again(tmp_path):
    trainer = tiny_trainer(tmp_path / "run", callbacks=[At(7, lambda: shutil.rmtree(tmp_path / "run"))])
    with pytest.raises(MachineError, match="was deleted or replaced while the run was using it"):
        run_training(trainer)
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_only_as_many_checkpoints_as_asked(tmp_path):
    run_training(tiny_trainer(tmp_path, save_steps=2, save_total_limit=2))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-12", "checkpoint-14"]


def test_checkpoints_and_model_load_and_generate_with_a_cache(tmp_path):
    trainer = tiny_trainer(tmp_path)
    run_training(trainer)
    for folder in (tmp_path, tmp_path / "checkpoint-10"):
        assert json.loads((folder / "config.json").read_text())["use_cache"] is True
        assert AutoModelForCausalLM.from_pretrained(folder).config.use_cache is True


def test_a_config_that_knows_no_cache_gets_none():
    class Plain(PretrainedConfig):
        def __init__(self, size=3, **kwargs):
            self.size = size
            super().__init__(**kwargs)

    model = tiny_model()
    model.config = Plain()
    model.config.use_cache = False  # as Trainer does with every config
    with exported_config(model):
        assert "use_cache" not in model.config.to_dict()
    assert model.config.use_cache is False
