"""The command `hftoolkit`: fast, helpful about names, careful with files, and quiet when its reader goes away."""

import json
import os
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest

from hftoolkit import cli
from hftoolkit.arguments import packaged

RECIPE = '"""Pretrain a toy.\n\nMore words.\n"""\nimport json, sys\njson.dump([__name__, *sys.argv], open("seen.json", "w"))\n'


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty current folder, and packaged files that no other part of the project can change."""
    files = {
        "pretrain_toy.py": RECIPE,
        "generate.py": '"""Write text."""\n',
        "__init__.py": "",
        "configs/toy/tiny.yaml": "seed: 1\n",
        "configs/toy/small.yaml": "seed: 2\n",
        "configs/words/tiny.yaml": "seed: 3\n",
        "accelerate/ddp.yaml": "num_processes: 2\n",
    }
    for name, text in files.items():
        path = tmp_path / "recipes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(packaged, "recipes_folder", lambda: tmp_path / "recipes")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return tmp_path / "recipes"


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; return what it says behind `error  command line  `."""

    def run(*words, code=2):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        output = capsys.readouterr()
        assert (ended.value.code, output.out) == (code, "")
        assert output.err.startswith("error  command line  ") and output.err.count("\n") == 1
        return output.err.removeprefix("error  command line  ").rstrip("\n")

    return run


def python(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, **options)


def test_help_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom hftoolkit.cli import main\nassert main(['--help']) == 0\n"
        "assert not {'torch', 'transformers', 'datasets', 'numpy', 'yaml', 'tokenizers'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 0.5
    for command in cli.COMMANDS:
        assert f"hftoolkit {command}" in done.stdout


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_no_command_shows_the_help(words, capsys):
    assert cli.main(words) == 0
    assert capsys.readouterr().out == cli.__doc__


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert f"usage: hftoolkit {command}" in capsys.readouterr().out


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    name, version = capsys.readouterr().out.split()
    assert name == "hftoolkit" and version[0].isdigit()


def test_f02_unknown_commands_and_names_are_met_with_the_nearest(refused):
    commands = "the commands are list, copy, run, convert, quickstart"
    assert refused("lits") == "there is no command 'lits'; did you mean 'list'?"
    assert refused("xyzzy") == f"there is no command 'xyzzy'; {commands}"
    assert refused("run", "pretrain_tyo") == "there is no recipe 'pretrain_tyo'; did you mean 'pretrain_toy'?"
    assert refused("run", "xyzzy") == "there is no recipe 'xyzzy'; there are: generate, pretrain_toy"
    assert refused("copy", "toy/tyni") == "there is no recipe or configuration 'toy/tyni'; did you mean 'toy/tiny'?"
    assert refused("run", "--launch", "dpd", "generate") == (
        "there is no launch configuration 'dpd'; did you mean 'ddp'?"
    )
    assert refused("copy") == "the following arguments are required: name; see hftoolkit copy --help"
    assert refused("list", "--al") == "unrecognized arguments: --al; see hftoolkit list --help"
    assert refused("convert", "nowhere", "x") == "there is no folder 'nowhere'; '.' holds nothing"


def test_f02_a_recipe_path_that_does_not_exist(refused):
    Path("my_recipe.py").write_text("")
    assert refused("run", "my_recipy.py") == "there is no file 'my_recipy.py'; did you mean 'my_recipe.py'?"
    assert refused("run", "recipes/generate.py") == (
        "there is no file 'recipes/generate.py'; the packaged recipe is called 'generate'"
    )


def test_list(capsys):
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == (
        "recipes:\n"
        "  generate      Write text.\n"
        "  pretrain_toy  Pretrain a toy.\n"
        "\n"
        "configurations (hftoolkit run RECIPE --config FOLDER/NAME):\n"
        "  toy           small, tiny\n"
        "  words         tiny\n"
        "\n"
        "several processes (hftoolkit run --launch NAME RECIPE ...):\n"
        "  ddp\n"
    )


def test_copy_makes_the_file_yours_and_never_overwrites_silently(refused, capsys):
    assert cli.main(["copy", "toy/tiny"]) == 0
    assert Path("tiny.yaml").read_text() == "seed: 1\n"
    assert capsys.readouterr().out.endswith("configs/toy/tiny.yaml -> tiny.yaml\n")
    Path("tiny.yaml").write_text("mine")
    message = "'tiny.yaml' exists; name another destination, or give --overwrite"
    assert refused("copy", "toy/tiny") == refused("copy", "words/tiny.yaml", "tiny.yaml") == message
    assert Path("tiny.yaml").read_text() == "mine"
    assert cli.main(["copy", "toy/tiny", "--overwrite"]) == 0
    assert Path("tiny.yaml").read_text() == "seed: 1\n"


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["pretrain_toy", "new/"], "new/pretrain_toy.py"),
        (["pretrain_toy.py", "a/b/mine.py"], "a/b/mine.py"),
        (["ddp", "."], "ddp.yaml"),
    ],
)
def test_copy_finds_the_destination(words, made):
    assert cli.main(["copy", *words]) == 0
    assert Path(made).is_file()


