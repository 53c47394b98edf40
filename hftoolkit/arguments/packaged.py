"""The recipes and configurations that ship with hftoolkit: where they lie and what they are called.

A recipe is called by its file name (`pretrain_gpt`), a configuration by folder and file (`gpt/tiny`), and a
configuration of `accelerate launch` by its file name (`ddp`).
"""

import importlib.util
from pathlib import Path


def recipes_folder():
    """Return the folder of the recipes; found without importing one."""
    return Path(importlib.util.find_spec("hftoolkit.recipes").submodule_search_locations[0])


def recipe_files():
    """Return {name: path} of the recipes."""
    return {path.stem: path for path in sorted(recipes_folder().glob("*.py")) if not path.stem.startswith("_")}


def config_files():
    """Return {folder/name: path} of the configurations."""
    folder = recipes_folder() / "configs"
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("*/*.yaml"))}


def launch_files():
    """Return {name: path} of the configurations for `accelerate launch --config_file`."""
    return {path.stem: path for path in sorted((recipes_folder() / "accelerate").glob("*.yaml"))}
