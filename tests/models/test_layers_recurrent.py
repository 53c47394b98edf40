"""Recurrent layers against torch.nn with packed sequences: outputs, states at the end, gradients."""

import copy

import pytest
import torch
from torch import nn
from transformers import initialization

from hftoolkit.models import layers_recurrent
from hftoolkit.models.layers_recurrent import (
    CELLS,
    RecurrentLayer,
    initialise_cell,
    reverse_rows,
    row_lengths,
    run_layers,
)

TOLERANCE = dict(rtol=1e-5, atol=1e-6)  # noise floor 3e-7
B, T, D, H, P = 5, 7, 6, 8, 3
LENGTHS = torch.tensor([7, 2, 5, 1, 5])
SHAPES = [("rnn", None), ("gru", None), ("lstm", None), ("lstm", P)]


@pytest.fixture(params=["padded", "in parts"], autouse=True)
def way(request, monkeypatch):
    """Both ways of computing rows with padding, which otherwise the share of padding decides."""
    monkeypatch.setattr(layers_recurrent, "SPARSE", 0.0 if request.param == "padded" else 1.0)


def stacks(cell, projection, bidirectional, num_layers=2, **options):
    """Ours and torch's with the same weights, each moved by N(0, 0.3)."""
    torch.manual_seed(0)
    size = dict(proj_size=projection) if projection else {}
    theirs = CELLS[cell](D, H, num_layers, batch_first=True, bidirectional=bidirectional, **size)
    K = 2 if bidirectional else 1
    layers = nn.ModuleList(
        RecurrentLayer(cell, K * (projection or H) if n else D, H, projection, bidirectional, **options)
        for n in range(num_layers)
    )
    for number, layer in enumerate(layers):
        for rnn, suffix in ((layer.forward_rnn, ""), (layer.backward_rnn, "_reverse")):
            for name, parameter in rnn.named_parameters() if rnn is not None else ():
                other = getattr(theirs, name.replace("l0", f"l{number}{suffix}"))
                other.data.add_(0.3 * torch.randn(other.shape))
                parameter.data.copy_(other.data)
    return layers, theirs


def rows(seed=1):
    values = torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed))
    return values.requires_grad_()


def packed(theirs, values, lengths, state=None):
    together = nn.utils.rnn.pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
    output, state = theirs(together, state)
    return nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=values.shape[1])[0], state


def flat(state):
    return list(state) if isinstance(state, tuple) else [state]


def initial_state(cell, projection, bidirectional):
    K = 2 if bidirectional else 1
    h, c = (torch.randn(2 * K, B, size, generator=torch.Generator().manual_seed(2)) for size in (projection or H, H))
    return (h, c) if cell == "lstm" else h


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "given"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize(("cell", "projection"), SHAPES)
def test_is_torchs_with_packed_sequences(cell, projection, bidirectional, given):
    """Outputs at every token, states at the end of each row, and the gradients of everything."""
    layers, theirs = stacks(cell, projection, bidirectional)
    state = initial_state(cell, projection, bidirectional) if given else None
    ours_in, theirs_in = rows(), rows()
    expected, expected_state = packed(theirs, theirs_in, LENGTHS, state)
    outputs, _ = run_layers(layers, ours_in, LENGTHS, state)
    torch.testing.assert_close(outputs[-1], expected, **TOLERANCE)
    outputs, found = run_layers(layers, ours_in, LENGTHS, state, with_states=True)
    torch.testing.assert_close(outputs[-1], expected, **TOLERANCE)
    torch.testing.assert_close(flat(found), flat(expected_state), **TOLERANCE)
    for output, left in ((outputs[-1], found), (expected, expected_state)):
        sum(part.square().sum() for part in (output, *flat(left))).backward()
    torch.testing.assert_close(ours_in.grad, theirs_in.grad, rtol=1e-4, atol=1e-5)
    for number, layer in enumerate(layers):
        for rnn, suffix in ((layer.forward_rnn, ""), (layer.backward_rnn, "_reverse")):
            for name, parameter in rnn.named_parameters() if rnn is not None else ():
                other = getattr(theirs, name.replace("l0", f"l{number}{suffix}"))
                torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_parity_notices_padding_that_is_read():
    """Torch's own layer on padded rows: its backward direction begins in the padding."""
    _, theirs = stacks("lstm", None, True)
    expected, (state, _) = packed(theirs, rows(), LENGTHS)
    wrong, (wrong_state, _) = theirs(rows())
    inside = (torch.arange(T) < LENGTHS.unsqueeze(1)).unsqueeze(-1)
    assert ((wrong - expected) * inside)[..., H:].abs().max() > 0.1
    assert (wrong_state - state).abs().max() > 0.1


