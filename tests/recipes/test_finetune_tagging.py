"""The tiny tagging run from beginning to end, in process: what it learns and leaves."""

import json

import pytest
from safetensors.torch import load_file

from hftoolkit.recipes import finetune_tagging

QUICK = ["--config", "bert/tagging_tiny", "--builtin_examples", "400", "--max_steps", "60", "--warmup_steps", "6"]
QUICK += ["--eval_steps", "60", "--save_steps", "60", "--tokenizer_vocab_size", "600", "--use_cpu"]


def run(*argv):
    return finetune_tagging.main(*finetune_tagging.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tagging"
    return folder, run(*QUICK, "--output_dir", folder)


def test_it_learns(finished):
    _, results = finished
    baselines = results["baselines"]
    assert results["eval_accuracy"] > baselines["majority"]["eval_accuracy"] + 0.05
    assert results["eval_f1"] > 0.5 > baselines["majority"]["eval_f1"] == 0
    assert baselines["each_words_tag"]["eval_f1"] > 0.5


def test_its_predictions_are_conll_columns_with_the_same_score(finished, tmp_path):
    from hftoolkit.arguments import ExampleArguments
    from hftoolkit.data.tagging import load_tagged
    from hftoolkit.evaluation.metrics import entity_f1

    folder, results = finished
    read = {
        name: load_tagged(
            ExampleArguments(dataset=str(folder / "predictions.conll")),
            validation_fraction=0, tag_column=column, task="pos",
        )["train"]["tags"]
        for name, column in (("right", 1), ("ours", 2))
    }  # fmt: skip
    assert len(read["right"]) == 80
    assert entity_f1(list(read["ours"]), list(read["right"]))["f1"] == pytest.approx(results["eval_f1"], abs=1e-6)


def test_the_labels_are_in_the_config(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    assert set(config["label2id"]) == {"O"} | {f"{letter}-{kind}" for kind in ("LOC", "OBJ", "PER") for letter in "BI"}


def test_parts_of_speech_grouped_by_length_from_a_stock_checkpoint(finished, tmp_path):
    """Sentences longer than a row are split; the evaluation keeps their order."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(finished[0])
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    words = [("the", "DET"), ("lamp", "NOUN"), ("was", "VERB"), ("red", "ADJ"), (".", "PUNCT")]
    lines = ["".join(f"{word}\t{tag}\n" for word, tag in words[: 1 + n % 5] * (1 + n % 3)) for n in range(60)]
    (tmp_path / "train.conll").write_text("\n".join(lines))
    results = run(
        "--model_name_or_path", tmp_path / "stock", "--dataset", tmp_path / "train.conll", "--task", "pos",
        "--max_length", 10, "--num_train_epochs", 25, "--learning_rate", 5e-3, "--validation_fraction", 0.2,
        "--train_sampling_strategy", "group_by_length", "--save_strategy", "no", "--use_cpu",
        "--output_dir", tmp_path / "run",
    )  # fmt: skip
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert data["train"]["sentences_split"] > 0 and data["validation"]["sentences"] == 12
    assert results["eval_accuracy"] > 0.95  # a tag for each word: shuffled predictions stay far below
    assert results["baselines"]["each_words_tag"]["eval_accuracy"] == 1


def test_a_recurrent_network_begins_with_vectors_of_a_file(tmp_path):
    (tmp_path / "vectors.txt").write_text("the" + " 0.5" * 64 + "\nwas" + " -0.5" * 64 + "\n")
    quick = ("--builtin_examples", 60, "--max_steps", 2, "--eval_steps", 2, "--save_steps", 2, "--use_cpu")
    quick = ("--config", "rnn/tagging_tiny", *quick, "--embeddings", tmp_path / "vectors.txt")
    run(*quick, "--freeze_embeddings", "true", "--output_dir", tmp_path / "run")
    weight = load_file(tmp_path / "run/model.safetensors")["model.embed_tokens.weight"]
    ids = json.loads((tmp_path / "run/tokenizer.json").read_text())["model"]["vocab"]
    assert weight[ids["the"]].tolist() == [0.5] * 64 and weight[ids["was"]].tolist() == [-0.5] * 64
    assert json.loads((tmp_path / "run/run.json").read_text())["data"]["embeddings"].startswith("2 of ")


def test_a_recurrent_network_from_scratch(tmp_path):
    """As the config of its own has it; low-rank updates, which it has no layers for, are refused."""
    from hftoolkit.errors import DataError

    quick = ("--builtin_examples", 400, "--max_steps", 60, "--eval_steps", 60, "--save_steps", 60, "--use_cpu")
    quick = ("--config", "rnn/tagging_tiny", *quick)
    results = run(*quick, "--output_dir", tmp_path / "run")
    assert results["eval_accuracy"] > results["baselines"]["majority"]["eval_accuracy"] + 0.05
    assert "1 LSTM layer of 64 cells" in (tmp_path / "run/README.md").read_text()
    assert "max_position_embeddings" not in json.loads((tmp_path / "run/config.json").read_text())
    with pytest.raises(DataError, match="has no linear layers beside its head; use full or frozen"):
        run(*quick, "--adaptation", "lora", "--output_dir", tmp_path / "lora")
