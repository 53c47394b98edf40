"""What run_training refuses before it changes anything: other runs' folders, and data that give nothing."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from hftoolkit.errors import DataError, MachineError
from hftoolkit.run import run_training
from hftoolkit.training.disk import read_json
from hftoolkit.training.run_folder import RunFolderError

sys.path.insert(0, str(Path(__file__).parent / "training"))
from tiny_run import content, tiny_trainer  # noqa: E402


def start_with(folder, given, **options):
    """A trainer as parse_arguments would have described it."""
    trainer = tiny_trainer(folder, max_steps=2, save_strategy="no", **options)
    trainer.args.given_arguments = given
    return trainer


@pytest.mark.parametrize("status", ["done", "interrupted"])
def test_other_arguments_do_not_continue_a_run(tmp_path, status):
    run_training(start_with(tmp_path, {"max_steps": 2, "learning_rate": 0.01}))
    record = read_json(tmp_path / "run.json")
    assert record["given"] == {"max_steps": 2, "learning_rate": 0.01}
    (tmp_path / "run.json").write_text(json.dumps(record | {"status": status}))
    other = start_with(tmp_path, {"max_steps": 2, "learning_rate": 0.02, "weight_decay": 0.1, "logging_steps": 5})
    before = content(tmp_path)
    with pytest.raises(
        RunFolderError, match="learning_rate was 0.01 and is 0.02; weight_decay was 0.0 and is 0.1"
    ) as e:
        run_training(other)
    assert e.value.exit_code == 2 and "logging_steps" not in str(e.value) and content(tmp_path) == before
    other.args.allowed_changes = ["learning_rate", "weight_decay"]
    assert run_training(other)["steps"] == 2


def test_a_folder_of_another_program_is_refused(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    with pytest.raises(RunFolderError, match="holds checkpoints of another program"):
        run_training(tiny_trainer(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({"pid": os.getppid(), "host": os.uname().nodename}))
    with pytest.raises(RunFolderError, match=f"in use by process {os.getppid()}"):
        run_training(tiny_trainer(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_an_output_folder_that_became_a_file_is_refused(tmp_path):
    trainer = tiny_trainer(tmp_path / "run")
    (tmp_path / "run").rmdir()
    (tmp_path / "run").write_text("x")
    with pytest.raises(MachineError, match="is a file") as caught:
        run_training(trainer)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES], ids=["read-only", "of another user"])
def test_f51_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, number):
    """Root may write anywhere, so the system's refusal is played."""

    def refuse(path, *_):
        raise OSError(number, os.strerror(number), str(path))

    trainer = tiny_trainer(tmp_path)
    monkeypatch.setattr("hftoolkit.training.disk.write_whole", refuse)
    with pytest.raises(MachineError, match=f"cannot be written: {os.strerror(number)}; choose another one") as caught:
        run_training(trainer)
    assert caught.value.exit_code == 6 and list(tmp_path.iterdir()) == [] and trainer.state.global_step == 0


@pytest.mark.parametrize("rows", [[], None], ids=["empty", "none"])
def test_without_data_nothing_starts(tmp_path, rows):
    trainer = tiny_trainer(tmp_path)
    trainer.train_dataset = rows
    with pytest.raises(DataError, match="not a single row"):
        run_training(trainer)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_gives_nothing_is_no_success(tmp_path):
    class Nothing(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(DataError, match="the stream ended before its first row"):
        run_training(tiny_trainer(tmp_path, rows=Nothing()))
