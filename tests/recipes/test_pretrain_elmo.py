"""The tiny ELMo from beginning to end: a biLM, and a tagger and a classifier that read its layers as they are."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hftoolkit.errors import DataError
from hftoolkit.recipes import finetune_tagging, pretrain_elmo, train_classifier

QUICK = ["--config", "elmo/tiny", "--builtin_documents", "150", "--max_steps", "60", "--use_cpu"]
QUICK += ["--eval_steps", "30", "--save_steps", "30"]
TASK = ["--builtin_examples", "200", "--max_steps", "30", "--eval_steps", "30", "--save_steps", "30", "--use_cpu"]


def run(recipe, *argv):
    return recipe.main(*recipe.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "elmo"
    return folder, run(pretrain_elmo, *QUICK, "--output_dir", folder)


def test_both_directions_learn(finished):
    folder, results = finished
    unigram = results["baselines"]["unigram_loss"]
    for side in ("forward", "backward"):
        assert torch.tensor(results[f"eval_{side}_perplexity"]).log() < unigram - 0.2
    assert results["eval_tokens"] > 500
    vocabulary = (folder / "vocabulary.txt").read_text().split("\n")
    assert len(vocabulary) == json.loads((folder / "config.json").read_text())["num_words"]
    assert {"<S>", "</S>", "<UNK>", "the"} <= set(vocabulary)
    card = (folder / "README.md").read_text()
    assert "a language model in each direction" in card and "eval_forward_perplexity" in card


def test_the_neighbours_of_a_word_of_two_senses_are_shown(finished):
    (word,) = json.loads((finished[0] / "neighbours.json").read_text())
    assert word["word"] == "two"
    assert all("[two]" in context["sentence"] and len(context["nearest"]) == 3 for context in word["in_context"])


def test_a_number_and_an_hour_are_told_apart_by_the_context(finished):
    """Both have the same bytes, "two coins" and "at two"; the last layer puts those of one sense together."""
    from transformers import AutoModel, AutoTokenizer

    from hftoolkit.data.bilm import split_words
    from hftoolkit.data.microworld import make_documents
    from hftoolkit.evaluation.contextual_neighbours import embed_occurrences, same_sense_share
    from hftoolkit.tokenization.character_ids import words_of

    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    model = AutoModel.from_pretrained(finished[0])
    sentences = split_words(make_documents(60, seed=7), lambda text: words_of(tokenizer, text))
    numbers = {"two", "three", "four", "five", "six"}
    sentences = [words for words in sentences if numbers & set(words)]
    shares = {}
    for layer in (0, -1):
        found = embed_occurrences(model, tokenizer, sentences, layer)
        senses = {}
        for number, (sentence, place) in enumerate(found.places):
            if found.word((sentence, place)) in numbers:
                senses[number] = sentences[sentence][place + 1] in (".", "!", "?")
        assert 10 < sum(senses.values()) < len(senses) - 10
        shares[layer], chance = same_sense_share(found, senses, count=5)
    assert shares[-1] > 0.9 and shares[-1] > shares[0] + 0.1 > chance


def test_an_interrupted_run_ends_with_the_same_numbers(finished, tmp_path):
    folder, results = finished
    argv = [*QUICK, "--output_dir", tmp_path / "elmo"]
    shutil.copytree(folder, tmp_path / "elmo")
    shutil.rmtree(tmp_path / "elmo/checkpoint-60")
    record = json.loads((tmp_path / "elmo/run.json").read_text())
    (tmp_path / "elmo/run.json").write_text(json.dumps(record | {"status": "running"}))
    assert run(pretrain_elmo, *argv) == results
    ours, theirs = (load_file(place / "model.safetensors") for place in (tmp_path / "elmo", folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("recipe", "config", "score"),
    [
        (finetune_tagging, "tagging_tiny", "eval_f1"),
        pytest.param(train_classifier, "classifier_tiny", None, marks=pytest.mark.slow),
    ],
)
def test_tasks_read_it_and_leave_it_as_it_is(finished, tmp_path, recipe, config, score):
    folder, out = finished[0], tmp_path / "task"
    results = run(recipe, "--config", f"elmo/{config}", "--model_name_or_path", folder, *TASK, "--output_dir", out)
    out = out if score else out / "seed-0"
    before, after = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors")
    kept = [name for name in after if name.startswith("model.")]
    assert kept and all(torch.equal(after[name], before[name]) for name in kept)
    assert after["task.mix.weights"].abs().max() > 0 and after["task.mix.gamma"] != 1
    assert json.loads((out / "config.json").read_text())["architectures"][0].startswith("HftElmoFor")
    if score:
        assert results[score] > 0.1  # after 30 steps; the most frequent tag: 0
    assert "were not trained here" in (out / "README.md").read_text()


def test_what_cannot_be_is_said_before_long_work(finished, tmp_path):
    with pytest.raises(DataError, match="streaming is set"):
        run(pretrain_elmo, *QUICK, "--output_dir", tmp_path / "x", "--streaming", "true")
    with pytest.raises(DataError, match="'twoo' does not occur in the .* sentences .*; did you mean 'two'"):
        run(pretrain_elmo, *QUICK, "--output_dir", tmp_path / "x", "--neighbours", "two, twoo")
    unseen = ["--eval_strategy", "no", "--validation_fraction", "0", "--neighbours", "two", "lamp"]
    with pytest.raises(
        DataError, match="neighbours of two, lamp are looked up in the validation data, and there are none"
    ):
        run(pretrain_elmo, *QUICK[:-4], "--output_dir", tmp_path / "x", *unseen)
    assert not (tmp_path / "x").exists()
    text = tmp_path / "one.txt"
    text.write_text("word word word word word\n\n" * 20)
    with pytest.raises(DataError, match="1 different words"):
        run(pretrain_elmo, *QUICK, "--dataset", text, "--output_dir", tmp_path / "y")
    shutil.copytree(finished[0], tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint*", "vocabulary.txt"))
    further = ["--model_name_or_path", tmp_path / "model", "--dataset", "builtin", "--builtin_documents", "20"]
    further += ["--max_steps", "2", "--use_cpu", "--output_dir"]
    with pytest.raises(DataError, match="vocabulary.txt must lie beside it"):
        run(pretrain_elmo, *further, tmp_path / "z")
    shutil.copy(finished[0] / "vocabulary.txt", tmp_path / "model")
    assert run(pretrain_elmo, *further, tmp_path / "z")["eval_loss"] < finished[1]["baselines"]["unigram_loss"]


@pytest.mark.slow
@pytest.mark.export
def test_its_heads_load_without_hftoolkit(finished):
    from hftoolkit.export import check_export

    heads = ["AutoModelForPreTraining", "AutoModelForTokenClassification"]
    found = check_export(finished[0], heads, inputs=dict(input_ids=torch.tensor([[256, 32, 97, 32, 98, 257]])))
    assert set(found) == set(heads)
