"""Pushing a folder: what goes up, what never does, and what happens when the Hub does not play along."""

import hashlib
import json

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import close_session

from hftoolkit.errors import CheckpointError, DataError, HubError
from hftoolkit.hub_errors import check_repo_id, loading_error, plain_reason
from hftoolkit.private_text import find_private, without_folders, without_secrets
from hftoolkit.publish import files_to_publish, publish_folder

pytestmark = pytest.mark.export
WEIGHTS = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
TOKEN = "hf_" + "Zk" * 17


def safetensors(header=WEIGHTS, data=bytes(8)):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.fixture
def folder(tmp_path):
    """A run folder as a finished run leaves it, with all that must stay at home."""
    run = tmp_path / "run"
    public = {
        "config.json": b"{}",
        "model.safetensors": safetensors(),
        "README.md": b"# Model\n",
        "merges.txt": b"a b",
    }
    public |= {
        "tokenizer.json": b"{}",
        "modeling_x.py": b"x = 1\n",
        "curves.png": b"\x89PNG",
        "all_results.json": b"{}",
        "vocabulary.txt": b"the\nlamp",
    }
    private = dict.fromkeys(("training_args.bin", "optimizer.pt", "run.json", "log.txt", ".lock", "notes.md"), b"mine")
    private |= {"checkpoint-3/model.safetensors": b"old", "trainer_state.json": b"{}", "runs/events": b"x"}
    for name, content in (public | private).items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    return run


def state(folder):
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def test_publishes_the_allow_list_and_nothing_else(folder, hub, client):
    before = state(folder)
    address = publish_folder(folder, "toy", commit_message="the model")
    repo = hub.repo("alice/toy")
    published = ["README.md", "all_results.json", "config.json", "curves.png", "merges.txt", "model.safetensors"]
    assert sorted(repo.files()) == [".gitattributes", *published, "modeling_x.py", "tokenizer.json", "vocabulary.txt"]
    assert address.endswith(f"/alice/toy/commit/{repo.branches['main']}")
    assert repo.log("main")[0]["title"] == "the model" and state(folder) == before


def test_the_words_of_an_elmo_come_back_from_the_hub(folder, hub, client):
    """What is trained further gets them at its revision; a repository without them is told from one that is not there."""
    from hftoolkit.data.bilm import vocabulary_of

    publish_folder(folder, "toy")
    assert vocabulary_of("alice/toy") == ["the", "lamp"]
    (folder / "vocabulary.txt").unlink()
    publish_folder(folder, "other")
    with pytest.raises(DataError, match="alice/other has no vocabulary.txt, .* must lie beside it"):
        vocabulary_of("alice/other")
    with pytest.raises(
        HubError, match="could not load alice/toy from the Hub: there is no such repository or revision"
    ):
        vocabulary_of("alice/toy", "v9")


def test_publishes_to_a_branch_and_privately(folder, hub, client):
    publish_folder(folder, "alice/toy", revision="dev", private=True)
    repo = hub.repo("alice/toy")
    assert repo.private and "config.json" in repo.files("dev") and "config.json" not in repo.files()


def test_private_is_not_pushed_to_a_public_repository(folder, hub, client):
    publish_folder(folder, "alice/toy")
    (folder / "README.md").write_text("# New\n")
    with pytest.raises(HubError, match="alice/toy exists and is public"):
        publish_folder(folder, "alice/toy", private=True)
    assert hub.repo("alice/toy").files()["README.md"].content == b"# Model\n"


def test_old_weights_are_removed_so_that_new_shards_are_what_loads(folder, hub, client):
    HfApi().create_repo("alice/toy")
    HfApi().upload_file(path_or_fileobj=b"kept", path_in_repo="LICENSE", repo_id="alice/toy")
    publish_folder(folder, "alice/toy")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    publish_folder(folder, "alice/toy")
    names = set(hub.repo("alice/toy").files())
    assert "model.safetensors" not in names and {"LICENSE", "model-00001-of-00001.safetensors"} <= names


