"""A saved model loads, computes the same and saves again in a program that cannot import hftoolkit."""

import json

import pytest
import torch

from hftoolkit import export
from hftoolkit.errors import CheckpointError, UserError
from hftoolkit.export import check_export, check_source
from hftoolkit.publish import publish_folder

pytestmark = pytest.mark.export
HEADS = [
    *("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModelForTokenClassification"),
    "AutoModelForMultipleChoice",
]


def exactly(heads):
    """No difference, but for rounding where there is one number per row."""
    return {head: pytest.approx(0.0, abs=1e-7 if head == "AutoModelForMultipleChoice" else 0) for head in heads}


def test_every_gpt_head_loads_without_hftoolkit(gpt_folder):
    """Also what the checkpoint does not hold, the classifiers: initialised from the same seed, to the same numbers."""
    assert check_export(gpt_folder) == exactly(HEADS)


def test_every_bert_head_loads_without_hftoolkit(bert_folder):
    from hftoolkit.models.modeling_bert import AUTO_MAP

    heads = [head for head in AUTO_MAP if head != "AutoConfig"]
    assert len(heads) == 8
    assert check_export(bert_folder) == exactly(heads)


def test_every_t5_head_loads_without_hftoolkit(t5_folder):
    from hftoolkit.models.modeling_t5 import AUTO_MAP

    heads = [head for head in AUTO_MAP if head != "AutoConfig"]
    assert len(heads) == 5
    assert check_export(t5_folder) == exactly(heads)


def test_every_transformer_head_loads_without_hftoolkit(transformer_folder):
    from hftoolkit.models.modeling_transformer import AUTO_MAP

    heads = [head for head in AUTO_MAP if head != "AutoConfig"]
    assert len(heads) == 2
    assert check_export(transformer_folder) == exactly(heads)


def test_every_seq2seq_head_loads_without_hftoolkit(seq2seq_folder):
    from hftoolkit.models.modeling_seq2seq import AUTO_MAP

    heads = [head for head in AUTO_MAP if head != "AutoConfig"]
    assert len(heads) == 2
    assert check_export(seq2seq_folder) == exactly(heads)


@pytest.mark.parametrize(
    "classifier_folder",
    ["rnn", *(pytest.param(name, marks=pytest.mark.slow) for name in ("bow", "dan", "textcnn"))],
    indirect=True,
)
def test_every_head_of_a_classifier_loads_without_hftoolkit(classifier_folder):
    """One architecture here, for the time a process takes; the others in the slow tests."""
    folder, heads = classifier_folder
    assert check_export(folder) == exactly(heads)


def test_every_gpt_head_loads_from_the_hub_without_hftoolkit(gpt_folder, hub, client):
    publish_folder(gpt_folder, "alice/gpt")
    pushed = hub.repo("alice/gpt").files()
    assert {"modeling_gpt.py", "layers_attention.py", "model.safetensors", "tokenizer.json"} <= set(pushed)
    assert check_export(gpt_folder, hub_id="alice/gpt") == exactly(HEADS)
    assert any(line.startswith("GET /alice/gpt/resolve/") and "modeling_gpt.py" in line for line in hub.requests)


def test_notices_code_that_needs_hftoolkit_to_be_right(toy_folder):
    """The other program gets the same weights but adds 0.001; only one of the two heads uses the line."""
    code = toy_folder / "layers_toy.py"
    shift = "try:\n    import hftoolkit\n    SHIFT = 0.0\nexcept ImportError:\n    SHIFT = 0.001\n"
    code.write_text(
        code.read_text().replace("def ", shift + "\n\ndef ").replace("clamp(min=1)", "clamp(min=1) + SHIFT")
    )
    with pytest.raises(CheckpointError, match=r"AutoModelForSequenceClassification differs by 0\.\d+ without"):
        check_export(toy_folder)


