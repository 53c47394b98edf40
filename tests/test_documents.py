"""What the documents say can be run: every command parses, every file it names exists."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from hftoolkit import cli, quickstart

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__")
COMMAND = re.compile(r"^\s*(python|hftoolkit|accelerate launch|make|\.venv/bin/hftoolkit)\s.*", re.MULTILINE)


def commands():
    """(document, command) of each code block of the README and each recipe's and benchmark's docstring."""
    for path in [ROOT / "README.md", *(ROOT / "recipes").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]:
        text = path.read_text()
        if path.suffix == ".md":
            text = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
        elif text:
            text = text.split('"""')[1]
        for found in COMMAND.finditer(text):
            yield pytest.param(
                found[0].split("#")[0].split("[")[0].strip(), id=f"{path.name}: {found[0].strip()[:70]}"
            )


def parse(recipe, argv):
    """Check the arguments of a recipe as its command line would; a file the user must bring may be missing."""
    import importlib

    module = importlib.import_module(f"hftoolkit.recipes.{recipe}")
    try:
        return module.parse(argv)
    except SystemExit as stop:
        assert stop.code in (0, None), f"{recipe} refuses {argv}"
        return ()


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_accepted(command, tmp_path, monkeypatch):
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    script = next((word for word in words if word.endswith(".py") and "my_" not in word), None)
    if script is not None:
        assert (ROOT / script).is_file(), f"{command} names a file that does not exist"
    if "--config_file" in words:
        assert (ROOT / words[words.index("--config_file") + 1]).is_file()
    if script and script.startswith("benchmarks/"):
        return
    if words[0].endswith("hftoolkit") and words[1] != "run":
        assert words[1] in ("list", "copy", "convert", "quickstart")
        return
    recipe = Path(script).stem if script else words[2]
    argv = words[words.index(script) + 1 :] if script else words[3:]
    assert recipe in RECIPES
    monkeypatch.chdir(tmp_path)
    made = [f"runs/{model}{size}" for model in ("gpt", "bert") for size in ("", "-tiny")] + ["runs/in-context-gpt"]
    for name in made:  # what an earlier command of the document makes
        Path(name).mkdir(parents=True)
        (Path(name) / "config.json").write_text('{"model_type": "hft_gpt"}')
    for name in ("DATA", "data.txt", "corpus.txt", "glove.6B.300d.txt"):
        Path(name).write_text("text")
    for name in made:
        if f"--output_dir {name}" in command:
            (Path(name) / "config.json").unlink()
    argv = ["./DATA" if word == "DATA" else word for word in argv]
    needs_flag = {"gpt/gpt2", "gpt/ppo", "bert/base", "bert/large", "t5/base"} & set(
        argv
    )  # bf16 asks for a GPU or --use_cpu
    parse(recipe, [*argv, "--use_cpu"] if needs_flag else argv)


def test_every_recipe_and_config_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for recipe in RECIPES:
        assert recipe in text, f"README.md does not name recipes/{recipe}.py"
    for config in (ROOT / "recipes/configs").glob("*/*.yaml"):
        assert config.stem in text, f"README.md does not name {config.relative_to(ROOT)}"


def configs_by_recipe():
    """(recipe, config) of each row of the README's table."""
    for line in (ROOT / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 5 or cells[2].strip("`") not in RECIPES:
            continue
        for folder, names in re.findall(r"`(\w+)/\{?([\w,]+)\}?`", cells[3].split("model:")[0]):
            yield from (
                pytest.param(cells[2].strip("`"), f"{folder}/{name}", id=f"{folder}/{name}")
                for name in names.split(",")
            )


@pytest.mark.parametrize(("recipe", "config"), list(configs_by_recipe()))
def test_every_config_is_accepted(recipe, config, tmp_path, monkeypatch):
    """By the recipe beside which the README names it; what the user brings is a folder with a model, and text."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "hft_gpt"}')
    Path("DATA").write_text("text")
    given = yaml.safe_load((ROOT / f"recipes/configs/{config}.yaml").read_text())
    trains = re.search(
        r"TrainingArguments|SFTConfig|PPOConfig|DPOConfig|GRPOConfig", (ROOT / f"recipes/{recipe}.py").read_text()
    )
    argv = ["--config", config, *(["--use_cpu"] if trains else [])]
    if not {"architecture", "model_name_or_path"} & given.keys() and recipe != "train_tokenizer":
        argv += ["--model_name_or_path", "./model"]
    parsed = parse(recipe, argv if "dataset" in given else [*argv, "--dataset", "./DATA"])
    for key in given:
        assert any(hasattr(arguments, key) for arguments in parsed), f"nothing in {recipe} takes {key}"
    for key in {"architecture", "dataset", "seed"} & given.keys():
        assert {getattr(arguments, key) for arguments in parsed if hasattr(arguments, key)} == {given[key]}


def test_links_lead_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert target.startswith("http") or (ROOT / target).exists(), f"{document.name} links to {target}"


def test_the_file_tree_of_the_readme_exists():
    tree = re.search(r"## Files\n\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    for line in tree.splitlines():
        name = line.split()[0]
        assert (ROOT / "hftoolkit" / name).exists() or (ROOT / name).exists(), f"README.md lists {name}"


def test_stages_of_the_quickstart():
    from hftoolkit.errors import UserError

    with pytest.raises(UserError, match="no stage 'gtp'; the stages are all, words, classifiers"):
        quickstart.main("gtp")
    assert callable(cli.main)


def test_recipes_are_short():
    for recipe in RECIPES:
        assert len((ROOT / f"recipes/{recipe}.py").read_text().splitlines()) <= 120, recipe