@pytest.mark.parametrize("change", ["lengths", "order of layers", "direction", "forget gate"])
def test_parity_notices_a_wrong_layer(change):
    layers, theirs = stacks("lstm", None, True)
    expected, _ = packed(theirs, rows(), LENGTHS)
    lengths = LENGTHS.clone()
    if change == "lengths":
        lengths[1] += 1
    elif change == "order of layers":
        for one, other in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
            if one.shape == other.shape:
                one.data, other.data = other.data, one.data
    elif change == "direction":
        layers[1].forward_rnn, layers[1].backward_rnn = layers[1].backward_rnn, layers[1].forward_rnn
    else:
        layers[0].forward_rnn.bias_ih_l0.data[H : 2 * H] += 1
    assert (run_layers(layers, rows(), lengths)[0][-1] - expected).abs().max() > 1e-2


@pytest.mark.parametrize(("cell", "projection"), SHAPES)
def test_a_text_in_two_parts_is_the_text(cell, projection):
    """States carried over, as truncated backpropagation and generation do; without them the second part differs."""
    layers, _ = stacks(cell, projection, False)
    with torch.no_grad():
        (*_, whole), end = run_layers(layers, rows(), with_states=True)
        (*_, first), state = run_layers(layers, rows()[:, :3], with_states=True)
        (*_, second), again = run_layers(layers, rows()[:, 3:], states=state, with_states=True)
        (*_, forgetful), _ = run_layers(layers, rows()[:, 3:])
    torch.testing.assert_close(torch.cat([first, second], 1), whole, **TOLERANCE)
    torch.testing.assert_close(flat(again), flat(end), **TOLERANCE)
    assert (forgetful - second).abs().max() > 1e-2


@pytest.mark.parametrize(("cell", "projection"), SHAPES)
def test_rows_without_a_token_keep_their_state(cell, projection):
    """Packed sequences refuse them; here their outputs are 0 and the state at the end is that at the beginning."""
    layers, _ = stacks(cell, projection, True)
    lengths, state = torch.tensor([7, 0, 5, 0, 5]), initial_state(cell, projection, True)
    (*_, output), left = run_layers(layers, rows(), lengths, state, with_states=True)
    assert (output[lengths == 0] == 0).all()
    for before, after in zip(flat(state), flat(left), strict=True):
        assert torch.equal(after[:, lengths == 0], before[:, lengths == 0])
    others = lengths > 0
    kept = tuple(part[:, others] for part in state) if cell == "lstm" else state[:, others]
    (*_, alone), _ = run_layers(layers, rows()[others], lengths[others], kept)
    torch.testing.assert_close(output[others], alone, **TOLERANCE)
    (*_, nothing), left = run_layers(layers, rows()[:, :0], None, state, with_states=True)
    assert nothing.shape == (B, 0, 2 * (projection or H))
    assert torch.equal(flat(left)[0], flat(state)[0])


def test_what_stands_in_the_padding_is_irrelevant():
    layers, _ = stacks("gru", None, True)
    inside = (torch.arange(T) < LENGTHS.unsqueeze(1)).unsqueeze(-1)
    one, other = rows(), rows().detach().masked_fill(~inside, 1e3).requires_grad_()
    outputs = [run_layers(layers, values, LENGTHS)[0][-1] for values in (one, other)]
    assert torch.equal(*outputs)
    for values, output in zip((one, other), outputs, strict=True):
        output.square().sum().backward()
        assert (values.grad[~inside.expand(B, T, D)] == 0).all()
    assert torch.equal(one.grad, other.grad)


