"""A reward model from beginning to end, in process: what a run learns and leaves, and what it refuses."""

import gzip
import json
import math

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2ForSequenceClassification

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.recipes import reward
from hftoolkit.rl.reward_model import RewardModel

QUICK = {"max_steps": 40, "eval_steps": 40, "save_steps": 40, "per_device_train_batch_size": 8, "warmup_steps": 0}
QUICK |= {"max_length": 64, "on_bad_row": "skip"}
NAMES = ("Anna", "Tom", "Ben", "Olivia", "Peter", "Xavier")


def run(config="gpt/reward_tiny", **options):
    """The recipe with these options in place of QUICK's."""
    options = QUICK | {"config": config} | options
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return reward.main(*reward.parse([*words, "--use_cpu"]))


def question(number):
    return f"\n\nHuman: Is {NAMES[number % 6]} here on day {number}?\n\nAssistant:"


@pytest.fixture(scope="module")
def polite(tmp_path_factory):
    """HH-RLHF's form: people prefer to be answered with thanks; a bad row is among them."""
    rows = [
        {"chosen": f"{question(n)} Thank you, {NAMES[n % 5]}.", "rejected": f"{question(n)} Go away, {NAMES[n % 4]}."}
        for n in range(200)
    ]
    rows[7] |= {"chosen": rows[7]["rejected"]}
    path = tmp_path_factory.mktemp("data") / "test.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    return path


@pytest.fixture(scope="module")
def finished(polite, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "reward"
    return folder, run(dataset=polite, output_dir=folder)


def test_it_learns(finished):
    _, results = finished
    assert results["eval_accuracy"] > 0.9 and results["eval_loss"] < 0.3 < math.log(2)
    assert results["baselines"]["chance"]["eval_accuracy"] == 0.5
    assert results["baselines"]["longer_answer"]["eval_accuracy"] > 0.5
    assert sum(one["pairs"] for one in results["details"]["accuracy_by_margin"]) == results["eval_pairs"] == 20


def test_what_it_leaves(finished):
    folder, results = finished
    record = json.loads((folder / "run.json").read_text())
    assert (
        record["status"] == "done"
        and record["data"]["skipped"] == 1
        and "test.jsonl.gz:8" in record["data"]["skipped_at"][0]
    )
    assert record["data"]["train"]["pairs"] == 179 and record["data"]["validation"]["prompts"] == 20
    assert (folder / "calibration.png").stat().st_size > 5000
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "demonstrations have the mean reward 0" in card
    assert f"{results['eval_accuracy']:.4g}" in card and "eval_reward_length_correlation" in card


def test_the_plain_class_gives_the_rewards_that_ppo_reads(finished, polite):
    """Loaded without the recipe; demonstrations, the chosen answers of the training data, have the mean 0."""
    folder, _ = finished
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    scores = RewardModel(model, tokenizer, max_length=64)
    numbers = [n for n in range(180) if n != 7]
    chosen = scores([question(n) for n in numbers], [f" Thank you, {NAMES[n % 5]}." for n in numbers])
    rejected = scores([question(n) for n in numbers], [f" Go away, {NAMES[n % 4]}." for n in numbers])
    assert chosen[:179].mean().item() == pytest.approx(0.0, abs=2e-3) and rejected.mean() < -1.0
    text = f"{question(3)} Thank you, {NAMES[3]}.{tokenizer.eos_token}"
    with torch.no_grad():
        plain = model.eval()(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits.item()
    assert plain == pytest.approx(chosen[3].item(), abs=1e-4)


def test_a_finished_run_is_not_repeated(finished, polite, capsys):
    with pytest.raises(SystemExit) as stop:
        run(dataset=polite, output_dir=finished[0])
    assert stop.value.code == 0 and "already done" in "".join(capsys.readouterr())


def test_rankings_of_the_microworld(tmp_path):
    options = dict(builtin_examples=40, max_steps=2, max_length=160, centre_coefficient=0.01)
    results = run(dataset="builtin:rankings", **options, output_dir=tmp_path / "run")
    assert results["eval_pairs"] == 8 * 3 and abs(results["eval_loss"] - math.log(2)) < 0.3
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data"]["train"]["answers"] == 120 and record["data"]["train"]["pairs"] == 120


@pytest.mark.parametrize("adaptation", ["frozen", "lora"])
def test_from_a_checkpoint_with_its_own_demonstrations(finished, polite, tmp_path, adaptation):
    """A reward model goes on from its own head; an SFT data set gets the mean reward 0."""
    folder, _ = finished
    sft = tmp_path / "train.jsonl"
    sft.write_text("\n".join(json.dumps({"prompt": question(n), "completion": " Thank you, Ben."}) for n in range(9)))
    config = tmp_path / "own.yaml"
    config.write_text("train_sampling_strategy: group_by_length\neval_strategy: steps\nlearning_rate: 1e-3\n")
    options = dict(model_name_or_path=folder, demonstrations=sft, adaptation=adaptation, max_steps=2)
    results = run(config, dataset=polite, **options, output_dir=tmp_path / "run")
    assert results["eval_accuracy"] > 0.9
    model, tokenizer = (
        kind.from_pretrained(tmp_path / "run") for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    found = RewardModel(model, tokenizer, max_length=64)([question(n) for n in range(9)], [" Thank you, Ben."] * 9)
    assert found.mean().item() == pytest.approx(0.0, abs=1e-3)


def test_a_stock_decoder_says_where_its_shift_is(finished, polite, tmp_path):
    folder, _ = finished
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sizes = dict(n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=len(tokenizer), num_labels=1)
    GPT2ForSequenceClassification(GPT2Config(**sizes)).save_pretrained(tmp_path / "stock")
    tokenizer.save_pretrained(tmp_path / "stock")
    config = tmp_path / "own.yaml"
    config.write_text("learning_rate: 1e-3\neval_strategy: steps\n")
    options = dict(model_name_or_path=tmp_path / "stock", max_steps=2)
    results = run(config, dataset=polite, **options, output_dir=tmp_path / "run")
    assert results["reward_shift_is_in"].startswith("config.reward_bias")
    bias = json.loads((tmp_path / "run/config.json").read_text())["reward_bias"]
    assert bias == pytest.approx(results["reward_shift"], rel=1e-5)
    assert "reward_bias" in (tmp_path / "run/README.md").read_text()


def test_bad_input_is_refused_before_training(polite, tmp_path):
    with pytest.raises(DataError, match=r"test.jsonl.gz:8: chosen and rejected .* --on_bad_row skip"):
        run(dataset=polite, on_bad_row="stop", output_dir=tmp_path / "a")
    sizes = dict(n_embd=32, n_layer=1, n_head=2, n_positions=64, vocab_size=600, num_labels=3)
    GPT2ForSequenceClassification(GPT2Config(**sizes)).save_pretrained(tmp_path / "three")
    config = tmp_path / "own.yaml"
    config.write_text("tokenizer: byte\ntokenizer_vocab_size: 300\neval_strategy: steps\n")
    with pytest.raises(CheckpointError, match="with 3 classes, but this task has 1"):
        run(config, model_name_or_path=tmp_path / "three", dataset=polite, output_dir=tmp_path / "b")
    assert not (tmp_path / "a").exists() or not list((tmp_path / "a").glob("checkpoint*"))
