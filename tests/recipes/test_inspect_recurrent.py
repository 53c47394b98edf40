"""The pictures and figures of inspect_recurrent, of its own model and of one that was trained."""

import json

import pytest

from hftoolkit.errors import UserError
from hftoolkit.recipes import inspect_recurrent, train_recurrent_lm


def run(recipe, *argv):
    return recipe.main(*recipe.parse([str(word) for word in argv]))


def test_the_number_of_the_subject(tmp_path):
    found = run(inspect_recurrent, "--config", "rnn/inspect", "--output_folder", tmp_path)
    assert json.loads((tmp_path / "inspect.json").read_text()) == found
    assert found["agreement"]["mean"] > 0.9
    assert found["without_it"]["margin"] == pytest.approx(min(found["without_each"]), abs=1e-4)
    assert found["without_it"]["margin"] < found["agreement"]["margin"]
    assert {path.name for path in tmp_path.iterdir()} == {"inspect.json", "number_unit.png", "gradients.png"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--config", "rnn/inspect", "--sentence", "The lamp"],
            "sentence is of a trained model: give --model_name_or_path",
        ),
        (["--architecture", "rnn", "--units", "3"], "units is of a trained model: give --model_name_or_path"),
        *(
            (["--model_name_or_path", ".", f"--{name}", value], f"{name} is of one that is trained here: leave it out")
            for name, value in (("steps", "3"), ("hidden_size", "3"), ("cell_type", "gru"))
        ),
    ],
)
def test_what_would_not_be_read_is_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "hft_rnn"}')
    with pytest.raises(UserError, match=message):
        run(inspect_recurrent, *options, "--output_folder", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_trained_model_along_a_sentence(tmp_path):
    options = ["--builtin_documents", 100, "--max_steps", 2, "--eval_strategy", "no", "--save_steps", 2, "--use_cpu"]
    run(train_recurrent_lm, "--config", "rnn/lm_tiny", "--output_dir", tmp_path / "lm", *options)
    argv = ["--model_name_or_path", tmp_path / "lm", "--output_folder", tmp_path / "seen"]
    found = run(inspect_recurrent, *argv, "--sentence", "The lamp is red.", "--units", 5)
    assert [len(layer["states"]) for layer in found["layers"]] == [5]
    assert "this model, first layer" in found["gradient_norms"]
    assert (tmp_path / "seen/units_layer_0.png").is_file()
    with pytest.raises(UserError, match="needs a text to read: --sentence"):
        run(inspect_recurrent, *argv)
