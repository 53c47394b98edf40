"""The sampled softmax: all words drawn is the full softmax; some drawn estimate its gradient."""

import pytest
import torch

from hftoolkit.models.layers_sampled_softmax import chances, sampled_cross_entropy, zipf

V, D, N = 300, 8, 64


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    weight, bias, hidden = (torch.randn(*shape, generator=generator) for shape in ((V, D), (V,), (N, D)))
    targets = torch.multinomial(zipf(V), N, replacement=True, generator=generator)
    targets[::9] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), bias.requires_grad_(), targets


def full_loss(hidden, weight, bias, targets):
    return torch.nn.functional.cross_entropy(hidden @ weight.T + bias, targets)


def gradients(loss, problem):
    return torch.autograd.grad(loss, problem[:3], retain_graph=True)


def test_with_all_words_it_is_the_full_softmax(problem):
    hidden, weight, bias, targets = problem
    for samples in (V, 2 * V):
        ours = sampled_cross_entropy(hidden, weight, targets, samples, bias=bias)
        torch.testing.assert_close(ours, full_loss(*problem))
        for a, b in zip(gradients(ours, problem), gradients(full_loss(*problem), problem), strict=True):
            torch.testing.assert_close(a, b)


def test_words_have_the_weights_of_zipf_and_as_many_are_expected_as_asked():
    weights = zipf(V)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[4]) == pytest.approx(float(torch.log(torch.tensor(6 / 5)) / torch.log(torch.tensor(V + 1.0))))
    for samples in (1, 40, V - 1):
        assert float(chances(V, samples).sum()) == pytest.approx(samples, rel=1e-4)
    assert (chances(V, 40).diff() < 0).all() and float(chances(V, 40).max()) <= 1


def test_the_true_distribution_is_where_it_stands_still_and_the_correction_is_why(monkeypatch):
    """Words drawn from p, scores log p: the mean gradient is 0, if each score is corrected by its word's chances."""
    from hftoolkit.models import layers_sampled_softmax

    torch.manual_seed(0)
    truth = torch.distributions.Dirichlet(torch.full((50,), 0.5)).sample().clamp(min=1e-6)
    targets, hidden, weight = torch.multinomial(truth, 1000, replacement=True), torch.zeros(1000, 1), torch.ones(50, 1)
    shares = (torch.bincount(targets, minlength=50) / 1000).clamp(
        min=1e-9
    )  # what the targets say, without their noise
    bias = shares.log().requires_grad_()

    def mean_gradient():
        losses = [sampled_cross_entropy(hidden, weight, targets, 12, bias=bias) for _ in range(300)]
        return float(torch.autograd.grad(sum(losses) / len(losses), bias)[0].abs().sum())

    right = mean_gradient()
    monkeypatch.setattr(layers_sampled_softmax, "chances", lambda size, samples: Uncorrected(chances(size, samples)))
    wrong = mean_gradient()
    assert right < 0.1 and wrong > 4 * right, (right, wrong)


class Uncorrected:
    """Chances by which words are drawn, but not corrected."""

    def __init__(self, values):
        self.values = values

    def to(self, device):
        return self

    def __len__(self):
        return len(self.values)

    def __gt__(self, other):
        return self.values > other

    def log(self):
        return torch.zeros(len(self.values))


def test_the_sum_is_divided_by_what_is_asked_and_no_labels_cost_nothing(problem):
    hidden, weight, bias, targets = problem
    count = int((targets != -100).sum())
    mean, share = (sampled_cross_entropy(hidden, weight, targets, V, num_items_in_batch=n) for n in (None, 2 * count))
    torch.testing.assert_close(mean / 2, share)
    nothing = sampled_cross_entropy(hidden, weight, torch.full_like(targets, -100), 10, bias=bias)
    assert nothing.item() == 0 and float(torch.autograd.grad(nothing, hidden)[0].abs().max()) == 0
