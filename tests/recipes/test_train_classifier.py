"""The tiny classifiers from beginning to end, in process: what they learn and leave, resumed runs, files, refusals."""

import gc
import json
import signal

import numpy as np
import pytest
from safetensors.torch import load_file

from hftoolkit.errors import CheckpointError, DataError, RunInterruptedError
from hftoolkit.recipes import finetune_tagging, train_classifier, train_recurrent_lm, train_translation

QUICK = {"builtin_examples": 400, "max_steps": 40, "eval_steps": 40, "save_steps": 20, "use_cpu": True}
SHORT = {"builtin_examples": 200, "max_steps": 4, "eval_steps": 4, "save_steps": 2, "use_cpu": True}


def run(config, folder, **options):
    options = {"config": config, "output_dir": folder} | options
    argv = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    return train_classifier.main(*train_classifier.parse(argv))


@pytest.fixture(scope="module", autouse=True)
def little_to_collect():
    """Trainer collects garbage at its end, which would take longer than the training itself."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lstm"
    return folder, run("rnn/tiny", folder, **QUICK)


def test_what_it_leaves(finished):
    """A run with everything, and a table beside the most frequent class."""
    folder, results = finished
    accuracy = results["tasks"]["sst2"]["model"]["accuracy"]
    assert accuracy["mean"] > 0.8 > 0.6 > results["tasks"]["sst2"]["majority"]["accuracy"]["mean"]
    config = json.loads((folder / "seed-0/config.json").read_text())
    assert (config["model_type"], config["id2label"]) == ("hft_rnn", {"0": "negative", "1": "positive"})
    card = (folder / "seed-0/README.md").read_text()
    assert "1 LSTM layer of 64 cells, in both directions" in card and "the maximum over its tokens" in card
    assert "| SST-2 | accuracy |" in (folder / "results.md").read_text()
    with pytest.raises(SystemExit) as stop:  # finished: nothing is done again
        run("rnn/tiny", folder, **QUICK)
    assert stop.value.code == 0


def test_the_checkpoint_loads_and_answers(finished):
    from transformers import pipeline

    classify = pipeline("text-classification", str(finished[0] / "seed-0"), device="cpu")
    assert classify("Anna smiled happily.")[0]["label"] == "positive"


def test_interrupted_and_resumed(finished, tmp_path, monkeypatch):
    import os

    from transformers import Trainer

    step, count = Trainer.training_step, iter(range(100))

    def interrupted(self, *args, **kwargs):
        if next(count) == 27:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", interrupted)
        with pytest.raises(RunInterruptedError):
            run("rnn/tiny", tmp_path, **QUICK)
    run("rnn/tiny", tmp_path, **QUICK)
    ours, whole = (load_file(folder / "seed-0/model.safetensors") for folder in (tmp_path, finished[0]))
    assert all(np.array_equal(ours[name], whole[name]) for name in whole)


@pytest.mark.parametrize("config", ["dan/tiny", "textcnn/tiny"])
def test_the_other_architectures(config, tmp_path):
    results = run(config, tmp_path, **QUICK | {"max_norm": 1.0} if config.startswith("text") else QUICK)
    assert results["tasks"]["sst2"]["model"]["accuracy"]["mean"] > 0.8
    name = {"dan": "deep averaging network", "textcnn": "convolutional network"}
    assert name[config.split("/")[0]] in (tmp_path / "seed-0/README.md").read_text()
    if config.startswith("text"):
        weight = load_file(tmp_path / "seed-0/model.safetensors")["score.weight"]
        assert weight.norm(dim=1).max() <= 1 + 1e-5


def test_seeds_and_texts_with_labels(tmp_path):
    """Built-in topics of several classes; two seeds are two runs, the same words."""
    results = run("bow/tiny", tmp_path, **SHORT, task="text", seeds=2)
    scores = results["tasks"]["text"]["model"]["accuracy"]
    assert len(scores["values"]) == 2 and scores["std"] is not None
    assert "| text | accuracy |" in (tmp_path / "results.md").read_text()
    assert "linear bag of words" in (tmp_path / "seed-1/README.md").read_text()
    records = [json.loads((tmp_path / f"seed-{seed}/all_results.json").read_text()) for seed in (0, 1)]
    assert all("test_accuracy" in record for record in records)
    assert records[0]["train_loss"] != records[1]["train_loss"]


def test_own_rows_and_rare_words(tmp_path):
    rows = [
        {"review": f"a {word} film no{n}", "stars": stars}
        for n in range(40)
        for word, stars in (("fine", 5), ("dull", 1))
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = SHORT | {"dataset": tmp_path / "data.jsonl", "task": "text", "label_column": "stars", "min_count": 5}
    results = run("bow/tiny", tmp_path / "run", **options | {"max_steps": 40, "eval_steps": 40})
    assert results["tasks"]["text"]["model"]["accuracy"]["mean"] == 1
    vocabulary = json.loads((tmp_path / "run/seed-0/tokenizer.json").read_text())["model"]["vocab"]
    assert {"fine", "dull", "film"} <= set(vocabulary) and "no3" not in vocabulary
    config = json.loads((tmp_path / "run/seed-0/config.json").read_text())
    assert config["id2label"] == {"0": "1", "1": "5"}


@pytest.fixture
def vectors(tmp_path):
    """GloVe's text with two words of the built-in sentences."""
    path = tmp_path / "vectors.txt"
    path.write_text("sad " + " ".join(["0.5"] * 6) + "\nhappy " + " ".join(["-0.5"] * 6) + "\nzeppelin 1 2 3 4 5 6\n")
    return path


