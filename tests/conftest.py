"""What every test needs before the heavy packages are imported: one thread, no network, a cache of its own."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

_HF_HOME = tempfile.mkdtemp(prefix="hftoolkit-tests-")
os.environ["HF_HOME"] = _HF_HOME
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", os.environ["HF_HUB_OFFLINE"])
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

REAL_DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure(config):
    from hypothesis import settings

    settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
    settings.load_profile("repeatable")


def pytest_unconfigure(config):
    shutil.rmtree(_HF_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads sum in another order than one, and on a busy machine they are slower."""
    if "torch" in sys.modules and sys.modules["torch"].get_num_threads() != 1:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data beside the repository; tests that need it carry the mark `realdata`."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the real data are not there: no folder {REAL_DATA}")
    return REAL_DATA


class Process:
    """Code that runs in a process of its own."""

    def __init__(self, context, code):
        self.started = context.Process(target=exec, args=(code, {}))
        self.started.start()

    def send(self, number):
        os.kill(self.started.pid, number)

    def kill(self):
        """Kill it, unless it has ended and is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.send(signal.SIGKILL)

    def code(self, seconds=120):
        """Its exit code, once it has ended."""
        self.started.join(seconds)
        assert self.started.exitcode is not None, "the process did not end"
        return self.started.exitcode


@pytest.fixture(scope="session")
def forked():
    """`forked(code)` runs code in a process forked from one that has imported everything already, and returns at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers.trainer", "hftoolkit.run", "matplotlib.figure"])
    return lambda code: Process(context, code)
