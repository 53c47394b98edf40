"""Training on rankings: exact means however batches are cut, the shift at the end, and what evaluation returns."""

import json
import math
import socket
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, TrainingArguments

from hftoolkit.data.preferences_batches import ABSENT, PreferenceCollator, flat_answers
from hftoolkit.evaluation.reward import pair_metrics
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForSequenceClassification
from hftoolkit.rl.reward_head import new_head, reads_shared_prompts, without_dropout
from hftoolkit.rl.reward_model import read_rewards
from hftoolkit.rl.reward_objective import centre_penalty, ranking_loss
from hftoolkit.rl.reward_trainer import RewardTrainer
from hftoolkit.run import run_training
from hftoolkit.tokenization import train_tokenizer


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    monkeypatch.setattr("hftoolkit.run.plot_curves", lambda *args, **kwargs: None)


def rows(number, seed=0):
    """Prompts with two to four answers of different lengths; the better ones have higher tokens."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda low, high: int(torch.randint(low, high, (), generator=generator))  # noqa: E731
    found = []
    for _ in range(number):
        ranks = list(range(draw(2, 5)))
        ids = [[*(draw(1, 30) for _ in range(draw(1, 9))), 30 + rank] for rank in ranks]
        found.append({"input_ids": ids, "ranks": ranks, "margin": None, "length": max(map(len, ids))})
    return found


def tiny(folder, centre=0.0, demonstrations=True, most=4, **options):
    torch.manual_seed(0)
    sizes = dict(vocab_size=258, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, pad_token_id=257)
    model = HftGptForSequenceClassification(HftGptConfig(**sizes, max_position_embeddings=16, num_labels=1))
    options = dict(logging_steps=1, max_steps=3, save_strategy="no", disable_tqdm=True, use_cpu=True) | options
    tokenizer = train_tokenizer("byte", ["a"])
    tokenizer.model_max_length = 16
    return RewardTrainer(
        model=without_dropout(new_head(model)),
        args=TrainingArguments(str(folder), report_to=[], seed=1, learning_rate=1e-2, **options),
        data_collator=PreferenceCollator(257),
        train_dataset=rows(24),
        eval_dataset=rows(7, seed=1),
        compute_metrics=lambda found: pair_metrics(found.predictions, found.label_ids),
        processing_class=tokenizer,
        centre_coefficient=centre,
        demonstrations=flat_answers(rows(6, seed=2)) if demonstrations else None,
    )


def history(trainer):
    run_training(trainer)
    return torch.tensor(
        [[entry["loss"], entry["grad_norm"]] for entry in trainer.state.log_history if "loss" in entry]
    )


def ranked(number, seed=0):
    """Prompts of their own with several answers each."""
    found = []
    for row in rows(number, seed):
        prompt = [40 + seed, 41, row["input_ids"][0][0]]
        ids = [prompt + answer for answer in row["input_ids"]]
        found.append(row | {"input_ids": ids, "length": max(map(len, ids))})
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_shared_prompts_give_the_rewards_of_separate_ones(tmp_path, attention):
    model = tiny(tmp_path).model
    model.set_attn_implementation(attention)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.6)
    assert reads_shared_prompts(model)
    found = []
    for share in (False, True):
        batch = PreferenceCollator(257, share)(ranked(6))
        sizes, ranks = batch.pop("labels"), batch.pop("ranks")
        batch.pop("margins")
        model.zero_grad()
        rewards = read_rewards(model, batch)
        ranking_loss(rewards, ranks, sizes).sum().backward()
        found.append((rewards.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])))
    (alone, its_gradient), (shared, shared_gradient) = found
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(shared_gradient, its_gradient, rtol=1e-3, atol=1e-4)
    assert alone.std() > 0.1


def test_training_with_shared_prompts_is_the_same_training(tmp_path):
    reports = []
    for share in (False, True):
        trainer = tiny(tmp_path / str(share), eval_strategy="steps", eval_steps=3)
        trainer.data_collator.share_prompts, trainer.train_dataset = share, ranked(24)
        reports.append(history(trainer))
        reports.append(torch.tensor([trainer.state.log_history[-2]["eval_loss"]]))
    torch.testing.assert_close(reports[2], reports[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reports[3], reports[1], rtol=1e-4, atol=1e-5)


def test_who_reads_shared_prompts():
    from transformers import GPT2Config, GPT2ForSequenceClassification

    stock = GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9, num_labels=1))
    assert not reads_shared_prompts(stock)


@pytest.mark.parametrize("centre", [0.0, 0.1])
def test_eight_times_one_is_one_times_eight(tmp_path, centre):
    """Prompts have different numbers of answers: the mean is over the prompts, not over answers or batches."""
    one = history(tiny(tmp_path / "a", centre, per_device_train_batch_size=8))
    eight = history(tiny(tmp_path / "b", centre, per_device_train_batch_size=1, gradient_accumulation_steps=8))
    torch.testing.assert_close(one, eight, rtol=0, atol=5e-6)


REST = []


def pop(batch):
    """The model's inputs of a batch; scores and sizes are left in REST."""
    REST[:] = [batch.pop("ranks"), batch.pop("labels")]
    batch.pop("margins")
    return batch


