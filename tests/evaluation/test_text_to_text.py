"""Scores of generated texts: malformed answers are wrong and counted, and generation is the same in any batch."""

import json

import pytest
import torch
from datasets import Dataset

from hftoolkit.data.text_to_text import TEXT_TASKS
from hftoolkit.evaluation.text_to_text import (
    TextAnswers,
    generate_texts,
    results_table,
    rouge,
    score_answers,
    simple_answers,
    write_results,
)
from hftoolkit.models.modeling_t5 import HftT5Config, HftT5ForConditionalGeneration
from hftoolkit.tokenization import train_tokenizer


def scores(name, texts, **columns):
    return score_answers(name, TEXT_TASKS[name], texts, Dataset.from_dict(columns))


def test_malformed_answers_are_wrong_and_counted():
    found = scores("sst2", ["positive", "negative", "positve", ""], label=[1, 1, 1, 0])
    assert found == {"accuracy": 0.25, "malformed": 0.5}
    assert scores("mnli", ["", "x"], label=[0, 2]) == {"accuracy": 0.0, "malformed": 1.0}
    found = scores("mrpc", ["equivalent", "not_equivalent", "?"], label=[1, 0, 1])
    assert found == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3), "malformed": pytest.approx(1 / 3)}
    assert scores("cola", ["acceptable", "?", "?"], label=[1, 1, 0])["matthews_correlation"] < 0


def test_scores_of_similarity():
    found = scores("stsb", ["0.0", "2.4", "5.0"], label=[0.0, 2.5, 5.0])
    assert found["spearman"] == pytest.approx(1) and found["pearson"] > 0.99 and found["malformed"] == 0
    worse = scores("stsb", ["0.0", "2.4", "five"], label=[0.0, 2.5, 5.0])
    assert worse["pearson"] < 0.5 and worse["malformed"] == pytest.approx(1 / 3)


def test_answers_as_a_tokenizer_writes_them():
    rows = Dataset.from_dict({"label": [0]})
    task, written = TEXT_TASKS["mrpc"], {"not equivalent": 0, "equivalent": 1}
    assert score_answers("mrpc", task, ["not equivalent"], rows, written)["accuracy"] == 1
    assert score_answers("mrpc", task, ["not_equivalent"], rows, written)["malformed"] == 1


def test_scores_of_texts():
    found = scores("squad", ["the lamp", "", "a red"], answers=[["lamp"], ["x"], ["blue", "red rope"]])
    assert found["exact_match"] == pytest.approx(1 / 3) and found["f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert found["malformed"] == pytest.approx(1 / 3)
    same = ["Anna went to the garden and took the old lamp."]
    assert scores("translation", same, target=same)["bleu"] == pytest.approx(100)
    assert "nrefs:1" in scores("translation", same, target=same)["bleu_signature"]
    assert scores("summarization", same, target=same)["rougeLsum"] == pytest.approx(1)


def test_rouge_by_hand():
    """Of "the cat sat" and "the cat": 2 of 2 and 2 of 3 words, F 0.8; 1 of 1 and 1 of 2 pairs, F 2/3."""
    found = rouge(["the cat"], ["the cat sat"])
    assert found["rouge1"] == pytest.approx(0.8) and found["rouge2"] == pytest.approx(2 / 3)


def test_simple_answers():
    train = Dataset.from_dict({"label": [1, 1, 0], "target": ["positive", "positive", "negative"]})
    two = Dataset.from_dict({"inputs": ["translate English to German: A b.", "translate English to German: C."]})
    assert simple_answers("sst2", TEXT_TASKS["sst2"], train, two) == ["positive"] * 2
    assert simple_answers("translation", TEXT_TASKS["translation"], None, two) == ["A b.", "C."]
    text = Dataset.from_dict({"inputs": ["summarize: First one. Second one."]})
    assert simple_answers("summarization", TEXT_TASKS["summarization"], None, text) == ["First one"]
    scored = Dataset.from_dict({"label": [1.0, 2.0]})
    assert simple_answers("stsb", TEXT_TASKS["stsb"], scored, two) == ["1.6"] * 2  # 1.5, to the even step


@pytest.fixture(scope="module")
def writer():
    tokenizer = train_tokenizer("unigram", ["anna took the lamp to the garden"] * 5, 140)
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, head_dim=16, initializer_factor=3.0)
    model = HftT5ForConditionalGeneration(HftT5Config(vocab_size=len(tokenizer), **sizes))
    rows = [tokenizer(text)["input_ids"] for text in ("anna", "the lamp took anna", "garden to", "the lamp took the")]
    return model, tokenizer, rows


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_writes_what_each_row_would(writer, beams):
    model, tokenizer, rows = writer
    options = dict(max_new_tokens=6, num_beams=beams)
    together, endless = generate_texts(model.train(), tokenizer, rows, **options)
    assert model.training
    alone = [generate_texts(model, tokenizer, [row], **options) for row in rows]
    assert together == [texts[0] for texts, _ in alone] and endless == sum(number for _, number in alone)
    assert len(set(together)) > 1
    assert together == generate_texts(model, tokenizer, rows, batch_size=2, **options)[0]


def test_results(tmp_path):
    tasks = {"mrpc": TEXT_TASKS["mrpc"], "translation": TEXT_TASKS["translation"]}

    def run(f1, bleu):
        baselines = {"eval_mrpc_f1": 0.8, "eval_mrpc_accuracy": 0.7, "eval_translation_bleu": 1.5}
        scores = {"eval_mrpc_f1": f1, "eval_mrpc_accuracy": 0.5, "eval_mrpc_malformed": 0.25}
        return scores | {"eval_translation_bleu": bleu, "baselines": {"simple": baselines}}

    assert TextAnswers(tasks, {}, {}, {}).average(run(0.5, 30.0)) == pytest.approx(0.4)

    class Arguments:
        output_dir, process_index = tmp_path, 0

    results = write_results(Arguments, tasks, {"model": {0: run(0.5, 30.0), 1: run(0.7, 32.0)}})
    assert results["tasks"]["mrpc"]["model"]["f1"]["mean"] == pytest.approx(0.6)
    table = results_table(results)
    assert "| mrpc | f1 | 60.0 ± 14.1 | 80.0 |" in table and "| translation | bleu | 31.0 ± 1.4 | 1.5 |" in table
    assert "| mrpc | malformed | 25.0 ± 0.0 | - |" in table and (tmp_path / "results.md").read_text() == table
    assert json.loads((tmp_path / "results.json").read_text())["seeds"] == [0, 1]
