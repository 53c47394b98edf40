"""What a key may hold, and how the text that was written becomes its value.

YAML and flags share this: both hand over text (strict_yaml.Scalar), so `--learning_rate 1e-4` and `learning_rate: 1e-4`
mean the same, and a key of type str gets what was typed (`run_name: 012` is "012", `eval_strategy: no` is "no").
"""

import ast
import math
from dataclasses import dataclass, field

from hftoolkit.arguments.fields import Field
from hftoolkit.arguments.near_names import did_you_mean, shown_text
from hftoolkit.strict_yaml import Mapping, Scalar, Sequence, plain_value, to_python

LISTED_CHOICES = 15  # more than these are counted, not listed, when one of them is near
TRUE_WORDS = frozenset({"yes", "y", "on", "1"})
FALSE_WORDS = frozenset({"no", "n", "off", "0"})


@dataclass
class Kinds:
    """What an annotation allows: names among none bool int float text list mapping any; texts of a Literal."""

    names: set = field(default_factory=set)
    choices: tuple = ()
    element: "Kinds | None" = None


def read_annotation(annotation):
    """Read an annotation that is given as text. `bool | None` -> Kinds({"bool", "none"})."""
    return _read_node(ast.parse(annotation or "Any", mode="eval").body)


def _read_node(node):
    if isinstance(node, ast.BinOp):
        return _union(_read_node(node.left), _read_node(node.right))
    if isinstance(node, ast.Subscript):
        name = getattr(node.value, "id", getattr(node.value, "attr", ""))
        arguments = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return _literal(arguments)
        if name in ("Optional", "Union"):
            return _union(*map(_read_node, arguments), Kinds({"none"} if name == "Optional" else set()))
        if name in ("list", "List", "tuple", "Sequence"):
            return Kinds({"list"}, element=_read_node(arguments[0]))
        return Kinds({"mapping"} if name in ("dict", "Dict", "Mapping") else set())
    if isinstance(node, ast.Constant):
        return Kinds({"none"}) if node.value is None else read_annotation(str(node.value))
    name = getattr(node, "id", getattr(node, "attr", ""))
    simple = {"int": "int", "float": "float", "bool": "bool", "str": "text", "dict": "mapping", "Any": "any"}
    if name == "list":
        return Kinds({"list"}, element=Kinds({"text"}))
    # Any other class cannot be written down, unless it is an Enum: then its field lists the choices.
    return Kinds({simple[name]} if name in simple else set())


def _literal(nodes):
    values = [ast.literal_eval(node) for node in nodes]
    names = {bool: "bool", str: "text", int: "int", type(None): "none"}
    return Kinds({names[type(value)] for value in values}, tuple(v for v in values if isinstance(v, str)))


def _union(*parts):
    names = set().union(*(part.names for part in parts))
    choices = sum((part.choices for part in parts), ())
    return Kinds(names, choices, next((part.element for part in parts if part.element), None))


def read_value(field, node, from_flag=False):
    """Turn what was written into the value of a field.

    Args:
        node: a Scalar, Sequence or Mapping of strict_yaml.
        from_flag: the text comes from a shell, which has eaten the quotes: only `null` means None.

    Raises:
        ValueError: the message names the key, what is allowed, what was given, and the remedy.
    """
    kinds = read_annotation(field.annotation)
    choices = tuple(field.limits.get("choices", ())) or kinds.choices
    if choices and not kinds.names & {"list", "int"}:
        kinds.names.add("text")
    if isinstance(node, Mapping):
        if kinds.names & {"mapping", "any"}:
            return to_python(node)
    elif isinstance(node, Sequence):
        if "list" in kinds.names or "any" in kinds.names:
            return _read_list(field, kinds, choices, node, from_flag)
    else:
        value, fits = _read_scalar(kinds, node, from_flag)
        if fits and value is not None and value != field.default:
            _check_choice(field, choices, value)
            _check_range(field, value, node.text)
        if fits:
            return value
    raise ValueError(
        f"'{field.name}' must be {describe(field, kinds, choices)}, got {_shown(node)}{_hint(kinds, node)}"
    )


def _read_list(field, kinds, choices, node, from_flag):
    element = kinds.element or Kinds({"any"})
    if choices or not element.names:
        element = Kinds({"text"})
    single = Field(field.name, "", limits={**field.limits, "choices": choices})
    values = []
    for item in node.items:
        value, fits = _read_scalar(element, item, from_flag) if isinstance(item, Scalar) else (to_python(item), False)
        if not fits and "any" not in element.names:
            raise ValueError(f"'{field.name}' must be {describe(field, kinds, choices)}, got {_shown(item)} in it")
        _check_choice(single, choices, value)
        values.append(value)
    return values


