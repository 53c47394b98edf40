"""Published weights of ELMo (HDF5, allenai/bilm-tf and AllenNLP) to a model of ours.

    hftoolkit convert FOLDER DESTINATION

FOLDER holds options.json and the weights, *.hdf5. The names in the file are those of bilm-tf at 81a4b54, bilm/model.py;
its gates stand in the order input, cell, forget, output, and its cell adds 1 to the forget gate.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import torch

from hftoolkit.errors import CheckpointError, MachineError
from hftoolkit.tokenization.character_ids import character_tokenizer

FORGET_BIAS = 1.0
OPTIONS = "options.json"


def is_published_elmo(folder):
    """Whether a folder holds a biLM in the form in which they are published."""
    folder = Path(folder)
    return (folder / OPTIONS).is_file() and not (folder / "config.json").is_file() and any(folder.glob("*.hdf5"))


def from_published(folder, **fields):
    """HftElmoModel with the weights of a published biLM, in evaluation mode.

    Args:
        fields: of the config, beside those that options.json gives, such as stateful=True.

    Raises:
        CheckpointError: options or weights are missing, damaged or of another kind.
        MachineError: h5py is not installed.
    """
    from hftoolkit.models.modeling_elmo import HftElmoConfig, HftElmoModel

    folder = Path(folder)
    try:
        options = json.loads((folder / OPTIONS).read_text(encoding="utf-8"))
        config = HftElmoConfig(**(_fields(options) | fields))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / OPTIONS}: not the options of a biLM: {error!r}") from error
    model = HftElmoModel(config)
    weights = _weights_file(folder)
    tensors, wanted = converted(_read(weights), config, weights), model.state_dict()
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, but {OPTIONS} says {tuple(wanted[name].shape)}"
            raise CheckpointError(f"{weights}: {name} is {shapes}")
    model.load_state_dict(tensors)
    return model.eval()


def convert_published(source, destination):
    """Write a model folder with the tokenizer; the destination appears whole or not at all.

    The tokenizer parts words at white space only, because the biLM was trained on words.

    Raises:
        CheckpointError: as from_published; the destination exists.
    """
    destination = Path(destination)
    if destination.exists():
        raise CheckpointError(f"{destination} exists; choose another destination")
    model = from_published(source)
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        model.save_pretrained(staging / "model")
        character_tokenizer(split_punctuation=False).save_pretrained(staging / "model")
        os.replace(staging / "model", destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return destination


def _fields(options):
    """Config fields from the options of bilm-tf."""
    lstm, characters = options["lstm"], options["char_cnn"]
    return dict(
        character_size=characters["embedding"]["dim"],
        filter_widths=[width for width, _ in characters["filters"]],
        filter_counts=[number for _, number in characters["filters"]],
        num_highways=characters["n_highway"],
        character_activation=characters.get("activation", "relu"),
        max_characters=characters["max_characters_per_token"],
        hidden_size=lstm["dim"],
        projection_size=lstm["projection_dim"],
        num_hidden_layers=lstm["n_layers"],
        cell_clip=float(lstm.get("cell_clip", 0)),
        projection_clip=float(lstm.get("proj_clip", 0)),
        residual=bool(lstm.get("use_skip_connections", False)),
    )


def _weights_file(folder):
    """The one file of weights; files of embeddings may lie beside it."""
    files = sorted(folder.glob("*.hdf5"))
    named = [file for file in files if "weights" in file.name] or files
    if len(named) != 1:
        listed = ", ".join(file.name for file in named) or "none"
        raise CheckpointError(f"{folder}: one file of weights, *weights*.hdf5, is needed; found: {listed}")
    return named[0]


def _read(file):
    """Every array of an HDF5 file by its path."""
    try:
        import h5py
    except ImportError as error:
        raise MachineError("reading HDF5 needs h5py: pip install 'hftoolkit[elmo]', or pip install h5py") from error
    arrays = {}
    try:
        with h5py.File(file) as content:
            content.visititems(
                lambda name, item: (
                    arrays.update({name: torch.from_numpy(item[...])}) if hasattr(item, "shape") else None
                )
            )
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read as HDF5: {error}") from error
    return arrays


def converted(arrays, config, file):
    """State of HftElmoModel from the arrays of a file, by their paths in it.

    Raises:
        CheckpointError: an array is missing, or has no counterpart.
    """
    arrays = {name: array.float() for name, array in arrays.items()}

    def take(name):
        if name not in arrays:
            raise CheckpointError(f"{file}: {name} is missing; found {', '.join(sorted(arrays)[:4])}, ...")
        return arrays.pop(name)

    result = {"embed_tokens.weight": take("char_embed")}
    for number in range(len(config.filter_counts)):
        ours = f"characters.convolutions.{number}"
        result[f"{ours}.weight"] = take(f"CNN/W_cnn_{number}").squeeze(0).permute(2, 1, 0)  # (filters, size, width)
        result[f"{ours}.bias"] = take(f"CNN/b_cnn_{number}")
    for number in range(config.num_highways):
        for part in ("carry", "transform"):
            ours = f"characters.highways.{number}.{part}"
            result[f"{ours}.weight"] = take(f"CNN_high_{number}/W_{part}").T
            result[f"{ours}.bias"] = take(f"CNN_high_{number}/b_{part}")
    result["characters.projection.weight"] = take("CNN_proj/W_proj").T
    result["characters.projection.bias"] = take("CNN_proj/b_proj")
    for side, ours in enumerate(("forward_layers", "backward_layers")):
        for layer in range(config.num_hidden_layers):
            theirs = f"RNN_{side}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            cell = _cell(take(f"{theirs}/W_0"), take(f"{theirs}/B"), config.projection_size)
            cell["weight_hr"] = take(f"{theirs}/W_P_0").T
            result |= {f"{ours}.{layer}.{name}": tensor for name, tensor in cell.items()}
    if arrays:
        raise CheckpointError(f"{file}: without a counterpart: {', '.join(sorted(arrays)[:4])}")
    return {name: tensor.contiguous() for name, tensor in result.items()}


def _cell(matrix, bias, inputs):
    """The gates of TensorFlow's LSTMCell (input, cell, forget, output) in torch's order (input, forget, cell, output).

    Args:
        matrix: (inputs + P, 4H), the input above the state; bias (4H,).
    """
    order = [0, 2, 1, 3]
    matrix = torch.cat([matrix.chunk(4, 1)[gate] for gate in order], 1).T  # (4H, inputs + P)
    parts = [bias.chunk(4)[gate] for gate in order]
    parts[1] = parts[1] + FORGET_BIAS
    return {"weight_ih": matrix[:, :inputs], "weight_hh": matrix[:, inputs:], "bias": torch.cat(parts)}
