"""The tiny recipe from beginning to end, in process: what it learns, leaves and refuses, and that it resumes."""

import hashlib
import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from hftoolkit.data.embedding_files import read_vectors
from hftoolkit.errors import DataError, DivergedError, RunInterruptedError
from hftoolkit.recipes import train_word2vec
from hftoolkit.training.word_trainer import WordVectorTrainer

FEW = dict(builtin_documents=120, num_train_epochs=1, save_steps=4, logging_steps=3, use_cpu="true")
FEW |= dict(per_device_train_batch_size=1)


def run(folder, **options):
    words = ["--config", "word2vec/tiny", "--output_dir", str(folder)]
    words += [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    return train_word2vec.main(*train_word2vec.parse(words))


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the tiny config on a third of the data: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, run(folder, builtin_documents=700, use_cpu="true")


def test_words_of_a_kind_come_together(finished):
    _, results = finished
    chance = results["baselines"]["random_vectors"]["same_category"]
    assert chance < 0.35 and results["same_category"] > 0.7


def test_what_a_run_leaves(finished):
    folder, results = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "modeling_word2vec.py", "tokenizer.json", "README.md", "run.json"}
    assert (folder / "words.png").read_bytes().startswith(b"\x89PNG")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    words, matrix = read_vectors(folder / "vectors.txt")
    found = model(tokenizer("lamp " + words[7], return_tensors="pt")["input_ids"]).last_hidden_state[0]
    assert np.array_equal(found[0].detach().numpy(), matrix[words.index("lamp")])
    assert np.array_equal(found[1].detach().numpy(), matrix[7])
    assert words[0] in (".", "the") and "<unk>" not in words  # the most frequent first
    inside, same = read_vectors(folder)
    assert inside[3:] == words and np.array_equal(same[3:], matrix)
    card = (folder / "README.md").read_text()
    assert f"{results['same_category']:.4g}" in card and "learned by skip-gram" in card
    assert (
        "| `learning_rate` | `0.025` |" in card and json.loads((folder / "run.json").read_text())["status"] == "done"
    )


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "unbroken", **FEW)
    step = WordVectorTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(WordVectorTrainer, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run(tmp_path / "broken", **FEW)
    monkeypatch.undo()
    run(tmp_path / "broken", **FEW)
    assert weights(tmp_path / "broken") == weights(tmp_path / "unbroken")


@pytest.mark.parametrize(
    "options",
    [
        dict(objective="cbow", learning_rate=0.3),
        pytest.param(dict(num_negatives=0, update_words=64), marks=pytest.mark.slow),
        pytest.param(dict(objective="cbow", num_negatives=0, dynamic_window="false"), marks=pytest.mark.slow),
        dict(objective="ppmi_svd", add_contexts="true", weighting="harmonic"),
    ],
    ids=["cbow", "softmax", "cbow softmax", "counts"],
)
def test_every_objective_learns(tmp_path, options):
    few = FEW | dict(num_train_epochs=2, builtin_documents=200)
    results = run(tmp_path / "run", **few | options)
    chance = results["baselines"]["random_vectors"]["same_category"]
    assert results["same_category"] > chance + (0.3 if options.get("objective") == "ppmi_svd" else 0.03)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
    assert model.config.objective == options.get("objective", "skipgram")
    assert all(weight.isfinite().all() and weight.abs().max() > 1e-3 for weight in model.parameters())


def test_vectors_to_start_from(tmp_path, finished):
    """A run without a step in which anything happens ends with the vectors it began with."""
    folder, _ = finished
    results = run(tmp_path / "more", **FEW | dict(embeddings=folder / "vectors.txt", learning_rate=1e-12))
    assert results["embeddings_coverage"] > 0.9
    before, after = (
        dict(zip(*read_vectors(place / "vectors.txt"), strict=True)) for place in (folder, tmp_path / "more")
    )
    np.testing.assert_allclose(after["lamp"], before["lamp"], atol=1e-6)
    with pytest.raises(DataError, match="has vectors of 32 numbers, but the model's have 16"):
        run(tmp_path / "less", **FEW | {"embeddings": folder, "model_config.hidden_size": 16})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(neighbours="lamp,lapm"), "'lapm' is not among the [0-9]+ words; did you mean 'lamp'"),
        (dict(tokenizer="byte_bpe"), "'byte_bpe' makes pieces, .* counted here .*: leave out tokenizer"),
        (dict(objective="ppmi_svd", embeddings="vectors.txt"), "goes on from none: leave out embeddings"),
        (
            {"objective": "ppmi_svd", "model_config.hidden_size": 900},
            "hidden_size is 900, but must be below the [0-9]+ words that are counted: set --model_config.hidden_size",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_asked_for_is_refused_before_the_work(options, message, tmp_path, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("the corpus was counted")

    monkeypatch.setattr("hftoolkit.training.count_vectors.count_pairs", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectors.txt").write_text("lamp 1 2\n")
    with pytest.raises(DataError, match=message):
        run(tmp_path / "run", **FEW | options)
    assert not (tmp_path / "run/checkpoint-4").exists()


def test_the_kind_word_is_what_is_counted_here():
    from hftoolkit.training.word_vocabulary import counts_words

    assert counts_words(None, None) and counts_words("word", None)
    assert not counts_words("you/words", None) and not counts_words(None, "you/vectors")
    with pytest.raises(DataError, match="'word' would be new, but you/vectors has its words: leave out tokenizer"):
        counts_words("word", "you/vectors")


def test_what_cannot_be_learned_is_refused_before_training(tmp_path):
    (tmp_path / "one.txt").write_text("again again again\n")
    with pytest.raises(DataError, match="the corpus has 1 distinct word, and at least two are needed"):
        run(tmp_path / "a", dataset=tmp_path / "one.txt", use_cpu="true")
    (tmp_path / "few.txt").write_text("one two two three three three\n")
    with pytest.raises(
        DataError, match="min_count 5 leaves none of the 3 .* 3 times, and min_count 1 would keep 3 words"
    ):
        run(tmp_path / "b", dataset=tmp_path / "few.txt", use_cpu="true")
    with pytest.raises(DataError, match="no such file of word pairs"):
        run(tmp_path / "c", similarity=tmp_path / "none.txt", **FEW)
    with pytest.raises(DataError, match="update_words is 40, but must be a multiple of"):
        run(tmp_path / "d", **FEW | dict(update_words=40))
    with pytest.raises(DataError, match="gradient_accumulation_steps is 2"):
        run(tmp_path / "e", **FEW | dict(gradient_accumulation_steps=2))
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    from hftoolkit.training import word_trainer

    plain = word_trainer.SkipGram.update

    def spoiled(self, blocks, part, rate):
        loss, number = plain(self, blocks, part, rate)
        return loss * torch.inf, number

    monkeypatch.setattr(word_trainer.SkipGram, "update", spoiled)
    with pytest.raises(DivergedError, match="the loss is inf at step 1, learning rate 0.025: lower learning_rate"):
        run(tmp_path / "run", **FEW)
    assert not (tmp_path / "run" / "model.safetensors").exists()
