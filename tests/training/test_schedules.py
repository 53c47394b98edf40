"""The schedule of Vaswani et al. 2017, Section 5.3, is one that transformers has: no code of ours is needed.

In the YAML of a run: `lr_scheduler_type: inverse_sqrt`, `warmup_steps: 4000` and, for a model of width 512,
`learning_rate: 6.99e-4`, which is width^-0.5 * warmup^-0.5, the highest rate. The paper counts updates from 1 and Trainer
from 0, so the first update is one of rate 0, and each of the others has the rate of the paper's update before it.
"""

import pytest
import torch
from transformers import TrainingArguments, get_scheduler


def paper_rate(update, width, warmup):
    """Equation 3."""
    return width**-0.5 * min(update**-0.5, update * warmup**-1.5)


@pytest.mark.parametrize(("width", "warmup"), [(512, 4000), (256, 800), (64, 1)])
def test_inverse_square_root_with_warm_up_is_the_schedule_of_the_paper(width, warmup):
    peak = width**-0.5 * warmup**-0.5
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    updates = 3 * warmup + 20
    scheduler = get_scheduler("inverse_sqrt", optimizer, num_warmup_steps=warmup, num_training_steps=updates)
    rates = []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == 0
    assert rates[1:] == pytest.approx([paper_rate(update, width, warmup) for update in range(1, updates)], rel=1e-9)
    assert max(rates) == pytest.approx(peak)


def test_the_base_model_peaks_where_the_paper_says():
    assert paper_rate(4000, 512, 4000) == pytest.approx(6.99e-4, rel=1e-3)


def test_trainer_knows_its_name(tmp_path):
    arguments = TrainingArguments(tmp_path, lr_scheduler_type="inverse_sqrt", warmup_steps=4000, use_cpu=True)
    assert arguments.lr_scheduler_type == "inverse_sqrt"
