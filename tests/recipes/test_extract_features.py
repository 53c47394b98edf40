"""The feature recipe from a checkpoint and a text file to Parquet and safetensors."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from hftoolkit.errors import DataError
from hftoolkit.recipes import extract_features
from hftoolkit.tokenization import train_tokenizer

LINES = ["Anna took the lamp.", "Tom left.", "The lamp was red and it was large."]


def run(*argv):
    return extract_features.main(*extract_features.parse(["--config", "bert/features", *map(str, argv)]))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A stock checkpoint and a text file: the options that name them."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("features")
    tokenizer = train_tokenizer("wordpiece", LINES * 2, vocab_size=80)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "lines.txt").write_text("\n".join(LINES))
    return ["--model_name_or_path", folder / "model", "--dataset", folder / "lines.txt"]


def test_words_of_the_last_four_layers(given, tmp_path):
    counts = run(*given, "--output_file", tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["text"] for row in rows] == LINES
    assert [row["pieces"] for row in rows] == [line.split() for line in LINES]
    assert counts == {"texts": 3, "vectors": 14, "size": 64}
    parts = [[], []]
    for number, layer in enumerate(("-4", "-1")):
        run(*given, "--output_file", tmp_path / "b.parquet", "--layer_choice", "layers", "--layers", layer)
        parts[number] = pq.read_table(tmp_path / "b.parquet")["vectors"].to_pylist()
    for row, fourth, last in zip(rows, *parts, strict=True):
        np.testing.assert_allclose(np.array(row["vectors"])[:, :16], fourth)
        np.testing.assert_allclose(np.array(row["vectors"])[:, 48:], last)


def test_the_layer_of_a_feed_forward_language_model(tmp_path):
    from hftoolkit.models.modeling_nnlm import HftNnlmConfig, HftNnlmForCausalLM

    tokenizer = train_tokenizer("word", LINES, progress=False)
    sizes = {"vocab_size": len(tokenizer), "embedding_size": 6, "hidden_size": 10}
    for part in (HftNnlmForCausalLM(HftNnlmConfig(**sizes)), tokenizer):
        part.save_pretrained(tmp_path / "model")
    (tmp_path / "lines.txt").write_text("\n".join(LINES))
    options = [
        "--model_name_or_path",
        tmp_path / "model",
        "--dataset",
        tmp_path / "lines.txt",
        "--layer_choice",
        "last",
    ]
    counts = run(*options, "--max_length", 16, "--output_file", tmp_path / "a.parquet")
    assert counts == {"texts": 3, "vectors": 14, "size": 10}


def test_sentences_and_weights(given, tmp_path):
    sentence = ["--unit", "sentence", "--pooling", "mean", "--number_format", "float16"]
    weighted = ["--layer_choice", "weighted_sum_all", "--layer_weights", 0, 0, 0.5, 1]
    run(*given, *sentence, *weighted, "--output_file", tmp_path / "a.safetensors")
    ours = load_file(tmp_path / "a.safetensors")
    assert ours["vectors"].shape == (3, 16) and ours["first_rows"].tolist() == [0, 1, 2, 3]
    halves = []
    for layer in (3, 4):
        arguments = ["--layer_choice", "layers", "--layers", layer, "--output_file", tmp_path / "b.safetensors"]
        run(*given, *sentence, *arguments)
        halves.append(load_file(tmp_path / "b.safetensors")["vectors"].astype(np.float32))
    np.testing.assert_allclose(ours["vectors"], 0.5 * halves[0] + halves[1], atol=4e-3)


def test_nothing_is_held_out_by_chance(given, tmp_path):
    """Also where validation data are cut off, all texts come in their order."""
    run(*given, "--output_file", tmp_path / "a.parquet", "--validation_fraction", 0.5)
    assert pq.read_table(tmp_path / "a.parquet")["text"].to_pylist() == LINES
    run(*given, "--output_file", tmp_path / "a.parquet", "--validation_fraction", 0.5, "--split", "validation")
    assert pq.read_table(tmp_path / "a.parquet")["text"].to_pylist() == LINES[1:]


def test_what_cannot_be_done(given, tmp_path):
    with pytest.raises(DataError, match="has no split 'test'"):
        run(*given, "--output_file", tmp_path / "a.parquet", "--split", "test")
    with pytest.raises(DataError, match="from a trained model"):
        run("--architecture", "bert", "--tokenizer", "wordpiece")
    with pytest.raises(SystemExit):
        run(*given, "--layer_choice", "lasst")
