"""What a run leaves, also where something fails after the training, and what a second start of it does."""

import math
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer

from hftoolkit.errors import HubError, RunInterruptedError
from hftoolkit.run import run_training
from hftoolkit.training.disk import read_json

sys.path.insert(0, str(Path(__file__).parent / "training"))
from tiny_run import ARGUMENTS, At, content, tiny_model, tiny_trainer, token_rows, weights_hash  # noqa: E402

SUMMARY = {"name": "random", "fingerprint": "1f3a", "train": {"documents": 24, "tokens": 192}}


@dataclass
class TaskArguments:
    max_length: int = 8
    secret_token: str = "hf_" + "x" * 30


def tiny_tokenizer():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(50)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "w0")), pad_token="w0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a space and an umlaut in its path: (folder, what it returned, its trainer)."""
    folder = tmp_path_factory.mktemp("runs") / "tiny rün"
    trainer = tiny_trainer(folder, eval_rows=token_rows(8))
    trainer.processing_class = tiny_tokenizer()

    def extra_metrics(trainer):
        assert trainer.model.config.use_cache is True  # generation is not slowed down
        return {"eval_f1": math.nan, "baselines": {"uniform_loss": math.log(50), "majority": {"eval_accuracy": 0.1}}}

    results = run_training(
        trainer,
        card="gpt",
        arguments=(TaskArguments(),),
        data_summary=SUMMARY,
        extra_metrics=extra_metrics,
        tokens_per_step=28,
    )
    return folder, results, trainer


