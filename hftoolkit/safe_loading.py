"""What is checked before a model folder is loaded: no pickle, whole files, nothing outside the folder, finite numbers.

Each function raises CheckpointError, which names the file and the reason, and returns nothing when all is well.
The format of a safetensors file: 8 bytes with the length of the header, the header (JSON: name -> dtype, shape,
data_offsets), then the data without holes. https://huggingface.co/docs/safetensors#format
"""

import hashlib
import json
import math
import re
from pathlib import Path

from hftoolkit.errors import CheckpointError
from hftoolkit.remote_code import code_files

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# What transformers.Trainer keeps beside a model: pickles too, but nobody loads them as weights.
TRAINER_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)")
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
DTYPE_BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
DTYPE_BITS |= {name: 8 for name in ("U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ")}
DTYPE_BITS |= {f"{kind}{bits}": bits for kind in "IU" for bits in (16, 32, 64)}
DTYPE_BITS |= {"BF16": 16, "F16": 16, "F32": 32, "F64": 64}


def check_model_folder(folder):
    """Refuse a folder whose model must not or cannot be loaded; reads the headers of the weights, not the weights.

    Where the folder holds SHA256SUMS, as a checkpoint of a run does, all files named there are compared with it.

    Raises:
        CheckpointError: no model, pickled weights, a damaged or forged file, or a path that leads outside.
    """
    folder = Path(folder)
    check_tokenizer_folder(folder)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json, so this is not a saved model")
    for module in code_files(_read_json(folder / "config.json")):
        if "--" not in module and not (folder / module).is_file():
            raise CheckpointError(f"{folder / 'config.json'}: auto_map names {module}, which is not in the folder")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = pickled_weights(folder)
        if pickles:
            raise CheckpointError(
                f"{folder / pickles[0]}: pickled weights can run code when they are loaded, and are refused; "
                "ask the author for a .safetensors file"
            )
        raise CheckpointError(f"{folder}: no weights, expected model.safetensors")
    tensors = {path.name: check_safetensors(path) for path in weights}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _check_index(index, tensors)
    _check_sums(folder)


def check_tokenizer_folder(folder):
    """Refuse links that leave the folder, broken configuration files, and file names in them that lead outside."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    roots = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":  # the Hub cache links to blobs/ of the same repository
        roots.append(folder.resolve().parents[1] / "blobs")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in roots):
            raise CheckpointError(f"{path}: a link that leads outside the folder, to {path.resolve()}")
    for path in sorted(folder.glob("*config*.json")):
        for key, value in _read_json(path).items():
            if key.endswith("_file") and isinstance(value, str) and value:
                _check_inside(value, f"{path}: {key}")


def pickled_weights(folder):
    """Names of the files in `folder` that look like pickled weights; Trainer's own state does not count."""
    names = sorted(path.name for path in Path(folder).iterdir() if path.suffix in PICKLE_SUFFIXES)
    return [name for name in names if not TRAINER_STATE.fullmatch(name)]


def check_safetensors(path):
    """Check the header of a .safetensors file against its length; returns the names of its tensors."""
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError(
                f"{path}: not a whole safetensors file: a header of {length} bytes in {size} bytes; copy it again"
            )
        raw = file.read(length)
    try:
        header = dict(json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_keys))
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: the safetensors header is damaged: {error}") from error
    header.pop("__metadata__", None)
    if not header:
        raise CheckpointError(f"{path}: holds no tensor")
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        start, stop = _offsets(path, name, entry)
        if start != end:
            problem = "overlaps its neighbour" if start < end else f"leaves a hole of {start - end} bytes"
            raise CheckpointError(f"{path}: tensor {name!r} at bytes {start} to {stop} {problem}")
        end = stop
    if 8 + length + end != size:
        raise CheckpointError(
            f"{path}: the header describes {8 + length + end} bytes, the file has {size}; "
            "it was cut off or altered, copy it again"
        )
    return set(header)


def check_finite_weights(weights):
    """Refuse NaN and infinity, in a model folder (its .safetensors files) or in a state dict.

    Raises:
        CheckpointError: naming the first tensors and how many of their numbers are not finite.
    """
    bad = {}
    if isinstance(weights, dict):
        place = "the weights"
        bad = {name: count for name, tensor in weights.items() if (count := _not_finite(tensor))}
    else:
        from safetensors import safe_open

        place = Path(weights)
        for path in sorted(place.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                counts = {f"{path.name}: {name}": _not_finite(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            bad |= {name: count for name, count in counts.items() if count}
    if bad:
        first = ", ".join(f"{name} ({count} numbers)" for name, count in list(bad.items())[:3])
        raise CheckpointError(
            f"{place}: {len(bad)} tensors hold NaN or infinity: {first}; load a checkpoint from before it happened"
        )


def _not_finite(tensor):
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return 0
    if tensor.element_size() == 1:  # float8 has no isfinite on CPU
        tensor = tensor.float()
    return tensor.numel() - int(tensor.isfinite().sum())


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a table, got {type(value).__name__}")
    return value


def _unique_keys(pairs):
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} appears twice")
    return table


def _offsets(path, name, entry):
    """First and last byte of a tensor, checked against its dtype and shape."""
    try:
        (start, stop), shape, bits = entry["data_offsets"], entry["shape"], DTYPE_BITS[entry["dtype"]]
        numbers = [start, stop, *shape]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: tensor {name!r} is not described as the format asks: {entry!r:.120}"
        ) from error
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise CheckpointError(f"{path}: tensor {name!r} has a size or offset that is not a count: {entry!r:.120}")
    if (stop - start) * 8 != math.prod(shape) * bits:
        raise CheckpointError(f"{path}: tensor {name!r} of shape {shape} and {bits} bits has {stop - start} bytes")
    return start, stop


def _check_inside(name, place):
    """By the letters of the path alone: links are looked at once, in check_tokenizer_folder."""
    parts = re.split(r"[/\\]", name)
    if ".." in parts or parts[0] in ("", "~") or "\0" in name or ":" in parts[0]:
        raise CheckpointError(f"{place} {name!r} leads outside the folder")


def _check_index(index, tensors):
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: weight_map must be a table from tensor to file")
    for tensor, shard in weight_map.items():
        _check_inside(shard, f"{index}: weight_map of {tensor!r}:")
        if tensor not in tensors.get(shard, ()):
            missing = f"is not in {shard}" if shard in tensors else f"should be in {shard}, which is missing"
            raise CheckpointError(f"{index}: tensor {tensor!r} {missing}; copy the folder again")


def _check_sums(folder):
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        _check_inside(name, f"{sums}:")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name}: named in SHA256SUMS, but missing")
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise CheckpointError(f"{folder / name}: altered since it was saved (SHA256SUMS)")
