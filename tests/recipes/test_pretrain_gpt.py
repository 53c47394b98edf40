"""The tiny recipe from beginning to end, in process: what it learns, what it leaves, and that it resumes."""

import json
import math

import pytest
import torch

from hftoolkit.recipes import evaluate_lm, generate, pretrain_gpt

SMALL = ["--builtin_documents", "300", "--warmup_steps", "5", "--save_steps", "20", "--use_cpu"]
QUICK = [*SMALL, "--max_steps", "40", "--eval_steps", "20"]


def run(recipe, *argv):
    return recipe.main(*recipe.parse([str(word) for word in argv]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the tiny config on fewer documents: (folder, results)."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, run(pretrain_gpt, "--config", "gpt/tiny", "--output_dir", folder, *QUICK)


def test_it_learns(finished):
    """Below the unigram loss of the very same tokens, and above the entropy that nothing can go below."""
    _, results = finished
    baselines = results["baselines"]
    assert baselines["true_entropy"] < baselines["bigram_loss"] < baselines["unigram_loss"] < math.log(512)
    assert baselines["true_entropy"] < results["eval_loss"] < baselines["unigram_loss"]


def test_what_a_run_leaves(finished):
    folder, results = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {"model.safetensors", "config.json", "modeling_gpt.py", "layers_attention.py", "tokenizer.json"}
    assert names >= {"README.md", "all_results.json", "run.json", "curves.png", "checkpoint-40"}
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth")) or name.startswith(".tmp")]
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done" and record["exit_code"] == 0 and record["tokens_per_second"] > 0
    assert json.loads((folder / "all_results.json").read_text()) == results
    card = (folder / "README.md").read_text()
    assert f"{results['eval_loss']:.4g}" in card and "unigram" in card and str(folder.parent) not in card


def test_f42_a_finished_run_is_not_repeated(finished, capsys):
    folder, _ = finished
    before = (folder / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(SystemExit) as stop:
        run(pretrain_gpt, "--config", "gpt/tiny", "--output_dir", folder, *QUICK)
    assert stop.value.code == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert "already done" in "".join(capsys.readouterr())


def test_f41_another_learning_rate_is_refused(finished, capsys):
    folder, _ = finished
    with pytest.raises(SystemExit) as stop:
        run(pretrain_gpt, "--config", "gpt/tiny", "--output_dir", folder, *QUICK, "--learning_rate", "1e-4")
    assert stop.value.code == 2
    assert "learning_rate" in capsys.readouterr().err


def test_generate_from_it(finished, tmp_path, capsys):
    folder, _ = finished
    arguments = ["--model_name_or_path", folder, "--max_new_tokens", "8", "--output_file", tmp_path / "out.jsonl"]
    results = run(generate, *arguments, "--prompt", "The", "In the hall", "--num_return_sequences", "2", "--seed", "3")
    assert [result["prompt"] for result in results] == ["The", "The", "In the hall", "In the hall"]
    again = run(generate, *arguments, "--prompt", "The", "In the hall", "--num_return_sequences", "2", "--seed", "3")
    assert again == results
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == results
    greedy = run(generate, *arguments, "--prompt", "The", "--do_sample", "false")
    beams = run(generate, *arguments, "--prompt", "The", "--do_sample", "false", "--num_beams", "3")
    assert greedy[0]["continuation"] and beams[0]["continuation"]
    assert "The" in capsys.readouterr().out


def test_evaluate_it(finished, tmp_path):
    """The sliding window sees more context than the packed rows, so its loss is no higher than the run's."""
    folder, trained = finished
    arguments = ["--model_name_or_path", folder, "--builtin_documents", "300"]
    results = run(evaluate_lm, *arguments, "--output_file", tmp_path / "scores.json")
    assert results["tokens"] == trained["eval_tokens"]
    assert results["loss"] <= trained["eval_loss"] + 1e-3
    assert results == json.loads((tmp_path / "scores.json").read_text())
    pairs = run(evaluate_lm, *arguments, "--minimal_pairs", "builtin")
    assert 0 <= pairs["accuracy"] <= 1 and len(pairs["by_paradigm"]) >= 3


def test_interrupted_and_resumed_is_uninterrupted(finished, tmp_path, monkeypatch):
    """The recipe is stopped by its checkpoint at step 20, started again, and ends with the same weights."""
    from transformers import TrainerCallback

    from hftoolkit.training import token_loss

    class Stop(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    build = token_loss.TokenLossTrainer.__init__

    def with_stop(self, *args, **kwargs):
        build(self, *args, **kwargs)
        self.add_callback(Stop())

    folder, results = finished
    with monkeypatch.context() as patch:
        patch.setattr(token_loss.TokenLossTrainer, "__init__", with_stop)
        with pytest.raises(KeyboardInterrupt):
            run(pretrain_gpt, "--config", "gpt/tiny", "--output_dir", tmp_path / "again", *QUICK)
    resumed = run(pretrain_gpt, "--config", "gpt/tiny", "--output_dir", tmp_path / "again", *QUICK)
    assert resumed["eval_loss"] == results["eval_loss"]
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--packing", "stream", "--optimizer", "muon"],
        ["--packing", "across", "--model_config.norm_order", "post", "--gradient_accumulation_steps", "2"],
        ["--streaming", "true"],
        ["--bf16", "true", "--packing", "whole", "--gradient_checkpointing", "true"],
    ],
    ids=lambda options: "-".join(word.strip("-") for word in options[:2]),
)
def test_other_ways_to_train(options, tmp_path):
    results = run(
        pretrain_gpt, "--config", "gpt/tiny", "--output_dir", tmp_path / "run", *SMALL, "--max_steps", "12",
        "--eval_strategy", "no", *options,
    )  # fmt: skip
    assert results["baselines"].keys() == {"unigram_loss", "bigram_loss", "true_entropy"}
    assert math.isfinite(results["train_loss"]) and results["train_loss"] < math.log(512) + 0.5


def test_a_text_file_with_documents_longer_than_the_context(tmp_path):
    """F19: they are cut and counted, not dropped, and the run says so."""
    (tmp_path / "data.txt").write_text("\n\n".join(["the lamp was red. " * 40] * 30))
    run(
        pretrain_gpt, "--config", "gpt/tiny", "--output_dir", tmp_path / "run", "--dataset", tmp_path / "data.txt",
        "--tokenizer", "byte", "--max_length", "64", "--max_steps", "4", "--warmup_steps", "1", "--use_cpu",
        "--eval_strategy", "no", "--validation_fraction", "0",
    )  # fmt: skip
    data = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert data["train"]["cut_documents"] == 30
    weights = (tmp_path / "run/model.safetensors").stat().st_size
    assert weights > 10_000
    assert torch.isfinite(torch.tensor(json.loads((tmp_path / "run/all_results.json").read_text())["train_loss"]))
