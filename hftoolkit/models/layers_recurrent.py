"""Recurrent layers over padded rows: simple (Elman), gated (GRU) and LSTM cells, in one direction or both.

Papers: Elman 1990; Hochreiter and Schmidhuber 1997, LSTM; Cho et al. 2014, https://arxiv.org/abs/1406.1078, GRU; Schuster
and Paliwal 1997, both directions; Sak et al. 2014, https://arxiv.org/abs/1402.1128, Section 2.2, the projection; Merity
et al. 2018, https://arxiv.org/abs/1708.02182, Section 2, dropout of recurrent weights.

All steps run in the kernels of torch.nn. Rows are padded on the right and stay padded: a forward layer never sees what
stands after a token, and for a backward layer the real tokens of each row are turned round in place, so that padding
stands on the right of both. That is exact, and on a CPU about twice as fast as packed sequences, whose kernel runs step
by step (benchmarks/classifiers.md).
Shapes: B = rows, T = tokens of a row, D = input size, H = hidden size, P = projection size or else H, K = directions.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
KERNELS = {"rnn": torch.rnn_tanh, "gru": torch.gru, "lstm": torch.lstm}
SPARSE = 0.35  # share of real tokens below which a CPU computes rows in parts, without their padding


def row_lengths(attention_mask):
    """Number of real tokens of each row, and how to move them to its left.

    Args:
        attention_mask: not 0 at real tokens, (B, T), or None: all are real.

    Returns:
        (lengths, order): lengths (B,), None where no row has padding; order (B, T), the places of the real tokens, then
        those of the padding, None where the padding stands on the right already.

    Example:
        attention_mask  [[1 1 0], [0 1 1]]
        lengths         [2, 2]
        order           [[0 1 2], [1 2 0]]
    """
    if attention_mask is None:
        return None, None
    real = attention_mask.ne(0)
    if bool(real.all()):
        return None, None
    order = None
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        order = (~real).long().argsort(dim=1, stable=True)
    return real.sum(1), order


def take(values, order):
    """Tokens of rows in another order; (B, T, D) and (B, T) to (B, T, D)."""
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), order]


def reverse_rows(values, lengths=None):
    """Turn the first `lengths` (B,) tokens of each row (B, T, ...) round, None: all; padding stays where it is.

    Example:
        values [[a b c -], [d e f g]], lengths [3, 4]  ->  [[c b a -], [g f e d]]
    """
    if lengths is None:
        return values.flip(1)
    places = torch.arange(values.shape[1], device=values.device)
    mirrored = lengths.unsqueeze(1) - 1 - places
    return take(values, torch.where(mirrored < 0, places, mirrored))


class RecurrentLayer(GradientCheckpointingLayer):
    """One recurrent layer; the outputs of the two directions stand side by side.

    Args:
        cell_type: "rnn" (tanh), "gru" or "lstm".
        projection_size: P of an LSTM with a projection, which is fed back in place of the H cells' outputs.
        weight_dropout: share of the recurrent matrix that training sets to 0, the same at every step of a row.

    Raises:
        ValueError: as check_cell.
    """

    def __init__(
        self, cell_type, input_size, hidden_size, projection_size=None, bidirectional=False, weight_dropout=0.0
    ):
        super().__init__()
        check_cell(cell_type, hidden_size, projection_size)
        options = dict(batch_first=True) | ({"proj_size": projection_size} if projection_size else {})
        self.cell_type, self.weight_dropout = cell_type, nn.Dropout(weight_dropout)
        self.hidden_size, self.output_size = hidden_size, projection_size or hidden_size
        self.forward_rnn = CELLS[cell_type](input_size, hidden_size, **options)
        self.backward_rnn = CELLS[cell_type](input_size, hidden_size, **options) if bidirectional else None

    def forward(self, hidden, lengths=None, state=None, with_state=False):
        """Outputs at every token, 0 at padding.

        Args:
            hidden: (B, T, D), padded on the right.
            lengths: real tokens of each row, (B,); 0 is allowed. None: whole rows.
            state: what an earlier part of the rows left, as this returns it; None is zeros.
            with_state: whether the state after each row's last real token is wanted (of the backward direction, after
                its first). It costs an LSTM one call of the kernel for each different length.

        Returns:
            (outputs (B, T, K * P), state or None); state is h (K, B, P), and for an LSTM (h, c) with c (K, B, H), as
            torch.nn has it.
        """
        outputs, states = [], []
        for number, rnn in enumerate(self.directions):
            rows = reverse_rows(hidden, lengths) if number else hidden
            own = None if state is None else self._map(lambda part, n=number: part[n : n + 1].contiguous(), state)
            output, left = self._run(rnn, rows, lengths, own, with_state)
            outputs.append(reverse_rows(output, lengths) if number else output)
            states.append(left)
        if with_state:
            is_lstm = self.cell_type == "lstm"
            states = tuple(map(torch.cat, zip(*states, strict=True))) if is_lstm else torch.cat(states)
        return torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0], states if with_state else None

    @property
    def directions(self):
        """The kernels: forward, and backward where there is one."""
        return [self.forward_rnn] if self.backward_rnn is None else [self.forward_rnn, self.backward_rnn]

    def _map(self, function, state):
        """The same for h, and for c where there is one."""
        return tuple(map(function, state)) if self.cell_type == "lstm" else function(state)

    def _zero_state(self, rows):
        h = rows.new_zeros(1, len(rows), self.output_size)
        return (h, rows.new_zeros(1, len(rows), self.hidden_size)) if self.cell_type == "lstm" else h

    def _run(self, rnn, rows, lengths, state, with_state):
        """One direction over rows padded on the right; (outputs (B, T, P), state)."""
        B, T, _ = rows.shape
        if state is None and (with_state or self._drops_weights or T == 0):
            state = self._zero_state(rows)
        if T == 0:
            return rows.new_zeros(B, 0, self.output_size), state
        weights = self._dropped_weights(rnn) if self._drops_weights else None
        if lengths is None:
            return self._kernel(rnn, rows, state, weights)
        if (with_state and self.cell_type == "lstm") or is_sparse(rows, lengths):
            return self._run_in_parts(rnn, rows, lengths, state, weights)
        output, _ = self._kernel(rnn, rows, state, weights)
        padding = torch.arange(T, device=rows.device) >= lengths.unsqueeze(1)
        output = output.masked_fill(padding.unsqueeze(-1), 0.0)
        if with_state:
            last = output[torch.arange(B, device=rows.device), (lengths - 1).clamp(min=0)]
            state = torch.where(lengths.unsqueeze(1) > 0, last, state[0].to(last.dtype)).unsqueeze(0)
        return output, state

    def _run_in_parts(self, rnn, rows, lengths, state, weights):
        """Rows cut wherever one of them ends: without padding, and the kernel tells the state where it stops."""
        B, T, _ = rows.shape
        state = self._zero_state(rows) if state is None else state
        start, parts = 0, []
        for end in sorted(set(lengths.tolist()) - {0}):
            alive = (lengths >= end).nonzero().squeeze(1)
            old = self._map(lambda whole, alive=alive: whole[:, alive], state)
            part, new = self._kernel(rnn, rows[alive, start:end], old, weights)
            pairs = zip(state, new, strict=True) if self.cell_type == "lstm" else [(state, new)]
            both = tuple(whole.to(some.dtype).index_copy(1, alive, some) for whole, some in pairs)
            state = both if self.cell_type == "lstm" else both[0]
            parts.append(part.new_zeros(B, end - start, part.shape[-1]).index_copy(0, alive, part))
            start = end
        parts.append(rows.new_zeros(B, T - start, self.output_size))
        return torch.cat(parts, 1), state

    @property
    def _drops_weights(self):
        return self.training and self.weight_dropout.p > 0

    def _dropped_weights(self, rnn):
        """The weights of a direction in the kernel's order, with some of the recurrent ones 0."""
        names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"] + ["weight_hr_l0"] * bool(rnn.proj_size)
        weights = [getattr(rnn, name) for name in names]
        weights[1] = self.weight_dropout(weights[1])
        return weights

    def _kernel(self, rnn, rows, state, weights):
        """All steps of one direction, with the layer's own weights or these."""
        if weights is None:
            return rnn(rows, state)
        output, *left = KERNELS[self.cell_type](rows, state, weights, True, 1, 0.0, self.training, False, True)
        return output, tuple(left) if self.cell_type == "lstm" else left[0]


