"""recipes/train_tokenizer.py in process: what it writes, what it says, what it refuses."""

import importlib.util
import json
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import PreTrainedTokenizerFast

from hftoolkit.errors import DataError, MachineError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "recipes/configs/tokenizer").glob("*.yaml"))


@pytest.fixture(scope="module")
def recipe():
    specification = importlib.util.spec_from_file_location("train_tokenizer", ROOT / "recipes/train_tokenizer.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def small_world(monkeypatch, tmp_path_factory):
    """Generated documents in place of the microworld's, so that only the recipe is tested here."""
    words = ["lamp", "garden", "walked", "walking", "green", "greener", "stood", "in", "the", "was"]

    def iterate_documents(seed, split, start):
        offset = {"train": 0, "validation": 7, "test": 13}[split]
        for i in count(start):
            text = " ".join(words[(i * k + offset) % 10] for k in range(1, 15)) + "."
            yield {"text": text, "log_probability": -1.0}

    source = tmp_path_factory.mktemp("small_world") / "__init__.py"
    source.write_text("another generator, for the key of the cache")
    fake = SimpleNamespace(iterate_documents=iterate_documents, __file__=str(source))
    monkeypatch.setitem(sys.modules, "hftoolkit.data.microworld", fake)


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_leaves_a_tokenizer(config, recipe, tmp_path, capsys):
    folder = tmp_path / "new"
    argv = ["--config", f"tokenizer/{config}", "--output_dir", str(folder), "--builtin_documents", "50"]
    report = recipe.main(*recipe.parse(argv))
    assert {path.name for path in folder.iterdir()} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer_report.json",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"], "no temporary folder stays"
    assert json.loads((folder / "tokenizer_report.json").read_text()) == report
    assert str(tmp_path) not in (folder / "tokenizer_report.json").read_text(), "no local path"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    assert len(tokenizer) == report["statistics"]["vocabulary"]
    assert report["statistics"]["unknown_share"] == 0 and report["measured_on"] == "validation"
    assert 1 <= report["statistics"]["tokens_per_word"] < 3
    screen = capsys.readouterr().out
    assert "tokens per word" in screen and "bytes per token" in screen and report["fingerprint"] in screen
    assert len(screen.splitlines()) < 25


def test_the_report_depends_on_data_and_arguments_only(recipe, tmp_path):
    argv = ["--kind", "unigram", "--num_sentinels", "5", "--vocab_size", "60", "--builtin_documents", "40"]
    reports = []
    for name in ("a", "b"):
        report = recipe.main(*recipe.parse([*argv, "--output_dir", str(tmp_path / name)]))
        reports.append({key: value for key, value in report.items() if key != "cpu_seconds"})
    assert reports[0] == reports[1]
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_options_reach_the_tokenizer(recipe, tmp_path):
    (tmp_path / "corpus.txt").write_text("Hello there\n\nHello again\n\nGood bye\n")
    argv = ["--kind", "word", "--dataset", str(tmp_path / "corpus.txt"), "--validation_fraction", "0"]
    argv += ["--max_length", "9", "--chat_template", "--no_lowercase", "--vocab_size", "20", "--streaming"]
    report = recipe.main(*recipe.parse([*argv, "--output_dir", str(tmp_path / "out")]))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 9 and "<|im_start|>" in tokenizer.get_vocab()
    assert tokenizer.tokenize("Hello") == ["Hello"] and tokenizer.chat_template
    assert report["dataset"] == "corpus.txt" and report["measured_on"] == "train"
    assert report["sample"] == ["Hello", "there"]


def test_another_folder_is_never_overwritten(recipe, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    argv = ["--config", "tokenizer/byte_bpe", "--output_dir", str(tmp_path)]
    with pytest.raises(SystemExit) as caught:
        recipe.parse(argv)
    assert caught.value.code == 2 and "not empty" in capsys.readouterr().err
    data_args, task_args = recipe.parse([*argv[:3], str(tmp_path / "new")])
    task_args.output_dir = str(tmp_path)
    with pytest.raises(MachineError, match="is not an empty folder"):
        recipe.main(data_args, task_args)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failure_leaves_nothing(recipe, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", fail)
    argv = ["--config", "tokenizer/wordpiece", "--builtin_documents", "50", "--output_dir", str(tmp_path / "new")]
    with pytest.raises(MachineError, match="new cannot be written.*No space left"):
        recipe.main(*recipe.parse(argv))
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_too_small_for_the_text(recipe, tmp_path):
    argv = ["--kind", "wordpiece", "--vocab_size", "10", "--output_dir", str(tmp_path / "new")]
    with pytest.raises(DataError, match="vocab_size 10 is smaller than"):
        recipe.main(*recipe.parse([*argv, "--builtin_documents", "50"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--kind", "byte_bpe", "--lowercase"], "byte_bpe keeps every character"),
        (["--kind", "word", "--num_sentinels", "5"], "only unigram has sentinels"),
        (["--kind", "byte", "--min_frequency", "5"], "bytes are all kept"),
        (["--kind", "bpe"], "byte_bpe"),
        (["--vocab_sise", "5"], "did you mean 'vocab_size'"),
        (["--vocab_size", "0"], "vocab_size"),
    ],
)
def test_wrong_arguments_end_before_anything_starts(argv, message, recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        recipe.parse([*argv, "--output_dir", str(tmp_path / "new")])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
