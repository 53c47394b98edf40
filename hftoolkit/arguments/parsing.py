"""From argv to dataclass instances: read, check each key, check keys together, check the run folder, build."""

import importlib
import json
import os
import sys

from hftoolkit.arguments import checks, model_config, sources
from hftoolkit.arguments.fields import REQUIRED, fields_of
from hftoolkit.arguments.help_text import recipe_help
from hftoolkit.arguments.near_names import did_you_mean, shown_text
from hftoolkit.arguments.output_folder import check_output_folder
from hftoolkit.arguments.reading import COMMAND_LINE, HELP, read_file, read_flags, shown_path, unreadable
from hftoolkit.arguments.report import Problems, end_well, forgive_encoding, rank
from hftoolkit.arguments.tables import GONE, STOCK_FOLDER
from hftoolkit.arguments.values import read_annotation, read_value
from hftoolkit.errors import EXIT_CODES
from hftoolkit.stock_arguments import UNKNOWN
from hftoolkit.strict_yaml import Mapping, YamlError, texts, to_python

ENVIRONMENT = EXIT_CODES["environment"]
CONFIG = "model_config"
PATH_RULES = {"source", "folder", "must_exist"}
LONGEST_MESSAGE = 300  # of what a constructor complains about


def parse_arguments(*classes, argv=None):
    """Read a YAML file and flags into one instance of each class.

    A key that several classes have reaches all of them. Instances of stock classes get two attributes more:
    `given_arguments`, {key: value} of what the user gave, and `allowed_changes`, the keys of --allow_change.

    Args:
        classes: dataclasses, and dotted names of stock ones ("transformers.TrainingArguments").
        argv: the words after the program's name; those of this process by default.

    Raises:
        SystemExit: 0 after --help or if this very run is finished already; 2 if the arguments are wrong; 6 if a
            package is missing or a folder cannot be written. In a launch of several processes only rank 0 writes.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    forgive_encoding()
    parsing = Parsing(classes)
    if any(word in HELP for word in argv):
        end_well(recipe_help(classes, parsing.groups))
    parsing.read(argv)
    parsing.problems.end_if_any()
    if parsing.done_folder is not None:
        end_well(f"already done: {parsing.done_folder}\n")
    return parsing.build()


class Parsing:
    """One reading of arguments.

    `values` holds what was given and right, `places` where, and `bad` the keys that were given wrong: no further
    complaint may rest on them.
    """

    def __init__(self, classes):
        self.classes, self.groups = classes, []
        self.problems, self.values, self.places, self.bad = Problems(), {}, {}, set()
        self.config_place, self.config_parts, self.allowed, self.done_folder = COMMAND_LINE, [], [], None
        for kind in classes:
            try:
                self.groups.append(fields_of(kind))
            except (ModuleNotFoundError, LookupError) as error:
                self.problems.add(COMMAND_LINE, f"{error}; install it: pip install hftoolkit", ENVIRONMENT)
                self.problems.end_if_any()
        self.fields = {name: field for group in reversed(self.groups) for name, field in group.items()}

    def wrong(self, entry, message, place=None):
        self.bad.add(entry.name)
        self.problems.add(place or entry.value_place, message)

    def read(self, argv):
        """Read and check everything; afterwards `problems` is complete."""
        kinds = {name: set(read_annotation(field.annotation).names) for name, field in self.fields.items()}
        for name, field in self.fields.items():
            kinds[name] |= {"text"} if field.limits.get("choices") and "list" not in kinds[name] else set()
        entries, configs, self.allowed, problems = read_flags(argv, kinds)
        from_file = self.read_config(configs[0]) if configs else []
        for entry in [*(from_file or []), *entries]:
            self.take(entry)
        for place, message in problems:
            self.problems.add(place, message)
        if from_file is not None:  # without the file, complaints about what is missing would be guesses
            self.take_model_config()
            self.check_together()
            self.check_folder()

    def read_config(self, text):
        """Return the entries of the configuration file, or None if it cannot be read."""
        try:
            path = sources.find_config(text)
        except ValueError as error:
            return self.problems.add(COMMAND_LINE, str(error))
        try:
            entries, problems = read_file(path)
        except (YamlError, OSError) as error:
            return self.problems.add(*unreadable(path, error))
        self.config_place = shown_path(path)
        for place, message in problems:
            self.problems.add(place, message)
        return entries

    def take(self, entry):
        """Check one entry and keep its value."""
        field = self.fields.get(entry.key)
        secret = checks.secret_problem(entry.name, texts(entry.node))
        if secret:
            self.wrong(entry, secret)
        elif field is None:
            self.wrong(entry, self.unknown(entry), entry.key_place)
        elif field.rules.get("flag_only") and not entry.from_flag:
            message = f"'{entry.key}' is not read from a file, which may come from somebody else; give --{entry.key}"
            self.wrong(entry, message, entry.key_place)
        elif entry.key == CONFIG and (entry.parts or isinstance(entry.node, Mapping)):
            self.places[CONFIG] = entry.key_place
            self.config_parts += model_config.parts_of(entry)
        elif entry.parts:
            self.take_part(entry, field)
        else:
            self.take_value(entry, field)

    def unknown(self, entry):
        """Say that a key is unknown, and which was meant."""
        name = entry.key
        if name in GONE:
            hint = f"; {GONE[name]}"
        elif CONFIG in self.fields and (owner := model_config.owner_of(name)):
            hint = f"; it is a field of {owner}: write it under '{CONFIG}', or as --{CONFIG}.{name}"
        else:
            hint = did_you_mean(name, self.fields) or "; --help lists the keys"
        return f"unknown key '{shown_text(name)}'{hint}"

    def take_value(self, entry, field):
        try:
            value = read_value(field, entry.node, entry.from_flag)
        except ValueError as error:
            return self.wrong(entry, str(error))
        problem = sources.rule_problem(field.name, field.rules, value)
        if problem:
            return self.wrong(entry, problem)
        if isinstance(value, str) and field.rules.keys() & PATH_RULES:
            value = os.path.expanduser(value)  # no shell has done it in a file
        self.values[entry.key], self.places[entry.key] = value, entry.value_place

    def take_part(self, entry, field):
        """--lr_scheduler_kwargs.min_lr 1e-5 is one key of a mapping."""
        if "mapping" not in read_annotation(field.annotation).names:
            return self.wrong(entry, f"'{entry.key}' is no mapping, so there is no '{shown_text(entry.name)}'")
        whole = self.values.get(entry.key)
        inner = self.values[entry.key] = whole if isinstance(whole, dict) else {}
        for part in entry.parts[:-1]:
            inner[part] = inner[part] if isinstance(inner.get(part), dict) else {}
            inner = inner[part]
        inner[entry.parts[-1]] = to_python(entry.node)
        self.places[entry.key] = entry.value_place

    def take_model_config(self):
        """Check the keys of model_config, now that the architecture is known."""
        if CONFIG not in self.fields or CONFIG not in self.places:
            return
        self.values[CONFIG] = {}
        for entry in self.config_parts:
            try:
                value = model_config.read_part(entry, self.architecture(), self.fields)
            except ValueError as error:
                self.wrong(entry, str(error), entry.key_place if " has no '" in str(error) else None)
            else:
                self.values[CONFIG][".".join(entry.parts)] = value
                self.places[entry.name] = entry.value_place

    def architecture(self):
        """Return the architecture if it is given, or if the checkpoint is a folder with one of ours."""
        if self.values.get("architecture"):
            return self.values["architecture"]
        folder = self.values.get("model_name_or_path")
        return model_config.architecture_of(folder) if folder else None

    def defaults(self):
        """Return {key: default} of all keys; those of model_config are of the architecture or the checkpoint."""
        defaults = {
            name: field.default for name, field in self.fields.items() if field.default not in (REQUIRED, UNKNOWN)
        }
        if CONFIG in defaults:
            name, folder = self.values.get("architecture"), self.values.get("model_name_or_path")
            defaults[CONFIG] = model_config.defaults_of(name) if name else model_config.positions_of(folder)
        return defaults

    def check_together(self):
        """Check what is missing and what contradicts."""
        for name, field in self.fields.items():
            if field.default == REQUIRED and not {name} & (self.values.keys() | self.bad):
                self.problems.add(self.config_place, f"'{name}' is missing: {field.help}")
        defaults = self.defaults()
        known = defaults | self.values
        config = {**defaults.get(CONFIG, {}), **self.values.get(CONFIG, {})}
        known |= {f"{CONFIG}.{name}": value for name, value in config.items()}
        for keys, message in checks.contradictions(known, self.values.keys()):
            if not self.bad & set(keys):
                place = next((self.places[key] for key in keys if key in self.places), self.config_place)
                self.problems.add(place, message)
        for key, message in checks.missing_packages(known):
            self.problems.add(self.places.get(key, self.config_place), message, ENVIRONMENT)

    def check_folder(self):
        """Check the run folder, and what may change in it."""
        for key in self.allowed:
            if key.split(".")[0] not in self.fields:
                message = f"--allow_change: unknown key '{shown_text(key)}'{did_you_mean(key, self.fields)}"
                self.problems.add(COMMAND_LINE, message)
        field = self.fields.get("output_dir")
        if field is None or field.rules.get("may_exist") or "output_dir" in self.bad:
            return
        stock = any(isinstance(kind, str) for kind in self.classes)
        folder = self.values.get("output_dir", field.default) or (STOCK_FOLDER if stock else None)
        if folder in (None, REQUIRED):
            return
        defaults = self.defaults()
        free = checks.inert_keys(defaults | self.values) | set(self.allowed) | self.bad
        refusals, done = check_output_folder(folder, self.values, defaults, free, check_lock=rank() == 0)
        for refusal in refusals:
            self.problems.add(self.places.get("output_dir", self.config_place), str(refusal), refusal.exit_code)
        self.done_folder = folder if done else None

    def build(self):
        """Build the instances; own classes first, because stock ones import torch."""
        built = {}
        for index in sorted(range(len(self.classes)), key=lambda index: isinstance(self.classes[index], str)):
            kind = self.classes[index]
            chosen = {key: value for key, value in self.values.items() if key in self.groups[index]}
            try:
                built[index] = _stock_class(kind)(**chosen) if isinstance(kind, str) else kind(**chosen)
            except (ValueError, ImportError) as error:
                name = kind if isinstance(kind, str) else kind.__name__
                self.problems.add(self.config_place, f"{name}: {shown_text(str(error).strip(), LONGEST_MESSAGE)}")
                self.problems.end_if_any()
            if isinstance(kind, str):
                built[index].given_arguments = json.loads(json.dumps(self.values))
                built[index].allowed_changes = self.allowed
        return tuple(built[index] for index in range(len(self.classes)))


def _stock_class(dotted):
    module, name = dotted.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)
