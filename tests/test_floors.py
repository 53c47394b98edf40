"""Imports go down the floors only, and the files that travel to the Hub stand alone."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [  # the first pattern that fits a file names its floor
    (6, ["recipes/*.py", "hftoolkit/cli.py", "hftoolkit/quickstart/*.py"]),
    (5, ["hftoolkit/run.py"]),
    (4, ["hftoolkit/rl/*.py", "hftoolkit/interpret/*.py"]),
    (2, ["hftoolkit/arguments/*.py", "hftoolkit/data/**/*.py", "hftoolkit/tokenization/*.py"]),
    (2, ["hftoolkit/models/__init__.py", "hftoolkit/safe_loading.py"]),
    (1, ["hftoolkit/models/modeling_*.py", "hftoolkit/strict_yaml.py", "hftoolkit/stock_arguments.py"]),
    (1, ["hftoolkit/remote_code.py", "hftoolkit/private_text.py", "hftoolkit/hub_errors.py"]),
    (1, ["hftoolkit/export_probe.py"]),
    (0, ["hftoolkit/models/layers_*.py", "hftoolkit/errors.py", "hftoolkit/__init__.py"]),
    (3, ["hftoolkit/*.py", "hftoolkit/training/*.py", "hftoolkit/evaluation/*.py", "hftoolkit/convert/*.py"]),
]
LATE = ("trl", "peft", "evaluate", "matplotlib", "vllm", "sklearn", "scipy")
FOLDERS_WITH_INNER_IMPORTS = (
    "training",
    "evaluation",
    "convert",
    "rl",
    "interpret",
    "quickstart",
    "tokenization",
    "data",
    "arguments",
)
SOURCES = sorted([*ROOT.glob("hftoolkit/**/*.py"), *ROOT.glob("recipes/*.py")])


def floor_of(path):
    relative = path.relative_to(ROOT)
    for floor, patterns in FLOORS:
        for pattern in patterns:
            if relative.full_match(pattern) if hasattr(relative, "full_match") else _matches(relative, pattern):
                return floor
    raise AssertionError(f"{relative} is on no floor: add it to FLOORS in {Path(__file__).name}")


def _matches(relative, pattern):
    return relative in {p.relative_to(ROOT) for p in ROOT.glob(pattern)}


def imports_of(path):
    """(module, whether at the top level) of every import of this project; relative ones made absolute."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parts, base]).rstrip(".")
            yield base, id(node) in top
            yield from ((f"{base}.{alias.name}", id(node) in top) for alias in node.names)


def file_of(module):
    """The source file of a module of this project, or None."""
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    own = floor_of(path)
    for module, _ in imports_of(path):
        target = file_of(module) if module.startswith("hftoolkit") else None
        if target is None or target == path or target.name == "__init__.py" and target.parent == ROOT / "hftoolkit":
            continue
        other = floor_of(target)
        same_folder = path.parent == target.parent and path.parent.name in FOLDERS_WITH_INNER_IMPORTS
        inside = path.parent in target.parents or target.parent in path.parents
        assert other < own or same_folder or (inside and other == own and path.parent != ROOT / "hftoolkit"), (
            f"{path.relative_to(ROOT)} (floor {own}) imports {module} (floor {other})"
        )


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_are_imported_late(path):
    for module, at_top in imports_of(path):
        package = module.split(".")[0]
        if package in LATE:
            assert not at_top, f"{path.relative_to(ROOT)} imports {package} at its top; import it where it is used"
            assert floor_of(path) > 2, f"{path.relative_to(ROOT)} is below floor 3 and imports {package}"


def test_data_and_models_do_not_know_each_other():
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        for module, _ in imports_of(path):
            assert not (parts[1:2] == ("data",) and module.startswith("hftoolkit.models")), path
            assert not (parts[1:2] == ("models",) and module.startswith("hftoolkit.data")), path


def test_files_that_travel_import_only_siblings():
    """What save_pretrained copies must run where hftoolkit is not installed."""
    for path in (ROOT / "hftoolkit/models").glob("*_*.py"):
        if path.name == "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module and "." not in node.module, f"{path.name}: line {node.lineno}"
                assert not path.name.startswith("layers_"), f"{path.name} is a leaf: line {node.lineno}"
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                assert not any(name.split(".")[0] == "hftoolkit" for name in names), f"{path.name}: {node.lineno}"


def test_a_forbidden_import_is_noticed(tmp_path, monkeypatch):
    """The check can fail: a data file that imports the run is above its floor."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for name in ("hftoolkit/data/text.py", "hftoolkit/run.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("from hftoolkit.run import run_training\n" if "data" in name else "")
    with pytest.raises(AssertionError, match="floor 2"):
        test_imports_go_down(tmp_path / "hftoolkit/data/text.py")