def _read_scalar(kinds, node, from_flag):
    """Return (value, whether the kinds allow it)."""
    names = kinds.names
    value = node.text if node.quoted else plain_value(node.text)
    if value is None and from_flag and (node.text != "null" or "none" not in names) and "text" in names:
        return node.text, True
    if value is None:
        return value, bool(names & {"none", "any"})
    if "any" in names:
        return value, not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) and "bool" in names:
        return value, True
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "int" in names and _is_whole(value, node.text):
            return int(value), True
        if "float" in names:
            return (float(value), True) if _is_finite(value) else (value, False)
    if "text" in names:
        return node.text, True
    return value, False


def _is_whole(value, text):
    """1e5 is a way to write a whole number; 6.0 is a number with a fraction that happens to be 0."""
    return isinstance(value, int) or (math.isfinite(value) and value == int(value) and "." not in text)


def _is_finite(value):
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _check_choice(field, choices, value):
    comparable = isinstance(value, str) or any(type(choice) is type(value) for choice in choices)
    if not choices or not comparable or value in choices:
        return
    near = did_you_mean(str(value), choices)
    counted = near and len(choices) > LISTED_CHOICES
    listed = f"{len(choices)} names" if counted else ", ".join(map(str, choices))
    raise ValueError(f"'{field.name}' must be one of {listed}; got '{shown_text(str(value))}'{near}")


def _check_range(field, value, text):
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    limits = field.limits
    wrong = (
        ("min" in limits and value < limits["min"])
        or ("max" in limits and value > limits["max"])
        or ("above" in limits and value <= limits["above"])
        or ("below" in limits and value >= limits["below"])
        or ("steps_or_share" in limits and value > 1 and value != int(value))
    )
    if wrong:
        kinds = read_annotation(field.annotation)
        raise ValueError(f"'{field.name}' must be {describe(field, kinds, ())}, got {shown_text(text)}")


def describe(field, kinds=None, choices=()):
    """Say in words what a field may hold: "a whole number >= 1 (or -1, the default)"."""
    kinds = kinds or read_annotation(field.annotation)
    choices = choices or kinds.choices
    words = []
    number = "a whole number" if "int" in kinds.names else "a number" if "float" in kinds.names else ""
    if number:
        words.append(number + _describe_range(field))
    words += ["true or false"] * ("bool" in kinds.names)
    if choices and len(choices) <= LISTED_CHOICES:
        words.append("one of " + ", ".join(map(str, choices)))
    elif "text" in kinds.names or choices:
        words.append(f"one of {len(choices)} names" if choices else "text")
    words += ["a list"] * ("list" in kinds.names) + ["a mapping of names to values"] * ("mapping" in kinds.names)
    words += ["anything"] * ("any" in kinds.names) + ["null"] * ("none" in kinds.names)
    return " or ".join(words)


def _describe_range(field):
    limits, default = field.limits, field.default
    if "steps_or_share" in limits:
        lowest = f">= {limits['min']}" if "min" in limits else f"> {limits['above']}"
        return f" {lowest}, whole or (as a share of all steps) below 1"
    signs = (("min", ">="), ("above", ">"), ("max", "<="), ("below", "<"))
    text = " and".join(f" {sign} {limits[name]}" for name, sign in signs if name in limits)
    outside = isinstance(default, int | float) and "min" in limits and default < limits["min"]
    return text + (f" (or {default}, the default)" if outside else "")


def _shown(node):
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    value = node.text if node.quoted else plain_value(node.text)
    if value is None:
        return "null" if node.text else "nothing"
    return f"'{shown_text(node.text)}'" if isinstance(value, str) else shown_text(node.text)


def _hint(kinds, node):
    """Say how a value that was almost right is written."""
    if not isinstance(node, Scalar):
        return ""
    numeric = kinds.names & {"int", "float"}
    word = node.text.lower()
    if "bool" in kinds.names and word in TRUE_WORDS | FALSE_WORDS:
        return f"; write {'true' if word in TRUE_WORDS else 'false'}"
    if node.quoted and (numeric or "bool" in kinds.names) and not isinstance(plain_value(node.text), str | None):
        return "; remove the quotes"
    digits = word.replace("_", "").replace(",", "")
    if numeric and digits != word and digits.isdecimal():
        return f"; write {digits}"
    if kinds.names == {"list"}:
        return f"; write [{shown_text(node.text)}]"
    return ""
