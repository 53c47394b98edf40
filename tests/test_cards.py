"""Model cards: what was measured, nothing else, and nothing that a reader's browser or YAML parser would obey."""

import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from hftoolkit.cards import CardError, as_code, as_markdown, render_card, write_card
from hftoolkit.private_text import find_private

TOKEN = "hf_" + "Zk" * 17
FACTS = {
    "name": "gpt-tiny",
    "architecture": "gpt",
    "model_class": "HftGptForCausalLM",
    "parameters": 1234567,
    "config": {"hidden_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128, "norm_order": "pre"},
    "tokenizer": {"kind": "byte_bpe"},
    "data": {"name": "builtin", "fingerprint": "1f3a9c0d", "train": {"documents": 900, "tokens": 81000}},
    "hyperparameters": {"learning_rate": 0.001, "adam_epsilon": 1e-8},
    "results": {"steps": 300, "epoch": 1.2, "train_loss": 2.3, "eval_loss": 0.9, "perplexity": 2.4596},
    "baselines": {"unigram": {"perplexity": 61.2}, "bigram": {"perplexity": 5.53, "eval_loss": 1.71}},
    "versions": {"torch": "2.13.0"},
    "hardware": {"processor": "Xeon", "cores": 2},
    "wall_seconds": 71.2,
    "cpu_seconds": 140.2,
    "steps": 300,
    "tokens_seen": 2457600,
    "command": ["/home/ada/hf/recipes/pretrain_gpt.py", "--output_dir", "/home/ada/runs/a b"],
}


def parts(text):
    """(metadata as the Hub reads it, body)."""
    card = ModelCard(text)
    return yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n")), card.text


def section(text, title):
    return re.search(rf"\n## {title}\n(.*?)(?=\n## |\Z)", text, re.DOTALL)[1]


def test_results_stand_beside_their_baselines():
    assert section(render_card("gpt", FACTS), "Results").split("\n")[1:5] == [
        "| validation | this model | unigram | bigram |",
        "|---|---:|---:|---:|",
        "| `eval_loss` (nats per token, lower is better) | 0.9 | not measured | 1.71 |",
        "| `perplexity` (per token, lower is better) | 2.46 | 61.2 | 5.53 |",
    ]


def test_metadata_hold_the_results_for_the_hub():
    data, _ = parts(render_card("gpt", FACTS))
    assert (data["library_name"], data["pipeline_tag"], data["tags"]) == (
        "transformers",
        "text-generation",
        ["hftoolkit", "gpt"],
    )
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] == {"name": "builtin", "type": "builtin", "split": "validation"}
    assert result["metrics"] == [{"type": "eval_loss", "value": 0.9}, {"type": "perplexity", "value": 2.4596}]
    assert data["license"] == "apache-2.0" and "datasets" not in data  # ours; and not a data set of the Hub


def test_a_data_set_and_a_model_of_the_hub_are_linked_and_their_licence_is_not_guessed():
    facts = FACTS | {"data": {"name": "nyu-mll/glue", "config": "sst2"}, "given": {"model_name_or_path": "ada/gpt"}}
    data, body = parts(render_card("gpt", facts))
    assert data["datasets"] == ["nyu-mll/glue"] and data["base_model"] == "ada/gpt" and "license" not in data
    assert data["model-index"][0]["results"][0]["dataset"]["config"] == "sst2" and "further from `ada/gpt`" in body


@pytest.mark.parametrize("order, paper", [("pre", "Radford et al. 2019"), ("post", "Radford et al. 2018")])
def test_the_paper_is_that_of_the_architecture(order, paper):
    body = render_card("gpt", FACTS | {"config": {"norm_order": order}})
    assert [found for found in ("Radford et al. 2018", "Radford et al. 2019") if found in body] == [paper]


def test_says_how_to_load_and_how_to_repeat():
    body = render_card("gpt", FACTS)
    code = re.search(r"```python\n(.*?)```", section(body, "How to load"), re.DOTALL)[1]
    compile(code, "card", "exec")
    assert code.count("trust_remote_code=True") == 2 and "AutoModelForCausalLM.from_pretrained(model_id" in code
    assert "python recipes/pretrain_gpt.py --output_dir 'a b'" in section(body, "How to reproduce")


def test_writes_readme_and_shows_the_picture_that_is_there(tmp_path):
    assert "curves.png" not in write_card(tmp_path, "gpt", FACTS).read_text()
    (tmp_path / "curves.png").touch()
    assert write_card(tmp_path, "gpt.md", FACTS) == tmp_path / "README.md"
    assert "![Curves over the steps](curves.png)" in (tmp_path / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "curves.png"]