def test_frozen_embeddings_from_a_file(tmp_path, vectors, capsys):
    options = SHORT | {"embeddings": vectors, "freeze_embeddings": True, "model_config.embedding_size": 6}
    run("textcnn/tiny", tmp_path / "run", **options)
    folder = tmp_path / "run/seed-0"
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    weight = load_file(folder / "model.safetensors")["embed_tokens.weight"]
    assert weight[ids["sad"]].tolist() == [0.5] * 6
    assert weight[ids["happy"]].tolist() == [-0.5] * 6
    assert f"2 of {len(ids) - 3} words from" in json.loads((folder / "run.json").read_text())["data"]["embeddings"]
    assert "have a vector" in capsys.readouterr().out
    free = SHORT | {"embeddings": vectors, "model_config.embedding_size": 6}
    run("textcnn/tiny", tmp_path / "free", **free)
    trained = load_file(tmp_path / "free/seed-0/model.safetensors")["embed_tokens.weight"]
    assert trained[ids["sad"]].tolist() != [0.5] * 6


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("dan/tiny", {}, "vectors of 6 numbers, but the model's have 64: set --model_config.embedding_size 6"),
        ("bow/tiny", {}, "has weights of words, no vectors"),
    ],
)
def test_refuses_vectors_that_do_not_fit(config, options, message, tmp_path, vectors):
    with pytest.raises((DataError, CheckpointError), match=message):
        run(config, tmp_path / "run", **SHORT, embeddings=vectors, **options)
    assert not (tmp_path / "run/seed-0/checkpoint-2").exists()


@pytest.mark.parametrize(
    ("recipe", "config"),
    [
        (train_classifier, "dan/tiny"),
        (train_recurrent_lm, "nnlm/lm_tiny"),
        (finetune_tagging, "rnn/tagging_tiny"),
        (train_translation, "seq2seq/tiny"),
    ],
)
def test_a_file_of_vectors_that_is_not_there_is_said_before_anything_is_read(recipe, config, capsys):
    with pytest.raises(SystemExit) as stop:
        recipe.parse(["--config", config, "--embeddings", "none.txt"])
    assert stop.value.code == 2 and "'embeddings': there is no 'none.txt'" in capsys.readouterr().err


def test_refuses_frozen_vectors_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="there are no --embeddings"):
        run("dan/tiny", tmp_path / "run", **SHORT, freeze_embeddings=True)
