"""One process at a time in a run folder, and a record of what happened in it."""

import json
import os
import socket
import subprocess
import sys

import pytest

from hftoolkit.errors import DivergedError, MachineError, RunInterruptedError
from hftoolkit.training.disk import read_json
from hftoolkit.training.run_folder import LOCK_FILE, RunFolderError, RunRecord, lock


def write_lock(folder, pid, host=None):
    (folder / LOCK_FILE).write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))


def dead_process():
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def test_the_lock_names_its_owner_and_goes_with_it(tmp_path):
    with lock(tmp_path):
        assert read_json(tmp_path / LOCK_FILE) == {"pid": os.getpid(), "host": socket.gethostname()}
    assert list(tmp_path.iterdir()) == []


def test_a_living_process_keeps_its_folder(tmp_path):
    write_lock(tmp_path, os.getppid())
    with pytest.raises(RunFolderError, match=f"in use by process {os.getppid()} on ") as caught, lock(tmp_path):
        pass
    assert caught.value.exit_code == 2 and (tmp_path / LOCK_FILE).exists()


def test_another_host_keeps_its_folder(tmp_path):
    write_lock(tmp_path, 1, "another-host")
    with pytest.raises(RunFolderError, match="on another-host: wait for it.*delete"), lock(tmp_path):
        pass


@pytest.mark.parametrize("content", [None, "", "{", "[]"], ids=["dead process", "empty", "half", "list"])
def test_a_stale_lock_is_taken_over(tmp_path, content):
    write_lock(tmp_path, dead_process())
    if content is not None:
        (tmp_path / LOCK_FILE).write_text(content)
    with lock(tmp_path):
        assert read_json(tmp_path / LOCK_FILE)["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_try_at_once_one_succeeds(tmp_path):
    """Each process holds the folder until all have tried, so two winners would be two at once."""
    script = (
        "import sys; from hftoolkit.training.run_folder import lock, RunFolderError\n"
        "sys.stdin.readline()\n"
        "try:\n    with lock(sys.argv[1]): print('held', flush=True); sys.stdin.readline()\n"
        "except RunFolderError: print('refused', flush=True)"
    )
    write_lock(tmp_path, dead_process())
    command = [sys.executable, "-c", script, str(tmp_path)]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate("\n")
    assert sorted(answers) == ["held", "refused", "refused"]


def test_a_record_adds_up_the_time_of_all_starts(tmp_path):
    RunRecord(tmp_path, seed=1).write(steps=3)
    first = read_json(tmp_path / "run.json")
    (tmp_path / "run.json").write_text(json.dumps(first | {"wall_seconds": 100.0, "cpu_seconds": 50.0}))
    RunRecord(tmp_path, seed=1).write(status="done")
    second = read_json(tmp_path / "run.json")
    assert first["status"] == "running" and first["steps"] == 3 and second["format"] == 1
    assert 100 <= second["wall_seconds"] < 105 and 50 <= second["cpu_seconds"] < 55


def test_a_change_of_the_machine_is_told(tmp_path, caplog):
    RunRecord(tmp_path, threads=1, seed=1).write()
    RunRecord(tmp_path, threads=1, seed=2)
    assert caplog.text == ""
    RunRecord(tmp_path, threads=4)
    assert "threads: 1 before, 4 now; the run goes on, with other roundings" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DivergedError("nan"), "diverged", 4),
        (RunInterruptedError("stop"), "interrupted", 75),
        (MachineError("full"), "failed", 6),
        (ZeroDivisionError("bug"), "failed", 1),
        (KeyboardInterrupt(), "failed", 1),
    ],
)
def test_the_end_is_recorded(tmp_path, error, status, code):
    RunRecord(tmp_path).write_end(error)
    record = read_json(tmp_path / "run.json")
    assert (record["status"], record["exit_code"]) == (status, code) and type(error).__name__ in record["reason"]


def test_a_folder_that_is_gone_is_not_made_again(tmp_path):
    RunRecord(tmp_path / "gone").write_end(MachineError("gone"))
    assert not (tmp_path / "gone").exists()