@pytest.mark.parametrize(
    "repo_id", ["", None, "a/b/c", "../x", "ada/na me", "ada/x.git", "ada/" + "x" * 97, "/home/x"]
)
def test_a_bad_repository_name_is_refused_before_anything_is_asked(repo_id, folder, hub, client):
    with pytest.raises(HubError, match="expected user/name"):
        publish_folder(folder, repo_id)
    assert hub.requests == []
    check_repo_id("ada/gpt-tiny")


def test_f56_offline_is_said_at_once_and_names_the_switch(folder, client, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="could not push to alice/toy: HF_HUB_OFFLINE=1 forbids") as caught:
        publish_folder(folder, "alice/toy")
    assert caught.value.exit_code == 7 and client == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://hub.invalid"], ids=["refused", "no name"])
def test_f56_an_unreachable_hub_is_said_at_once(endpoint, folder, client, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(HubError, match="cannot be reached; check the network and the proxy. With HF_HUB_OFFLINE=1"):
        publish_folder(folder, "alice/toy")
    assert client == []


def test_f56_a_proxy_that_wants_a_login_is_named(folder, hub, client, monkeypatch):
    """The server plays the proxy: it is asked for the whole address of another machine."""
    for key, value in {"http_proxy": hub.url, "HTTP_PROXY": hub.url, "NO_PROXY": "", "no_proxy": ""}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    close_session()
    hub.fail(407, times=9)
    with pytest.raises(HubError, match="the proxy asks for a login"):
        publish_folder(folder, "alice/toy")


@pytest.mark.parametrize(
    "name", ["runs/gtp", "./runs/gtp", "runs/../runs/gtp", "/nowhere/at/all", "/nowhere", "~/nowhere", "rusn"]
)
def test_f56_a_mistyped_folder_is_no_network_error(name, tmp_path, monkeypatch):
    (tmp_path / "runs/gpt").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    error = loading_error(OSError("We couldn't connect to the Hub"), name)
    assert isinstance(error, CheckpointError) and "there is no such folder" in str(error)
    assert ("did you mean" in str(error)) == ("ru" in name)


def test_f56_a_hub_name_is_a_network_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gpt2", "ada/gpt"):
        assert "HF_HUB_OFFLINE=1 forbids" in str(loading_error(OfflineModeIsEnabled("x"), name))


REASONS = {401: "token is missing", 403: "no right", 404: "no such", 429: "too many", 500: "500", 503: "try later"}


@pytest.mark.parametrize("status", REASONS)
@pytest.mark.parametrize("place", ["/api/repos/create", "/preupload/", "objects/batch", "PUT /lfs/", "/commit/"])
def test_f57_a_refusal_leaves_the_run_alone_and_the_push_can_be_repeated(status, place, folder, hub, client):
    before = state(folder)
    hub.fail(status, place, times=99)
    with pytest.raises(HubError, match=REASONS[status]) as caught:
        publish_folder(folder, "alice/toy")
    assert caught.value.exit_code == 7 and "\n" not in str(caught.value) and state(folder) == before
    hub.faults.clear()
    publish_folder(folder, "alice/toy")
    assert hub.repo("alice/toy").files()["model.safetensors"].content == safetensors()


@pytest.mark.parametrize("status", [429, 500, 503, "reset"])
@pytest.mark.parametrize("place", ["/preupload/", "objects/batch", "PUT /lfs/"])
def test_f57_a_passing_trouble_is_waited_out(status, place, folder, hub, client):
    hub.fail(status, place, times=2, headers={"Retry-After": "7"} if status == 429 else {})
    publish_folder(folder, "alice/toy")
    assert len(client) == 2 and (status != 429 or client == [8, 8])  # 429 says how long; a second is added
    assert len(hub.repo("alice/toy").commits) == 2  # the first one and ours, not one for each try


def test_f57_a_connection_that_keeps_breaking_is_named(folder, hub, client):
    hub.fail("reset", "PUT /lfs/", times=99)
    with pytest.raises(HubError, match="the connection to the Hub broke off"):
        publish_folder(folder, "alice/toy")


def test_f57_without_a_token_nothing_is_asked(folder, hub, client, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(HubError, match="no token; log in"):
        publish_folder(folder, "alice/toy")
    assert hub.requests == []


def test_any_other_failure_of_the_client_has_a_reason_too():
    assert plain_reason(ValueError("\n\nthe card is wrong\nmore")) == "ValueError: the card is wrong"
    assert plain_reason(RuntimeError()) == "RuntimeError: no reason given"


PRIVATE = {
    "a Hugging Face token": TOKEN,
    "an API key": "sk-proj-" + "a1B2" * 8,
    "a GitHub token": "ghp_" + "x9" * 18,
    "an AWS access key": "AKIA" + "Q7" * 8,
    "a Google API key": "AIza" + "b" * 35,
    "a Slack token": "xoxb-" + "1" * 12,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "an address with a password": "https://ada:" + "lovelace@example.org",
    "a path in a home folder": "/home/" + "ada/data/",
    "C: a path in a home folder": r"C:\\Users\\" + r"ada\\data",
}


@pytest.mark.parametrize("what", PRIVATE)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "curves.png", "modeling_x.py"])
def test_f58_a_token_or_path_stops_the_push(what, name, folder, hub, client):
    secret = PRIVATE[what]
    text = json.dumps({"key": "K"}).replace("K", secret)
    if name == "model.safetensors":
        (folder / name).write_bytes(safetensors({"__metadata__": {"key": secret.replace("\\\\", "\\")}} | WEIGHTS))
    else:
        (folder / name).write_text(text)
    with pytest.raises(HubError) as caught:
        publish_folder(folder, "alice/toy")
    offset = (folder / name).read_bytes().index(secret[:12].encode()) + (3 if "password" in what else 0)
    message = str(caught.value)
    assert (
        f"{name}: {what.removeprefix('C: ')}" in message
        and f"at byte {offset + (2 if '://' in secret else 0)}" in message
    )
    assert secret not in message and secret[8:] not in message and hub.requests == []


