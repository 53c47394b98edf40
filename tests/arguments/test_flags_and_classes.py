"""Flags in all their forms, and how several classes share them."""

from dataclasses import dataclass, field

import pytest

from hftoolkit.arguments import ModelArguments, parse_arguments

MODEL = "architecture: gpt\n"


def test_flags_in_all_their_forms(parse):
    words = (
        "--seed=3 --label-names a b --no_bf16 --lr_scheduler_kwargs.min_lr 1e-5 --sizes 1 -2 --temperature 1e-1 --note"
    )
    task, stock = parse("", *words.split(), "", "--kind", "short")
    assert (stock.seed, stock.label_names, stock.bf16) == (3, ["a", "b"], False)
    assert stock.lr_scheduler_kwargs == {"min_lr": 1e-5}
    assert (task.sizes, task.temperature, task.note, task.kind) == ([1, -2], 0.1, "", "short")


def test_flags_override_the_file_and_parts_are_merged(parse):
    text = "seed: 1\nlr_scheduler_kwargs:\n  min_lr: 1e-5\n  power: 2\n"
    _, stock = parse(text, "--seed", "2", "--lr_scheduler_kwargs.power", "3")
    assert stock.seed == 2 and stock.lr_scheduler_kwargs == {"min_lr": 1e-5, "power": 3}
    _, stock = parse(text, "--lr_scheduler_kwargs", "{min_lr: 0.5}")
    assert stock.lr_scheduler_kwargs == {"min_lr": 0.5}
    assert stock.given_arguments == {"seed": 1, "lr_scheduler_kwargs": {"min_lr": 0.5}}


def test_wrong_flags(refused):
    lines = refused(
        "",
        *["--max_steps", "--no_max_steps", "--streaming", "maybe", "--seed", "1", "2", "--seed.x", "3", "--revision"],
    )
    assert [line.split("  ", 1)[1] for line in lines] == [
        "unknown key 'no_max_steps'; did you mean 'max_steps'?",
        "'streaming' must be true or false, got 'maybe'",
        "'seed' is no mapping, so there is no 'seed.x'",
        "--max_steps needs a value",
        "unexpected word '2' after --seed",
        "--revision needs a value",
        "no model: give 'architecture' (from scratch) or 'model_name_or_path' (a checkpoint)",
    ]


def test_model_config_from_file_and_flags_is_merged(parse, small):
    text = MODEL + "model_config: {hidden_size: 64, order: post, num_labels: 3}\n"
    model, _ = parse(
        text, "--model_config.hidden_size", "128", "--model_config.dropout", "0", classes=(ModelArguments, small[1])
    )
    assert model.model_config == {"hidden_size": 128, "order": "post", "num_labels": 3, "dropout": 0.0}


def test_a_key_of_several_classes_reaches_all(parse, small):
    @dataclass
    class Second:
        max_length: int = 7
        required: int = field(metadata={"help": "needed"}, kw_only=True)

    task, second = parse("max_length: 9\nrequired: 1\n", classes=(small[0], Second))
    assert (task.max_length, second.max_length) == (9, 9)


def test_a_missing_required_key(refused, small):
    @dataclass
    class Second:
        required: int = field(metadata={"help": "number of things"})

    assert refused("seed: 1\n", classes=(Second, small[1])) == ["c.yaml  'required' is missing: number of things"]


def test_what_a_constructor_refuses_is_one_line(refused, small):
    assert refused("bf16: true\n", classes=small) == ["c.yaml  fakestock.Config: bf16 needs a GPU\\nor use_cpu"]


def test_a_stock_package_that_is_missing_ends_with_code_6(refused):
    assert refused("", classes=("nosuchpackage.Config",), code=6) == [
        "command line  the package nosuchpackage is not installed; install it: pip install hftoolkit"
    ]
    assert refused("", classes=("fakestock.Konfig",), code=6) == [
        "command line  the installed fakestock has no class fakestock.Konfig; install it: pip install hftoolkit"
    ]


def test_only_rank_0_prints(capsys, monkeypatch, parse):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit, match="2"):
        parse("xx: 1\n")
    assert capsys.readouterr() == ("", "")


def test_help_names_our_keys_and_the_most_used_stock_ones(capsys, recipe):
    with pytest.raises(SystemExit, match="0"):
        parse_arguments(*recipe, argv=["--help"])
    text = capsys.readouterr().out
    for words in ("--max_length = 32", "tokens per row [a whole number >= 2]", "--learning_rate = 5e-05", "gpt/tiny"):
        assert words in text
    assert "hub_token" not in text and "--streaming = false" in text
