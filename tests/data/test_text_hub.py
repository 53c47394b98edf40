"""Data sets from a Hub on loopback, with the real clients of huggingface_hub and datasets in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent))  # hub_server

CLIENT = """
import json, sys
import datasets
from huggingface_hub import HfApi
from hftoolkit.arguments import DataArguments
from hftoolkit.data.text import fingerprint, load_documents

datasets.disable_progress_bars()
api = HfApi()
api.create_repo("alice/tales", repo_type="dataset")
for name, content in json.load(sys.stdin).items():
    api.upload_file(path_or_fileobj=content.encode(), path_in_repo=name, repo_id="alice/tales", repo_type="dataset")
result = {}
for streaming in (False, True):
    splits = load_documents(DataArguments(dataset="alice/tales", text_column="body", streaming=streaming))
    result[str(streaming)] = {name: [row["text"] for row in split] for name, split in splits.items()}
    result[f"fingerprint {streaming}"] = fingerprint(splits)
for name in ("alice/absent", "alice/tales"):
    try:
        load_documents(DataArguments(dataset=name))
    except Exception as error:
        result[name] = [type(error).__name__, error.exit_code, str(error)]
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """What the client saw; one process, because its imports take seconds."""
    from hub_server import HubServer

    files = {
        "train.jsonl": "".join(json.dumps({"body": text, "n": 1}) + "\n" for text in ["once", "", "upon", " \n"]),
        "validation.jsonl": json.dumps({"body": "a time", "n": 2}) + "\n",
    }
    home = tmp_path_factory.mktemp("client")
    with HubServer() as hub:
        result = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps(files),
            env=os.environ | hub.environment(home),
            capture_output=True,
            text=True,
            cwd=home,
        )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_documents_come_without_blank_ones(answer):
    assert answer["False"] == {"train": ["once", "upon"], "validation": ["a time"]}


def test_a_stream_gives_the_same(answer):
    assert answer["True"] == answer["False"]
    assert answer["fingerprint True"] == answer["fingerprint False"]


def test_what_is_not_there_is_named(answer):
    name, code, message = answer["alice/absent"]
    assert (name, code) == ("HubError", 7) and "alice/absent is not on the Hub" in message
    name, code, message = answer["alice/tales"]
    assert (name, code) == ("DataError", 3) and "no column 'text' (the columns: body, n)" in message.replace(
        "; did", ""
    )
