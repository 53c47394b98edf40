"""What was written where: flags and YAML files become entries, each a key, its value as text, and its place."""

import contextlib
import os
from dataclasses import dataclass

from hftoolkit.arguments.near_names import shown_text
from hftoolkit.strict_yaml import MAX_BYTES, Scalar, Sequence, YamlError, parse_yaml

COMMAND_LINE = "command line"
HELP = ("-h", "--help")


@dataclass
class Entry:
    """One `key: value`. `parts` are the names after the dots of a flag: --model_config.hidden_size -> ("hidden_size",)."""

    key: str
    parts: tuple
    node: object
    key_place: str = COMMAND_LINE
    value_place: str = COMMAND_LINE

    @property
    def name(self):
        return ".".join((self.key, *self.parts))

    @property
    def from_flag(self):
        return self.key_place == COMMAND_LINE


def read_file(path):
    """Read a YAML file.

    Returns:
        (entries, problems): problems are (place, message).

    Raises:
        YamlError, OSError: nothing can be read.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    mapping, problems = parse_yaml(data)
    shown = shown_path(path)
    entries = [
        Entry(key.text, (), node, f"{shown}:{key.line}:{key.column}", f"{shown}:{node.line}:{node.column}")
        for key, node in mapping.items
    ]
    return entries, [(f"{shown}:{problem.line}:{problem.column}", problem.message) for problem in problems]


def unreadable(path, error):
    """Return (place, message) for what `read_file` raised."""
    if isinstance(error, YamlError):
        return f"{shown_path(path)}:{error.line}:{error.column}", error.message
    return COMMAND_LINE, f"--config '{shown_path(path)}' cannot be read: {error.strerror}"


def shown_path(path):
    """Return a path as short as it can be said from here."""
    absolute, here = os.path.abspath(path), os.getcwd() + os.sep
    # A path is cut less readily than a value: the reader wants to open it.
    return "".join(c if c.isprintable() else "?" for c in absolute.removeprefix(here))


def read_flags(argv, kinds):
    """Read `--key value`, `--key=value`, `--key` (true), `--no_key` (false), `--key a b` (a list), `--key.part value`.

    Args:
        kinds: {key: names of values.Kinds}; decides how many words belong to a flag.

    Returns:
        (entries, configs, allowed, problems): what --config and --allow_change were given, and (place, message) pairs.
    """
    groups, problems = _group(argv)
    entries, configs, allowed, seen = [], [], [], set()
    for flag, words in groups:
        if flag == "allow_change":
            allowed += words
            continue
        if flag == "config":
            configs += words
            problems += [] if len(words) == 1 else [(COMMAND_LINE, "--config needs one file")]
            continue
        entry, rest = _entry(flag, words, kinds)
        if entry is None:
            problems.append((COMMAND_LINE, f"--{flag} needs a value"))
            continue
        problems += [(COMMAND_LINE, f"unexpected word '{shown_text(word)}' after --{flag}") for word in rest]
        if entry.name in seen:
            problems.append((COMMAND_LINE, f"--{entry.name} is given twice"))
        seen.add(entry.name)
        entries.append(entry)
    if len(configs) > 1 and not any("--config" in message for _, message in problems):
        problems.append((COMMAND_LINE, "--config is given twice"))
    return entries, configs, allowed, problems


def _group(argv):
    """Split words into [(flag, its words)]; a word that begins with one dash is a value (-1)."""
    groups, problems = [], []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            flag, equals, value = word[2:].partition("=")
            groups.append((flag.replace("-", "_"), [value] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            is_config = word.endswith((".yaml", ".yml")) or "/" in word
            hint = f"; did you mean --config {shown_text(word)}?" if is_config else "; flags begin with --"
            problems.append((COMMAND_LINE, f"unexpected word '{shown_text(word)}'{hint}"))
    return groups, problems


def _entry(flag, words, kinds):
    """Return (Entry or None, words that do not belong to it)."""
    key, *parts = flag.split(".")
    if key.startswith("no_") and key not in kinds and "bool" in kinds.get(key[3:], ()):
        return Entry(key[3:], (), Scalar("false")), words
    known = kinds.get(key)
    if known is None:  # the caller reports it; all words are kept, so that it can look for secrets
        return Entry(key, tuple(parts), Sequence([Scalar(word) for word in words])), []
    if not words:
        return (Entry(key, (), Scalar("true")) if "bool" in known and not parts else None), []
    if "list" in known and not parts and (len(words) > 1 or "text" not in known):
        return Entry(key, (), Sequence([Scalar(word) for word in words])), []
    return Entry(key, tuple(parts), _flag_value(words[0], known)), words[1:]


def _flag_value(word, known):
    """One shell word; a mapping may be written in one: '{min_lr: 1e-5}'."""
    if "mapping" in known and word.startswith("{"):
        with contextlib.suppress(YamlError):
            mapping, problems = parse_yaml(word.encode("utf-8", "replace"))
            return Scalar(word) if problems else mapping
    return Scalar(word)
