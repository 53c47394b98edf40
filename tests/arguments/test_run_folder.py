"""The run folder: resumed, finished, in use, or somebody else's."""

import json
import os
import platform
from pathlib import Path

import pytest

from hftoolkit.arguments import checks
from hftoolkit.arguments.output_folder import differences, lock_owner


def make_run(folder, given, status="interrupted"):
    Path(folder).mkdir(parents=True)
    Path(folder, "run.json").write_text(json.dumps({"given": given, "status": status}))


def test_an_equal_unfinished_run_is_resumed_whatever_is_reported(parse):
    make_run("runs/a", {"seed": 1, "output_dir": "elsewhere", "logging_steps": 5})
    _, stock = parse("seed: 1\noutput_dir: runs/a\n")
    assert stock.output_dir == "runs/a"


def test_a_finished_equal_run_ends_with_0(capsys, parse):
    make_run("runs/a", {"seed": 42}, "done")
    with pytest.raises(SystemExit, match="0"):
        parse("output_dir: runs/a\n")
    assert capsys.readouterr() == ("already done: runs/a\n", "")


def test_another_run_in_the_folder_names_every_difference(refused, parse, small):
    make_run("runs/a", {"seed": 1, "learning_rate": 1e-3, "lr_scheduler_kwargs": {"power": 2}})
    text = "seed: 2\nlr_scheduler_kwargs: {power: 3}\noutput_dir: runs/a\n"
    end = "give another --output_dir, or --allow_change"
    assert refused(text, classes=small) == [
        f"c.yaml:3:13  'learning_rate' was 0.001 in the run in 'runs/a', now 5e-05; {end} learning_rate",
        f"c.yaml:3:13  'lr_scheduler_kwargs.power' was 2 in the run in 'runs/a', now 3; {end} lr_scheduler_kwargs.power",
        f"c.yaml:3:13  'seed' was 1 in the run in 'runs/a', now 2; {end} seed",
    ]
    _, stock = parse(text, "--allow_change", "seed", "learning_rate", "lr_scheduler_kwargs")
    assert stock.allowed_changes == ["seed", "learning_rate", "lr_scheduler_kwargs"]
    assert refused(text, "--allow_change", "sed", classes=small)[-1] == (
        "command line  --allow_change: unknown key 'sed'; did you mean 'seed'?"
    )


def test_the_default_given_and_not_given_are_the_same():
    assert differences({}, {"seed": 42}, {"seed": 42}, set()) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2}}, {}, {"a"}) == []
    assert differences({"a": 1}, {}, {}, set()) == [("a", 1, "(not given)")]


@pytest.mark.parametrize(
    ("prepare", "code", "message"),
    [
        (lambda: Path("out/x").mkdir(parents=True), 2, "'out' is not empty and holds no run of hftoolkit (run.json)"),
        (lambda: Path("out").write_text(""), 6, "'out' is a file"),
        (lambda: make_run("out", []), 2, "'out/run.json' is damaged"),
        (lambda: (make_run("out", {}), Path("out/run.json").write_text("{")), 2, "'out/run.json' is damaged"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(refused, prepare, code, message, small):
    prepare()
    expected = f"command line  {message}; give another --output_dir"
    assert refused("", "--output_dir", "out", classes=small, code=code) == [expected]


def test_a_folder_that_cannot_be_written_ends_with_code_6(refused, monkeypatch, small):
    monkeypatch.setattr("hftoolkit.arguments.output_folder.os.access", lambda *args: False)
    assert refused("", "--output_dir", "new/run", classes=small, code=6) == [
        "command line  'new/run' cannot be written; give another --output_dir"
    ]


@pytest.mark.parametrize("folder", ["new/run", "empty"])
def test_new_and_empty_folders_are_fine_and_not_made(folder, parse):
    Path("empty").mkdir()
    Path("empty/.gitkeep").touch()
    parse("", "--output_dir", folder)
    assert not Path("new").exists()


def test_a_run_in_use_is_refused(refused, monkeypatch, parse, small):
    make_run("out", {})
    lock = {"pid": os.getppid(), "host": platform.node()}
    Path("out/.lock").write_text(json.dumps(lock))
    assert refused("", "--output_dir", "out", classes=small) == [
        f"command line  'out' is in use by process {os.getppid()}; wait for it, or give another --output_dir"
    ]
    monkeypatch.setenv("RANK", "1")
    parse("", "--output_dir", "out")  # the lock is that of rank 0 of this very launch


@pytest.mark.parametrize(
    "lock", [{"pid": 2**22 + 1, "host": platform.node()}, {"pid": 1, "host": "other"}, {}, [], {"pid": "x"}]
)
def test_a_dead_or_foreign_lock_is_no_obstacle(lock, parse):
    """And it is left as it is: the run itself takes it over."""
    make_run("out", {})
    Path("out/.lock").write_text(json.dumps(lock))
    assert parse("", "--output_dir", "out")[1].output_dir == "out"
    assert lock_owner("out") is None
    assert json.loads(Path("out/.lock").read_text()) == lock


def test_evaluation_may_change_unless_the_choice_of_the_model_hangs_on_it():
    assert "eval_steps" in checks.inert_keys({}) and "seed" not in checks.inert_keys({})
    assert "eval_steps" not in checks.inert_keys({"load_best_model_at_end": True})
