"""The command `hftoolkit`: list, copy and run recipes, convert checkpoints, see everything work once.

    hftoolkit list                                  recipes and configurations
    hftoolkit copy pretrain_gpt                     own a copy of a recipe or configuration
    hftoolkit run pretrain_gpt --config gpt/tiny    run a recipe; what follows its name are the recipe's arguments
    hftoolkit convert SRC DST                       a checkpoint from or to the stock classes of transformers
    hftoolkit quickstart                            train, evaluate, generate and export on built-in data

It knows files, not arguments: a recipe reads its own (hftoolkit.arguments). Nothing heavy is imported before it is used.
"""

import argparse
import ast
import importlib
import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

from hftoolkit.arguments.near_names import did_you_mean, near_files, shown_text
from hftoolkit.arguments.packaged import config_files, launch_files, recipe_files
from hftoolkit.arguments.report import drop_output, forgive_encoding, write_out
from hftoolkit.errors import EXIT_CODES, MachineError, UserError, one_line_errors

# 128 + the number of the signal, as shells count. A run that can be resumed after Ctrl-C ends with 75 instead.
INTERRUPTED_BY_CTRL_C = 130
READER_WENT_AWAY = 141

RUN_EXAMPLES = """\
hftoolkit run pretrain_gpt --config gpt/tiny --learning_rate 1e-3
hftoolkit run pretrain_gpt --help
hftoolkit run --launch ddp pretrain_gpt --config gpt/tiny    prints the command that starts several processes
"""


class CommandError(UserError, ValueError):
    """The command line is wrong."""

    exit_code = EXIT_CODES["arguments"]


class Parser(argparse.ArgumentParser):
    """argparse with our one-line errors and our help output."""

    def __init__(self, command, **options):
        super().__init__(
            prog=f"hftoolkit {command}",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message):
        raise CommandError(f"command line  {message}; see {self.prog} --help")

    def _print_message(self, message, file=None):
        write_out(message)


