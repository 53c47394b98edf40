"""Files that appear whole or not at all, and the words for what a disk refuses.

Written under a temporary name, fsynced, then renamed: a reader or a crash never meets half a file.
"""

import contextlib
import errno
import json
import math
import os
import shutil
from pathlib import Path

from hftoolkit.errors import MachineError, UserError

# EFBIG is a limit on the size of files (ulimit -f); for the user it is the same trouble as a full disk.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED_TO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)
# What the writers of torch and safetensors say instead of raising an OSError.
FULL_DISK_SIGNS = ("inline_container", "PytorchStreamWriter", "No space left", "os error 28", "os error 27")


def flush_to_disk(path):
    """Fsync one file or folder, so that a rename that follows cannot outlive its content in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path, content):
    """Write bytes to a file, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def plain(value):
    """The JSON-able form of a value: numbers that are not finite become None, secrets are left out.

    A secret is what stands under a key `*_token`, but for figures such as nats_per_token.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if not _is_secret(str(key))}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return plain(value.item()) if getattr(value, "ndim", None) == 0 else str(value)


def write_json(path, value):
    """Write a value as JSON, whole or not at all."""
    write_whole(path, (json.dumps(plain(value), indent=2) + "\n").encode())


def read_json(path):
    """The content of a JSON file, or None where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def machine_error(error, folder):
    """The MachineError that explains a failed write into `folder`, or None where the error is something else."""
    number = getattr(error, "errno", None)
    text = " ".join(str(error).split())[:200]
    if not Path(folder).is_dir():
        return MachineError(f"the run folder {folder} is gone: it was deleted or renamed, or its disk was unmounted")
    if number in FULL_DISK or any(sign in text for sign in FULL_DISK_SIGNS):
        free = shutil.disk_usage(folder).free / 1e6
        return MachineError(
            f"{folder} could not be written ({text}); {free:,.0f} MB are free. What was whole before still is: "
            "free some space, or set save_total_limit, and start the same command again"
        )
    if number in CLOSED_TO_WRITING:
        return MachineError(f"{folder} cannot be written ({text}): mend its permissions or choose another output_dir")
    return None


@contextlib.contextmanager
def explained(folder):
    """Around writes into `folder`: turn what the machine refuses into a MachineError that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        explanation = machine_error(error, folder)
        if explanation is None:
            raise
        raise explanation from error


def require_writable(folder):
    """Refuse a folder that is a file or that cannot be written; make it where it is absent."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ".probe", b"x")
        (folder / ".probe").unlink()
    except FileExistsError as error:
        raise MachineError(f"output_dir {folder} is a file: choose another output_dir") from error
    except OSError as error:
        raise MachineError(f"output_dir {folder} cannot be written: {error.strerror}; choose another one") from error


def require_space(folder, checkpoint_bytes):
    """Refuse a disk with less than three checkpoints free: an old one goes only after the new one is whole."""
    free = shutil.disk_usage(folder).free
    if free < 3 * checkpoint_bytes:
        raise MachineError(
            f"{folder} has {free / 1e6:,.0f} MB free, and one checkpoint takes about {checkpoint_bytes / 1e6:,.0f} "
            "MB, of which three must fit: free some space or choose another output_dir"
        )


def _is_secret(key):
    return key.endswith("_token") and not key.endswith("_per_token")
