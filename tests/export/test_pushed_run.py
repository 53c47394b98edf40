"""A whole run that pushes with the real client, and its card: what a stranger copies from it works."""

import json
import os
import re
import subprocess
import sys

import pytest

from hftoolkit.errors import HubError
from hftoolkit.recipes import pretrain_gpt

pytestmark = pytest.mark.export
TINY = ["--config", "gpt/tiny", "--builtin_documents", "60", "--max_steps", "4", "--warmup_steps", "1", "--use_cpu"]
TINY += ["--eval_strategy", "no", "--save_strategy", "no", "--push_to_hub", "true"]


@pytest.fixture(autouse=True)
def own_client_of_transformers(client, monkeypatch):
    """Transformers keeps a client with the address of its first call."""
    monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)


def run(*argv):
    return pretrain_gpt.main(*pretrain_gpt.parse([*TINY, *map(str, argv)]))


def python_block(card):
    return re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]


@pytest.mark.parametrize("named", ["alice/tiny-gpt", "tiny-gpt", None])
def test_a_run_pushes_and_its_card_loads_it(named, hub, client, tmp_path):
    """With the user's name, without it (the client knows whose token it is), and with the folder's name only."""
    folder = tmp_path / ("run" if named else "tiny-gpt")
    run("--output_dir", folder, *(["--hub_model_id", named] if named else []))
    files = hub.repo("alice/tiny-gpt").files()
    assert files.keys() >= {"model.safetensors", "config.json", "modeling_gpt.py", "tokenizer.json", "README.md"}
    assert not [name for name in files if name.endswith((".bin", ".pt")) or name == "run.json"]
    card = files["README.md"].content.decode()
    assert card == (folder / "README.md").read_text(encoding="utf-8")
    assert card.count('model_id = "alice/tiny-gpt"') == 1 and "USER/" not in card
    assert "a vocabulary of 512 (`byte_bpe`)" in card
    if named != "alice/tiny-gpt":
        return
    environment = os.environ | hub.environment(tmp_path / "stranger", user=None)
    done = subprocess.run(
        [sys.executable, "-c", python_block(card)], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("The") and (tmp_path / "stranger/modules/transformers_modules/alice").is_dir()


def test_the_command_that_a_failed_push_names_repeats_it(hub, client, tmp_path):
    """The run is done; what the message says to type publishes the folder as it is."""
    hub.fail(403, "/commit/", times=1)
    folder = tmp_path / "run"
    with pytest.raises(HubError, match="The run is done and safe in") as caught:
        run("--output_dir", folder, "--hub_model_id", "alice/again")
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    assert "model.safetensors" not in hub.repo("alice/again").files()
    command = str(caught.value).split("publish it with: ")[1]
    environment = os.environ | hub.environment(tmp_path / "home")
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.repo("alice/again").files().keys() >= {"model.safetensors", "README.md"}
