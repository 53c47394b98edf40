"""The tiny run, in this process and in processes of its own."""

import gc
import json
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


@pytest.fixture(scope="session")
def process(forked):
    """`process(folder, options)` starts tiny_run.py and returns at once.

    `before` is code that the process runs first, `script` another program that takes the same two words.
    """

    def start(folder, options=None, before="", script=SCRIPT):
        words = [str(script), str(folder), json.dumps(options or {})]
        run = f"import runpy, sys; sys.argv = {words!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
        return forked(f"{before}\n{run}")

    return start
