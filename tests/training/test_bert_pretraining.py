"""Both losses are exact means: over accumulated batches, over processes, over the evaluation data, after resuming."""

import math
import socket
from pathlib import Path

import pytest
import torch
from tiny_pairs import collate, tiny_rows, tiny_trainer

from hftoolkit.errors import RunInterruptedError
from hftoolkit.run import run_training
from hftoolkit.training.bert_pretraining import PARTS
from hftoolkit.training.disk import read_json

SHAPES = dict(logging_steps=1, max_steps=3)


def trained(folder, **options):
    """(losses, parts, gradient norms) of every report."""
    trainer = tiny_trainer(folder, **options)
    run_training(trainer)
    return table(trainer.state.log_history)


def table(history):
    names = ("loss", *PARTS, "grad_norm")
    return torch.tensor([[entry[name] for name in names if name in entry] for entry in history if "loss" in entry])


@pytest.mark.parametrize("pairs", [True, False])
def test_eight_times_one_is_one_times_eight(tmp_path, pairs):
    options = SHAPES | dict(pairs=pairs, dropout=False)
    one = trained(tmp_path / "a", per_device_train_batch_size=8, **options)
    eight = trained(tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=8, **options)
    assert one.shape[1] == (4 if pairs else 2)
    torch.testing.assert_close(one, eight, rtol=0, atol=2e-6)


def test_the_parts_sum_to_the_loss(tmp_path):
    found = trained(tmp_path, **SHAPES, gradient_accumulation_steps=3)
    torch.testing.assert_close(found[:, 0], found[:, 1] + found[:, 2], rtol=0, atol=1e-6)
    assert (found[:, 1:3] > 0.1).all()


def test_the_first_losses_are_those_of_chance(tmp_path):
    found = trained(tmp_path, logging_steps=1, max_steps=1, dropout=False)
    assert float(found[0, 1]) == pytest.approx(math.log(50), rel=0.05)
    assert float(found[0, 2]) == pytest.approx(math.log(2), rel=0.1)


def test_a_resumed_run_reports_the_same_parts(tmp_path):
    """The checkpoint at step 3 lies between the reports at 2 and 4."""
    unbroken = tiny_trainer(tmp_path / "a", save_steps=3)
    run_training(unbroken)
    broken = tiny_trainer(tmp_path / "b", save_steps=3)
    step = broken.training_step

    def interrupted(*args, **kwargs):
        if broken.state.global_step == 3:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    broken.training_step = interrupted
    with pytest.raises((KeyboardInterrupt, RunInterruptedError)):
        run_training(broken)
    resumed = tiny_trainer(tmp_path / "b", save_steps=3)
    run_training(resumed)
    assert torch.equal(table(resumed.state.log_history), table(unbroken.state.log_history))


def test_two_processes_are_one_with_twice_the_batch(process, tmp_path):
    options = SHAPES | dict(dropout=False)
    alone = trained(tmp_path / "one", per_device_train_batch_size=8, **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    script = Path(__file__).with_name("tiny_pairs.py")
    ranks = []
    for rank in "01":
        before = f"import os; os.environ.update({place | {'RANK': rank, 'LOCAL_RANK': rank}})"
        ranks.append(process(tmp_path / "two", options | {"save_steps": 3}, before, script))
    assert [rank.code() for rank in ranks] == [0, 0]
    history = read_json(tmp_path / "two" / "checkpoint-3" / "trainer_state.json")["log_history"]
    torch.testing.assert_close(table(history), alone, rtol=0, atol=1e-5)
    evaluated = read_json(tmp_path / "two" / "all_results.json")
    expected = read_json(tmp_path / "one" / "all_results.json")
    for name in ("eval_mlm_loss", "eval_nsp_loss", "eval_mlm_accuracy", "eval_nsp_accuracy"):
        assert evaluated[name] == pytest.approx(expected[name], abs=1e-5)


def test_the_evaluation_equals_the_definition(tmp_path):
    """Row by row: every masked token and every pair counts once, whatever the batches."""
    trainer = tiny_trainer(tmp_path)
    model, sums = trainer.model.eval(), dict.fromkeys(("mlm", "hits", "tokens", "nsp", "right"), 0.0)
    rows = tiny_rows(10, seed=1)
    for row in rows:
        batch = collate([row])
        with torch.no_grad():
            output = model(input_ids=batch["input_ids"])
        targets = batch["labels"][0]
        kept = targets != -100
        logits = output.prediction_logits[0][kept]
        sums["mlm"] += float(torch.nn.functional.cross_entropy(logits, targets[kept], reduction="sum"))
        sums["hits"] += int((logits.argmax(-1) == targets[kept]).sum())
        sums["tokens"] += int(kept.sum())
        label = batch["next_sentence_label"]
        sums["nsp"] += float(torch.nn.functional.cross_entropy(output.seq_relationship_logits, label))
        sums["right"] += int(output.seq_relationship_logits.argmax(-1) == label)
    metrics = trainer.evaluate()
    assert metrics["eval_masked_tokens"] == sums["tokens"] and metrics["eval_pairs"] == len(rows)
    assert metrics["eval_mlm_loss"] == pytest.approx(sums["mlm"] / sums["tokens"], abs=1e-5)
    assert metrics["eval_mlm_accuracy"] == sums["hits"] / sums["tokens"]
    assert metrics["eval_nsp_loss"] == pytest.approx(sums["nsp"] / 10, abs=1e-5)
    assert metrics["eval_nsp_accuracy"] == sums["right"] / 10
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_mlm_loss"] + metrics["eval_nsp_loss"])
    assert metrics["eval_mlm_perplexity"] == pytest.approx(math.exp(metrics["eval_mlm_loss"]))


def test_without_pairs_there_is_one_loss(tmp_path):
    trainer = tiny_trainer(tmp_path, pairs=False)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == metrics["eval_mlm_loss"] and "eval_nsp_loss" not in metrics


def test_rows_come_in_the_order_of_the_data(tmp_path):
    trainer = tiny_trainer(tmp_path)
    first = next(iter(trainer.get_train_dataloader()))
    assert torch.equal(first["labels"], collate(tiny_rows()[:4])["labels"])


def test_an_evaluation_can_mask_otherwise_than_the_training(tmp_path):
    """Only the first masked token of each row is asked for."""

    def fewer(rows):
        batch = collate(rows)
        batch["labels"][:, 2:] = -100
        return batch

    trainer = tiny_trainer(tmp_path)
    trainer.eval_collator = fewer
    assert trainer.evaluate()["eval_masked_tokens"] == 10
