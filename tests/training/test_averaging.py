"""The mean of the last checkpoints' weights."""

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from hftoolkit.errors import DataError
from hftoolkit.training.averaging import AverageCheckpoints, average_into


class Line(torch.nn.Module):
    """A weight and a buffer that must stay."""

    def __init__(self, value=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((2,), value))
        self.register_buffer("count", torch.tensor(7.0))

    def forward(self, labels):
        return {"loss": ((self.weight - labels) ** 2).mean()}


def save(model, folder):
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(dict(model.named_parameters()), folder / "model.safetensors")
    return folder


def test_the_mean(tmp_path):
    model = Line(3.0)
    average_into(model, [save(Line(1.0), tmp_path / "a"), save(Line(8.0), tmp_path / "b")])
    assert model.weight.tolist() == [4.0, 4.0]
    assert model.count == 7.0
    model.table, model._keys_to_ignore_on_save = torch.nn.Parameter(torch.ones(1)), ["table"]
    average_into(model, [tmp_path / "a"])
    assert model.weight.tolist() == [2.5, 2.5]
    assert model.table == 1.0
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="lacks the weight weight"):
        average_into(model, [tmp_path / "c"])


def trained(folder, number, steps=10, **options):
    arguments = TrainingArguments(
        str(folder), max_steps=steps, save_steps=3, learning_rate=0.1, per_device_train_batch_size=1, use_cpu=True,
        report_to="none", lr_scheduler_type="constant", disable_tqdm=True, optim="sgd", max_grad_norm=0, **options,
    )  # fmt: skip
    rows = [{"labels": torch.ones(2)}] * 10
    trainer = Trainer(Line(), arguments, train_dataset=rows, eval_dataset=rows)
    averaging = AverageCheckpoints(trainer, number)
    trainer.add_callback(averaging)
    trainer.train()
    return trainer.model.weight[0].item(), averaging.averaged


def test_a_run(tmp_path):
    """Plain descent towards 1: after n steps the weight is 1 - 0.9**n."""
    last, none = trained(tmp_path / "one", 1)
    assert last == pytest.approx(1 - 0.9**10)
    assert none == []
    mean, steps = trained(tmp_path / "three", 3)
    assert steps == [6, 9, 10]
    assert mean == pytest.approx(1 - (0.9**6 + 0.9**9 + 0.9**10) / 3)
    mean, steps = trained(tmp_path / "even", 3, steps=9)  # Trainer saves at the last step too
    assert steps == [3, 6, 9]


def test_fewer_than_asked_for(tmp_path, caplog):
    _, steps = trained(tmp_path, 5, steps=7)
    assert steps == [3, 6, 7]
    assert "average_checkpoints is 5, but the run saved only 3" in caplog.text


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_checkpoints_of_interruptions_do_not_count(tmp_path, strategy):
    """Two stops between the checkpoints of steps 6 and 9 (of epochs 2 and 3): the same mean, and no checkpoint lost."""
    rows = [{"labels": torch.ones(2)}] * 3

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == self.at:
                control.should_save = control.should_training_stop = True

    def start(folder, stop, resume):
        arguments = TrainingArguments(
            str(folder), max_steps=10, save_steps=3, save_strategy=strategy, save_total_limit=3, learning_rate=0.1,
            use_cpu=True, report_to="none", lr_scheduler_type="constant", disable_tqdm=True, optim="sgd",
            max_grad_norm=0, per_device_train_batch_size=1,
        )  # fmt: skip
        trainer = Trainer(Line(), arguments, train_dataset=rows)
        averaging = AverageCheckpoints(trainer, 3)
        trainer.add_callback(averaging)
        if stop is not None:
            trainer.add_callback(callback := Stop())
            callback.at = stop
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.weight[0].item(), averaging.averaged

    for stop, resume in ((7, None), (8, True)):
        assert start(tmp_path / "run", stop, resume)[1] == []
    mean, steps = start(tmp_path / "run", None, True)
    assert steps == [6, 9, 10]
    assert mean == pytest.approx(1 - (0.9**6 + 0.9**9 + 0.9**10) / 3)
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {f"checkpoint-{n}" for n in steps}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save_total_limit": 2}, "average_checkpoints is 3, but save_total_limit keeps only 2; raise it to 3"),
        (
            {"save_total_limit": 3, "metric_for_best_model": "loss", "eval_strategy": "steps"},
            "save_total_limit keeps only 3; raise it to 4",
        ),
        ({"save_strategy": "no"}, "save_strategy is no; set it to steps or epoch"),
        ({"save_strategy": "best", "metric_for_best_model": "loss"}, "save_strategy is best"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 3},
            "load_best_model_at_end asks for a single checkpoint",
        ),
    ],
)
def test_options_that_leave_nothing_to_average(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        trained(tmp_path, 3, **options)
