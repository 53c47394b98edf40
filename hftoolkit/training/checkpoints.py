"""Checkpoints that are whole or not there: sealed with checksums, verified before use, replaced by renaming.

A checkpoint is made in the folder .saving of its run. When every file is on disk, SHA256SUMS is written (last), and
the folder is renamed to checkpoint-<step>. `sha256sum -c SHA256SUMS` verifies it without this program.
"""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path

from hftoolkit.errors import CheckpointError
from hftoolkit.training.disk import flush_to_disk, read_json, write_whole

logger = logging.getLogger(__name__)

SEAL = "SHA256SUMS"
MANIFEST = "manifest.json"
FORMAT = 1
STAGING = ".saving"
NAME = re.compile(r"checkpoint-(\d+)")


def files_of(folder):
    """Paths of all files under a folder, relative to it, sorted; the seal itself left out."""
    names = sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if not path.is_dir())
    return [name for name in names if name != SEAL]


def checksum(path):
    """SHA-256 of a file, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder):
    """Bring every file of a folder to the disk and write their checksums, last."""
    paths = [Path(folder) / name for name in files_of(folder)]
    for path in {*paths, *(path.parent for path in paths)}:
        flush_to_disk(path)
    lines = [f"{checksum(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    write_whole(Path(folder) / SEAL, "".join(lines).encode())
    flush_to_disk(folder)


def faults(folder):
    """What is wrong with a checkpoint, in words; an empty list means that it is whole."""
    folder = Path(folder)
    try:
        lines = (folder / SEAL).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return [f"it has no {SEAL}, so its saving was not finished"]
    sums = dict(reversed(line.split("  ", 1)) for line in lines if "  " in line)
    present = set(files_of(folder))
    found = [f"{name} is missing" for name in sorted(sums.keys() - present)]
    found += [f"{name} does not belong to it" for name in sorted(present - sums.keys())]
    found += [f"{name} was altered" for name in sorted(sums.keys() & present) if checksum(folder / name) != sums[name]]
    step = (read_json(folder / "trainer_state.json") or {}).get("global_step")
    if not found and step != step_of(folder):
        found.append(f"its content is that of step {step}")
    return found


def step_of(folder):
    """The step in the name of a checkpoint, or None for another folder."""
    match = NAME.fullmatch(Path(folder).name)
    return int(match[1]) if match else None


def list_checkpoints(run_folder):
    """The checkpoints of a run by step, the newest last, whole or not."""
    found = [path for path in Path(run_folder).glob("checkpoint-*") if path.is_dir() and step_of(path) is not None]
    return sorted(found, key=step_of)


def newest_whole(run_folder):
    """Find the newest whole checkpoint; newer ones that are damaged are set aside, under another name.

    Returns:
        The folder, or None where the run has no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints and none is whole, or it was written by a newer version.
    """
    damaged = {}
    for folder in reversed(list_checkpoints(run_folder)):
        found = faults(folder)
        if not found:
            version = (read_json(folder / MANIFEST) or {}).get("format")
            if version != FORMAT:
                raise CheckpointError(f"{folder} has format {version}; this version of hftoolkit reads {FORMAT}")
            for path, reasons in damaged.items():
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.rename(path, aside)
                logger.warning("%s is damaged (%s): kept as %s", path, "; ".join(reasons[:3]), aside.name)
            if damaged:
                logger.warning("falling back to %s, which is whole", folder)
            return folder
        damaged[folder] = found
    if damaged:
        listed = "; ".join(f"{path.name}: {', '.join(reasons[:3])}" for path, reasons in damaged.items())
        raise CheckpointError(
            f"no checkpoint in {run_folder} is whole ({listed}): restore one from a copy, or delete them to start over"
        )
    return None


def finish_interrupted_saves(run_folder):
    """Clean up after a process that was killed while saving; a sealed checkpoint it had not yet renamed is kept."""
    staging = Path(run_folder) / STAGING
    for folder in list_checkpoints(staging):
        if not (Path(run_folder) / folder.name).exists() and not faults(folder):
            os.rename(folder, Path(run_folder) / folder.name)
    if staging.exists():
        logger.warning("removed what a killed process had begun to save in %s", staging)
        shutil.rmtree(staging)


def publish(staged, run_folder):
    """Rename a sealed checkpoint into place; one of the same step gives way only now."""
    final = Path(run_folder) / Path(staged).name
    replaced = Path(staged).with_name("replaced")
    if final.exists():
        os.rename(final, replaced)
    os.rename(staged, final)
    flush_to_disk(run_folder)
    shutil.rmtree(Path(staged).parent)
    return final


def rotate(run_folder, limit, best=None):
    """Delete the oldest checkpoints beyond `limit`, never the newest nor the best; None or 0 keeps all."""
    checkpoints = list_checkpoints(run_folder)
    kept = {checkpoints[-1]} if checkpoints else set()
    kept |= {path for path in checkpoints if best is not None and path.name == Path(best).name}
    surplus = len(checkpoints) - max(limit, len(kept)) if limit and limit > 0 else 0
    for folder in [path for path in checkpoints if path not in kept][: max(0, surplus)]:
        shutil.rmtree(folder, ignore_errors=True)


def tensor_shapes(folder):
    """Name -> shape of the tensors in the safetensors files of a folder, from their headers alone."""
    from safetensors import safe_open

    shapes = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def require_same_model(folder, model):
    """Refuse a checkpoint whose tensors are not those of the model, listing the differences.

    Raises:
        CheckpointError: another architecture, other sizes, another vocabulary.
    """
    theirs = tensor_shapes(folder)
    if not theirs:  # adapters (PEFT) or shards of FSDP, which their own loaders compare
        return
    state = model.state_dict()
    stored = {state[name].data_ptr() for name in theirs if name in state}
    found = [
        f"{name} is {theirs[name]} there and {tuple(state[name].shape)} here"
        for name in theirs
        if name in state and tuple(state[name].shape) != theirs[name]
    ]
    found += [f"{name} is only in the checkpoint" for name in theirs if name not in state]
    # A tied weight is stored once; its second name is not missing. What a class computes itself is not stored.
    computed = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    found += [
        f"{name} is not in the checkpoint"
        for name, tensor in state.items()
        if name not in theirs and name not in computed and tensor.data_ptr() not in stored
    ]
    if found:
        config = read_json(Path(folder) / "config.json") or {}
        kinds = f"{config.get('model_type')} there, {model.config.model_type} here" if config else "no config.json"
        raise CheckpointError(
            f"{folder} belongs to another model ({kinds}): {'; '.join(found[:8])}"
            f"{f'; and {len(found) - 8} more' if len(found) > 8 else ''}. Choose another output_dir"
        )
