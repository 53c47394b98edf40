"""Muon with AdamW, and weight decay on matrices only."""

import copy

import pytest
import torch
from transformers import TrainingArguments, get_cosine_schedule_with_warmup

from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM, HftGptForSequenceClassification
from hftoolkit.training.optimizers import (
    MuonWithAdamW,
    ScaledAdamW,
    StackedMuon,
    hidden_matrices,
    inverse_square_root,
    make_optimizer,
    optimizer_and_schedule,
    parameter_groups,
)

SIZES = dict(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=12)
NO_DROPOUT = dict(embedding_dropout_prob=0.0, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return HftGptForCausalLM(HftGptConfig(**SIZES, **NO_DROPOUT)).train()


def arguments(tmp_path, **changes):
    return TrainingArguments(output_dir=tmp_path, use_cpu=True, learning_rate=1e-2, weight_decay=0.1, **changes)


def train(model, optimizer, steps, start=0):
    losses = []
    for step in range(start, start + steps):
        ids = torch.randint(20, (2, 10), generator=torch.Generator().manual_seed(step))
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_decay_touches_matrices_only(model):
    decayed, plain = parameter_groups(model, 0.1)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".")[-1] for p in plain["params"]} == {"bias", "weight"}
    assert all(p.ndim == 1 for p in plain["params"]) and all(p.ndim == 2 for p in decayed["params"])
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_muon_takes_hidden_matrices_not_embeddings_nor_heads(model):
    names = {id(p): name for name, p in model.named_parameters()}
    chosen = {names[id(p)] for p in hidden_matrices(model)}
    assert len(chosen) == 2 * 6 and all("_proj" in name for name in chosen)
    classifier = HftGptForSequenceClassification(HftGptConfig(**SIZES))
    assert not any(p is classifier.score.weight for p in hidden_matrices(classifier))


def test_every_parameter_is_updated_once(model, tmp_path):
    optimizer = make_optimizer("muon", model, arguments(tmp_path))
    assert sorted(id(p) for g in optimizer.param_groups for p in g["params"]) == sorted(map(id, model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    train(model, optimizer, 1)
    assert all(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_muon_update_is_orthogonal(model, tmp_path):
    """All singular values of a first update are near 0.2 sqrt(max(rows, columns)) lr: Liu et al., equation 4."""
    weight = model.model.layers[0].mlp.up_proj.weight
    before = weight.detach().clone()
    args = arguments(tmp_path)
    args.weight_decay = 0.0
    train(model, make_optimizer("muon", model, args), 1)
    singular = torch.linalg.svdvals((weight.detach() - before) / (0.01 * 0.2 * 64**0.5))
    assert singular.median() > 0.6 and singular.max() < 1.3  # its smallest directions converge slowly


@pytest.mark.parametrize("options", [{}, {"adjust_lr_fn": "match_rms_adamw", "nesterov": False}], ids=str)
def test_stacked_muon_is_torchs(options):
    """Five updates of several shapes; torch's iteration runs in bfloat16, which is the tolerance."""
    sides = []
    for muon in (StackedMuon, torch.optim.Muon):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in ((8, 8), (12, 8), (8, 8), (8, 20))]
        optimizer = muon(weights, lr=0.05, weight_decay=0.1, **options)
        for _ in range(5):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step()
        sides.append(weights)
    for ours, theirs in zip(*sides, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.01)


def test_a_schedule_moves_both_rates(model, tmp_path):
    optimizer = make_optimizer("muon", model, arguments(tmp_path), adamw_learning_rate=2e-2)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, 10)
    train(model, optimizer, 1)
    schedule.step()
    assert [group["lr"] for group in optimizer.muon.param_groups + optimizer.adamw.param_groups] == [5e-3, 1e-2]


def test_state_survives_saving(model, tmp_path):
    """Interrupted = uninterrupted: the momenta of both come back."""
    args = arguments(tmp_path)
    optimizer = make_optimizer("muon", model, args)
    train(model, optimizer, 3)
    torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")
    expected = train(model, optimizer, 3, start=3)
    again = HftGptForCausalLM(model.config).train()
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    again.load_state_dict(weights)
    resumed = make_optimizer("muon", again, args)
    resumed.load_state_dict(state)
    assert train(again, resumed, 3, start=3) == expected
    fresh = HftGptForCausalLM(model.config).train()
    fresh.load_state_dict(weights)
    assert train(fresh, make_optimizer("muon", fresh, args), 3, start=3) != expected  # the state matters


def test_unknown_optimizer_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="got 'sgd'"):
        make_optimizer("sgd", model, arguments(tmp_path))
    for weight in hidden_matrices(model):
        weight.requires_grad_(False)
    with pytest.raises(ValueError, match="no hidden matrix"):
        MuonWithAdamW(model, 1e-3)


