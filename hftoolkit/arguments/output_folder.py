"""The folder of a run: may this command write there, resume there, or is it finished?

The rule is that no run ever overwrites another. A folder that holds `run.json` belongs to the command written in it,
and only that command continues it.
"""

import contextlib
import json
import os
import platform

from hftoolkit.arguments.near_names import shown_text
from hftoolkit.errors import EXIT_CODES

ABSENT = "(not given)"
ANOTHER = "give another --output_dir"


class FolderError(ValueError):
    """Why the folder cannot be used, and with which code the program ends."""

    def __init__(self, message, exit_code=EXIT_CODES["arguments"]):
        super().__init__(message)
        self.exit_code = exit_code


def check_output_folder(folder, given, defaults, free, check_lock=True):
    """Decide about a run folder.

    Args:
        given: {key: value} of this command; dictionaries inside are compared key by key.
        defaults: {key: value} that stand for keys which one side did not give.
        free: keys that may differ.
        check_lock: False in all but one process of a launch, which would meet the lock of that one.

    Returns:
        (refusals, done): done is True if this very command has finished there.
    """
    folder = os.path.expanduser(folder)
    if os.path.exists(folder) and not os.path.isdir(folder):
        return [FolderError(f"'{shown_text(folder)}' is a file; {ANOTHER}", EXIT_CODES["environment"])], False
    if not os.access(_nearest_existing(folder), os.W_OK):
        return [FolderError(f"'{shown_text(folder)}' cannot be written; {ANOTHER}", EXIT_CODES["environment"])], False
    record = os.path.join(folder, "run.json")
    if not os.path.isdir(folder) or not any(not name.startswith(".") for name in os.listdir(folder)):
        return [], False
    if check_lock and (owner := lock_owner(folder)):
        message = f"'{shown_text(folder)}' is in use by process {owner}; wait for it, or {ANOTHER}"
        return [FolderError(message)], False
    if not os.path.exists(record):
        message = f"'{shown_text(folder)}' is not empty and holds no run of hftoolkit (run.json); {ANOTHER}"
        return [FolderError(message)], False
    try:
        with open(record, encoding="utf-8") as file:
            run = json.load(file)
        before, status = dict(run["given"].items()), run["status"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [FolderError(f"'{shown_text(record)}' is damaged; {ANOTHER}")], False
    changes = differences(before, given, defaults, free)
    return [FolderError(_describe(folder, *change)) for change in changes], not changes and status == "done"


def differences(before, now, defaults, free):
    """Return [(key, value before, value now)] of every key that differs, sorted."""
    before, now, defaults = _flat(before), _flat(now), _flat(defaults)
    result = []
    for key in sorted(before.keys() | now.keys()):
        if key in free or key.split(".")[0] in free:
            continue
        old, new = (side.get(key, defaults.get(key, ABSENT)) for side in (before, now))
        if old != new:
            result.append((key, old, new))
    return result


def lock_owner(folder):
    """Return the process id in the folder's .lock if that process lives on this machine and is another one."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with open(os.path.join(folder, ".lock"), encoding="utf-8") as file:
            lock = json.load(file)
        process = int(lock["pid"])
        if lock["host"] == platform.node() and process > 0 and process != os.getpid() and _is_alive(process):
            return process
    return None


def _is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _nearest_existing(folder):
    folder = os.path.abspath(folder)
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder


def _flat(values, prefix=""):
    """Turn {"a": {"b": 1}} into {"a.b": 1}."""
    flat = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _describe(folder, key, before, now):
    old, new = (value if value == ABSENT else shown_text(json.dumps(value, default=str)) for value in (before, now))
    return f"'{key}' was {old} in the run in '{shown_text(folder)}', now {new}; {ANOTHER}, or --allow_change {key}"
