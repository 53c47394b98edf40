"""Units, agreement and gradients: recomputed gates are the kernel's, the norms follow their law, units can be removed."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from hftoolkit.interpret.agreement import IDS, VERBS, WithoutUnit, agreement, margins, sentence, train_model
from hftoolkit.interpret.agreement import test_items as make_items
from hftoolkit.interpret.cells import draw_units, state_of, trace, trace_model
from hftoolkit.interpret.gradient_flow import compare_cells, draw_gradient_norms, gradient_norms, scaled_to_radius
from hftoolkit.models.modeling_rnn import HftRnnConfig, HftRnnForCausalLM

KERNELS = [nn.RNN(5, 7), nn.GRU(5, 7), nn.LSTM(5, 7), nn.LSTM(5, 7, proj_size=3)]


def kernel(rnn):
    generator = torch.Generator().manual_seed(0)
    for parameter in rnn.parameters():
        parameter.data.normal_(0, 0.7, generator=generator)
    return rnn, torch.randn(9, 5, generator=generator)


@pytest.mark.parametrize("rnn", KERNELS, ids=lambda rnn: f"{type(rnn).__name__}{getattr(rnn, 'proj_size', '')}")
def test_traced_states_are_the_kernels(rnn):
    rnn, inputs = kernel(rnn)
    found, (output, last) = trace(rnn, inputs), rnn(inputs)
    torch.testing.assert_close(found["hidden"], output, rtol=1e-5, atol=1e-6)
    if isinstance(rnn, nn.LSTM):
        torch.testing.assert_close(found["cell"][-1:], last[1], rtol=1e-5, atol=1e-6)
        assert torch.equal(state_of(found), found["cell"])
        changed = trace(rnn, inputs, (last[0], last[1]))
        assert not torch.allclose(changed["hidden"], found["hidden"])
    gates = [found[name] for name in found.keys() & {"input", "forget", "output", "reset", "update"}]
    assert all(gate.min() > 0 and gate.max() < 1 for gate in gates)


def test_a_models_layers_are_traced_one_above_the_other():
    torch.manual_seed(0)
    model = HftRnnForCausalLM(HftRnnConfig(20, hidden_size=6, num_hidden_layers=2, bidirectional=False)).eval()
    ids = torch.arange(8)
    expected = model.model(ids.unsqueeze(0), output_hidden_states=True).hidden_states[1:]
    for layer, output in zip(trace_model(model, ids), expected, strict=True):
        torch.testing.assert_close(layer["hidden"], output[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rnn", KERNELS[:3], ids=lambda rnn: type(rnn).__name__)
def test_norms_are_those_of_the_jacobian(rnn):
    """By automatic differentiation of the kernel from its state after three tokens."""
    rnn, inputs = kernel(rnn)
    norms = gradient_norms(rnn, inputs)
    state = rnn(inputs[:4])[1]
    parts = state if isinstance(state, tuple) else (state,)

    def last(*parts):
        return rnn(inputs[4:], parts if len(parts) > 1 else parts[0])[0][-1]

    jacobians = torch.autograd.functional.jacobian(last, tuple(part.detach() for part in parts))
    expected = math.sqrt(sum(float(jacobian.square().sum()) for jacobian in jacobians) / 7)
    assert norms[3].item() == pytest.approx(expected, rel=1e-4)
    assert len(norms) == 9 and norms[-1].item() == pytest.approx(1.0)


@pytest.mark.parametrize("radius", [0.5, 1.5])
def test_a_gradient_changes_by_the_radius_at_every_step(radius):
    """The law, without input exactly; an LSTM with open forget gates keeps what an RNN loses."""
    rnn = scaled_to_radius(nn.RNN(8, 8), radius)
    norms = gradient_norms(rnn, torch.zeros(30, 8))
    torch.testing.assert_close(norms, radius ** torch.arange(29.0, -1, -1), rtol=1e-3, atol=0)


def test_compared_cells_vanish_explode_and_stay():
    curves = compare_cells(16, 40)
    first = {name: norms[0] / norms[-1] for name, norms in curves.items()}
    assert math.log(first["RNN, radius 0.5"]) == pytest.approx(39 * math.log(0.5), rel=0.1)
    assert math.log(first["RNN, radius 1.5"]) == pytest.approx(39 * math.log(1.5), rel=0.1)
    assert 0.3 < first["LSTM, forget gates open"] < 3


def test_sentences_agree_and_items_are_what_they_say():
    rng = random.Random(0)
    for _ in range(200):
        words, place, wrong = sentence(rng)
        pair = next(pair.split() for pair in VERBS if words[place] in pair.split())
        is_plural = words[1].endswith("s") or words[1] in ("men", "thieves")
        assert (words[place], wrong) == (pair[is_plural], pair[not is_plural])
        assert all(word in IDS for word in [*words, wrong])
    for words, place, _ in make_items(20)["singular-plural"]:
        plural = [word.endswith("s") or word in ("men", "thieves") for word in (words[1], words[place - 1])]
        assert plural == [False, True] and place == 5


def test_a_trained_model_agrees_and_an_untrained_one_guesses():
    items = make_items(40)
    model, _ = train_model(hidden_size=16)
    before, _ = train_model(steps=1, hidden_size=16)
    assert agreement(model, items)["mean"] > 0.85
    assert agreement(before, items)["mean"] < 0.7
    output = model.lm_head.weight.clone()
    right = margins(model, items["singular-plural"])
    with WithoutUnit(model, 3):
        ids = torch.tensor([[0, 1, 2]])
        hidden = model.model(ids).last_hidden_state
        other = hidden.clone()
        other[..., 3] += 5  # nobody reads it
        assert torch.equal(model.lm_head(hidden), model.lm_head(other)) and not torch.equal(
            output, model.lm_head.weight
        )
    assert torch.equal(output, model.lm_head.weight) and torch.equal(margins(model, items["singular-plural"]), right)


def test_pictures_are_drawn(tmp_path):
    draw_units(np.eye(3), ["a", "b", "$c"], tmp_path / "units.png", names=[4, 5, 6], title="units")
    draw_gradient_norms({"RNN": [0.0, 0.5, 1.0]}, tmp_path / "gradients.png")
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("units.png", "gradients.png"))
