"""The built-in documents: those of the generator, written once, whoever writes them."""

import pytest

from hftoolkit.arguments import DataArguments
from hftoolkit.data import builtin, microworld
from hftoolkit.data.text import load_documents


def rows(**options):
    return {name: list(split) for name, split in load_documents(DataArguments(**options)).items()}


def test_they_are_the_generators(monkeypatch):
    """Blocks join without a seam; the numbers come through unchanged."""
    monkeypatch.setattr(builtin, "BLOCK", 7)
    for split, documents in rows(builtin_documents=25, builtin_seed=4, validation_fraction=0.4).items():
        expected = microworld.make_documents(25 if split == "train" else 10, seed=4, split=split)
        assert documents == [{key: row[key] for key in ("text", "log_probability")} for row in expected]


def test_several_processes_write_the_same(monkeypatch):
    monkeypatch.setattr(builtin, "BLOCK", 5)
    options = {"builtin_documents": 23, "builtin_seed": 5, "validation_fraction": 0.0}
    by_two = rows(**options, preprocessing_num_workers=2)
    monkeypatch.setattr(builtin, "BLOCK", 6)  # another key, so that it is written again
    assert rows(**options) == by_two and len(by_two["train"]) == 23


def test_they_are_written_once_by_one_generator(monkeypatch):
    calls = []
    really = microworld.iterate_documents
    monkeypatch.setattr(microworld, "iterate_documents", lambda *given: calls.append(given) or really(*given))
    options = {"builtin_documents": 9, "builtin_seed": 6, "validation_fraction": 0.0}
    first = rows(**options)
    assert rows(**options) == first and calls == [(6, "train", 0)]
    monkeypatch.setattr(builtin, "_version", lambda: "of another generator")
    assert rows(**options) == first and len(calls) == 2


def test_the_version_follows_the_source(monkeypatch, tmp_path):
    before = builtin._version()
    monkeypatch.setattr(microworld, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "words.py").write_text("lamp")
    assert builtin._version() != before


@pytest.mark.parametrize("streaming", [False, True])
def test_the_limit_counts(streaming):
    found = rows(builtin_documents=30, max_documents=4, validation_fraction=0.5, streaming=streaming)
    assert {name: len(split) for name, split in found.items()} == {"train": 4, "validation": 2, "test": 2}