def test_f58_the_run_folder_and_the_tokens_of_this_process_are_private(folder, client, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "no-known-form-0123")
    (folder / "README.md").write_text(f"saved in {folder}, with no-known-form-0123")
    with pytest.raises(HubError) as caught:
        files_to_publish(folder)
    assert f"the local path of 'run' at byte {9}" in str(caught.value)
    assert "the value of the environment variable MY_API_KEY" in str(caught.value)


def test_f58_what_only_looks_like_a_secret_is_published(folder):
    """A scanner that cries wolf gets switched off: hashes, words, plain addresses and tokenizer entries pass."""
    harmless = "a sha256 " + "0f" * 32 + " risk-management-and-control-of-everything hf_model hf_hub_download "
    harmless += "https://example.org:8080/a@b /home /root /Users ../x and/or sk-learn task-specific mailto:a@b.org"
    (folder / "README.md").write_text(harmless)
    assert find_private(harmless.encode()) == [] and folder / "README.md" in files_to_publish(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt", "model.pkl"])
def test_f59_pickled_weights_are_not_published(name, folder, hub, client):
    (folder / name).write_bytes(b"\x80\x04.")
    with pytest.raises(HubError, match=f"{name}: pickled weights are not published"):
        publish_folder(folder, "alice/toy")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=f"{name}: pickled weights can run code"):
        publish_folder(folder, "alice/toy")
    assert hub.requests == []


def test_f59_a_pickle_called_safetensors_is_not_published(folder, hub, client):
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(100))
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        publish_folder(folder, "alice/toy")
    assert hub.requests == []


def test_paths_are_shortened_and_tokens_removed():
    text = "/home/ada/hf/recipes/generate.py --dataset=../corpora/plays --out ~/runs/x C:\\Users\\ada\\y"
    assert without_folders(text) == "recipes/generate.py --dataset=plays --out x y"
    harmless = "and/or https://example.org/a/b 1/2 </p> hf://datasets/x"
    assert without_folders(harmless) == harmless
    assert without_secrets(f"a {TOKEN} b") == "a [removed] b"