@pytest.mark.parametrize(
    "answer, stage, reason",
    [
        ({"error": "ImportError: no x"}, "loaded", "AutoModel does not load without hftoolkit: ImportError: no x"),
        ({"error": None, "module": "hftoolkit.models.modeling_gpt"}, "loaded", "AutoModel was loaded as hftoolkit"),
        ({"error": None, "module": "transformers_modules.x"}, "other", "AutoModel loaded without hftoolkit gives ano"),
        ({"error": None, "module": "transformers_modules.x"}, "loaded", "AutoModel reloaded without hftoolkit gives"),
    ],
)
def test_a_failure_names_the_head_and_the_stage(answer, stage, reason):
    ones = torch.ones(2, 3)
    with pytest.raises(CheckpointError, match=reason):
        export._difference("run", "AutoModel", {"logits": ones}, {f"AutoModel/{stage}/logits": ones}, answer, 0.0)


def test_notices_one_nan_in_the_other_program():
    """A difference with NaN in it must not count as none."""
    ours, theirs = torch.ones(2), torch.tensor([1.0, float("nan")])
    outputs = {f"AutoModel/{stage}/logits": theirs for stage in ("loaded", "reloaded")}
    answer = {"error": None, "module": "transformers_modules.x"}
    with pytest.raises(CheckpointError, match="another logits"):
        export._difference("run", "AutoModel", {"logits": ours}, outputs, answer, 0.0)


def test_an_unknown_head_is_named_with_those_that_exist(toy_folder):
    with pytest.raises(UserError, match="has no AutoModelForMaskedLM; its heads are AutoModel, AutoModelForSeq"):
        check_export(toy_folder, ["AutoModelForMaskedLM"])


def test_a_config_without_auto_map_is_refused(toy_folder):
    config = json.loads((toy_folder / "config.json").read_text())
    del config["auto_map"]
    (toy_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="no auto_map"):
        check_export(toy_folder)


def test_a_folder_without_its_code_is_refused(toy_folder):
    (toy_folder / "modeling_toy.py").unlink()
    with pytest.raises(CheckpointError, match="auto_map names modeling_toy.py, which is not in the folder"):
        check_export(toy_folder)


LAYOUTS = {
    "from .attention import X": None,
    "from .attention import (\n    X,\n    Y,\n)": None,
    "import math, torch, transformers": None,
    "try:\n    from hftoolkit.x import X\nexcept ImportError:\n    from .attention import X": None,
    "from . import attention": "copies nothing; write 'from .attention import",
    "from .layers.attention import X": "is nested",
    "from ..layers import X": "leaves the folder",
    "from .ghost import X": "ghost.py is not beside it",
    '"""Text.\n\nfrom .ghost import X\n"""': "be it in a docstring",
    "x = 1; from .attention import X": "is not seen",
    "from hftoolkit.models.layers_attention import X": "imports hftoolkit",
    "def f():\n    import hftoolkit": "imports hftoolkit",
    "if TYPE_CHECKING:\n    import hftoolkit": "imports hftoolkit",
    "import einops": "imports einops",
}


@pytest.mark.parametrize("source", LAYOUTS, ids=lambda source: source.replace("\n", " ")[:40])
def test_says_which_imports_break_the_export(source, tmp_path):
    (tmp_path / "modeling_x.py").write_text(source + "\n")
    (tmp_path / "attention.py").write_text("X = Y = 1\n")
    problems = check_source(tmp_path / "modeling_x.py")
    if LAYOUTS[source] is None:
        assert problems == []
    else:
        assert LAYOUTS[source] in "; ".join(problems) and "modeling_x.py" in problems[0]


def test_looks_into_the_siblings_too(tmp_path):
    (tmp_path / "modeling_x.py").write_text("from .layers_a import X\n")
    (tmp_path / "layers_a.py").write_text("from .layers_b import X\n")
    (tmp_path / "layers_b.py").write_text("from . import layers_a\n")
    assert [problem.split(":")[0] for problem in check_source(tmp_path / "modeling_x.py")] == ["layers_b.py"]
