"""Several runs under one folder: its record, its lock, and what a part is told."""

import json

import pytest
from transformers import TrainingArguments

from hftoolkit.errors import DataError
from hftoolkit.training.run_folder import RunFolderError, lock
from hftoolkit.training.series import finished_results, part_arguments, series


@pytest.fixture
def arguments(tmp_path):
    args = TrainingArguments(str(tmp_path / "whole"), use_cpu=True, seed=3)
    args.given_arguments = {"seed": 3, "learning_rate": 0.1}
    return args


def record(arguments):
    with open(f"{arguments.output_dir}/run.json", encoding="utf-8") as file:
        return json.load(file)


def test_the_record_says_running_then_done(arguments):
    with series(arguments, ()):
        assert record(arguments)["status"] == "running" and record(arguments)["given"] == arguments.given_arguments
    assert record(arguments)["status"] == "done" and record(arguments)["exit_code"] == 0


def test_the_record_says_how_it_failed(arguments):
    with pytest.raises(DataError), series(arguments, ()):
        raise DataError("a bad row")
    found = record(arguments)
    assert found["status"] == "failed" and found["exit_code"] == 3 and "a bad row" in found["reason"]


def test_only_one_process_may_use_it(arguments, monkeypatch):
    monkeypatch.setattr("hftoolkit.training.run_folder.is_alive", lambda pid: True)
    monkeypatch.setattr("hftoolkit.training.run_folder.os.getpid", lambda: 1)
    with series(arguments, ()):
        monkeypatch.setattr("hftoolkit.training.run_folder.os.getpid", lambda: 2)
        with pytest.raises(RunFolderError, match="in use by process 1"), series(arguments, ()):
            pass
        monkeypatch.setattr("hftoolkit.training.run_folder.os.getpid", lambda: 1)
    with lock(arguments.output_dir):
        pass


def test_a_part_has_its_own_folder_seed_and_repository(arguments):
    arguments.hub_model_id = "anna/glue"
    part = part_arguments(arguments, "sst2/seed-4", seed=4, task="sst2")
    assert part.output_dir == f"{arguments.output_dir}/sst2/seed-4" and part.seed == 4
    assert part.hub_model_id == "anna/glue-sst2-seed-4"
    assert part.given_arguments == {"seed": 4, "learning_rate": 0.1, "task": "sst2"}
    assert arguments.seed == 3 and arguments.given_arguments["seed"] == 3 and arguments.hub_model_id == "anna/glue"


def test_only_a_finished_part_has_results(arguments):
    part = part_arguments(arguments, "a")
    assert finished_results(part) is None
    with series(part, ()):
        with open(f"{part.output_dir}/all_results.json", "w", encoding="utf-8") as file:
            json.dump({"eval_loss": 1.5}, file)
        assert finished_results(part) is None
    assert finished_results(part) == {"eval_loss": 1.5}