def scaled_adamw_by_hand(p, gradients, lr, betas, eps, decay):
    """One parameter after some steps: the formula of nanoT5's AdamWScale, one number at a time."""
    mean, square = torch.zeros_like(p), torch.zeros_like(p)
    for n, gradient in enumerate(gradients, start=1):
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        size = max(1e-3, float((p**2).mean() ** 0.5))
        rate = lr * (1 - betas[1] ** n) ** 0.5 / (1 - betas[0] ** n) * size
        p = p - rate * mean / (square.sqrt() + eps)
        p = p - lr * decay * p
    return p


def test_scaled_adamw_is_its_formula():
    options = dict(lr=0.1, betas=(0.8, 0.9), eps=1e-3)
    starts = [torch.randn(3, 4), 5 * torch.randn(6), torch.zeros(2)]
    gradients = [[torch.randn_like(p) for p in starts] for _ in range(4)]
    parameters = [torch.nn.Parameter(p.clone()) for p in starts]
    optimizer = ScaledAdamW(parameters, weight_decay=0.2, **options)
    for step in gradients:
        for p, gradient in zip(parameters, step, strict=True):
            p.grad = gradient.clone()
        optimizer.step()
    for number, (p, start) in enumerate(zip(parameters, starts, strict=True)):
        expected = scaled_adamw_by_hand(start, [step[number] for step in gradients], decay=0.2, **options)
        torch.testing.assert_close(p.detach(), expected, rtol=1e-5, atol=1e-6)
        without = scaled_adamw_by_hand(start, [step[number] for step in gradients], decay=0.0, **options)
        assert number == 2 or not torch.allclose(p, without, atol=1e-4)


@pytest.mark.parametrize("name", ["adamw_rms", "adafactor"])
def test_relative_steps_train_and_resume(name, model, tmp_path):
    optimizer = make_optimizer(name, model, arguments(tmp_path))
    losses = train(model, optimizer, 12)
    assert losses[-1] != losses[0]
    other = copy.deepcopy(model)
    resumed = make_optimizer(name, other, arguments(tmp_path))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert train(model, optimizer, 3, start=12) == train(other, resumed, 3, start=12)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_steps_are_in_proportion_to_the_parameter(tmp_path):
    """A parameter a hundred times as large moves a hundred times as far: T5's rate of 0.01 is 1% of it."""
    args = TrainingArguments(output_dir=tmp_path, use_cpu=True, learning_rate=0.01)
    for name in ("adamw_rms", "adafactor"):
        torch.manual_seed(0)
        layer = torch.nn.Linear(50, 50, bias=False)
        moved = []
        for factor in (1.0, 100.0):
            copied = torch.nn.Linear(50, 50, bias=False)
            copied.weight.data = layer.weight.data * factor
            optimizer = make_optimizer(name, copied, args)
            copied.weight.grad = torch.ones(50, 50)
            optimizer.step()
            moved.append(float((copied.weight.data - layer.weight.data * factor).abs().mean()))
        assert moved[1] / moved[0] == pytest.approx(100, rel=1e-3)
        assert moved[0] == pytest.approx(0.01 * float(layer.weight.data.square().mean().sqrt()), rel=0.01)


def test_schedule_of_t5():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = inverse_square_root(optimizer, 10_000)
    rates = {n: 0.01 * scheduler.lr_lambdas[0](n) for n in (0, 1, 10_000, 40_000, 1_000_000)}
    assert rates == pytest.approx({0: 0.01, 1: 0.01, 10_000: 0.01, 40_000: 0.005, 1_000_000: 0.001})


def test_who_gets_the_schedule_of_t5(model, tmp_path):
    args = arguments(tmp_path, lr_scheduler_type="inverse_sqrt", max_steps=100, warmup_steps=10)
    _, scheduler = optimizer_and_schedule("adafactor", model, args)
    assert scheduler.get_last_lr() == [1e-2, 1e-2] and scheduler.lr_lambdas[0](40) == 0.5
    assert optimizer_and_schedule("adamw", model, args)[1] is None
    args = arguments(tmp_path, lr_scheduler_type="constant", max_steps=100)
    assert optimizer_and_schedule("adafactor", model, args)[1] is None
