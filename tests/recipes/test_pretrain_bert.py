"""The tiny recipe from beginning to end, in process: what it learns, what it leaves, and that it resumes."""

import hashlib
import json
import math

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hftoolkit.errors import DataError, RunInterruptedError
from hftoolkit.recipes import pretrain_bert
from hftoolkit.training.bert_pretraining import BertPretrainingTrainer

SMALL = ["--builtin_documents", "300", "--max_length", "48", "--use_cpu", "--warmup_steps", "5"]
FEW = [*SMALL, "--max_steps", "16", "--eval_steps", "8", "--save_steps", "8", "--logging_steps", "4"]


def run(folder, *argv):
    words = ["--config", "bert/tiny", "--output_dir", folder, *argv]
    return pretrain_bert.main(*pretrain_bert.parse([str(word) for word in words]))


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny config on fewer documents: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    steps = ["--max_steps", "100", "--eval_steps", "50", "--save_steps", "100"]
    return folder, run(folder, *SMALL, *steps)


def test_it_learns(finished):
    """Masked tokens are told better than by their frequency alone, on the very same tokens."""
    _, results = finished
    unigram = results["baselines"]["unigram"]
    assert results["eval_mlm_loss"] < unigram["eval_mlm_loss"] - 0.1 < math.log(1024)
    assert results["eval_mlm_accuracy"] > unigram["eval_mlm_accuracy"]
    assert results["eval_loss"] == pytest.approx(results["eval_mlm_loss"] + results["eval_nsp_loss"], abs=1e-5)
    assert 0.4 < results["baselines"]["word_overlap"]["eval_nsp_accuracy"] < 1


def test_what_a_run_leaves(finished):
    folder, results = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "config.json", "modeling_bert.py", "tokenizer.json", "README.md"}
    assert names >= {"all_results.json", "run.json", "curves.png", "checkpoint-100"}
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["data"]["train"]["sentences"] > record["data"]["train"]["documents"]
    log = json.loads((folder / "checkpoint-100" / "trainer_state.json").read_text())["log_history"]
    assert all(
        entry["loss"] == pytest.approx(entry["mlm_loss"] + entry["nsp_loss"]) for entry in log if "loss" in entry
    )
    card = (folder / "README.md").read_text()
    assert f"{results['eval_mlm_loss']:.4g}" in card and "word overlap" in card and "AutoModelForPreTraining" in card


def test_another_head_fills_the_mask(finished):
    folder, _ = finished
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    inputs = tokenizer(f"the {tokenizer.mask_token} .", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape == (1, inputs["input_ids"].shape[1], len(tokenizer))
    assert logits.softmax(-1).max() > 5 / len(tokenizer)


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    run(tmp_path / "unbroken", *FEW)
    step = BertPretrainingTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 11:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(BertPretrainingTrainer, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run(tmp_path / "broken", *FEW)
    monkeypatch.undo()
    results = run(tmp_path / "broken", *FEW)
    assert weights(tmp_path / "broken") == weights(tmp_path / "unbroken")
    assert results == json.loads((tmp_path / "unbroken" / "all_results.json").read_text())


def test_worker_processes_change_nothing(tmp_path):
    run(tmp_path / "none", *FEW)
    run(tmp_path / "two", *FEW, "--dataloader_num_workers", "2")
    assert weights(tmp_path / "none") == weights(tmp_path / "two")


def test_two_lengths(tmp_path):
    """90% of the steps with rows of 48 tokens, then 96; the model has positions for the longer."""
    run(tmp_path / "run", *FEW, "--long_length", "96")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["max_position_embeddings"] == 96
    passes = json.loads((tmp_path / "run" / "run.json").read_text())["data"]["passes"]
    assert len(passes) == 2 and passes[0] > passes[1] > 0


@pytest.mark.parametrize("masking", ["whole_word", "span"])
def test_without_pairs(tmp_path, masking):
    results = run(tmp_path / "run", *FEW, "--no_next_sentence", "--masking", masking)
    assert results["eval_loss"] == results["eval_mlm_loss"] and "eval_nsp_accuracy" not in results
    assert "unigram" in results["baselines"] and "word_overlap" not in results["baselines"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["architectures"] == ["HftBertForMaskedLM"]


def test_one_document_has_no_strangers(tmp_path):
    (tmp_path / "train.txt").write_text("One sentence. Another one.\n" * 40)
    arguments = ["--dataset", tmp_path / "train.txt", "--document_separator", "file", "--validation_fraction", "0"]
    with pytest.raises(DataError, match="1 document: .* strangers"):
        run(tmp_path / "run", *SMALL, *arguments, "--eval_strategy", "no")
    assert not (tmp_path / "run" / "run.json").exists()
