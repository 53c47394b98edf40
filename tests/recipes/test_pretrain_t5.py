"""The tiny recipe from beginning to end, in process: what it learns, what it leaves, and that it resumes."""

import hashlib
import json
import math

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hftoolkit.errors import DataError, RunInterruptedError
from hftoolkit.recipes import pretrain_t5
from hftoolkit.training.denoising import DenoisingTrainer

SMALL = dict(builtin_documents=300, max_length=48, warmup_steps=5, use_cpu="true")
FEW = SMALL | dict(max_steps=12, eval_steps=6, save_steps=6, logging_steps=4)


def run(folder, **options):
    words = ["--config", "t5/tiny", "--output_dir", str(folder)]
    return pretrain_t5.main(*pretrain_t5.parse(words + [str(w) for k, v in options.items() for w in (f"--{k}", v)]))


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny config, with fewer steps: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, run(folder, **SMALL | dict(builtin_documents=1000, max_steps=100, eval_steps=50))


def test_it_learns(finished):
    """Text is restored better than by its frequency alone, on the very same tokens, and sentinels do not flatter."""
    _, results = finished
    unigram = results["baselines"]["unigram"]
    assert results["eval_text_loss"] < unigram["eval_text_loss"] < math.log(1024)
    assert results["eval_text_accuracy"] > unigram["eval_text_accuracy"]
    assert results["eval_loss"] < results["eval_text_loss"]  # sentinels are easy: in the loss, but not in that of text
    assert 0 < results["eval_text_tokens"] < results["eval_target_tokens"]


def test_what_a_run_leaves(finished):
    folder, results = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "config.json", "modeling_t5.py", "layers_t5.py", "tokenizer.json"}
    assert names >= {"README.md", "all_results.json", "run.json", "curves.png", "checkpoint-100"}
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["data"]["train"]["row_length"] == 52  # inputs of 48
    log = json.loads((folder / "checkpoint-100" / "trainer_state.json").read_text())["log_history"]
    card = (folder / "README.md").read_text()
    assert f"{results['eval_text_loss']:.4g}" in card and "AutoModelForSeq2SeqLM" in card and "random_spans" in card
    assert next(entry["loss"] for entry in log if "loss" in entry) < math.log(1024)


def test_it_fills_a_gap(finished):
    """A text with a sentinel comes back as the sentinel and what it stands for, from the loaded checkpoint."""
    folder, _ = finished
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    inputs = tokenizer("The <extra_id_0> stood in the garden.", return_tensors="pt")
    answer = model.generate(inputs["input_ids"], max_new_tokens=8)[0]
    assert answer[1] == tokenizer.convert_tokens_to_ids("<extra_id_0>")


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "unbroken", **FEW)
    step = DenoisingTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 9:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(DenoisingTrainer, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run(tmp_path / "broken", **FEW)
    monkeypatch.undo()
    results = run(tmp_path / "broken", **FEW)
    assert weights(tmp_path / "broken") == weights(tmp_path / "unbroken")
    assert results == json.loads((tmp_path / "unbroken" / "all_results.json").read_text())


def test_worker_processes_change_nothing(tmp_path):
    run(tmp_path / "none", **FEW)
    run(tmp_path / "two", **FEW, dataloader_num_workers=2)
    assert weights(tmp_path / "none") == weights(tmp_path / "two")


@pytest.mark.parametrize("objective", ["prefix_lm", "deshuffling", "iid_replace_spans", "bart", "ul2"])
def test_other_objectives(tmp_path, objective):
    results = run(tmp_path / "run", **FEW | dict(max_steps=2, warmup_steps=1), objective=objective)
    assert math.isfinite(results["train_loss"]) and 0 < results["eval_text_loss"] < 8
    ids = AutoTokenizer.from_pretrained(tmp_path / "run").get_vocab()
    assert {"[R]", "[S]", "[X]"} <= set(ids) if objective == "ul2" else "[R]" not in ids


@pytest.mark.parametrize("objective", ["random_spans", "prefix_lm"])
def test_one_stack(tmp_path, objective):
    options = FEW | dict(max_steps=20, objective=objective, decoder_only="true")
    results = run(tmp_path / "run", **options)
    assert results["train_loss"] < math.log(1024)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["architectures"] == ["HftT5ForPrefixLM"]
    assert "prefix language model" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw_rms"])
def test_other_optimizers(tmp_path, optimizer):
    options = dict(optimizer=optimizer, lr_scheduler_type="inverse_sqrt", learning_rate=1e-2)
    results = run(tmp_path / "run", **FEW | dict(max_steps=20), **options)
    assert results["train_loss"] < math.log(1024)


def test_a_tokenizer_with_too_few_sentinels(tmp_path):
    from hftoolkit.data.microworld.documents import make_documents
    from hftoolkit.tokenization import train_tokenizer

    texts = [document["text"] for document in make_documents(50)]
    train_tokenizer("unigram", texts, 300, num_sentinels=2).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(DataError, match="2 sentinels, but rows of 52 tokens need 3 .*num_sentinels 3"):
        run(tmp_path / "run", **FEW, tokenizer=tmp_path / "tokenizer")
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(objective="random_span"), "random_spans"),
        (dict(mean_span_length=30), "shorter than one span of 30"),
        (dict(objective="deshuffling", noise_density=0.3), "does not apply"),
        (dict(noise_density=1.5), "density must be above 0 and below 1"),
    ],
)
def test_bad_arguments(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", **FEW, **options)
    assert stop.value.code == 2 and message in capsys.readouterr().err
