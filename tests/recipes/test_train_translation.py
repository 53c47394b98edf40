"""The tiny translation run from beginning to end, in process; resumed, averaged, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import load_file

from hftoolkit.arguments.packaged import config_files
from hftoolkit.data.microworld import translation_examples
from hftoolkit.errors import CheckpointError, DataError, RunInterruptedError
from hftoolkit.recipes import train_translation

QUICK = {"config": "transformer/tiny", "builtin_examples": 300, "max_steps": 20, "warmup_steps": 3, "eval_steps": 20}
QUICK |= {"save_steps": 5, "tokenizer_vocab_size": 600, "num_beams": 2, "use_cpu": True}
SHORT = {"max_steps": 5, "num_beams": 1, "average_checkpoints": 1}
SMALL = "{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}"


def run(folder, **options):
    options = {key: value for key, value in (QUICK | options).items() if value is not None}
    argv = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
    return train_translation.main(*train_translation.parse([*argv, "--output_dir", str(folder)]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "translation"
    return folder, run(folder)


def test_what_it_leaves(finished):
    folder, results = finished
    assert {
        f"{split}_{name}" for split in ("validation", "test") for name in ("bleu", "chrf", "bleu_signature")
    } <= set(results)
    assert results["eval_loss"] < 6.4  # ln 600: a guess
    assert len((folder / "translations-test.txt").read_text().splitlines()) == results["test_pairs"] == 60
    assert (folder / "alignments.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((folder / "config.json").read_text())
    assert (config["source_language"], config["target_language"]) == ("en", "tamo")
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["decoder_start_token_id"] == generation["pad_token_id"] == config["decoder_start_token_id"]
    assert generation["eos_token_id"] == config["eos_token_id"] != generation["pad_token_id"]
    assert generation["max_length"] == 115  # a start token, 64 of the source, 50 more
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: translation" in card
    assert "`en` to `tamo`" in card
    assert results["test_bleu_signature"].replace("|", "\\|") in card
    assert "type: validation_pairs" not in card


def test_the_scores_are_those_of_the_written_translations(finished):
    from hftoolkit.evaluation.translation import score_translations

    folder, results = finished
    pairs = [row["translation"]["tamo"] for row in translation_examples(60, 0, "test")]
    written = (folder / "translations-test.txt").read_text().splitlines()
    assert score_translations(written, pairs)["bleu"] == pytest.approx(results["test_bleu"], rel=1e-5)


def test_the_last_checkpoints_are_averaged(finished, tmp_path):
    """The model is the mean of the last two checkpoints, and the reported loss is that of the mean."""
    folder, results = finished
    checkpoints = [load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (15, 20)]
    model = load_file(folder / "model.safetensors")
    for name, value in model.items():
        assert torch.allclose(value, (checkpoints[0][name] + checkpoints[1][name]) / 2, atol=1e-7), name
    alone = run(tmp_path, average_checkpoints=1, num_beams=1)
    last = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(value, checkpoints[1][name]) for name, value in last.items())
    assert alone["eval_loss"] != results["eval_loss"]


def test_interrupted_and_resumed(finished, tmp_path, monkeypatch):
    from transformers import Trainer

    step, count = Trainer.training_step, iter(range(100))

    def interrupted(self, *args, **kwargs):
        if next(count) == 17:  # between two checkpoints, of which the mean is taken
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "training_step", interrupted)
        with pytest.raises(RunInterruptedError):
            run(tmp_path / "run")
    results = run(tmp_path / "run")
    assert results["eval_loss"] == finished[1]["eval_loss"]
    assert results["train_loss"] == pytest.approx(finished[1]["train_loss"])


@pytest.mark.parametrize("architecture", ["t5"])
def test_other_encoder_decoders(tmp_path, architecture):
    results = run(tmp_path, architecture=architecture, model_config=SMALL, **SHORT)
    assert results["validation_pairs"] == 60


def test_a_recurrent_encoder_decoder(tmp_path):
    """The same recipe, with the picture of the attention; without attention there is none."""
    options = {"config": "seq2seq/tiny", "max_steps": 10, "save_steps": 5, "num_beams": 2}
    results = run(tmp_path / "attention", **options)
    assert results["eval_loss"] < 6.4  # ln 600: a guess
    assert (tmp_path / "attention/alignments.png").read_bytes().startswith(b"\x89PNG")
    card = (tmp_path / "attention/README.md").read_text()
    assert "1 GRU layer in the encoder" in card and "`general` attention" in card and "`en` to `tamo`" in card
    run(tmp_path / "none", **options | SHORT, **{"model_config.attention_type": "none"})
    assert not (tmp_path / "none/alignments.png").exists()
    assert "Sutskever et al. 2014" in (tmp_path / "none/README.md").read_text()


@pytest.mark.parametrize("architecture", ["transformer", "seq2seq"])
def test_it_begins_with_vectors_of_a_file(tmp_path, architecture):
    (tmp_path / "vectors.txt").write_text("the" + " 0.5" * 8 + "\nwas" + " -0.5" * 8 + "\n")
    options = {"config": f"{architecture}/tiny", "tokenizer": "word", "embeddings": tmp_path / "vectors.txt"}
    options |= {"freeze_embeddings": True, "builtin_examples": 60, "max_length": 30, "model_config.hidden_size": 8}
    run(tmp_path / "run", **SHORT | options | {"max_steps": 2, "save_steps": 2, "eval_steps": 2, "warmup_steps": 1})
    weight = load_file(tmp_path / "run/model.safetensors")["model.encoder.embed_tokens.weight"]
    ids = json.loads((tmp_path / "run/tokenizer.json").read_text())["model"]["vocab"]
    assert weight[ids["the"]].tolist() == [0.5] * 8 and weight[ids["was"]].tolist() == [-0.5] * 8
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data"]["embeddings"].startswith("2 of ")
    assert "began as those of `vectors.txt`, and were not trained" in (tmp_path / "run/README.md").read_text()


def test_training_goes_on_from_a_checkpoint_in_its_own_direction(finished, tmp_path):
    config = tmp_path / "more.yaml"
    _, kept = config_files()["transformer/tiny"].read_text().split("source_language", 1)
    config.write_text("dataset: builtin\nsource_language" + kept)
    start = SHORT | {"config": config, "model_name_or_path": finished[0], "tokenizer_vocab_size": None}
    results = run(tmp_path / "more", **start)
    assert results["eval_loss"] < finished[1]["eval_loss"] + 0.1
    with pytest.raises(CheckpointError, match="translates en to tamo"):
        run(tmp_path / "back", **start, source_language="tamo", target_language="en")
    assert not (tmp_path / "back").exists()


def test_a_stock_checkpoint(finished, tmp_path):
    """Marian of transformers: its checkpoints lack the positions, of which it has no more than 70."""
    from transformers import AutoTokenizer, MarianConfig, MarianMTModel

    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = dict(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    sizes |= dict(decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=70)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    stock = MarianMTModel(MarianConfig(**sizes, **ids, decoder_start_token_id=tokenizer.pad_token_id))
    for part in (stock, tokenizer):
        part.save_pretrained(tmp_path / "stock")
    config = tmp_path / "more.yaml"
    config.write_text("dataset: builtin\nremove_unused_columns: false\neval_strategy: epoch\nmax_length: 64\n")
    start = SHORT | {"config": config, "model_name_or_path": tmp_path / "stock", "tokenizer_vocab_size": None}
    start |= {"save_steps": 2, "average_checkpoints": 2, "per_device_train_batch_size": 2, "eval_steps": None}
    results = run(tmp_path / "run", **start)
    assert results["test_pairs"] == 60
    saved = MarianMTModel.from_pretrained(tmp_path / "run")
    assert saved.generation_config.max_length == 70


def test_files(tmp_path):
    pairs = [row["translation"] for row in translation_examples(80, 0, "train")]
    for language in ("en", "tamo"):
        for split, part in (("train", pairs[:60]), ("val", pairs[60:])):
            (tmp_path / f"{split}.{language}").write_text("".join(row[language] + "\n" for row in part))
    results = run(tmp_path / "run", **SHORT, dataset=tmp_path)
    assert results["validation_pairs"] == 20
    assert "test_bleu" not in results
    with open(tmp_path / "train.en", "a") as file:
        file.write("One more.\n")
    with pytest.raises(DataError, match="has 61 lines, but .* has 60"):
        run(tmp_path / "other", **SHORT, dataset=tmp_path)
    assert not (tmp_path / "other").exists()