def test_everything_a_run_leaves_is_there(finished):
    folder, results, _ = finished
    expected = {
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    expected |= {"README.md", "all_results.json", "run.json", "curves.png"}
    expected |= {"checkpoint-5", "checkpoint-10", "checkpoint-14"}
    assert {path.name for path in folder.iterdir()} == expected
    assert not list(folder.rglob("*.bin")) and (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "hf_xxx" not in "".join(path.read_text("latin-1") for path in folder.rglob("*") if path.is_file())


def test_the_results_hide_nothing(finished):
    folder, results, trainer = finished
    assert results == read_json(folder / "all_results.json")
    assert set(results) == {"steps", "epoch", "train_loss", "eval_loss", "eval_f1", "baselines", "undefined"}
    assert results["eval_f1"] is None and results["undefined"] == ["eval_f1"] and results["steps"] == 14
    assert results["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-6)
    assert results["baselines"] == {"uniform_loss": 3.912023, "majority": {"eval_accuracy": 0.1}}


def test_the_record_says_how_it_was_done(finished):
    folder, _, _ = finished
    record = read_json(folder / "run.json")
    assert (record["status"], record["exit_code"], record["reason"], record["format"]) == ("done", 0, None, 1)
    assert record["arguments"]["TrainingArguments"]["learning_rate"] == 1e-2
    assert record["arguments"]["TaskArguments"] == {"max_length": 8}
    assert record["data"] == SUMMARY and record["seed"] == 3 and record["steps"] == 14
    assert record["versions"]["torch"] == torch.__version__ and record["threads"] == torch.get_num_threads()
    assert record["tokens_seen"] == 14 * 28 and record["tokens_per_second"] > 0
    assert record["wall_seconds"] > 0 and record["cpu_seconds"] > 0 and record["hardware"]["device"] == "cpu"


def test_the_card_quotes_the_results(finished):
    folder, results, _ = finished
    card = (folder / "README.md").read_text()
    assert f"{results['eval_loss']:.4g}" in card and "3.912" in card and "1f3a" in card
    assert "not measured" in card and str(folder.parent) not in card


def test_the_model_loads_as_it_was(finished):
    folder, _, trainer = finished
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(loaded.parameters(), trainer.model.parameters(), strict=True)
    )
    assert loaded.config.use_cache is True and len(AutoTokenizer.from_pretrained(folder)) == 50


def test_a_finished_run_is_not_touched(finished, capsys):
    folder, results, _ = finished
    before = content(folder)
    assert run_training(tiny_trainer(folder, model=tiny_model(seed=5))) == results
    assert capsys.readouterr().out == f"already done: {folder}\n" and content(folder) == before


def test_a_card_that_fails_costs_nothing(tmp_path, caplog):
    run_training(tiny_trainer(tmp_path, max_steps=2), card="no_such_template")
    assert "the model card could not be made" in caplog.text
    assert read_json(tmp_path / "run.json")["status"] == "done" and not (tmp_path / "README.md").exists()


def test_a_bug_is_recorded_and_the_lock_goes(tmp_path):
    def fail(trainer):
        raise ZeroDivisionError("in the metrics")

    with pytest.raises(ZeroDivisionError):
        run_training(tiny_trainer(tmp_path, max_steps=2), extra_metrics=fail)
    record = read_json(tmp_path / "run.json")
    assert (record["status"], record["exit_code"]) == ("failed", 1) and "in the metrics" in record["reason"]
    assert not (tmp_path / ".lock").exists() and (tmp_path / "model.safetensors").exists()
    assert run_training(tiny_trainer(tmp_path, max_steps=2))["steps"] == 2


def test_an_evaluation_is_not_done_twice(tmp_path):
    calls = []

    class Counting(Trainer):
        def evaluate(self, *args, **kwargs):
            calls.append(self.state.global_step)
            return super().evaluate(*args, **kwargs)

    options = dict(eval_rows=token_rows(8), eval_strategy="steps", eval_steps=10, trainer_class=Counting)
    results = run_training(tiny_trainer(tmp_path, **options))
    assert calls == [10, 14] and results["eval_loss"] > 0


def test_tokens_counted_by_trainer_are_used(tmp_path):
    run_training(tiny_trainer(tmp_path, max_steps=3, include_num_input_tokens_seen="all"))
    record = read_json(tmp_path / "run.json")
    assert record["tokens_seen"] == 3 * 4 * 8 and "examples_seen" not in record


def pushing_trainer(folder, seen):
    """A trainer that wants to push; made so only afterwards, because the constructor would ask the Hub."""
    trainer = tiny_trainer(folder, max_steps=2, callbacks=[At(1, lambda: seen.append(trainer.args.push_to_hub))])
    trainer.args.push_to_hub, trainer.args.hub_model_id, trainer.args.hub_private_repo = True, "ada/tiny", True
    return trainer


def test_a_push_comes_after_everything_is_on_disk(tmp_path, monkeypatch):
    calls, during_training = [], []

    def publish_folder(folder, repository, **wanted):
        calls.append((read_json(folder / "run.json")["status"], folder, repository, wanted))

    monkeypatch.setattr("hftoolkit.publish.publish_folder", publish_folder)
    trainer = pushing_trainer(tmp_path, during_training)
    run_training(trainer)
    assert calls == [("done", tmp_path, "ada/tiny", {"private": True, "revision": None})]
    assert during_training == [False] and trainer.args.push_to_hub is True


def test_a_push_that_fails_leaves_the_run_done(tmp_path, monkeypatch):
    def publish_folder(*args, **kwargs):
        raise HubError("could not push to ada/tiny: the Hub answered 503")

    monkeypatch.setattr("hftoolkit.publish.publish_folder", publish_folder)
    with pytest.raises(HubError, match="answered 503. The run is done and safe in .* publish it with: ") as caught:
        run_training(pushing_trainer(tmp_path, []))
    assert caught.value.exit_code == 7 and read_json(tmp_path / "run.json")["status"] == "done"
    command = str(caught.value).split("publish it with: ")[1]
    assert f"publish_folder('{tmp_path}', 'ada/tiny', private=True)" in command.replace("'\"'\"'", "'")


@pytest.mark.slow
def test_a_trainer_of_trl_is_resumed_too(tmp_path):
    """SFTTrainer has its own loss, its own logging and its own saving; its metrics averages start anew."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"input_ids": row["input_ids"].tolist()} for row in token_rows()])

    def trainer(name, callbacks=()):
        args = SFTConfig(str(tmp_path / name), **ARGUMENTS, max_length=8, bf16=False)
        tokenizer = tiny_tokenizer()
        return SFTTrainer(
            tiny_model(), args=args, train_dataset=rows, processing_class=tokenizer, callbacks=list(callbacks)
        )

    run_training(trainer("a"))
    with pytest.raises(RunInterruptedError):
        run_training(trainer("b", [At(8, lambda: os.kill(os.getpid(), signal.SIGTERM))]))
    run_training(trainer("b"))
    assert weights_hash(tmp_path / "b") == weights_hash(tmp_path / "a")
    assert not list(tmp_path.rglob("training_args.bin"))
