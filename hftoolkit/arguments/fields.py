"""The keys that a recipe takes: fields of our own dataclasses, of stock ones, and of a model's config class."""

import dataclasses
import inspect
from dataclasses import dataclass, field

from hftoolkit import stock_arguments
from hftoolkit.arguments.tables import CONFIG_KEYS, CONFIG_LIMITS, STOCK_CHOICES, STOCK_LIMITS, STOCK_RULES

REQUIRED = stock_arguments.REQUIRED
LIMITS = ("min", "max", "above", "below", "choices")
RULES = ("source", "name", "folder", "must_exist", "flag_only", "may_exist")


@dataclass(frozen=True)
class Field:
    """One key.

    `limits` may hold min, max (inclusive), above, below (exclusive), choices, and steps_or_share: a whole number of
    steps, or a share of all steps below 1. The default always passes, so max_steps may be -1 although min is 1.
    `rules` say what the text stands for: source (dataset, model, tokenizer), name, folder, must_exist; flag_only keys
    are refused in a file; a folder with may_exist may hold anything.
    """

    name: str
    annotation: str
    default: object = REQUIRED
    help: str = ""
    limits: dict = field(default_factory=dict)
    rules: dict = field(default_factory=dict)


def fields_of(kind):
    """Return {name: Field} of a dataclass, or of a stock class by its dotted name.

    Raises:
        ModuleNotFoundError, LookupError: there is no such stock class.
    """
    return _stock_fields(kind) if isinstance(kind, str) else _own_fields(kind)


def _own_fields(kind):
    fields = {}
    for item in dataclasses.fields(kind):
        if not item.init:
            continue
        annotation = item.type if isinstance(item.type, str) else inspect.formatannotation(item.type)
        default = item.default
        if default is dataclasses.MISSING:
            default = REQUIRED if item.default_factory is dataclasses.MISSING else item.default_factory()
        limits = {name: item.metadata[name] for name in LIMITS if name in item.metadata}
        if callable(limits.get("choices")):
            limits["choices"] = limits["choices"]()
        rules = {name: item.metadata[name] for name in RULES if name in item.metadata}
        fields[item.name] = Field(item.name, annotation, default, item.metadata.get("help", ""), limits, rules)
    return fields


def _stock_fields(dotted):
    fields = {}
    for name, stock in stock_arguments.read_fields(dotted).items():
        choices = stock.choices or STOCK_CHOICES.get(name)
        limits = {**STOCK_LIMITS.get(name, {}), **({"choices": choices} if choices else {})}
        fields[name] = Field(name, stock.annotation, stock.default, stock.help, limits, STOCK_RULES.get(name, {}))
    return fields


def config_fields(path):
    """Return (class name, {name: Field}) of the config class in a modeling file, read from its `__init__`."""
    class_name, signature, takes_more = stock_arguments.read_config_signature(path)
    fields = {}
    for name, stock in signature.items():
        annotation = stock.annotation or _annotation_of(name, stock.default)
        fields[name] = Field(name, annotation, stock.default, limits=CONFIG_LIMITS.get(name, {}))
    for name, annotation in CONFIG_KEYS.items() if takes_more else ():
        fields.setdefault(name, Field(name, annotation, None, limits=CONFIG_LIMITS.get(name, {})))
    return class_name, fields


def _annotation_of(name, default):
    """Guess what a field without annotation holds, from its default and its stock name."""
    if isinstance(default, bool | int | float | str):
        return type(default).__name__
    if name in CONFIG_KEYS:
        return CONFIG_KEYS[name]
    if name in CONFIG_LIMITS:
        return "int | None" if CONFIG_LIMITS[name] == {"min": 1} else "float | None"
    return "Any"
