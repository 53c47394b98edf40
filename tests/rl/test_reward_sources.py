"""Reward functions in files of the user's own."""

import sys

import pytest

from hftoolkit.errors import DataError
from hftoolkit.rl.reward_sources import load_reward

DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Scale:
    factor: float

def length(completions, **columns):
    return [Scale(2.0).factor * len(text) for text in completions]
"""


def test_a_file_is_a_module_that_shadows_none(tmp_path):
    """Dataclasses look their module up; a file that is called as one of the standard library's does not hide it."""
    (tmp_path / "json.py").write_text(DATACLASS)
    import json

    found = [load_reward(f"{tmp_path}/json.py:length") for _ in range(2)]
    assert [function(completions=["abc"]) for function in found] == [[6.0], [6.0]]
    assert sys.modules["json"] is json
    modules = {sys.modules[function.__module__].__file__ for function in found}
    assert modules == {f"{tmp_path}/json.py"} and found[0].__module__ != found[1].__module__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def length(:\n    pass\n", r"mine.py:1: the reward file cannot be run, SyntaxError: invalid syntax"),
        ("import os\n\nos.nothing\n", r"mine.py:3: .*AttributeError: module 'os' has no attribute 'nothing'"),
        ("import no_such_module\n", r"mine.py:1: .*ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_file_that_cannot_be_run_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    before = set(sys.modules)
    with pytest.raises(DataError, match=message):
        load_reward(f"{tmp_path}/mine.py:length")
    assert not {name for name in set(sys.modules) - before if "mine" in name}