def test_dropout_of_recurrent_weights():
    """The same weights at every step, drawn anew each time, scaled; none in evaluation; inputs keep all of theirs."""
    layers, _ = stacks("lstm", P, False, num_layers=1, weight_dropout=0.5)
    layer, expected = layers[0].train(), copy.deepcopy(layers[0]).eval()
    torch.manual_seed(3)
    output, _ = layer(rows(), LENGTHS)
    torch.manual_seed(3)
    dropped = nn.functional.dropout(expected.forward_rnn.weight_hh_l0, 0.5)
    assert 0.3 < (dropped == 0).float().mean() < 0.7
    plain = expected(rows(), LENGTHS)[0]
    expected.forward_rnn.weight_hh_l0.data.copy_(dropped)
    torch.testing.assert_close(output, expected(rows(), LENGTHS)[0], **TOLERANCE)
    torch.testing.assert_close(output[:, 0], plain[:, 0], **TOLERANCE)  # the first step has no recurrence
    assert not torch.equal(layer(rows(), LENGTHS)[0], output)
    assert torch.equal(layer.eval()(rows(), LENGTHS)[0], plain)
    layer.train()(rows(), LENGTHS)[0].sum().backward()
    assert 0.3 < (layer.forward_rnn.weight_hh_l0.grad == 0).float().mean() < 0.7


def test_dropout_stands_between_the_layers_only():
    layers, _ = stacks("gru", None, False)
    seen = []
    (first, last), _ = run_layers(layers, rows(), LENGTHS, dropout=lambda values: seen.append(values) or values * 2)
    assert len(seen) == 1
    assert torch.equal(seen[0], first)
    torch.testing.assert_close(last, layers[1](first * 2, LENGTHS)[0], **TOLERANCE)


def test_lengths_and_order():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 0]])
    lengths, order = row_lengths(mask)
    assert lengths.tolist() == [2, 2, 0]
    assert order.tolist() == [[0, 1, 2], [1, 2, 0], [0, 1, 2]]
    assert row_lengths(mask[:1])[1] is None
    assert row_lengths(torch.ones(2, 3)) == row_lengths(None) == (None, None)


def test_reversal():
    values = torch.arange(8).view(2, 4, 1)
    turned = reverse_rows(values, torch.tensor([3, 4]))
    assert turned.squeeze(-1).tolist() == [[2, 1, 0, 3], [7, 6, 5, 4]]
    assert torch.equal(reverse_rows(turned, torch.tensor([3, 4])), values)
    assert torch.equal(reverse_rows(values), values.flip(1))


def test_the_forget_gate_begins_open():
    rnn = nn.LSTM(D, 64, proj_size=32)
    initialise_cell(rnn, initialization)
    gates = rnn.bias_ih_l0.view(4, 64)
    assert (gates[1] == 1).all()
    assert gates[[0, 2, 3]].abs().max() == 0 == rnn.bias_hh_l0.abs().max()
    for name in ("weight_ih_l0", "weight_hh_l0", "weight_hr_l0"):
        weight = getattr(rnn, name).detach()
        assert 0.1 < weight.abs().max() <= 0.125
        assert weight.std() == pytest.approx(0.125 / 3**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(cell_type="lsmt"), "cell_type must be one of rnn, gru, lstm, got 'lsmt'"),
        (dict(cell_type="gru", projection_size=2), "projection_size 2 needs cell_type 'lstm'"),
        (dict(cell_type="lstm", projection_size=8), "from 1 to below hidden_size 8, got 8"),
        (dict(cell_type="lstm", projection_size=0), "got 0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        RecurrentLayer(input_size=D, hidden_size=H, **arguments)
