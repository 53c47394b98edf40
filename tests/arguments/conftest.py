"""A recipe's classes, an empty folder to work in, and the two ways a reading can end."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from hftoolkit.arguments import DataArguments, ModelArguments, model_config, packaged, parse_arguments

MODELING = """
class Other: ...

class HftGptConfig(PretrainedConfig):
    def __init__(self, vocab_size=100, hidden_size=32, num_attention_heads=4, max_position_embeddings=64,
                 intermediate_size=None, hidden_act="gelu", dropout=0.1, tie=True, order: Literal["pre", "post"] = "pre",
                 **kwargs):
        pass
"""
STOCK = """
from dataclasses import dataclass, field
from .kinds import Strategy

@dataclass
class Base:
    seed: int = 42
    learning_rate: float = field(default=5e-5, metadata={"help": "how fast"})

@dataclass
class Config(Base):
    output_dir: str | None = None
    eval_strategy: Strategy | str = field(default="no", metadata={"help": "when"})
    label_names: list[str] | None = None
    lr_scheduler_kwargs: dict | str | None = None
    bf16: bool = False
    hidden: int = field(default=0, init=False)

    def __post_init__(self):
        if self.bf16:
            raise ValueError("bf16 needs a GPU\\nor use_cpu")
"""


@dataclass
class TaskArguments:
    max_length: int = field(default=32, metadata={"help": "tokens per row", "min": 2})
    temperature: float = field(default=1.0, metadata={"above": 0, "max": 10})
    words: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    kind: Literal["long", "short"] = "long"
    note: str = ""
    prompts: str | None = field(default=None, metadata={"must_exist": True})


@pytest.fixture
def recipe():
    """What a true recipe passes to parse_arguments."""
    return ModelArguments, DataArguments, TaskArguments, "transformers.TrainingArguments"


@pytest.fixture
def small():
    """A recipe without a model, whose stock class imports nothing heavy."""
    return TaskArguments, "fakestock.Config"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty current folder, one architecture, one packaged configuration, and a small stock package."""
    folder = tmp_path / "here"
    files = {
        "models/modeling_gpt.py": MODELING,
        "recipes/configs/gpt/tiny.yaml": "architecture: gpt\nmax_length: 16\n",
        "site/fakestock/__init__.py": "from .config import Config\n",
        "site/fakestock/config.py": STOCK,
        "site/fakestock/kinds.py": 'class Strategy(ExplicitEnum):\n    NO = "no"\n    STEPS = "steps"\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    enum = "from enum import Enum\nclass ExplicitEnum(str, Enum): ...\n"
    (tmp_path / "site/fakestock/kinds.py").write_text(enum + files["site/fakestock/kinds.py"])
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(model_config, "MODELS_FOLDER", tmp_path / "models")
    monkeypatch.setattr(packaged, "recipes_folder", lambda: tmp_path / "recipes")
    monkeypatch.delenv("RANK", raising=False)
    model_config.architecture_fields.cache_clear()
    yield folder
    model_config.architecture_fields.cache_clear()
    for name in [name for name in sys.modules if name.startswith("fakestock")]:
        del sys.modules[name]


@pytest.fixture
def refused(capsys, recipe):
    """Run with a configuration and flags; return the lines of the refusal without the last, which is checked here."""

    def run(text="", *flags, classes=recipe, code=2):
        argv = list(flags)
        if text:
            Path("c.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
            argv += ["--config", "c.yaml"]
        with pytest.raises(SystemExit) as ended:
            parse_arguments(*classes, argv=argv)
        output = capsys.readouterr()
        assert (ended.value.code, output.out) == (code, ""), output
        *lines, last = output.err.splitlines()
        assert last == f"{len(lines)} problem{'s' if len(lines) > 1 else ''}; nothing was started."
        assert all(line.startswith("error  ") for line in lines)
        return [line.removeprefix("error  ") for line in lines]

    return run


@pytest.fixture
def parse(small):
    """Run with a configuration and flags; return the instances."""

    def run(text="", *flags, classes=small):
        argv = list(flags)
        if text:
            Path("c.yaml").write_text(text)
            argv += ["--config", "c.yaml"]
        return parse_arguments(*classes, argv=argv)

    return run
