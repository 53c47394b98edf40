"""The tiny run, in this process and in processes of its own."""

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tiny_run

SCRIPT = Path(__file__).with_name("tiny_run.py")


@pytest.fixture(scope="session", autouse=True)
def imported_objects_are_not_searched():
    """Each run collects garbage once; without the objects of the imported packages that takes a tenth of the time."""
    import hftoolkit.run  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Drawing curves.png would take longer than the tiny run; tests/test_run.py has it drawn."""
    monkeypatch.setattr("hftoolkit.run.plot_curves", lambda *args, **kwargs: None)


class Process:
    """A process that runs tiny_run.py."""

    def __init__(self, context, code):
        self.started = context.Process(target=exec, args=(code, {}))
        self.started.start()

    def send(self, number):
        os.kill(self.started.pid, number)

    def kill(self):
        """Kill it, unless it has ended and is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)

    def code(self):
        """Its exit code, once it has ended."""
        self.started.join(120)
        assert self.started.exitcode is not None, "the process did not end"
        return self.started.exitcode


@pytest.fixture(scope="session")
def process():
    """Start tiny_run.py in a process forked from one that has imported everything already.

    `process(folder, options)` returns at once; `before` is code that the process runs first, `script` another program
    that takes the same two words.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers.trainer", "hftoolkit.run", "matplotlib.figure"])

    def start(folder, options=None, before="", script=SCRIPT):
        words = [str(script), str(folder), json.dumps(options or {})]
        run = f"import runpy, sys; sys.argv = {words!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
        return Process(context, f"{before}\n{run}")

    return start