def test_the_evaluation_is_the_mean_over_all_prompts(tmp_path):
    """Seven prompts in batches of 3 and at once; the penalty and the margins are no part of it."""
    trainer = tiny(tmp_path, centre=0.5, per_device_eval_batch_size=3)
    trainer.eval_dataset = [row | {"margin": 2.0} for row in trainer.eval_dataset]
    found = trainer.evaluate()
    with torch.no_grad():
        rewards = read_rewards(trainer.model.eval(), pop(PreferenceCollator(257)(rows(7, seed=1))))
    assert found["eval_loss"] == pytest.approx(ranking_loss(rewards, *REST).mean().item(), abs=1e-5)
    output = trainer.predict(trainer.eval_dataset)
    sizes = [len(row["ranks"]) for row in rows(7, seed=1)]
    assert output.predictions.shape == output.label_ids.shape == (7, max(sizes))
    assert ((output.label_ids != ABSENT).sum(1) == sizes).all()
    torch.testing.assert_close(torch.tensor(output.predictions[output.label_ids != ABSENT]), rewards)
    assert found["eval_accuracy"] == pair_metrics(output.predictions, output.label_ids)["accuracy"]


def test_the_penalty_is_part_of_training_only(tmp_path):
    trainer = tiny(tmp_path, centre=0.5)
    batch = PreferenceCollator(257)(rows(5))
    rewards = read_rewards(trainer.model, pop(dict(batch)))
    expected = ranking_loss(rewards, *REST).mean()
    trainer.model.eval()
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), expected)
    trainer.model.train()
    torch.testing.assert_close(
        trainer.compute_loss(trainer.model, batch), expected + 0.5 * centre_penalty(rewards, *REST).mean()
    )


def test_margins_reach_the_loss(tmp_path):
    trainer = tiny(tmp_path)
    plain, wide = (
        trainer.compute_loss(trainer.model, PreferenceCollator(257)([row | {"margin": margin} for row in rows(5)]))
        for margin in (None, 3.0)
    )
    assert wide > plain + 1.0


def test_it_learns_and_demonstrations_have_the_mean_zero_for_the_plain_class(tmp_path):
    trainer = tiny(tmp_path / "run", max_steps=60, per_device_train_batch_size=8, logging_steps=20)
    results = run_training(trainer)
    assert results["eval_loss"] < 0.5 < math.log(2) and results["eval_accuracy"] > 0.8
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run").eval()
    with torch.no_grad():
        rewards = [plain(torch.tensor([row["input_ids"]])).logits.item() for row in trainer.demonstrations]
    assert sum(rewards) / len(rewards) == pytest.approx(0.0, abs=1e-5) and abs(trainer.shift) > 1e-3
    assert trainer.bias_in_head and json.loads((tmp_path / "run/config.json").read_text())["score_bias"]


def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path):
    """Bit for bit, the shift included; also where all steps were done and only the end is missing."""
    options = dict(max_steps=4, save_strategy="steps", save_steps=2)
    run_training(tiny(tmp_path / "whole", **options))
    for stop in (2, 4):
        broken = tiny(tmp_path / f"broken{stop}", **options)
        run_training(broken)
        for name in ("run.json", "all_results.json", "model.safetensors", *(["checkpoint-4"] * (stop == 2))):
            path = tmp_path / f"broken{stop}" / name
            if path.is_dir():
                for inner in sorted(path.rglob("*"), reverse=True):
                    inner.rmdir() if inner.is_dir() else inner.unlink()
                path.rmdir()
            elif name != "run.json":
                path.unlink()
            else:
                record = json.loads(path.read_text())
                path.write_text(json.dumps(record | {"status": "interrupted"}))
        run_training(tiny(tmp_path / f"broken{stop}", **options))
        whole, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", f"broken{stop}"))
        assert whole == again


def test_two_processes_are_one(forked, tmp_path):
    """The same global batch: loss, evaluation and shift; the model inside a distributed wrapper is found."""
    code = (
        "import os, sys, torch; os.environ.update({place}); sys.path.insert(0, {here!r}); torch.set_num_threads(1)\n"
        "import hftoolkit.run, test_reward_trainer as t; hftoolkit.run.plot_curves = lambda *a, **k: None\n"
        "options = dict(centre=0.1, per_device_train_batch_size=4, per_device_eval_batch_size=2)\n"
        "t.run_training(t.tiny({folder!r}, **options))\n"
    )
    one = tiny(tmp_path / "one", centre=0.1, per_device_train_batch_size=8, per_device_eval_batch_size=3)
    expected = run_training(one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = {"here": str(Path(__file__).parent), "folder": str(tmp_path / "two")}
    started = [forked(code.format(place=place | {"RANK": rank, "LOCAL_RANK": rank}, **words)) for rank in "01"]
    assert [process.code(200) for process in started] == [0, 0]
    found = json.loads((tmp_path / "two/all_results.json").read_text())
    for name in ("train_loss", "eval_loss", "eval_accuracy", "eval_margin"):
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two")
    assert model.score.bias.item() == pytest.approx(one.model.score.bias.item(), abs=1e-5)


def test_without_demonstrations_the_rewards_stay(tmp_path):
    trainer = tiny(tmp_path, demonstrations=False)
    run_training(trainer)
    assert trainer.shift is None
