"""Translations in the order of their sources, scores with signatures, and attention that can be drawn."""

import json

import pytest
import torch
from datasets import Dataset
from transformers import T5Config, T5ForConditionalGeneration

from hftoolkit.errors import CheckpointError
from hftoolkit.evaluation.alignment import cross_attention, draw_alignments
from hftoolkit.evaluation.translation import require_direction, score_translations, short_pairs, translate
from hftoolkit.tokenization import end_texts, train_tokenizer

TEXTS = ["A dog runs.", "Two men eat at the sea, and the sea is blue.", "The sea.", "Two dogs eat."]


@pytest.fixture(scope="module")
def tokenizer():
    return end_texts(train_tokenizer("byte_bpe", TEXTS, vocab_size=290, progress=False))


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=3, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
    return model


@pytest.mark.parametrize("search", [{}, {"num_beams": 3, "length_penalty": 0.6}])
def test_order_and_batches_do_not_matter(model, tokenizer, search):
    model.train()
    together, endless = translate(model, tokenizer, TEXTS, batch_tokens=10_000, **search)
    assert model.training
    alone = [translate(model, tokenizer, [text], **search) for text in TEXTS]
    assert together == [texts[0] for texts, _ in alone]
    assert len(set(together)) > 1
    assert endless == sum(number for _, number in alone)
    assert translate(model, tokenizer, TEXTS, batch_tokens=1, **search)[0] == together


def test_sources_are_cut(model, tokenizer):
    start = tokenizer.decode(tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"][:4])
    assert translate(model, tokenizer, [TEXTS[1]], max_length=5)[0] == translate(model, tokenizer, [start])[0]
    assert translate(model, tokenizer, [TEXTS[1]], max_length=5)[0] != translate(model, tokenizer, [TEXTS[1]])[0]


def test_scores():
    """One sentence of five words, the last one other: 4/5, 3/4, 2/3 and 1/2 of the n-grams, of equal length."""
    scores = score_translations(["the cat sat down here"], ["the cat sat down there"])
    assert scores["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert "tok:13a" in scores["bleu_signature"]
    assert "case:mixed" in scores["bleu_signature"]
    assert score_translations(["A b."], ["A b."])["chrf"] == 100
    with pytest.raises(ValueError, match="2 translations, but 1 references"):
        score_translations(["a", "b"], ["a"])


def test_short_pairs(tokenizer):
    pairs = Dataset.from_dict({"source": TEXTS, "target": TEXTS[::-1]})
    limit = len(tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"])
    found = short_pairs(pairs, tokenizer, 2, limit)
    assert len(found) == 2
    assert (TEXTS[0], TEXTS[3]) in found


def test_attention(model, tokenizer, tmp_path):
    source, target, weights = cross_attention(model, tokenizer, TEXTS[0], TEXTS[2])
    assert "".join(source) == TEXTS[0] + tokenizer.eos_token
    assert "".join(target) == TEXTS[2] + tokenizer.eos_token
    assert weights.shape == (len(target), len(source))
    assert weights.sum(1) == pytest.approx(1.0, abs=1e-5)
    ids = [torch.tensor([tokenizer(text)["input_ids"]]) for text in (TEXTS[0], TEXTS[2])]
    model.set_attn_implementation("eager")
    output = model.eval()(input_ids=ids[0], labels=ids[1], output_attentions=True)
    model.set_attn_implementation("sdpa")
    assert weights == pytest.approx(output.cross_attentions[1][0].mean(0).detach().numpy(), abs=1e-6)
    draw_alignments(model, tokenizer, [(TEXTS[0], TEXTS[2]), (TEXTS[2], TEXTS[3])], tmp_path / "a.png", title="two")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert model.config._attn_implementation == "sdpa"


def test_the_other_direction_is_refused(tmp_path):
    config = {"model_type": "t5", "source_language": "en", "target_language": "de"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    require_direction(str(tmp_path), ("en", "de"))
    require_direction(None, ("de", "en"))
    with pytest.raises(CheckpointError, match="translates en to de, but --source_language de"):
        require_direction(str(tmp_path), ("de", "en"))
