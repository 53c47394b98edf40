"""Translations in the order of their sources, scores with signatures, and attention that can be drawn."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import MarianConfig, MarianMTModel, T5Config, T5ForConditionalGeneration

from hftoolkit.errors import CheckpointError, MachineError
from hftoolkit.evaluation.alignment import cross_attention, draw_alignments
from hftoolkit.evaluation.translation import (
    evaluate_translations,
    prepare_to_translate,
    require_direction,
    score_translations,
    short_pairs,
    translate,
)
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


def test_nothing_to_translate(model, tokenizer):
    assert translate(model, tokenizer, []) == ([], 0)


def test_no_more_positions_than_a_model_has(tokenizer):
    """Marian looks positions up in a table: with 50 more tokens than the source it would read behind its end."""
    torch.manual_seed(1)
    ids = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None)
    sizes = dict(vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2)
    sizes |= dict(decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=24)
    model = MarianMTModel(MarianConfig(**sizes, **ids, decoder_start_token_id=tokenizer.pad_token_id, init_std=1.0))
    model.generation_config.forced_eos_token_id = None
    prepare_to_translate(model, ("en", "de"), 20)
    assert model.generation_config.max_length == 24
    assert translate(model, tokenizer, ["A dog runs."] * 2, max_length=20, num_beams=1)[1] == 2


def test_a_saved_translator_writes_whole_sentences(model, tokenizer, tmp_path, monkeypatch):
    prepare_to_translate(model, ("en", "de"), 40)
    model.save_pretrained(tmp_path)
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert (loaded.config.source_language, loaded.config.target_language) == ("en", "de")
    ids = tokenizer(TEXTS[1], return_tensors="pt")["input_ids"]
    assert loaded.generate(ids, min_new_tokens=30).shape[1] > 21
    prepare_to_translate(loaded, ("en", "de"), 8)
    assert loaded.generation_config.max_length == 91  # a start token, the source, 50 more
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MachineError, match="BLEU needs sacrebleu"):
        prepare_to_translate(loaded, ("en", "de"), 8)


def test_the_shares_of_two_processes(model, tokenizer, tmp_path, monkeypatch):
    """A test set of one pair leaves the second process none; all results come in the order of the pairs."""
    model.save_pretrained(tmp_path)
    splits = {"validation": TEXTS[:3], "test": TEXTS[:1]}
    splits = {split: Dataset.from_dict({"source": texts, "target": texts}) for split, texts in splits.items()}
    barrier, sent, waits = threading.Barrier(2, timeout=300), [], []

    def gather(share):
        sent.extend(share)
        barrier.wait()
        every = sent[-2:]
        barrier.wait()
        return every

    def run(rank, world, sharded=False):
        """With sharded weights the model of a process cannot be called: the saved one is."""
        accelerator = SimpleNamespace(unwrap_model=lambda one: one, wait_for_everyone=lambda: waits.append(rank))
        trainer = SimpleNamespace(
            args=SimpleNamespace(output_dir=tmp_path, process_index=rank, world_size=world, device="cpu"),
            model=None if sharded else model, accelerator=accelerator, processing_class=tokenizer,
            is_fsdp_enabled=sharded, is_world_process_zero=lambda: rank == 0,
        )  # fmt: skip
        return evaluate_translations(trainer, splits, 64, num_beams=1)

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    alone = run(0, 1)
    with ThreadPoolExecutor(2) as processes:
        together = list(processes.map(run, (0, 1), (2, 2)))
    assert together == [alone, alone]
    assert not waits
    assert run(0, 1, sharded=True) == alone
    assert waits


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
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "m2m_100"}))
    with pytest.raises(CheckpointError, match="'m2m_100', whose texts begin with the code of their language"):
        require_direction(str(tmp_path), ("en", "de"))


def test_signs_of_mathematics_are_drawn_as_they_are(model, tokenizer, tmp_path, monkeypatch):
    """Two dollar signs in a token, as vocabularies learn them, are no formula."""
    from hftoolkit.evaluation import alignment

    monkeypatch.setattr(alignment, "_shown", lambda tokenizer, token: "$_$")
    draw_alignments(model, tokenizer, [(TEXTS[0], TEXTS[2])], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
