"""Sliding-window loss against one position at a time; minimal pairs against hand-made scores."""

import gzip
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hftoolkit.errors import DataError
from hftoolkit.evaluation.minimal_pairs import evaluate_pairs, read_pairs
from hftoolkit.evaluation.perplexity import evaluate_text, log_probabilities, windows
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM
from hftoolkit.tokenization import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("byte", None)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=12)
    return HftGptForCausalLM(HftGptConfig(len(tokenizer), **sizes, initializer_range=0.4)).eval()


def test_windows_example():
    assert windows(10, 4, 2) == [(0, 5, 1), (2, 7, 5), (4, 9, 7), (5, 10, 9)]


@settings(max_examples=100, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 12), st.data())
def test_windows_score_each_token_once_with_enough_context(length, window, data):
    stride = data.draw(st.integers(1, window))
    scored = []
    for start, end, first in windows(length, window, stride):
        assert end - start - 1 <= window
        assert first - start >= min(first, window - stride + 1)
        scored += range(first, end)
    assert scored == list(range(1, length))


def by_position(model, tokenizer, text, window):
    """Every token given the `window` tokens before it, one call of the model each (stride 1)."""
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    total = 0.0
    for t in range(1, len(ids)):
        start = 0 if t <= window else t - window
        total -= float(model(torch.tensor([ids[start:t]])).logits[0, -1].log_softmax(-1)[ids[t]])
    return total, len(ids) - 1


def test_stride_one_is_the_definition(model, tokenizer):
    texts = ["the lamp was red", "a"]
    expected = [by_position(model, tokenizer, text, 12) for text in texts]
    nats, tokens = sum(e[0] for e in expected), sum(e[1] for e in expected)
    result = evaluate_text(model, tokenizer, texts, stride=1, batch_size=3)
    assert result["loss"] == pytest.approx(nats / tokens, abs=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert result["word_perplexity"] == pytest.approx(math.exp(nats / 5), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / 17, rel=1e-5)
    assert (result["tokens"], result["words"], result["bytes"], result["documents"]) == (tokens, 5, 17, 2)


def test_batches_do_not_matter(model, tokenizer):
    texts = ["the lamp was red in the hall", "a", "no"]
    losses = [evaluate_text(model, tokenizer, texts, stride=5, batch_size=b)["loss"] for b in (1, 2, 16)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-5)


def test_no_text_is_an_error(model, tokenizer):
    with pytest.raises(DataError, match="no text to evaluate"):
        evaluate_text(model, tokenizer, [])


def test_minimal_pairs_count_the_likelier_sentence(model, tokenizer):
    def score(text):
        ids = [tokenizer.bos_token_id, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        return float(log_probabilities(model, [(ids, 1)])[0].sum())

    texts = sorted(["red", "der", "erd"], key=score)
    pairs = [
        dict(sentence_good=texts[2], sentence_bad=texts[0], UID="right"),
        dict(sentence_good=texts[0], sentence_bad=texts[1], UID="wrong"),
        dict(sentence_good="red", sentence_bad="red", UID="tie"),
    ]
    result = evaluate_pairs(model, tokenizer, pairs)
    assert result["by_paradigm"] == {"right": 1.0, "tie": 0.5, "wrong": 0.0}
    assert result["accuracy"] == 0.5 and result["pairs"] == 3


def test_pairs_too_long_for_the_model_are_named(model, tokenizer):
    with pytest.raises(DataError, match="pair 0 has 21 tokens; the model reads 12"):
        evaluate_pairs(model, tokenizer, [dict(sentence_good="x" * 20, sentence_bad="y", UID="u")])


def test_read_pairs_from_plain_and_compressed_files(tmp_path):
    line = json.dumps(dict(sentence_good="a", sentence_bad="b"))
    (tmp_path / "agreement.jsonl").write_text(line + "\n")
    with gzip.open(tmp_path / "order.jsonl.gz", "wt") as file:
        file.write(line + "\n")
    assert [pair["UID"] for pair in read_pairs(tmp_path)] == ["agreement", "order"]


def test_bad_pair_files_name_the_place(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"sentence_good": "a", "sentence_bad": "b"}\n{"sentence_good": "a",}\n')
    with pytest.raises(DataError, match=r"pairs.jsonl:2:\d+  not JSON"):
        read_pairs(path)
    path.write_text('{"sentence_good": "a"}\n')
    with pytest.raises(DataError, match=r"pairs.jsonl:1  needs the text field 'sentence_bad'"):
        read_pairs(path)
    path.write_text("")
    with pytest.raises(DataError, match="0 minimal pairs"):
        read_pairs(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(tmp_path / "missing.jsonl")
