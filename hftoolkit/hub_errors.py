"""Plain reasons for what can go wrong between here and the Hub."""

import re
from difflib import get_close_matches
from pathlib import Path

from hftoolkit.errors import CheckpointError, HubError

REASONS = {
    401: "the token is missing or not valid (401); log in with `hf auth login`, or set HF_TOKEN",
    403: "this token has no right to do that (403); use one with write access to that name",
    404: "there is no such repository or revision, or it is private and this token may not see it (404)",
    407: "the proxy asks for a login (407); set HTTPS_PROXY with user and password",
    409: "another change is in the way (409); try again",
    413: "a file is larger than the Hub accepts (413)",
    429: "too many requests (429); wait some minutes",
}
UNREACHABLE = (
    "the Hub cannot be reached; check the network and the proxy. With HF_HUB_OFFLINE=1 only what is already on this "
    "machine is used"
)


def check_repo_id(repo_id):
    """Refuse what cannot be a repository to push to: `name` or `user/name` of letters, digits, `-`, `_` and `.`.

    Raises:
        HubError: with the rule that is broken.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    example = "expected user/name, such as ada/gpt-tiny"
    if not isinstance(repo_id, str) or not repo_id:
        raise HubError(f"repository {repo_id!r}: {example}")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(f"repository {repo_id!r}: {error} {example}") from None


def hub_error(error, what):
    """A HubError that says in one line why `what` (such as "push to ada/gpt") failed; chain it with `from error`."""
    return HubError(f"could not {what}: {plain_reason(error)}")


def loading_error(error, name):
    """The error to raise when a model or tokenizer `name` could not be loaded: a mistyped folder is no network error.

    Returns:
        CheckpointError where `name` looks like a folder, naming those nearby; HubError otherwise.
    """
    path, slashes = Path(name).expanduser(), str(name).count("/")
    near = sorted(place.name for place in path.parent.iterdir()) if path.parent.is_dir() else []
    near = [str(path.parent / match) for match in get_close_matches(path.name, near, 3, 0.6)]
    local = str(name).startswith((".", "~", "/")) or slashes > 1
    if not path.exists() and (local or (slashes == 1 and path.parent.is_dir()) or near):
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return CheckpointError(f"{name}: there is no such folder{hint}")
    return hub_error(error, f"load {name} from the Hub")


def plain_reason(error):
    """Say in words what an exception of the Hub's client, or one of those that caused it, means."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    for link in chain:
        if isinstance(link, OfflineModeIsEnabled) or "offline mode" in str(link).lower():
            return "HF_HUB_OFFLINE=1 forbids the network; unset it, or use what is already on this machine"
        if isinstance(link, RepositoryNotFoundError):
            return REASONS[404]
        if isinstance(link, HfHubHTTPError):
            status = link.response.status_code
            return REASONS.get(status) or f"the Hub answered {status}" + ("; try later" if status >= 500 else "")
        if "407" in str(link) and type(link).__name__ == "ProxyError":
            return REASONS[407]
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if names & {"RemoteProtocolError", "ReadError", "WriteError", "ConnectionResetError"}:
        return "the connection to the Hub broke off; try again"
    if names & {"TransportError", "ConnectionError", "TimeoutError", "gaierror"}:
        return UNREACHABLE
    lines = [line for line in re.split(r"[\r\n]+", str(error)) if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
