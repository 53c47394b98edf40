"""Configuration files and inputs that are missing or broken (f07, f08, f09)."""

from pathlib import Path

import pytest

from hftoolkit.arguments import ModelArguments, parse_arguments
from hftoolkit.arguments.near_names import near_files
from hftoolkit.strict_yaml import MAX_BYTES, parse_yaml, to_python

MODEL = "architecture: gpt\n"

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        (b"# only a comment\n", "1:1", "the file is empty; it holds one 'key: value' per line"),
        (b" \n", "1:1", "the file is empty; it holds one 'key: value' per line"),
        (b"- a\n- b\n", "1:1", "the file holds a list; 'key: value' lines are expected"),
        (b"hello\n", "1:1", "the file holds text; 'key: value' lines are expected"),
        (b"seed: 1\n\tlr: 2\n", "2:1", "a tab stands here; YAML is indented with spaces"),
        (b"seed: 1\nmax:2\nbf16: true\n", "2:1", "'key: value' is expected; a ':' followed by a space is missing"),
        (b"note: 'open\n", "1:7", "a quote or bracket is not closed"),
        (b"words: [a, b\n", "1:8", "a ',' or a closing bracket is missing"),
        (
            b"seed: 1\n  max_steps: 2\n",
            "2:12",
            "a second ': ' in one line, or wrong indentation; text with ': ' needs quotes",
        ),
        (b"seed: \xff1\n", "1:7", "not UTF-8: byte 0xff at offset 6; save the file as UTF-8"),
        (
            b"\xef\xbb\xbfseed: 1\nnote: \xe9t\xe9\n",
            "2:7",
            "not UTF-8: byte 0xe9 at offset 17; save the file as UTF-8",
        ),
        ("seed: 1".encode("utf-16"), "1:1", "the file is UTF-16; save it as UTF-8"),
        (b"seed: \x001\n", "1:7", "the character U+0000 is not allowed"),
        (b"a: 1\n---\nb: 2\n", "2:1", "a second document begins here; a configuration is one document"),
        (b"<<: {a: 1}\n", "1:1", "'<<' is not part of YAML 1.2; write the keys out"),
        (b"a: *b\n", "1:4", "the alias *b has no anchor &b before it"),
        (b"a: &a [*a]\n", "1:8", "the alias *a has no anchor &a before it"),
        (BOMB.encode(), "5:8", "more than 4,000 values: it is no configuration"),
        (b"a: &a 1\nb: [" + b"*a, " * 101 + b"]\n", "2:405", "more than 100 aliases"),
        (b"a: " + b"[" * 100_000, "1:23", "nested more than 20 deep"),
        (b"x" * (MAX_BYTES + 1), "1:1", "the file is larger than 1,000,000 bytes: it is no configuration"),
        (b"? [a]\n: 1\n", "1:3", "a key must be text"),
    ],
)
def test_f07_unreadable_files_are_one_line_each(refused, data, place, message):
    assert refused(data) == [f"c.yaml:{place}  {message}"]


def test_f07_a_byte_order_mark_and_windows_line_ends_are_fine(small):
    Path("c.yaml").write_bytes(b"\xef\xbb\xbfseed: 7\r\nnote: 'a b'\r\n")
    task, stock = parse_arguments(*small, argv=["--config", "c.yaml"])
    assert (stock.seed, task.note) == (7, "a b")


def test_f07_a_few_aliases_are_fine():
    assert to_python(parse_yaml(b"a: &x [1, 2]\nb: [*x, *x]\n")[0]) == {"a": [1, 2], "b": [[1, 2], [1, 2]]}


def test_f08_tags_are_refused_and_not_run(refused):
    text = "note: !!python/object/apply:os.system ['touch pwned']\n"
    assert refused(text) == ["c.yaml:1:7  tags are not allowed: !!python/object/apply:os.system"]
    assert refused("note: !!str 5\n") == ["c.yaml:1:7  tags are not allowed: !!str"]
    assert not Path("pwned").exists()


