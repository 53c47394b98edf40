"""The text of --help: our own keys with type, default and meaning; of the stock keys those that are used most."""

import json
import os
import shutil
import sys
import textwrap

from hftoolkit.arguments.fields import REQUIRED
from hftoolkit.arguments.packaged import config_files
from hftoolkit.arguments.tables import EXPLAINED
from hftoolkit.arguments.values import describe
from hftoolkit.stock_arguments import UNKNOWN

FIRST_COLUMN = 34
LONGEST_MEANING = 160  # characters of a help text
UNSPOKEN = {"hub_token", "local_rank", "parallelism_config"}  # refused, obsolete, no text
NARROWEST = 60
HEADER = """usage: {program} [--config FILE] [--key value ...]

  --config FILE    YAML, one 'key: value' per line; or the name of a packaged one: {configs}
  --key value      overrides the file; also --key=value, --key (true), --no_key (false), --model_config.hidden_size 64
"""
TRAINING = """\
  --allow_change KEY   go on with the run in output_dir although this key differs from it

`accelerate launch {program} ...` starts several processes.
"""


def recipe_help(classes, groups):
    """Return the help of the recipe that is running.

    Args:
        classes: what parse_arguments was called with.
        groups: their fields, {name: Field} each.
    """
    titles = [kind if isinstance(kind, str) else kind.__name__ for kind in classes]
    titled = [(title, list(fields.values())) for title, fields in zip(titles, groups, strict=True)]
    introduction = (sys.modules["__main__"].__doc__ or "").strip().split("\n\n")[0]
    stock = {kind for kind in classes if isinstance(kind, str)}
    return help_text(os.path.basename(sys.argv[0]), titled, stock, introduction, list(config_files()))


def help_text(program, groups, stock_names, introduction="", configs=(), width=None):
    """Return the whole help text.

    Args:
        groups: [(title, [Field])], the stock classes under their dotted names.
        stock_names: those titles that are stock classes.
    """
    width = max(NARROWEST, width or shutil.get_terminal_size((100, 24)).columns)
    shown = ", ".join(configs[:4]) + (", ..." if len(configs) > 4 else "")
    parts = [introduction.strip() + "\n"] if introduction else []
    parts.append((HEADER + TRAINING * bool(stock_names)).format(program=program, configs=shown or "(none)"))
    for title, fields in groups:
        if title in stock_names:
            parts.append(_stock_part(title, {field.name: field for field in fields}, width))
        else:
            parts.append("\n".join([f"{title}:", *(_entry(field, width) for field in fields)]) + "\n")
    return "\n".join(parts)


def _stock_part(title, fields, width):
    lines = [f"{title}, the keys used most:"]
    explained = set()
    for group, names in EXPLAINED.items():
        present = [fields[name] for name in names if name in fields]
        explained.update(field.name for field in present)
        if present:
            lines += [f"  {group}", *(_entry(field, width) for field in present)]
    others = ", ".join(name for name in fields if name not in explained | UNSPOKEN)
    lines.append(textwrap.fill(f"  and: {others}", width, subsequent_indent="       "))
    return "\n".join(lines) + "\n"


def _entry(field, width):
    """One key: name and default in the first column; what it may hold and what it means in the second."""
    first = f"    --{field.name}{_default(field.default)}"
    allowed = describe(field, choices=tuple(field.limits.get("choices", ()))).removesuffix(" or null")
    meaning = textwrap.shorten(field.help.replace("%%", "%"), LONGEST_MEANING, placeholder=" ...")
    second = f"{meaning} [{allowed}]" if meaning else f"[{allowed}]"
    gap = " " * FIRST_COLUMN
    if len(first) >= FIRST_COLUMN - 1:
        return first + "\n" + textwrap.fill(second, width, initial_indent=gap, subsequent_indent=gap)
    return textwrap.fill(second, width, initial_indent=first.ljust(FIRST_COLUMN), subsequent_indent=gap)


def _default(value):
    """Say a default as it would be written in the file."""
    if value is None or value in (REQUIRED, UNKNOWN, "", {}, []):
        return ""
    return f" = {value if isinstance(value, str) else json.dumps(value)}"