def test_nothing_private_is_in_a_card():
    facts = FACTS | {"command": f"/home/ada/x/recipes/a.py --data=/data/corpora/plays --key {TOKEN}"}
    facts |= {"data": {"name": "/home/ada/plays", "path": "~/a/plays"}, "given": {"tokenizer": "../tok/bpe"}}
    facts |= {"hyperparameters": {"logging_dir": "/home/ada/runs/logs", "hub_token": TOKEN}}
    text = render_card("gpt", facts)
    assert find_private(text.encode()) == [] and "ada" not in text and "/data/corpora" not in text and ".." not in text
    assert "python recipes/a.py --data=plays --key [removed]" in text and "| data set | plays |" in text


EVIL = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "cells": "a | b || c",
    "backslash": r"a\|b`c",
    "rule": "---",
    "metadata": "x\n---\nlicense: mit\n---\n# owned",
    "yaml": "key: [1, 2} # no",
    "tag": "!!python/object/apply:os.system ['true']",
    "quotes": "\"'`'\"",
    "link": "[click](javascript:alert(1))",
    "fence": "```\n# out\n```",
    "number": "0x1F", "boolean": "no", "null": "null", "date": "2024-01-01", "octal": "012",
    "bidi": "abc\u202egnp.exe\u2028x\x00\ud800",
    "heading": "# Title", "list": "- item", "ordered": "1. item", "math": "$$x$$", "emphasis": "_a_ *b* ~~c~~",
    "jinja": "{{ 7 * 7 }}{% raw %}",
}  # fmt: skip


@pytest.mark.parametrize("text", EVIL.values(), ids=EVIL)
def test_f65_text_from_outside_is_shown_and_not_obeyed(text):
    facts = FACTS | {"name": text, "data": {"name": text, "config": text, text: text}, "hyperparameters": {text: text}}
    facts |= {"results": {"eval_loss": 0.9, text: 1.5}, "baselines": {text: {"eval_loss": 2.0}}, "command": text}
    facts |= {"config": {"vocab_size": text}, "versions": {text: text}, "hardware": {text: text}, "license": text}
    text_out, plain = render_card("gpt", facts), render_card("gpt", FACTS)
    data, body = parts(text_out)
    shown = " ".join(re.sub("[\u202e\x00\u2028\ud800]", lambda c: "" if c[0] in "\u202e\ud800" else " ", text).split())
    assert (data["model-index"][0]["name"], data["license"]) == (shown, shown)  # the same value, as text
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == shown
    outside = re.sub(r"```.*?\n```\n|`[^`\n]*`", "", body, flags=re.DOTALL)  # in code nothing is obeyed
    assert "<" not in outside and not re.search(r"(?<!\\)\]\(javascript", outside)
    assert body.count("\n## ") == plain.count("\n## ") and body.count("```") == plain.count("```")
    assert not re.search(
        r"^\s*(---|===|[-+*] |1\. |#+ (Title|out|owned))", outside.split("## Limits")[0], re.MULTILINE
    )
    for table in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        assert len({cells(row) for row in table.splitlines()}) == 1, table


def cells(row):
    """Columns of a table row: pipes that no backslash makes a letter."""
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row))


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_f65_any_text_stays_in_its_cell(text):
    for shown in (as_markdown(text.replace("\n", " ")), str(as_code(text.replace("\n", " ")))):
        assert cells(f"| {shown} |") == 2 and not shown.startswith(("-", "=", "+", "#", "<"))


@pytest.mark.parametrize("missing", [*FACTS, None])
def test_f66_a_missing_fact_reads_not_measured(missing):
    facts = {key: value for key, value in FACTS.items() if key != missing} if missing else {}
    data, body = parts(render_card("gpt", facts))
    assert data["library_name"] == "transformers" and "None" not in body and "nan" not in body.lower()
    if missing in (None, "results"):
        assert "model-index" not in data and section(body, "Results").strip() == "Not measured."
    if missing in (None, "baselines"):
        assert "Baselines: not measured." in body or missing is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "", "broken", [1], {"a": 1}])
def test_f66_a_result_that_is_no_number_reads_not_measured(value):
    facts = FACTS | {"results": {"eval_loss": value}, "wall_seconds": value, "parameters": value, "steps": value}
    data, body = parts(render_card("gpt", facts))
    assert "model-index" not in data and "`eval_loss` (nats per token, lower is better) | not measured |" in body
    assert "| wall time | not measured |" in body


@pytest.mark.parametrize("key", [key for key, value in FACTS.items() if isinstance(value, dict)])
@pytest.mark.parametrize("value", ["text", 7, None, [1, 2]])
def test_f66_a_fact_of_the_wrong_kind_does_no_harm(key, value):
    assert parts(render_card("gpt", FACTS | {key: value}))[0]["library_name"] == "transformers"


