"""The scalar mix against its formula."""

import pytest
import torch

from hftoolkit.models.layers_scalar_mix import ScalarMix

LAYERS = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0))


def mix_of(weights, gamma):
    mix = ScalarMix(len(weights))
    mix.load_state_dict({"weights": torch.tensor(weights), "gamma": torch.tensor([gamma])})
    return mix


def test_it_begins_as_the_mean():
    torch.testing.assert_close(ScalarMix(3)(list(LAYERS)), LAYERS.mean(0))


def test_it_is_the_formula():
    weights, gamma = [0.3, -1.2, 2.0], 1.7
    shares = [2.718281828459045**weight for weight in weights]
    expected = sum(gamma * share / sum(shares) * layer for share, layer in zip(shares, LAYERS, strict=True))
    torch.testing.assert_close(mix_of(weights, gamma)(LAYERS.unbind()), expected)
    for wrong in (mix_of(weights, 1.0), mix_of(weights[::-1], gamma)):  # without gamma; in the other order
        assert (wrong(LAYERS.unbind()) - expected).abs().max() > 0.1


def test_one_large_weight_chooses_a_layer_and_both_parameters_learn():
    torch.testing.assert_close(mix_of([0.0, 60.0, 0.0], 1.0)(LAYERS.unbind()), LAYERS[1])
    mix = ScalarMix(3)
    mix(LAYERS.unbind()).square().sum().backward()
    assert mix.weights.grad.abs().min() > 0 and mix.gamma.grad.abs() > 0
    assert mix.weights.grad.sum().abs() < 1e-4 * mix.weights.grad.abs().max()  # a softmax does not know a common shift


def test_another_number_of_layers_is_refused():
    with pytest.raises(ValueError, match="3 layers, got 2"):
        ScalarMix(3)(LAYERS[:2].unbind())