def is_sparse(rows, lengths):
    """Whether a CPU saves time by computing these rows in parts."""
    return rows.device.type == "cpu" and int(lengths.sum()) < SPARSE * rows.shape[0] * rows.shape[1]


def check_cell(cell_type, hidden_size, projection_size=None):
    """Raise a ValueError for an unknown cell, and for a projection that is not an LSTM's or not smaller than H."""
    if cell_type not in CELLS:
        raise ValueError(f"cell_type must be one of {', '.join(CELLS)}, got {cell_type!r}")
    if projection_size is None:
        return
    if cell_type != "lstm":
        raise ValueError(f"projection_size {projection_size} needs cell_type 'lstm', got {cell_type!r}")
    whole = isinstance(projection_size, int) and not isinstance(projection_size, bool)
    if not whole or not 1 <= projection_size < hidden_size:
        raise ValueError(
            f"projection_size must be a whole number from 1 to below hidden_size {hidden_size}, got {projection_size!r}"
        )


def run_layers(layers, hidden, lengths=None, states=None, dropout=None, with_states=False):
    """Layers one after the other.

    Args:
        layers: RecurrentLayers, whose input sizes fit.
        hidden: (B, T, D), padded on the right; lengths (B,) or None, as a layer takes them.
        states: of all layers, h (layers * K, B, P), for LSTMs (h, c), as torch.nn and this function return them.
        dropout: a module that is applied between the layers; None is none.
        with_states: whether the states at the end are wanted.

    Returns:
        (outputs, states): a list with the outputs of each layer, (B, T, K * P); states like those given, or None.
    """
    outputs, left = [], []
    for number, layer in enumerate(layers):
        K = 1 if layer.backward_rnn is None else 2
        own = None
        if states is not None:
            place = slice(number * K, (number + 1) * K)
            own = tuple(part[place] for part in states) if layer.cell_type == "lstm" else states[place]
        if number and dropout is not None:
            hidden = dropout(hidden)
        hidden, state = layer(hidden, lengths, own, with_states)
        outputs.append(hidden)
        left.append(state)
    if not with_states:
        return outputs, None
    is_lstm = layers[0].cell_type == "lstm"
    return outputs, tuple(map(torch.cat, zip(*left, strict=True))) if is_lstm else torch.cat(left)


def initialise_cell(rnn, init):
    """Weights of a torch.nn.RNN, GRU or LSTM from U(-1/sqrt(H), 1/sqrt(H)), biases 0, and 1 for the forget gate.

    Gers et al. 2000 begin with open forget gates, Jozefowicz et al. 2015 (Section 4) measure that it matters. `init` is
    transformers.initialization, which leaves alone what a checkpoint has filled.
    """
    bound = rnn.hidden_size**-0.5
    for name, parameter in rnn.named_parameters(recurse=False):
        if "weight" in name:
            init.uniform_(parameter, -bound, bound)
            continue
        values = torch.zeros_like(parameter)
        if isinstance(rnn, nn.LSTM) and name.startswith("bias_ih"):
            values[rnn.hidden_size : 2 * rnn.hidden_size] = 1.0  # the gates are input, forget, cell, output
        init.copy_(parameter, values)
