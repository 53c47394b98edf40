"""Finds what must not leave the machine in text or bytes: access tokens, and paths that name the user or the machine."""

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath

# Every pattern begins with fixed letters, so that the search runs through gigabytes of weights at memory speed.
SECRETS = {
    "a Hugging Face token": rb"hf_[A-Za-z0-9]{20,}",
    "a Hugging Face organisation token": rb"api_org_[A-Za-z0-9]{20,}",
    "an API key (sk-...)": rb"(?<![A-Za-z0-9])sk-(?:[a-z0-9]+-){0,3}[A-Za-z0-9_]{20,}",
    "a GitHub token": rb"gh[pousr]_[A-Za-z0-9]{36}",
    "a GitHub fine-grained token": rb"github_pat_[A-Za-z0-9_]{40,}",
    "a GitLab token": rb"glpat-[A-Za-z0-9_-]{20}",
    "an AWS access key": rb"(?<![A-Z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Z0-9])",
    "a Google API key": rb"AIza[0-9A-Za-z_-]{35}",
    "a Slack token": rb"xox[abprs]-[0-9A-Za-z-]{10,}",
    "a private key": rb"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----",
    "an address with a password": rb"://[^/\s:@\"']{1,64}:[^/\s:@\"']{3,64}@[\w.]",
}
HOME_FOLDERS = rb"(?:/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})[^/\\\s\"'<>|:*?]{1,64}[/\\]"
SECRET_NAMES = re.compile("TOKEN|KEY|SECRET|PASSWORD|CREDENTIAL")
PATHS = re.compile(r"(?<![\w/:.~)<])(?:~|\.\.|[A-Za-z]:)?[/\\][^\s\"'`,;|<>()]+")


def find_private(content, *, places=(), secrets=()):
    """Search for tokens and local paths.

    Args:
        content: bytes, or a memory map of a file.
        places: absolute paths that must not appear; the home folders of all systems are always looked for.
        secrets: texts that must not appear, such as the token in use; the values of environment variables whose name
            says token, key, secret or password are always looked for.

    Returns:
        [(what, offset)], one entry for each kind of find, never the text itself.
    """
    patterns = dict(SECRETS) | {"a path in a home folder": HOME_FOLDERS}
    for place in {Path(place) for place in places}:
        if len(place.parts) > 2:  # "/" or "/root" name nobody
            patterns[f"the local path of {place.name!r}"] = re.escape(str(place).encode()) + rb"(?![\w-])"
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= 12 and not Path(value).is_absolute():
            patterns[f"the value of the environment variable {name}"] = re.escape(value.encode())
    for secret in secrets:
        patterns["the token in use"] = re.escape(secret.encode())
    finds = [(what, re.search(pattern, content)) for what, pattern in patterns.items()]
    return [(what, found.start()) for what, found in finds if found]


def without_secrets(text):
    """Replace every token in `text` by [removed].

    Example:
        "key hf_abcdefghijklmnopqrstuvwxyz" -> "key [removed]"
    """
    content = text.encode("utf-8", "replace")
    for pattern in SECRETS.values():
        content = re.sub(pattern, b"[removed]", content)
    return content.decode("utf-8", "replace")


def without_folders(text):
    """Shorten every absolute path, and every path that climbs with .., to its last part.

    What follows a folder called `recipes` is kept, because it means the same on every machine.

    Example:
        "/home/ada/x/recipes/generate.py --dataset=../corpora/plays" -> "recipes/generate.py --dataset=plays"
    """
    return PATHS.sub(lambda found: _last_part(found[0]), text)


def _last_part(path):
    parts = (PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).parts
    start = len(parts) - 1 - parts[::-1].index("recipes") if "recipes" in parts[:-1] else len(parts) - 1
    return "/".join(parts[start:]) if len(parts) > 1 else path