def test_f66_a_card_that_fails_says_so_and_leaves_the_old_one(tmp_path):
    (tmp_path / "README.md").write_text("old")
    with pytest.raises(CardError, match="the model card was not written: TemplateNotFound"):
        write_card(tmp_path, "nothing", FACTS)
    circle = {}
    circle["circle"] = circle
    with pytest.raises(CardError, match="RecursionError"):
        write_card(tmp_path, "gpt", circle)
    with pytest.raises(CardError, match="FileNotFoundError"):
        write_card(tmp_path / "nothing", "gpt", FACTS)
    assert (tmp_path / "README.md").read_text() == "old"


def test_examples_are_counted_as_documents_are(tmp_path):
    facts = {"data": {"name": "glue", "train": {"examples": 3668, "empty_sides": 0}, "validation": {"examples": 408}}}
    card = render_card("bert", facts | {"model_class": "BertForSequenceClassification"})
    assert "| split | examples | empty sides |" in card and "| train | 3,668 | 0 |" in card
    assert "| validation | 408 | not measured |" in card


@pytest.mark.parametrize(
    "task", ["PreTraining", "MaskedLM", "MultipleChoice", "QuestionAnswering", "TokenClassification"]
)
def test_the_card_of_an_encoder_names_its_auto_class(task):
    assert f"AutoModelFor{task}.from_pretrained(model_id" in render_card("bert", {"model_class": f"HftBertFor{task}"})


@pytest.mark.parametrize(
    ("form", "shown"), [("single", "_classify_"), ("similarity", "both orders"), ("choice", "of every answer")]
)
def test_the_card_of_gpts_head_for_tasks_shows_its_input(form, shown):
    facts = {"model_class": "HftGptForTaskClassification", "config": {"task_form": form, "auxiliary_loss_weight": 0.5}}
    body = render_card("gpt", facts)
    code = re.search(r"```python\n(.*?)```", section(body, "How to load"), re.DOTALL)[1]
    compile(code, "card", "exec")
    assert "AutoModelForMultipleChoice.from_pretrained(model_id" in code and "_start_" in code and shown in body
    assert "with the weight 0.5" in body and "continues text" not in body


def test_a_stock_checkpoint_needs_no_remote_code():
    ours, stock = (
        render_card("bert", {"config": {"model_type": "bert"} | more, "model_class": "BertForMaskedLM"})
        for more in ({"auto_map": {"AutoConfig": "modeling_bert.HftBertConfig"}}, {})
    )
    assert "trust_remote_code" in ours and "trust_remote_code" not in stock


CLASSIFIERS = {
    "bow": {"model_type": "hft_bow", "vocab_size": 99},
    "dan": {"model_type": "hft_dan", "vocab_size": 99, "hidden_size": 8, "embedding_size": 6, "num_hidden_layers": 2},
    "textcnn": {"model_type": "hft_textcnn", "num_filters": 4, "filter_sizes": [3, 4], "embedding_size": 6},
    "rnn": {
        "model_type": "hft_rnn",
        "cell_type": "gru",
        "num_hidden_layers": 2,
        "bidirectional": True,
        "pooling": "max",
    },
}


@pytest.mark.parametrize("architecture", CLASSIFIERS)
def test_the_cards_of_classifiers(architecture):
    """Their code compiles, they say where their vectors came from, and an empty one says so too."""
    facts = {"config": CLASSIFIERS[architecture], "hyperparameters": {"embeddings": "vectors.txt"}}
    name = {"bow": "Bow", "dan": "Dan", "textcnn": "TextCnn", "rnn": "Rnn"}[architecture]
    body = render_card(architecture, facts | {"model_class": f"Hft{name}ForSequenceClassification"})
    code = re.search(r"```python\n(.*?)```", section(body, "How to load"), re.DOTALL)[1]
    compile(code, "card", "exec")
    assert "AutoModelForSequenceClassification.from_pretrained(model_id" in code
    assert ("began as those of `vectors.txt`" in body) == (architecture != "bow")
    assert "2 GRU layers" in body or architecture != "rnn"
    assert parts(render_card(architecture, {}))[0]["library_name"] == "transformers"


def test_a_model_without_a_card_of_its_own_gets_another():
    from types import SimpleNamespace

    from hftoolkit.cards import card_of

    names = {
        name: card_of(SimpleNamespace(config=SimpleNamespace(model_type=name))) for name in ("hft_rnn", "distilbert")
    }
    assert names == {"hft_rnn": "rnn", "distilbert": "bert"}
