"""The mean of the last checkpoints' weights."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

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
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="lacks the weight weight"):
        average_into(model, [tmp_path / "c"])


def trained(folder, number, steps=10, **options):
    arguments = TrainingArguments(
        str(folder), max_steps=steps, save_steps=3, learning_rate=0.1, per_device_train_batch_size=1, use_cpu=True,
        report_to="none", lr_scheduler_type="constant", disable_tqdm=True, optim="sgd", max_grad_norm=0, **options,
    )  # fmt: skip
    trainer = Trainer(Line(), arguments, train_dataset=[{"labels": torch.ones(2)}] * 10)
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


def test_too_few_are_kept(tmp_path):
    with pytest.raises(DataError, match="average_checkpoints is 3, but save_total_limit keeps only 2"):
        trained(tmp_path, 3, save_total_limit=2)
