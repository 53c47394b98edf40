"""Text-to-text fine-tuning from beginning to end, in process: what it learns, leaves and refuses, and that it resumes."""

import hashlib
import json

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.text_to_text import TEXT_TASKS
from hftoolkit.data.text_to_text_rows import load_text_task
from hftoolkit.errors import DataError, RunInterruptedError
from hftoolkit.evaluation.text_to_text import generate_texts
from hftoolkit.recipes import finetune_t5
from hftoolkit.training.text_to_text import TextToTextTrainer

QUICK = dict(builtin_examples=400, max_steps=120, eval_steps=120, save_steps=120, use_cpu="true")
FEW = dict(builtin_examples=60, max_steps=12, eval_steps=6, save_steps=6, logging_steps=4, warmup_steps=2)
FEW |= dict(use_cpu="true", tokenizer_vocab_size=600)


def run(folder, **options):
    words = ["--config", "t5/finetune_tiny", "--output_dir", str(folder)]
    return finetune_t5.main(*finetune_t5.parse(words + [str(w) for k, v in options.items() for w in (f"--{k}", v)]))


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny config on fewer examples: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "tasks"
    return folder, run(folder, **QUICK)


def test_it_learns(finished):
    """Two tasks by their prefixes, in one model: a feeling is told, and every answer is one of a task's own."""
    _, results = finished
    found = results["tasks"]["sst2"]
    assert found["simple"]["accuracy"]["mean"] == 0.5 and found["model"]["accuracy"]["mean"] > 0.7
    assert found["model"]["malformed"]["mean"] == 0 == results["tasks"]["cola"]["model"]["malformed"]["mean"]
    assert set(results["tasks"]) == {"sst2", "cola"} and "from_scratch" not in found


def test_what_it_leaves(finished):
    folder, results = finished
    assert json.loads((folder / "results.json").read_text()) == results
    assert "| sst2 | accuracy |" in (folder / "results.md").read_text()
    part = json.loads((folder / "seed-0/run.json").read_text())
    assert part["status"] == "done" and part["data"]["sst2"]["train_examples"] == 400
    assert part["data"]["cola"]["rate"] == 0.5 and 1 < part["data"]["cola"]["passes"] < 4
    card = (folder / "seed-0/README.md").read_text()
    assert "AutoModelForSeq2SeqLM" in card and "sst2" in card and "simple" in card


def test_the_checkpoint_writes_the_answers(finished):
    folder, results = finished
    model = AutoModelForSeq2SeqLM.from_pretrained(folder / "seed-0").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "seed-0")
    rows = load_text_task("sst2", TEXT_TASKS["sst2"], ExampleArguments(builtin_examples=400))[0]["validation"]
    texts, endless = generate_texts(model, tokenizer, [tokenizer(text)["input_ids"] for text in rows["inputs"]])
    right = sum(text == target for text, target in zip(texts, rows["target"], strict=True))
    assert not endless and right / len(rows) == results["tasks"]["sst2"]["model"]["accuracy"]["mean"]


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "unbroken", **FEW)
    step = TextToTextTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 9:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(TextToTextTrainer, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run(tmp_path / "broken", **FEW)
    monkeypatch.undo()
    results = run(tmp_path / "broken", **FEW)
    assert weights(tmp_path / "broken/seed-0") == weights(tmp_path / "unbroken/seed-0")
    assert results == json.loads((tmp_path / "unbroken" / "results.json").read_text())


def test_every_kind_of_task_and_the_same_from_scratch(tmp_path):
    options = FEW | dict(tasks="stsb,squad,translation,summarization", num_beams=2, from_scratch_baseline="true")
    options |= dict(eval_strategy="no", max_steps=4, max_target_length=16, mixing_limit=30, mixing_temperature=2)
    results = run(tmp_path / "run", **options)
    for name, metric in (
        ("stsb", "spearman"),
        ("squad", "f1"),
        ("translation", "bleu"),
        ("summarization", "rougeLsum"),
    ):
        assert {metric, "malformed"} <= set(results["tasks"][name]["model"])
        assert set(results["tasks"][name]) == {"model", "from_scratch", "simple"}
    assert weights(tmp_path / "run/seed-0") != weights(tmp_path / "run/scratch-0")
    record = json.loads((tmp_path / "run/seed-0/run.json").read_text())
    assert record["data"]["squad"]["rate"] == 0.25 and record["data"]["summarization"]["train_cut_targets"] > 0


def test_a_stock_checkpoint(tmp_path, finished):
    tokenizer = AutoTokenizer.from_pretrained(finished[0] / "seed-0")
    sizes = dict(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=len(tokenizer))
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    (tmp_path / "task.yaml").write_text(
        f"model_name_or_path: {tmp_path}/stock\ntasks: rte\nbuiltin_examples: 40\nmax_steps: 2\nlearning_rate: 1e-3\n"
        f"max_length: 64\nmax_target_length: 12\noutput_dir: {tmp_path}/run\nuse_cpu: true\n"
    )
    results = finetune_t5.main(*finetune_t5.parse(["--config", str(tmp_path / "task.yaml")]))
    assert results["tasks"]["rte"]["model"]["malformed"]["mean"] > 0.5  # a new model writes anything
    config = json.loads((tmp_path / "run/seed-42/config.json").read_text())
    assert config["architectures"] == ["T5ForConditionalGeneration"]


def test_accumulated_batches_of_a_stock_model(tmp_path, finished):
    """The gradient of two rows accumulated is about that of one batch of two; a sum of means would be twice as large."""
    tokenizer = AutoTokenizer.from_pretrained(finished[0] / "seed-0")
    sizes = dict(d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=len(tokenizer), dropout_rate=0.0)
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    norms = {}
    for size in (1, 2):
        (tmp_path / "task.yaml").write_text(
            f"model_name_or_path: {tmp_path}/stock\ntasks: rte\nbuiltin_examples: 20\nmax_steps: 1\nlogging_steps: 1\n"
            f"per_device_train_batch_size: {size}\ngradient_accumulation_steps: {2 // size}\nmax_target_length: 12\n"
            f"max_length: 64\nlearning_rate: 1e-3\noutput_dir: {tmp_path}/run-{size}\nuse_cpu: true\n"
        )
        finetune_t5.main(*finetune_t5.parse(["--config", str(tmp_path / "task.yaml")]))
        state = json.loads((tmp_path / f"run-{size}/seed-42/checkpoint-1/trainer_state.json").read_text())
        norms[size] = state["log_history"][0]["grad_norm"]
    assert 0.8 < norms[1] / norms[2] < 1.25
    generation = json.loads((tmp_path / "run-1/seed-42/generation_config.json").read_text())
    assert generation["max_length"] == 13


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(tasks="sts2"), "did you mean"),
        (dict(tasks="rte,mrpc", **{"prefixes.rte": "mrpc"}), "both begin with 'mrpc sentence1:'"),
        (dict(mixing_limit=0), "mixing_limit"),
        (dict(mixing_temperature=0), "mixing_temperature"),
        (dict(**{"sources.squad": "builtin"}), "'squad' is not among the tasks"),
    ],
)
def test_bad_arguments(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", **FEW, **options)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_an_answer_longer_than_the_limit(tmp_path):
    with pytest.raises(DataError, match="max_target_length is 2"):
        run(tmp_path / "run", **FEW, tasks="stsb", max_target_length=2)