def main(argv=None):
    """Run one command and return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    forgive_encoding()
    try:
        with one_line_errors():
            _dispatch(argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED_BY_CTRL_C
    except BrokenPipeError:  # a recipe printed into a pipe that was closed; what it was doing is not done
        drop_output()
        return READER_WENT_AWAY
    return EXIT_CODES["done"]


def _dispatch(argv):
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        write_out(__doc__)
    elif command == "--version":
        from importlib.metadata import version

        write_out(f"hftoolkit {version('hftoolkit')}\n")
    elif command in COMMANDS:
        COMMANDS[command](argv[1:])
    else:
        hint = did_you_mean(command, COMMANDS) or f"; the commands are {', '.join(COMMANDS)}"
        raise CommandError(f"command line  there is no command '{shown_text(command)}'{hint}")


def list_command(argv):
    """List the recipes with their first line, and the configurations of each architecture."""
    Parser("list", description=list_command.__doc__).parse_args(argv)
    recipes = {name: _first_line(path) for name, path in recipe_files().items()}
    folders = {}
    for name in config_files():
        folder, config = name.split("/")
        folders.setdefault(folder, []).append(config)
    width = max((len(name) for name in [*recipes, *folders]), default=0) + 2
    lines = ["recipes:", *(f"  {name.ljust(width)}{line}" for name, line in recipes.items())]
    lines += ["", "configurations (hftoolkit run RECIPE --config FOLDER/NAME):"]
    lines += [f"  {folder.ljust(width)}{', '.join(names)}" for folder, names in folders.items()]
    lines += ["", "several processes (hftoolkit run --launch NAME RECIPE ...):", f"  {', '.join(launch_files())}"]
    write_out("\n".join(lines) + "\n")


def _first_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0]


def copy_command(argv):
    """Copy a recipe (pretrain_gpt), a configuration (gpt/tiny) or a launch configuration (ddp), to change it."""
    parser = Parser("copy", description=copy_command.__doc__)
    parser.add_argument("name", help="see hftoolkit list")
    parser.add_argument("destination", nargs="?", default=".", help="a file or a folder (default: here)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    options = parser.parse_args(argv)
    source = _packaged(options.name, {**recipe_files(), **config_files(), **launch_files()}, "recipe or configuration")
    destination = Path(options.destination)
    if destination.is_dir() or options.destination.endswith("/"):
        destination /= source.name
    if destination.is_dir() or (destination.exists() and not options.overwrite):
        raise CommandError(f"command line  '{destination}' exists; name another destination, or give --overwrite")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    except OSError as error:
        raise MachineError(f"command line  '{destination}' cannot be written: {error.strerror}") from None
    write_out(f"{source} -> {destination}\n")


def run_command(argv):
    """Run a recipe: a name of `hftoolkit list`, or the path of your own copy. What follows are its arguments."""
    parser = Parser("run", description=run_command.__doc__, epilog=RUN_EXAMPLES)
    parser.add_argument(
        "--launch", metavar="NAME", help="print the `accelerate launch` command with this configuration"
    )
    parser.add_argument("recipe", help="a name, or a path")
    # Everything behind the recipe's name is the recipe's own, --help included.
    head = next((i + 1 for i, word in enumerate(argv) if _is_recipe(argv, i)), len(argv))
    options = parser.parse_args(argv[:head])
    path = _recipe(options.recipe)
    if options.launch:
        config = _packaged(options.launch, launch_files(), "launch configuration")
        write_out(shlex.join(["accelerate", "launch", "--config_file", str(config), str(path), *argv[head:]]) + "\n")
        return
    before, sys.argv = sys.argv, [str(path), *argv[head:]]
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before


def _is_recipe(argv, index):
    return not argv[index].startswith("-") and (index == 0 or argv[index - 1] != "--launch")


def _recipe(text):
    if os.path.isfile(text):
        return Path(text)
    if text.endswith(".py") or "/" in text:
        known = recipe_files().get(Path(text).stem)
        hint = f"; the packaged recipe is called '{Path(text).stem}'" if known else near_files(text)
        raise CommandError(f"command line  there is no file '{shown_text(text)}'{hint}")
    return _packaged(text, recipe_files(), "recipe")


def _packaged(name, files, kind):
    """Return the file of a packaged name."""
    if name.removesuffix(".yaml").removesuffix(".py") in files:
        return files[name.removesuffix(".yaml").removesuffix(".py")]
    hint = did_you_mean(name, files) or f"; there are: {', '.join(files) or 'none'}"
    raise CommandError(f"command line  there is no {kind} '{shown_text(name)}'{hint}")


def convert_command(argv):
    """Convert a saved model and its tokenizer between our classes and the stock ones of transformers."""
    parser = Parser("convert", description=convert_command.__doc__)
    parser.add_argument("source", help="folder of a model")
    parser.add_argument("destination", help="folder to make")
    parser.add_argument("--to", choices=("ours", "stock"), help="default: the other side of what the source is")
    options = parser.parse_args(argv)
    if not os.path.isdir(options.source):
        raise CommandError(
            f"command line  there is no folder '{shown_text(options.source)}'{near_files(options.source)}"
        )
    from hftoolkit.convert import convert_folder

    convert_folder(options.source, options.destination, to=options.to)
    write_out(f"{options.source} -> {options.destination}\n")


def quickstart_command(argv):
    """Train, evaluate, generate and export on built-in data: everything once, offline."""
    parser = Parser("quickstart", description=quickstart_command.__doc__)
    parser.add_argument("--stage", default="all", help="one stage only (default: all)")
    parser.add_argument("--output_dir", help="a new folder (default: the first free one of runs/quickstart-N)")
    options = parser.parse_args(argv)
    importlib.import_module("hftoolkit.quickstart").main(options.stage, options.output_dir)


COMMANDS = {
    "list": list_command,
    "copy": copy_command,
    "run": run_command,
    "convert": convert_command,
    "quickstart": quickstart_command,
}


if __name__ == "__main__":
    sys.exit(main())
