"""Secrets are refused and never printed (f10); names stay in their folder (f30)."""

import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hftoolkit.arguments.sources import name_problem

MODEL = "architecture: gpt\n"


@pytest.mark.parametrize("way", ["file", "flag"])
@pytest.mark.parametrize("key", ["hub_token", "wandb_api_key", "token", "note", "model_config.x", "max_steps"])
def test_f10_secrets_are_refused_and_never_printed(key, way, refused, capsys):
    secret = "hf_" + "AbCdEfGhIj" * 3
    if way == "flag":
        lines = refused(MODEL, f"--{key}", secret)
    else:
        root, _, part = key.partition(".")
        lines = refused(MODEL + (f"{root}: {{{part}: {secret}}}\n" if part else f"{key}: {secret}\n"))
    assert len(lines) == 1 and secret not in lines[0]
    assert "log in with `hf auth login` or set HF_TOKEN" in lines[0]


def test_f10_messages(refused):
    assert refused(MODEL + "hub_token: abc\nnote: sk-0123456789abcdefghijklmn\n") == [
        "c.yaml:2:12  'hub_token' must not be given: it would be saved with the run and published; log in with "
        "`hf auth login` or set HF_TOKEN",
        "c.yaml:3:7  the value of 'note' looks like a secret, which would be saved and published; log in with "
        "`hf auth login` or set HF_TOKEN",
    ]


def test_f10_a_secret_in_the_wrong_place_is_not_printed_either(refused):
    secret = "hf_" + "x" * 30
    for flags in (
        [secret],
        ["--config", secret],
        [f"--{secret}", "1"],
        ["--seed", "1", secret],
        ["--dataset", secret],
    ):
        assert secret not in "".join(refused("", *flags))


@pytest.mark.parametrize(
    "name", ["multi-task-learning_with_gpt2_baseline", "shelf_aaaaaaaaaaaaaaaaaaaaaaaaa", "0" * 40]
)
def test_f10_long_names_are_no_secrets(refused, name):
    assert len(refused(MODEL + f"run_name: {name}\nxx: 1\n")) == 1


def test_f10_trust_remote_code_is_a_flag(refused):
    assert refused(MODEL + "trust_remote_code: true\n") == [
        "c.yaml:2:1  'trust_remote_code' is not read from a file, which may come from somebody else; give "
        "--trust_remote_code"
    ]


RULE = "letters, digits, '.', '_' and '-', at most 96"
BAD_NAMES = [
    "../../x",
    "/etc/passwd",
    "a\0b",
    "x" * 300,
    "CON",
    "aux.txt",
    "\N{PILE OF POO}",
    "",
    "a b",
    ".",
    "..",
    "a\nb",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_f30_names_that_could_leave_the_folder_are_refused(refused, name):
    lines = refused("", "--architecture", "gpt", "--run_name", name, "--dataset_config", name, "--hub_model_id", name)
    assert len(lines) == 3
    assert all(f"' is a name: {RULE}; got '" in line and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "folder", ["runs/a\0b", "runs/a\nb", "runs/" + "x" * 300, "runs/CON", "runs/\N{PILE OF POO}", " "]
)
def test_f30_folders_that_cannot_name_a_model_are_refused(refused, folder):
    lines = refused("", "--architecture", "gpt", "--output_dir", folder)
    assert len(lines) == 1 and lines[0].isprintable() and "'output_dir'" in lines[0]


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name not in (".", "..")], ids=ascii)
def test_f30_data_sets_of_such_names_are_refused(refused, name):
    if name != "/etc/passwd":  # a file that exists is a data set
        assert len(refused("", "--architecture", "gpt", "--dataset", name)) == 1


@settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
@given(name=st.text(st.sampled_from("aZ0._-/\\ \n\0~:\u00e9"), max_size=100))
@example(name="..")
@example(name="a..b")
def test_f30_an_accepted_name_stays_in_its_folder(name):

    if name_problem("run_name", name) is None:
        path = os.path.normpath(os.path.join("/runs", name))
        assert os.path.dirname(path) == "/runs" and path.isascii() and len(name) <= 96
