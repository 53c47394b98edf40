"""GLUE from beginning to end, in process: what a run learns and leaves, several tasks and seeds, and resuming."""

import json
import math
import re

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.glue import load_task
from hftoolkit.errors import CheckpointError
from hftoolkit.recipes import finetune_glue

QUICK = ["--config", "bert/glue_tiny", "--builtin_examples", "500", "--max_steps", "70", "--eval_steps", "70"]
QUICK += ["--save_steps", "70", "--tokenizer_vocab_size", "600", "--use_cpu"]


def run(*argv):
    return finetune_glue.main(*finetune_glue.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny config on fewer examples, two seeds: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "glue"
    return folder, run(*QUICK, "--output_dir", folder)


def test_it_learns(finished):
    """A feeling is told from the other better than by the more frequent one, and by more than by chance."""
    folder, results = finished
    found = results["tasks"]["sst2"]
    assert found["majority"]["accuracy"]["mean"] == 0.5
    assert len(found["model"]["accuracy"]["values"]) == 2 and min(found["model"]["accuracy"]["values"]) > 0.8
    losses = [json.loads((folder / f"sst2/seed-{i}/all_results.json").read_text())["eval_loss"] for i in (0, 1)]
    assert max(losses) < math.log(2) and losses[0] != losses[1]


def test_what_it_leaves(finished):
    folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == results
    assert re.search(r"\| SST-2 \| accuracy \| \d+\.\d ± \d+\.\d \| 50\.0 \|", (folder / "results.md").read_text())
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    part = json.loads((folder / "sst2/seed-1/run.json").read_text())
    assert part["seed"] == 1 and part["given"]["task"] == "sst2" and part["data"]["train"]["examples"] == 500
    config = json.loads((folder / "sst2/seed-1/config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["problem_type"] == "single_label_classification"


def test_the_submission_is_the_models_answers_in_order(finished):
    """Rows are grouped by length in training; the answers must not be shuffled by it."""
    folder, results = finished
    part = folder / f"sst2/seed-{results['tasks']['sst2']['best_seed']}"
    model, tokenizer = (kind.from_pretrained(part) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    test = load_task("sst2", ExampleArguments(builtin_examples=500))[0]["test"]
    with torch.no_grad():
        inputs = tokenizer(test["sentence1"][:], padding=True, return_tensors="pt")
        expected = model.eval()(**inputs).logits.argmax(-1).tolist()
    lines = (folder / "submission/SST-2.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert lines[1:] == [f"{i}\t{label}" for i, label in enumerate(expected)] and len(set(expected)) == 2


def test_a_finished_series_is_not_repeated(finished, capsys):
    folder, _ = finished
    with pytest.raises(SystemExit) as stop:
        run(*QUICK, "--output_dir", folder)
    assert stop.value.code == 0 and "already done" in "".join(capsys.readouterr())


def test_an_unknown_task_is_answered_with_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        finetune_glue.parse([*QUICK, "--task", "sts2"])
    assert stop.value.code == 2 and "did you mean" in capsys.readouterr().err


# Official files, from a stock checkpoint

PAIRS = [f"{number}\tIt rains {'in' * number}.\tIt is wet {number}.\t" for number in range(12)]
HEAD = "index\tsentence1\tsentence2"


def pairs(labels, column="label"):
    rows = [row + str(labels[number % len(labels)]) for number, row in enumerate(PAIRS)]
    return "\n".join([f"{HEAD}\t{column}", *rows, ""])


def write_glue(folder):
    """RTE, STS-B and MNLI with its second sets and the diagnostics, twelve rows a file."""
    test = "\n".join([HEAD, *(row.rstrip("\t") for row in PAIRS), ""])
    three = ("entailment", "neutral", "contradiction")
    mnli = {f"MNLI/dev_{kind}.tsv": pairs(three, "gold_label") for kind in ("matched", "mismatched")}
    mnli |= {f"MNLI/test_{kind}.tsv": test for kind in ("matched", "mismatched")}
    full = "\n".join(
        ["Logic\tPremise\tHypothesis\tLabel", *(f"\tA {i}.\tB {i}.\t{three[i % 3]}" for i in range(6)), ""]
    )
    files = mnli | {"MNLI/train.tsv": pairs(three, "gold_label"), "diagnostic/diagnostic-full.tsv": full}
    for name, labels, column in (("RTE", three[:1] + ("not_entailment",), "label"), ("STS-B", (0, 2.5, 5), "score")):
        files |= {f"{name}/train.tsv": pairs(labels, column), f"{name}/dev.tsv": pairs(labels, column)}
        files[f"{name}/test.tsv"] = test
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def stock(finished, tmp_path_factory):
    """A pretrained stock BERT (of random weights) with a tokenizer."""
    folder = tmp_path_factory.mktemp("stock")
    tokenizer = AutoTokenizer.from_pretrained(finished[0] / "sst2/seed-0")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def all_tasks(stock, data, folder, *more):
    return run(
        "--model_name_or_path", stock, "--dataset", data, "--output_dir", folder, "--max_length", 32,
        "--per_device_train_batch_size", 4, "--max_steps", 4, "--learning_rate", "1e-2", "--save_steps", 2,
        "--save_total_limit", 1, "--logging_steps", 1, "--use_cpu", "--report_to", "none", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(stock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    data = write_glue(folder / "data")
    return data, folder / "run", all_tasks(stock, data, folder / "run", "--from_scratch_baseline")


def test_all_tasks_that_are_there(whole):
    _, folder, results = whole
    assert list(results["tasks"]) == ["mnli", "stsb", "rte"]
    assert set(results["tasks"]["mnli"]["model"]) == {"accuracy", "mismatched_accuracy", "ax_matthews_correlation"}
    assert set(results["tasks"]["stsb"]["model"]) == {"spearman", "pearson"}
    figures = [
        results["tasks"][task]["model"][metric]["mean"]
        for task, metric in (
            ("mnli", "accuracy"), ("mnli", "mismatched_accuracy"), ("stsb", "spearman"), ("rte", "accuracy")
        )
    ]  # fmt: skip
    assert results["average"]["figures"] == 4
    assert results["average"]["model"] == pytest.approx(sum(figures) / 4)
    assert results["tasks"]["stsb"]["majority"]["pearson"]["mean"] == 0
    assert set(results["average"]) == {"model", "from_scratch", "majority", "figures"}
    names = {path.name for path in (folder / "submission").iterdir()}
    assert names == {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv", "STS-B.tsv", "RTE.tsv"}


def test_submissions_have_the_tasks_own_labels(whole):
    _, folder, _ = whole
    rows = [line.split("\t") for line in (folder / "submission/STS-B.tsv").read_text().splitlines()[1:]]
    assert [index for index, _ in rows] == [str(number) for number in range(12)]
    assert all(0 <= float(score) <= 5 for _, score in rows)
    labels = {line.split("\t")[1] for line in (folder / "submission/RTE.tsv").read_text().splitlines()[1:]}
    assert labels <= {"entailment", "not_entailment"}


def test_regression_and_its_config(whole):
    config = json.loads((whole[1] / "stsb/seed-42/config.json").read_text())
    assert config["problem_type"] == "regression" and len(config["id2label"]) == 1


def test_the_baseline_from_scratch_starts_anew(whole, stock):
    """Same architecture, other weights: the pretrained model's embeddings are not those it was trained from."""
    pretrained = BertModel.from_pretrained(stock).embeddings.word_embeddings.weight[:50]
    found = {}
    for kind in ("seed", "scratch"):
        model = AutoModelForSequenceClassification.from_pretrained(whole[1] / f"rte/{kind}-42")
        found[kind] = (model.bert.embeddings.word_embeddings.weight[:50] - pretrained).abs().mean().item()
    assert found["seed"] < 0.01 < found["scratch"]


def test_interrupted_between_two_checkpoints_it_ends_the_same(stock, whole, tmp_path, monkeypatch):
    """Stopped in the second task; the first is not trained again, and everything comes out as without interruption."""
    from transformers import TrainerCallback

    from hftoolkit.training import ordered_evaluation

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if "stsb" in args.output_dir and state.global_step == 3:
                raise KeyboardInterrupt

    build = ordered_evaluation.OrderedEvaluationTrainer.__init__

    def with_stop(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.add_callback(Stop())

    data, folder, results = whole
    with monkeypatch.context() as patch:
        patch.setattr(ordered_evaluation.OrderedEvaluationTrainer, "__init__", with_stop)
        with pytest.raises(KeyboardInterrupt):
            all_tasks(stock, data, tmp_path / "run", "--from_scratch_baseline")
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] != "done"
    first = tmp_path / "run/mnli/seed-42/model.safetensors"
    before = first.stat().st_mtime_ns
    again = all_tasks(stock, data, tmp_path / "run", "--from_scratch_baseline")
    assert again == results and first.stat().st_mtime_ns == before
    for name in ("stsb/seed-42/model.safetensors", "rte/scratch-42/model.safetensors", "submission/STS-B.tsv"):
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize(
    "options", [["--adaptation", "lora"], ["--adaptation", "frozen"], ["--layer_decay", "0.8"]], ids=lambda o: o[-1]
)
def test_each_adaptation_is_one_flag(options, stock, whole, tmp_path):
    results = all_tasks(stock, whole[0], tmp_path / "run", "--task", "rte", *options)
    assert 0 <= results["tasks"]["rte"]["model"]["accuracy"]["mean"] <= 1
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/rte/seed-42")
    assert model.config.id2label == {0: "entailment", 1: "not_entailment"}
    assert (tmp_path / "run/rte/seed-42/adapter").is_dir() == ("lora" in options)


def test_a_model_fine_tuned_for_three_classes_is_refused_for_two(whole, tmp_path):
    data, folder, _ = whole
    with pytest.raises(CheckpointError, match="with 3 classes, but this task has 2"):
        all_tasks(folder / "mnli/seed-42", data, tmp_path / "run", "--task", "rte")


@pytest.mark.realdata
def test_real_files(stock, real_data, tmp_path):
    """SST-2 and STS-B as distributed, a few steps: everything is there for a real run."""
    for task, title, rows in (("sst2", "SST-2", 1821), ("stsb", "STS-B", 1379)):
        results = all_tasks(stock, real_data / "glue", tmp_path / task, "--task", task, "--max_examples", "64")
        assert list(results["tasks"]) == [task]
        assert len((tmp_path / task / f"submission/{title}.tsv").read_text().splitlines()) == rows + 1
