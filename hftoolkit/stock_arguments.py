"""The fields of a stock dataclass such as transformers.TrainingArguments, without importing its package.

Importing transformers and torch takes seconds; a mistake in a configuration is to be found before that. So the
installed source is read with `ast`: names, annotations, defaults and help texts of the class and of its bases, and the
values of the enumerations that annotations name. The same for the `__init__` of a config class in a modeling file.
"""

import ast
import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

UNKNOWN = "(computed)"  # a default that is an expression
REQUIRED = "(required)"
PLAIN_NAMES = frozenset({"int", "float", "bool", "str", "list", "dict", "None", "Any", "Literal", "Optional", "Union"})


class StockField(NamedTuple):
    """One field: its annotation as text, its default as a value (UNKNOWN if it cannot be read from the text)."""

    name: str
    annotation: str
    default: object
    help: str = ""
    choices: tuple = ()


def read_fields(dotted):
    """Return {name: StockField} of a dataclass in an installed package, fields of the bases first.

    Args:
        dotted: "transformers.TrainingArguments", "trl.SFTConfig", or with the full path of the module.

    Raises:
        ModuleNotFoundError: the package is not installed.
        LookupError: it has no such class.
    """
    package, *inner, name = dotted.split(".")
    path = _module_file(_package_folder(package), inner)
    found = _find_class(path, name) if path else None
    if found is None:
        raise LookupError(f"the installed {package} has no class {dotted}")
    return _class_fields(*found)


def read_config_signature(path):
    """Return (class name, {name: StockField}, whether it takes **kwargs) of the config class in a modeling file.

    The annotation is empty where the `__init__` has none.

    Raises:
        LookupError: the file has no class whose name ends in Config and that has an `__init__`.
    """
    for node in _parse(path).body:
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    return node.name, _parameters(method.args), method.args.kwarg is not None
    raise LookupError(f"{path} has no config class with an __init__")


def _parameters(arguments):
    positional = [*arguments.posonlyargs, *arguments.args][1:]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults[-len(positional) :]
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        argument.arg: StockField(
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "",
            REQUIRED if default is None else _literal(default),
        )
        for argument, default in pairs
    }


@functools.cache
def _parse(path):
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _package_folder(package):
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0])


def _module_file(folder, parts):
    """Return the file of the module `parts` below `folder`, or None."""
    for candidate in (folder.joinpath(*parts, "__init__.py"), folder.joinpath(*parts).with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _definitions(path):
    """Return ({name: class node}, {name: (import node, name at its source)}) of a file."""
    classes, imports = {}, {}
    for node in _statements(_parse(path).body):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            imports.update({alias.asname or alias.name: (node, alias.name) for alias in node.names})
    return classes, imports


def _statements(body):
    """Yield statements, also those below `if TYPE_CHECKING:` and `try:`, but not those inside functions and classes."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements(statement.body)
            yield from _statements(statement.orelse)


def _find_class(path, name, absolute=True):
    """Return (file, class node), following `from x import name` to where the class is written, or None."""
    classes, imports = _definitions(path)
    if name in classes:
        return path, classes[name]
    if name in imports:
        node, original = imports[name]
        source = _import_source(path, node, absolute)
        if source and source != path:
            return _find_class(source, original, absolute)
    return None


def _import_source(path, node, absolute):
    parts = node.module.split(".") if node.module else []
    if node.level:
        return _module_file(path.parents[node.level - 1], parts)
    if not absolute or importlib.util.find_spec(parts[0]) is None:
        return None
    return _module_file(_package_folder(parts[0]), parts[1:])


@functools.cache
def _class_fields(path, node):
    fields = {}
    for base in node.bases:
        found = _find_class(path, base.id) if isinstance(base, ast.Name) else None
        if found:
            fields.update(_class_fields(*found))
    statements = list(_statements(node.body))
    assigned = [item for item in statements if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)]
    names = [item.targets[0].id for item in assigned]
    # A name that is assigned twice depends on the machine, as the default of `optim` does.
    constants = {item.targets[0].id: item.value for item in assigned if names.count(item.targets[0].id) == 1}
    for statement in statements:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            read = _read_field(path, statement, constants)
            if read:
                fields[read.name] = read
    return fields


def _read_field(path, statement, constants):
    """Return the StockField of `name: annotation = value`, or None for what is no field of the constructor."""
    name, annotation, value = statement.target.id, ast.unparse(statement.annotation), statement.value
    if annotation.startswith("ClassVar"):
        return None
    keywords = {}
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "field":
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        if "init" in keywords and not _literal(keywords["init"]):
            return None
        value = keywords.get("default")
    if isinstance(value, ast.Name):
        value = constants.get(value.id, value)
    metadata = _dictionary(keywords.get("metadata"))
    # `--fsdp` alone means True although the annotation says text.
    annotation += " | bool" if metadata.get("const") is True and "bool" not in annotation else ""
    return StockField(
        name,
        annotation,
        _default(value, keywords.get("default_factory")),
        metadata.get("help", "") if isinstance(metadata.get("help", ""), str) else "",
        _choices(path, statement.annotation, metadata.get("choices")),
    )


def _default(value, factory):
    if factory is not None:
        return {"list": [], "dict": {}}.get(getattr(factory, "id", ""), UNKNOWN)
    return REQUIRED if value is None else _literal(value)


def _literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN


def _dictionary(node):
    """Return the literal part of a dict display; values that are expressions are left out."""
    if not isinstance(node, ast.Dict):
        return {}
    pairs = ((_literal(key), _literal(value)) for key, value in zip(node.keys, node.values, strict=True) if key)
    return {key: value for key, value in pairs if value is not UNKNOWN}


def _choices(path, annotation, declared):
    """Return the allowed texts: those the field declares, or the values of an Enum in its annotation."""
    if isinstance(declared, list | tuple):
        return tuple(declared)
    for node in ast.walk(annotation):
        if isinstance(node, ast.Name) and node.id not in PLAIN_NAMES:
            found = _find_class(path, node.id, absolute=False)
            if found and any(ast.unparse(base).endswith("Enum") for base in found[1].bases):
                return tuple(_literal(item.value) for item in found[1].body if isinstance(item, ast.Assign))
    return ()
