"""The loopback Hub answers the real client as the Hub does."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

pytestmark = pytest.mark.export


def add(**files):
    return [CommitOperationAdd(name.replace("__", "/"), content) for name, content in files.items()]


@pytest.fixture
def api(client):
    return HfApi()


@pytest.fixture
def repo(api):
    files = {"model.safetensors": b"weights" * 1000, "config.json": b"{}", "data/a.txt": b"a", "data/b/c.txt": b"c"}
    api.create_repo("alice/toy")
    api.create_commit("alice/toy", [CommitOperationAdd(*item) for item in files.items()], commit_message="first")
    return "alice/toy"


def test_a_repository_is_created_once(api):
    assert api.whoami()["name"] == "alice"
    assert api.create_repo("toy").repo_id == "alice/toy"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("alice/toy")
    assert api.create_repo("alice/toy", exist_ok=True).repo_id == "alice/toy"


def test_lists_what_was_committed(api, repo, hub):
    names = [".gitattributes", "config.json", "data/a.txt", "data/b/c.txt", "model.safetensors"]
    assert api.list_repo_files(repo) == names
    assert [entry.path for entry in api.list_repo_tree(repo)] == [".gitattributes", "config.json", "data", names[-1]]
    assert [entry.path for entry in api.list_repo_tree(repo, "data")] == ["data/a.txt", "data/b"]
    assert api.get_paths_info(repo, ["model.safetensors"])[0].lfs.size == 7000
    assert [commit.title for commit in api.list_repo_commits(repo)] == ["first", "initial commit"]
    assert api.model_info(repo).sha == hub.repo(repo).branches["main"]


def test_an_unchanged_push_makes_no_commit_and_sends_nothing(api, repo, hub):
    api.create_commit(repo, add(config=b"x"), commit_message="second")
    hub.requests.clear()
    api.create_commit(repo, [CommitOperationAdd("model.safetensors", b"weights" * 1000)], commit_message="third")
    assert len(api.list_repo_commits(repo)) == 3 and not any(line.startswith("PUT") for line in hub.requests)


def test_deletes_files_and_folders(api, repo):
    steps = [CommitOperationDelete("config.json"), CommitOperationDelete("data/")]
    api.create_commit(repo, steps, commit_message="tidy")
    assert api.list_repo_files(repo) == [".gitattributes", "model.safetensors"]
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        api.create_commit(repo, [CommitOperationDelete("nothing")], commit_message="no")


def test_branches_and_tags_keep_their_content(api, repo):
    api.create_branch(repo, branch="dev")
    api.create_tag(repo, tag="v1")
    api.create_commit(repo, add(config=b"new"), commit_message="on dev", revision="dev")
    assert "config" in api.list_repo_files(repo, revision="dev") and "config" not in api.list_repo_files(repo)
    refs = api.list_repo_refs(repo)
    assert [branch.name for branch in refs.branches] == ["main", "dev"] and refs.tags[0].name == "v1"
    for create in (lambda: api.create_branch(repo, branch="dev"), lambda: api.create_tag(repo, tag="v1")):
        with pytest.raises(HfHubHTTPError, match="409"):
            create()


def test_downloads_whole_files_and_ranges(api, repo, hub, tmp_path):
    path = api.hf_hub_download(repo, "model.safetensors", cache_dir=tmp_path / "cache")
    assert Path(path).read_bytes() == b"weights" * 1000
    folder = api.snapshot_download(repo, cache_dir=tmp_path / "cache")
    assert Path(folder, "data/b/c.txt").read_text() == "c"
    part = httpx2.get(f"{hub.url}/{repo}/resolve/main/model.safetensors", headers={"Range": "bytes=7-13"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"weights", "bytes 7-13/7000")


def test_errors_are_those_of_the_hub(api, repo, tmp_path):
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("alice/nothing")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="nothing")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "nothing.txt", cache_dir=tmp_path / "cache")
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(repo, add(a=b"a"), commit_message="late", parent_commit="0" * 40)


def test_a_private_repository_shows_itself_to_its_owner_only(api):
    api.create_repo("alice/secret", private=True)
    assert api.model_info("alice/secret").private
    for token in ("hf_bob", False):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(token=token).model_info("alice/secret")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="nonsense").whoami()


def test_others_may_read_and_not_write(api, repo):
    bob = HfApi(token="hf_bob")
    assert bob.model_info(repo).id == repo
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.create_commit(repo, add(a=b"a"), commit_message="mine")
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.create_repo("alice/other")


def test_faults_come_when_they_are_due_and_end(api, repo, hub, client):
    hub.fail(503, "GET /api/models/", after=1, times=1)
    api.model_info(repo)
    with pytest.raises(HfHubHTTPError, match="503"):
        api.model_info(repo)
    api.model_info(repo)
    hub.fail("reset", "PUT /lfs/", times=2)
    api.create_commit(repo, [CommitOperationAdd("b.bin", b"b" * 100_000)], commit_message="despite two resets")
    assert "b.bin" in api.list_repo_files(repo) and client == [1, 2]  # the waits of the client's two repetitions


PUSH_AND_PULL = """
import re, sys
from pathlib import Path
from datasets import Dataset, load_dataset
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
model.push_to_hub("alice/pushed", private=True)
AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True).push_to_hub("alice/pushed")
again = AutoModel.from_pretrained("alice/pushed", trust_remote_code=True)
assert (again.embed_tokens.weight == model.get_input_embeddings().weight).all()
assert AutoTokenizer.from_pretrained("alice/pushed", trust_remote_code=True)("lamp red")["input_ids"] == [1, 2]
card = Path(sys.argv[1], "README.md").read_text()
exec(re.search("```python(.*?)```", card, re.DOTALL)[1].replace("USER/gpt", "alice/pushed"))
Dataset.from_dict({"text": ["one", "two"]}).push_to_hub("alice/words")
assert load_dataset("alice/words", split="train")["text"][:] == ["one", "two"]
assert next(iter(load_dataset("alice/words", split="train", streaming=True))) == {"text": "one"}
assert "hftoolkit" not in sys.modules
"""


def test_transformers_and_datasets_push_to_it_and_load_from_it(hub, gpt_folder, tmp_path):
    """In a process of its own with the environment that the server names; the model card's lines run there too."""
    command = [sys.executable, "-c", PUSH_AND_PULL, str(gpt_folder)]
    environment = os.environ | hub.environment(tmp_path / "home")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert hub.repo("alice/pushed").private and "model.safetensors" in hub.repo("alice/pushed").files()
    assert "data/train-00000-of-00001.parquet" in hub.repo("alice/words", "datasets").files()
