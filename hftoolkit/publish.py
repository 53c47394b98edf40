"""Push a finished model to the Hub: only files that belong to a model, and nothing private in any of them."""

import fnmatch
import mmap
from pathlib import Path

from hftoolkit.errors import HubError
from hftoolkit.hub_errors import check_repo_id, hub_error
from hftoolkit.private_text import find_private
from hftoolkit.safe_loading import check_model_folder, pickled_weights

# run.json and trainer_state.json stay here: they tell of the machine, and the card has what others need.
WEIGHTS_AND_CODE = ("*.safetensors", "*.safetensors.index.json", "modeling_*.py", "layers_*.py", "configuration_*.py")
WEIGHTS_AND_CODE += ("tokenization_*.py", "image_processing_*.py", "processing_*.py")
PUBLISHED = (
    *WEIGHTS_AND_CODE,
    *("config.json", "generation_config.json", "adapter_config.json", "all_results.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.jinja"),
    "vocabulary.txt",  # of an ELMo: the words that it predicts
    *("preprocessor_config.json", "processor_config.json", "README.md", "*.png"),
)


def publish_folder(folder, repo_id, *, private=None, revision=None, commit_message="Upload model"):
    """Upload a model folder in one commit; on failure nothing here has changed, and the call can be repeated.

    Weights and code that an earlier push left in the repository and that the folder does not have are deleted there:
    transformers would load an old model.safetensors in place of new shards.

    Args:
        repo_id: `user/name`, or `name` for the user of the token. Created where it does not exist.
        private: visibility of a new repository; None is the account's default. True refuses a public repository.
        revision: branch, created from main where it does not exist; None is main.

    Returns:
        The address of the commit.

    Raises:
        HubError: offline, refused, or a file holds a token or a local path (file and offset are named).
        CheckpointError: the folder is damaged or has pickled weights.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    check_repo_id(repo_id)
    files = files_to_publish(folder)
    if get_token() is None:
        raise HubError(f"could not push to {repo_id}: no token; log in with `hf auth login`, or set HF_TOKEN")
    try:
        api = HfApi()
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if private and not api.repo_info(repo_id).private:
            raise HubError(f"{repo_id} exists and is public, but private was asked for; change it in its settings")
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=revision)
        names = {file.name for file in files}
        stale = [name for name in there if _matches(name, WEIGHTS_AND_CODE) and name not in names]
        steps = [CommitOperationDelete(name) for name in stale] + [CommitOperationAdd(f.name, f) for f in files]
        return api.create_commit(repo_id, steps, commit_message=commit_message, revision=revision).commit_url
    except HubError:
        raise
    except Exception as error:  # whatever the client raises, the run behind the folder is done and safe
        raise hub_error(error, f"push to {repo_id}") from error


def files_to_publish(folder):
    """The files of the folder that would be uploaded, after looking into each of them.

    Raises:
        HubError: a file holds a token or a local path.
        CheckpointError: the folder is damaged or has pickled weights.
    """
    folder = Path(folder)
    check_model_folder(folder)
    if pickles := pickled_weights(folder):
        raise HubError(f"{folder / pickles[0]}: pickled weights are not published; delete them or save as safetensors")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and _matches(path.name, PUBLISHED)]
    finds = [f"{file}: {what} at byte {offset}" for file in files for what, offset in _private_in(file, folder)]
    if finds:
        raise HubError(f"nothing was pushed, private text would be: {'; '.join(finds[:5])}")
    return files


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _private_in(file, folder):
    """What find_private sees in a file, which may be larger than the memory."""
    from huggingface_hub import get_token

    if not file.stat().st_size:
        return []
    places = [folder.resolve(), folder.absolute(), Path.cwd()]
    token = get_token() or ""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return find_private(content, places=places, secrets=[token] if len(token) >= 8 else [])
