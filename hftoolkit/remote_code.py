"""The Python code that a model brings along: which files it is, and that it never runs unasked."""

import re
from pathlib import Path

from hftoolkit.errors import CheckpointError


def code_files(config):
    """The Python files that `auto_map` of a config (a dict) names; `user/name--file.py` is code of another repository.

    Example:
        {"auto_map": {"AutoConfig": "modeling_x.XConfig", "AutoModel": "modeling_x.XModel"}} -> ["modeling_x.py"]
    """
    auto_map = config.get("auto_map") or {}
    if not isinstance(auto_map, dict):
        raise CheckpointError(f"config.json: auto_map must be a table, got {auto_map!r}")
    files = set()
    for entry in auto_map.values():
        for reference in entry if isinstance(entry, list) else [entry]:
            if reference is None:
                continue
            found = re.fullmatch(r"((?:[\w.-]+/)?[\w.-]+--)?([A-Za-z_]\w*)\.[A-Za-z_]\w*", str(reference))
            if not found:
                raise CheckpointError(f"config.json: auto_map entry {reference!r} is not of the form file.Class")
            files.add(f"{found[1] or ''}{found[2]}.py")
    return sorted(files)


def check_remote_code(config, name, *, trust_remote_code=False, revision=None):
    """Refuse a model that brings its own Python code, unless the user asked for just this code.

    Args:
        config: the content of the model's config.json.
        name: the folder or Hub id, for the message; code from the Hub must be pinned to a commit.

    Raises:
        CheckpointError: naming the files and the flags.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    files = code_files(config)
    if not files or config.get("model_type") in CONFIG_MAPPING:
        return
    local = Path(name).is_dir()
    if not trust_remote_code:
        pin = "" if local else " and --revision with the 40 digits of its commit"
        raise CheckpointError(
            f"{name}: model type {config.get('model_type')!r} needs the Python code it brings ({', '.join(files)}), "
            f"which was not run; read it, and if you trust it, add --trust_remote_code{pin}"
        )
    if not local and not re.fullmatch("[0-9a-f]{40}", revision or ""):
        raise CheckpointError(
            f"{name}: --trust_remote_code also needs --revision with the 40 digits of the commit that you have read, "
            f"got {revision!r}; otherwise the code can change at any time"
        )
