"""Names and paths that arguments give: data sets, models, tokenizers, files, folders.

A path that does not exist is reported as that, with the names that are near, and never ends as a question to the Hub:
a Hub id is written owner/name.
"""

import os
import re

from hftoolkit.arguments.near_names import did_you_mean, near_files, nearest, shown_text
from hftoolkit.arguments.packaged import config_files
from hftoolkit.arguments.tables import OWNERS

# The microworld; documents for learning in context; instructions of several kinds; ranked answers.
BUILTIN = ("builtin", "builtin:in_context", "builtin:instructions", "builtin:rankings")
TOKENIZER_KINDS = ("byte_bpe", "gpt1_bpe", "wordpiece", "unigram", "word", "character", "byte")
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}")
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # no file name on Windows
LONGEST_PART = 255  # bytes in one part of a path on every common file system
DATA_SUFFIXES = (
    *(".txt", ".text", ".md", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".conll", ".conllu", ".iob2"),
    *(".gz", ".zst", ".bz2", ".xz", ".zip", ".xml", ".html", ".npz"),
)
# Nobody on the Hub is meant by these: `runs/gpt` that does not exist is a run that was not made yet, or elsewhere.
LOCAL_FOLDERS = frozenset({"runs", "data", "models", "checkpoints", "output", "outputs", "out", "results"})
NAMED = {"dataset": "data set", "model": "model", "tokenizer": "tokenizer"}


def source_problem(kind, text):
    """Return what is wrong with the name of a data set, model or tokenizer, or None.

    Args:
        kind: "dataset" (also the names of BUILTIN, files and folders), "model" (folders), "tokenizer" (folders and kinds).
    """
    problem = path_problem(text)
    if problem:
        return f"{NAMED[kind]} {problem}"
    if text in {"dataset": BUILTIN, "tokenizer": TOKENIZER_KINDS}.get(kind, ()):
        return None
    path = os.path.expanduser(text)
    if os.path.isdir(path) or (os.path.exists(path) and kind == "dataset"):
        return None
    if os.path.exists(path):
        return f"the {NAMED[kind]} '{shown_text(text)}' is a file; give the folder that holds it"
    if looks_like_path(text, kind) or text.split("/")[0] in LOCAL_FOLDERS:
        return f"there is no '{shown_text(text)}'{near_files(text)}"
    if HUB_ID.fullmatch(text):
        return _shadowed_folder(text)
    return _bare_name(kind, text)


def looks_like_path(text, kind="dataset"):
    """True for ./x, ../x, /x, ~x, a/b/c, and for a data file's suffix."""
    suffix = kind == "dataset" and text.lower().endswith(DATA_SUFFIXES)
    return text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1 or "\\" in text or suffix


def _shadowed_folder(text):
    """`data/trian` has the form of a Hub id; beside an existing folder data/train it is a misspelt path."""
    hint = near_files(text) if os.path.isdir(os.path.dirname(text)) else ""
    return f"there is no '{text}'{hint}" if "did you mean" in hint else None


def _bare_name(kind, text):
    if text in OWNERS:
        return f"a {NAMED[kind]} on the Hub is written owner/name; did you mean '{OWNERS[text]}/{text}'?"
    here = os.listdir(".")
    known = {"dataset": list(BUILTIN), "tokenizer": list(TOKENIZER_KINDS), "model": []}[kind]
    others = {"dataset": "'builtin', ", "tokenizer": f"one of {', '.join(TOKENIZER_KINDS)}, "}.get(kind, "")
    allowed = f"{others}a {'file or ' if kind == 'dataset' else ''}folder, or owner/name on the Hub"
    shown = shown_text(text)
    return f"there is no {NAMED[kind]} '{shown}'{did_you_mean(text, [*known, *here, *OWNERS]) or '; give ' + allowed}"


def path_problem(text):
    """Return why no path can look like this, or None."""
    if not text.strip():
        return "is empty"
    if not text.isprintable():
        return f"'{shown_text(text)}' holds control characters"
    for part in text.split("/"):
        if len(part.encode("utf-8", "replace")) > LONGEST_PART:
            return f"'{shown_text(text)}' has a part of more than {LONGEST_PART} bytes"
    return None


def name_problem(key, text):
    """Return why a run, a data set configuration or a revision cannot be called this, or None."""
    pattern = REVISION if key.endswith("revision") else NAME
    if key == "hub_model_id" and text.count("/") == 1:
        pattern = HUB_ID
    if pattern.fullmatch(text) and not RESERVED.fullmatch(text) and ".." not in text:
        return None
    return f"'{key}' is a name: letters, digits, '.', '_' and '-', at most 96; got '{shown_text(text)}'"


def folder_problem(key, text):
    """Return why a run folder cannot be called this, or None: its last part becomes the name of the model."""
    problem = path_problem(text)
    if problem:
        return f"'{key}' {problem}"
    name = os.path.basename(os.path.abspath(os.path.expanduser(text)))
    if NAME.fullmatch(name) and not RESERVED.fullmatch(name):
        return None
    rule = "letters, digits, '.', '_' and '-', at most 96"
    return f"'{key}' must end in a folder name that can name the model ({rule}), got '{shown_text(name)}'"


def rule_problem(key, rules, value):
    """Return what is wrong with a text that stands for something (see fields.Field), or None."""
    if not isinstance(value, str):
        return None
    if "source" in rules:
        problem = source_problem(rules["source"], value)
        return f"'{key}': {problem}" if problem else None
    for rule, check in (("name", name_problem), ("folder", folder_problem), ("must_exist", existing_problem)):
        if rules.get(rule):
            return check(key, value)
    return None


def existing_problem(key, text):
    """Return why a path that must exist does not, or None."""
    problem = path_problem(text)
    if problem:
        return f"'{key}' {problem}"
    if os.path.exists(os.path.expanduser(text)):
        return None
    return f"'{key}': there is no '{shown_text(text)}'{near_files(text)}"


def find_config(text):
    """Return the path of a configuration: a file, or the name of a packaged one (`gpt/tiny`).

    Raises:
        ValueError: there is none; the message names what is near.
    """
    problem = path_problem(text)
    if problem:
        raise ValueError(f"--config {problem}")
    path, packaged = os.path.expanduser(text), config_files()
    if os.path.isfile(path) or (os.path.exists(path) and not os.path.isdir(path)):
        return path
    name = text.removesuffix(".yaml").removesuffix(".yml")
    if name in packaged:
        return str(packaged[name])
    if os.path.isdir(path):
        inside = ", ".join(sorted(other for other in os.listdir(path) if other.endswith((".yaml", ".yml")))[:5])
        raise ValueError(
            f"--config '{shown_text(text)}' is a folder; name a file in it: {inside or 'it has no .yaml'}"
        )
    last = "/".join(name.split("/")[-2:])
    if last in packaged:
        raise ValueError(f"there is no configuration '{shown_text(text)}'; the packaged one is called '{last}'")
    near = nearest(name, packaged) if "." not in text.split("/")[0] and not text.endswith((".yaml", ".yml")) else None
    hint = f"; did you mean '{near}'?" if near else near_files(text)
    raise ValueError(f"there is no configuration '{shown_text(text)}'{hint}")