def test_copy_to_where_nothing_can_be_written_ends_with_code_6(refused):
    Path("file").touch()
    assert refused("copy", "ddp", "file/ddp.yaml", code=6).startswith("'file/ddp.yaml' cannot be written: ")


@pytest.mark.parametrize("recipe", ["pretrain_toy", "own/pretrain_toy.py"])
def test_run_hands_the_arguments_on(recipe, workplace):
    Path("own").mkdir()
    Path("own/pretrain_toy.py").write_text(RECIPE)
    before = list(sys.argv)
    assert cli.main(["run", recipe, "--config", "toy/tiny", "--help", "--launch", "x"]) == 0
    name, path, *words = json.loads(Path("seen.json").read_text())
    assert (name, words) == ("__main__", ["--config", "toy/tiny", "--help", "--launch", "x"])
    assert Path(path) == (Path(recipe) if "/" in recipe else workplace / "pretrain_toy.py")
    assert sys.argv == before


def test_run_passes_the_exit_code_of_the_recipe_on(workplace):
    (workplace / "generate.py").write_text("import sys\nsys.exit(75)\n")
    with pytest.raises(SystemExit, match="75"):
        cli.main(["run", "generate"])


def test_run_turns_a_user_error_into_one_line(workplace, capsys):
    (workplace / "generate.py").write_text(
        "from hftoolkit.errors import DataError\nraise DataError('0 rows in x.txt')\n"
    )
    with pytest.raises(SystemExit, match="3"):
        cli.main(["run", "generate"])
    assert capsys.readouterr() == ("", "error  0 rows in x.txt\n")


def test_run_ends_quietly_on_ctrl_c(workplace, capsys):
    (workplace / "generate.py").write_text("raise KeyboardInterrupt\n")
    assert cli.main(["run", "generate"]) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_run_prints_the_command_for_several_processes(workplace, capsys):
    assert cli.main(["run", "--launch", "ddp", "pretrain_toy", "--note", "two words"]) == 0
    command = f"accelerate launch --config_file {workplace}/accelerate/ddp.yaml {workplace}/pretrain_toy.py"
    assert capsys.readouterr().out == f"{command} --note 'two words'\n"
    assert not Path("seen.json").exists()


@pytest.mark.parametrize("to", [[], ["--to", "ours"], ["--to", "stock"]])
def test_convert_calls_convert_folder(to, monkeypatch, capsys):
    calls = []
    fake = types.SimpleNamespace(convert_folder=lambda *args, **options: calls.append((args, options)))
    monkeypatch.setitem(sys.modules, "hftoolkit.convert", fake)
    Path("model").mkdir()
    assert cli.main(["convert", "model", "new", *to]) == 0
    assert calls == [(("model", "new"), {"to": to[1] if to else None})]
    assert capsys.readouterr().out == "model -> new\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], ("all", None)), (["--stage", "gpt", "--output_dir", "x"], ("gpt", "x"))],
)
def test_quickstart_calls_its_main(words, expected, monkeypatch):
    calls = []
    fake = types.ModuleType("hftoolkit.quickstart")
    fake.main = lambda *args: calls.append(args)
    monkeypatch.setitem(sys.modules, "hftoolkit.quickstart", fake)
    assert cli.main(["quickstart", *words]) == 0
    assert calls == [expected]


# F50: the reader goes away, the terminal is narrow or knows only ASCII


def pipe_to_nobody(*words):
    """Run a module whose stdout is a pipe that is closed already; return (exit code, stderr)."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    return done.returncode, done.stderr


def test_f50_a_closed_pipe_is_no_crash():
    assert pipe_to_nobody("-m", "hftoolkit.cli", "list") == (0, "")
    assert pipe_to_nobody("-m", "hftoolkit.cli", "copy", "--help") == (0, "")


def test_f50_a_closed_pipe_under_a_recipe_is_no_success():
    Path("talk.py").write_text("for _ in range(9999): print('words', flush=True)\n")
    assert pipe_to_nobody("-m", "hftoolkit.cli", "run", "talk.py") == (141, "")


@pytest.mark.parametrize("words", [["--help"], ["list"], ["run", "talk.py"], ["lits"]])
def test_f50_an_ascii_terminal_of_20_columns_is_no_crash(words):
    Path("talk.py").write_text("print('\\u00e9t\\u00e9')\n", encoding="utf-8")
    plain = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "20"}
    done = python("-m", "hftoolkit.cli", *words, env={**os.environ, **plain})
    assert done.returncode == (2 if words == ["lits"] else 0), done.stderr
    assert "Traceback" not in done.stderr and done.stdout.isascii()
