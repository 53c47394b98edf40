"""The mapping `model_config`: its keys are the fields of an architecture's config class, read from the source."""

import functools
import json
import os
from pathlib import Path

from hftoolkit.arguments.fields import REQUIRED, config_fields
from hftoolkit.arguments.near_names import did_you_mean, shown_text
from hftoolkit.arguments.reading import Entry
from hftoolkit.arguments.values import read_value
from hftoolkit.strict_yaml import Mapping, to_python

MODELS_FOLDER = Path(__file__).parents[1] / "models"
FROM_DATA = ("vocab_size", "max_position_embeddings")  # of a new model: the tokenizer's size and max_length
MODEL_TYPE = "hft_"  # prefix of our model types


def architectures():
    """Return the names of the architectures: of the files models/modeling_<name>.py."""
    return tuple(sorted(path.stem.removeprefix("modeling_") for path in MODELS_FOLDER.glob("modeling_*.py")))


@functools.cache
def architecture_fields(architecture):
    """Return (class name, {name: Field}) of an architecture's config class."""
    return config_fields(MODELS_FOLDER / f"modeling_{architecture}.py")


def parts_of(entry):
    """Return an Entry per key of model_config, from `model_config: {...}` or `--model_config.key value`."""
    if not isinstance(entry.node, Mapping) or entry.parts:
        return [entry]
    place = entry.key_place.rsplit(":", 2)[0]
    places = [(entry.key_place, entry.key_place)] * len(entry.node.items)
    if not entry.from_flag:
        places = [
            (f"{place}:{key.line}:{key.column}", f"{place}:{node.line}:{node.column}")
            for key, node in entry.node.items
        ]
    pairs = zip(entry.node.items, places, strict=True)
    return [Entry(entry.key, (key.text,), node, *where) for (key, node), where in pairs]


def read_part(entry, architecture, top_level):
    """Return the value of one key of model_config.

    Args:
        architecture: its name, or None if it is not known here; then any key passes.
        top_level: the keys outside model_config, to name the right place for a misplaced one.

    Raises:
        ValueError: there is no such key, or it cannot have this value.
    """
    if architecture is None:
        return to_python(entry.node)
    class_name, fields = architecture_fields(architecture)
    key = ".".join(entry.parts)
    if key not in fields:
        hint = did_you_mean(key, fields)
        if key in top_level:
            hint = f"; '{key}' stands outside of model_config"
        raise ValueError(f"{class_name} has no '{shown_text(key)}'{hint}")
    return read_value(fields[key], entry.node, entry.from_flag)


def architecture_of(folder):
    """Return the name of our architecture in a model folder, or None (another one, or no folder: a Hub id)."""
    model_type = str(read_config(folder).get("model_type", ""))
    name = model_type.removeprefix(MODEL_TYPE)
    return name if model_type.startswith(MODEL_TYPE) and name in architectures() else None


def read_config(folder):
    """Return config.json of a model folder as a dictionary, empty if there is none."""
    try:
        with open(os.path.join(os.path.expanduser(folder), "config.json"), encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def defaults_of(architecture):
    """Return {key: default} of an architecture's config class, without the sizes that a recipe takes from its data."""
    _, fields = architecture_fields(architecture)
    defaults = {name: field.default for name, field in fields.items() if field.default != REQUIRED}
    return {name: default for name, default in defaults.items() if name not in FROM_DATA}


def positions_of(folder):
    """Return {"max_position_embeddings": n} of a model folder, or {} if that is not known."""
    config = read_config(folder) if folder else {}
    positions = config.get("max_position_embeddings", config.get("n_positions"))
    return {"max_position_embeddings": positions} if isinstance(positions, int) else {}


def owner_of(key):
    """Return the config class that has `key`, or None: for a key that was written outside of model_config."""
    for architecture in architectures():
        class_name, fields = architecture_fields(architecture)
        if key in fields:
            return class_name
    return None