def test_f09_configuration_that_cannot_be_found_names_what_is_near(refused):
    Path("configs").mkdir()
    Path("configs/base.yaml").write_text("seed: 1\n")
    assert refused("", "--config", "configs/bass.yaml") == [
        "command line  there is no configuration 'configs/bass.yaml'; did you mean 'configs/base.yaml'?"
    ]
    assert refused("", "--config", "gpt/tyni") == [
        "command line  there is no configuration 'gpt/tyni'; did you mean 'gpt/tiny'?"
    ]
    assert refused("", "--config", "recipes/configs/gpt/tiny.yaml") == [
        "command line  there is no configuration 'recipes/configs/gpt/tiny.yaml'; the packaged one is called 'gpt/tiny'"
    ]
    assert refused("", "--config", "confgs/base.yaml") == [
        "command line  there is no configuration 'confgs/base.yaml'; there is no folder 'confgs'; did you mean 'configs'?"
    ]
    assert refused("", "--config", "configs") == [
        "command line  --config 'configs' is a folder; name a file in it: base.yaml"
    ]
    assert refused("", "--config", "configs/base.yaml", "configs/x.yaml")[0] == "command line  --config needs one file"
    assert refused("", "configs/base.yaml")[0] == (
        "command line  unexpected word 'configs/base.yaml'; did you mean --config configs/base.yaml?"
    )


def test_f09_a_file_without_permission_is_an_error_not_a_traceback(refused, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("hftoolkit.arguments.reading.open", forbidden, raising=False)
    assert refused("seed: 1\n") == ["command line  --config 'c.yaml' cannot be read: Permission denied"]


def test_f09_a_packaged_configuration_is_found_by_name(small):
    model, task = parse_arguments(ModelArguments, small[0], argv=["--config", "gpt/tiny"])
    assert model.architecture == "gpt"
    assert task.max_length == 16


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset", "data/trian.jsonl", "there is no 'data/trian.jsonl'; did you mean 'data/train.jsonl'?"),
        ("dataset", "./trian", "there is no './trian'; '.' holds c.yaml, data, model"),
        ("dataset", "data/trian", "there is no 'data/trian'; did you mean 'data/train.jsonl'?"),
        ("dataset", "bultin", "there is no data set 'bultin'; did you mean 'builtin'?"),
        ("dataset", "glue", "a data set on the Hub is written owner/name; did you mean 'nyu-mll/glue'?"),
        (
            "dataset",
            "zzz",
            "there is no data set 'zzz'; give 'builtin', a file or folder, or owner/name on the Hub",
        ),
        ("tokenizer", "byte_bqe", "there is no tokenizer 'byte_bqe'; did you mean 'byte_bpe'?"),
        ("tokenizer", "data/train.jsonl", "the tokenizer 'data/train.jsonl' is a file; give the folder that holds it"),
        ("model_name_or_path", "modle", "there is no model 'modle'; did you mean 'model'?"),
        (
            "model_name_or_path",
            "gpt2",
            "a model on the Hub is written owner/name; did you mean 'openai-community/gpt2'?",
        ),
        ("model_name_or_path", "/nowhere/x", "there is no '/nowhere/x'; there is no folder '/nowhere'"),
        ("model_name_or_path", "runs/gpt", "there is no 'runs/gpt'; there is no folder 'runs'"),
        ("prompts", "data/prompt.txt", "there is no 'data/prompt.txt'; '"),
    ],
)
def test_f09_missing_inputs_name_what_is_near(refused, key, value, message):
    Path("data").mkdir()
    Path("data/train.jsonl").write_text("{}\n")
    Path("model").mkdir()
    lines = refused(("" if key.startswith("model") else MODEL) + f"{key}: {value}\n")
    assert len(lines) == 1 and lines[0].split("  ", 1)[1].startswith(f"'{key}': {message}"), lines


def test_f09_paths_and_hub_ids_that_may_be_right_pass(refused):
    Path("data").mkdir()
    for value in ("data", "builtin", "nyu-mll/glue", "c.yaml"):
        assert refused(MODEL + f"dataset: {value}\ntokenizer: byte_bpe\nxx: 1\n") == [
            "c.yaml:4:1  unknown key 'xx'; --help lists the keys"
        ]


def test_near_files_of_a_folder_with_many():
    for number in range(9):
        Path(f"n{number}").touch()
    assert near_files("./zzzzzz") == "; '.' holds n0, n1, n2, n3, n4, ..."
