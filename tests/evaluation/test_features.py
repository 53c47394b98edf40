"""Features: the layers that were asked for, at the places of the words, in the order of the texts."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from hftoolkit.errors import DataError, MachineError
from hftoolkit.evaluation.feature_files import write_features
from hftoolkit.evaluation.features import NAMED_LAYERS, LayerChoice, extract_features, pool
from hftoolkit.tokenization import train_tokenizer

TEXTS = ["Anna took the red lamp.", "Tom", "", "the lamp\tand  the other lamp were unbelievably\nred \x07 !"]


def hidden_states(num_layers=6):
    """Layer n is all n + 1, so that results tell which layers are in them."""
    return [torch.full((1, 2, 3), float(n + 1)) for n in range(num_layers + 1)]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("embeddings", {}, [1]),
        ("second_to_last", {}, [6]),
        ("last", {}, [7]),
        ("sum_last_four", {}, [4 + 5 + 6 + 7]),
        ("concatenate_last_four", {}, [4, 5, 6, 7]),
        ("weighted_sum_last_four", {"weights": [0.1, 0.2, 0.3, 0.4]}, [0.4 + 1.0 + 1.8 + 2.8]),
        ("weighted_sum_all", {"weights": [1, 0, 0, 0, 0, 0.5]}, [2 + 3.5]),
        ("layers", {"layers": [0, -1, 2]}, [1, 7, 3]),
    ],
)
def test_named_layers(name, options, expected):
    result = LayerChoice(name, 6, **options)(hidden_states())
    assert result.shape == (1, 2, 3 * len(expected))
    torch.testing.assert_close(result[0, 0, ::3], torch.tensor(expected, dtype=torch.float32))
    assert set(NAMED_LAYERS) | {"layers"} >= {name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lats", 6), "no choice of layers 'lats'"),
        (("layers", 6), "belong to the choice 'layers'"),
        (("last", 6, [1]), "belong to the choice 'layers'"),
        (("layers", 6, [7]), "6 layers, no layer 7"),
        (("layers", 6, [-8]), "no layer -8"),
        (("concatenate_last_four", 3), "the model has 3 layers"),
        (("weighted_sum_all", 6), "takes 6 weights, got 0"),
        (("weighted_sum_last_four", 6, None, [1.0]), "takes 4 weights, got 1"),
        (("last", 6, None, [1.0]), "takes 0 weights, got 1"),
    ],
)
def test_choices_that_cannot_be(arguments, message):
    with pytest.raises(DataError, match=message):
        LayerChoice(*arguments)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("wordpiece", [text for text in TEXTS if text] * 2, vocab_size=80)


@pytest.fixture(scope="module")
def model(tokenizer):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig(vocab_size=len(tokenizer), **sizes), add_pooling_layer=False).eval()


def alone(model, tokenizer, text):
    """(tokens, last layer) of one text, without batching."""
    with torch.no_grad():
        rows = tokenizer(text, return_tensors="pt")
        return tokenizer.convert_ids_to_tokens(rows["input_ids"][0]), model(**rows).last_hidden_state[0].numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_tokens_equal_those_of_each_text_alone(model, tokenizer, batch_size):
    found = extract_features(model, tokenizer, TEXTS, LayerChoice("last", 4), unit="token", batch_size=batch_size)
    for text, (pieces, vectors) in zip(TEXTS, found, strict=True):
        tokens, states = alone(model, tokenizer, text)
        assert pieces == tokens[1:-1]
        np.testing.assert_allclose(vectors, states[1:-1], atol=2e-6)


@pytest.mark.parametrize("pooling", ["first", "mean", "max"])
def test_words_are_pooled_from_their_own_subwords(model, tokenizer, pooling):
    found = extract_features(model, tokenizer, TEXTS, LayerChoice("last", 4), unit="word", pooling=pooling)
    for text, (pieces, vectors) in zip(TEXTS, found, strict=True):
        assert pieces == text.split(" ") if text == TEXTS[0] else pieces == text.split()
        tokens, states = alone(model, tokenizer, text)
        groups, words = [], [len(tokenizer.tokenize(word)) for word in pieces]
        for size, start in zip(words, np.cumsum([1, *words]), strict=False):
            groups.append(states[start : start + size])
        np.testing.assert_allclose(vectors, pool(groups, pooling, 16), atol=2e-6)
        assert sum(words) == len(tokens) - 2
    assert not vectors[pieces.index("\x07")].any()  # a control character has no token


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_sentences(model, tokenizer, pooling):
    found = list(extract_features(model, tokenizer, TEXTS, LayerChoice("last", 4), unit="sentence", pooling=pooling))
    for text, (pieces, vectors) in zip(TEXTS, found, strict=True):
        states = alone(model, tokenizer, text)[1]
        parts = {
            "cls": states[0],
            "mean": states[1:-1].mean(0) if text else 0,
            "max": states[1:-1].max(0) if text else 0,
        }
        assert pieces == [text] and vectors.shape == (1, 16)
        np.testing.assert_allclose(vectors[0], parts[pooling], atol=2e-6)


@pytest.mark.parametrize("max_length", [6, 7, 9, 12])
def test_long_texts_are_read_in_windows_each_token_once(model, tokenizer, max_length):
    """With a model that only embeds, without positions, windows must give what the whole text gives."""
    model.embeddings.position_embeddings.weight.data.zero_()
    text = " ".join(TEXTS)
    options = {"unit": "token", "batch_size": 2}
    whole, cut = (
        next(extract_features(model, tokenizer, [text], LayerChoice("embeddings", 4), max_length=n, **options))
        for n in (512, max_length)
    )
    assert whole[0] == cut[0]
    np.testing.assert_allclose(whole[1], cut[1], atol=2e-6)


def test_a_decoder_whose_tokenizer_has_no_padding():
    from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptModel

    tokenizer = train_tokenizer("byte_bpe", TEXTS, vocab_size=270)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = HftGptModel(HftGptConfig(vocab_size=len(tokenizer), **sizes)).eval()
    together = list(extract_features(model, tokenizer, TEXTS, LayerChoice("last", 2), unit="word"))
    assert [pieces for pieces, _ in together] == [text.split() for text in TEXTS]
    for text, (_, vectors) in zip(TEXTS, together, strict=True):
        one = next(extract_features(model, tokenizer, [text], LayerChoice("last", 2), unit="word"))
        np.testing.assert_allclose(vectors, one[1], atol=2e-6)
    with pytest.raises(DataError, match="the tokenizer has no .CLS. token"):
        list(extract_features(model, tokenizer, TEXTS, LayerChoice("last", 2), unit="sentence", pooling="cls"))


def test_settings_that_do_not_go_together(model, tokenizer):
    with pytest.raises(DataError, match="pooling 'cls' is not for a word"):
        next(extract_features(model, tokenizer, TEXTS, LayerChoice("last", 4), unit="word", pooling="cls"))
    with pytest.raises(DataError, match="max_length 3"):
        next(extract_features(model, tokenizer, TEXTS, LayerChoice("last", 4), max_length=3))


ROWS = [
    ("a b", ["a", "b"], np.eye(2, 3)),
    ("", [], np.zeros((0, 3))),
    ("c \x07", ["c", "\x07"], np.diag([1.0, 0, 0])[:2]),
]


@pytest.mark.parametrize("half", [False, True])
def test_files(tmp_path, half):
    counts = write_features(tmp_path / "x/a.parquet", ROWS, unit="word", half=half, metadata={"model": "m"})
    assert counts == {"texts": 3, "vectors": 4, "size": 3, "zero_vectors": 1}
    table = pq.read_table(tmp_path / "x/a.parquet")
    assert table.schema.metadata[b"model"] == b"m"
    assert write_features(tmp_path / "a.safetensors", ROWS, unit="word", half=half) == counts
    tensors = load_file(tmp_path / "a.safetensors")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert tensors["vectors"].dtype == (np.float16 if half else np.float32)
    for number, (text, pieces, vectors) in enumerate(ROWS):
        row = table.slice(number, 1).to_pylist()[0]
        assert (row["text"], row["pieces"]) == (text, pieces) == tuple(lines[number].values())
        np.testing.assert_array_equal(np.array(row["vectors"]).reshape(-1, 3), vectors)
        start, end = tensors["first_rows"][number : number + 2]
        np.testing.assert_array_equal(tensors["vectors"][start:end], vectors)
    assert not list(tmp_path.glob("**/.tmp*"))


def test_files_of_sentences_over_several_groups_of_rows(tmp_path):
    rows = [(str(n), [str(n)], np.full((1, 2), n + 1.0)) for n in range(450)]
    write_features(tmp_path / "a.parquet", rows, unit="sentence")
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert table == [{"text": str(n), "vectors": [n + 1.0, n + 1.0]} for n in range(450)]


def test_a_failure_leaves_no_file_and_keeps_the_old_one(tmp_path):
    def broken():
        yield ROWS[0]
        raise RuntimeError("out of memory")

    (tmp_path / "a.parquet").write_text("old")
    with pytest.raises(RuntimeError):
        write_features(tmp_path / "a.parquet", broken(), unit="word")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    assert (tmp_path / "a.parquet").read_text() == "old"
    with pytest.raises(DataError, match="not a single text"):
        write_features(tmp_path / "a.parquet", [], unit="word")
    with pytest.raises(DataError, match="are written to .parquet or .safetensors"):
        write_features(tmp_path / "a.csv", ROWS, unit="word")
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        write_features(tmp_path / "file/a.parquet", ROWS, unit="word")
