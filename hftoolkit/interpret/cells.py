"""What every unit of a recurrent network does at every token.

Papers: Karpathy et al. 2015, https://arxiv.org/abs/1506.02078, Section 4.1; Lakretz et al. 2019,
https://aclanthology.org/N19-1002, Section 4 (gates and cells of single units along a sentence).
Shapes: T = tokens, H = hidden size, P = size of the output.
"""

import torch
from torch import nn

from hftoolkit.plots import save_figure


@torch.no_grad()
def trace(rnn, inputs, state=None):
    """The gates and states of a torch.nn.RNN, GRU or LSTM with one layer, step by step.

    Args:
        inputs: of one text, (T, D).
        state: (h,), of an LSTM (h, c), each (1, P) or (1, H); None is zeros.

    Returns:
        {"hidden": (T, P)}; of a GRU also "reset", "update" and "new", of an LSTM "input", "forget", "candidate", "output"
        and "cell", each (T, H). Not the kernel's own numbers: they are computed again from the formulas.
    """
    gates = nn.functional.linear(inputs, rnn.weight_ih_l0, rnn.bias_ih_l0)
    h = inputs.new_zeros(1, rnn.proj_size or rnn.hidden_size) if state is None else state[0]
    c = inputs.new_zeros(1, rnn.hidden_size) if state is None else state[-1]
    steps = []
    for own in gates.split(1):
        recurrent = nn.functional.linear(h, rnn.weight_hh_l0, rnn.bias_hh_l0)
        if isinstance(rnn, nn.LSTM):
            i, f, g, o = (own + recurrent).chunk(4, -1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            c = f * c + i * g
            h = o * c.tanh()
            h = nn.functional.linear(h, rnn.weight_hr_l0) if rnn.proj_size else h
            steps.append(dict(hidden=h, input=i, forget=f, candidate=g, output=o, cell=c))
        elif isinstance(rnn, nn.GRU):
            r, z, n = own.chunk(3, -1)
            from_r, from_z, from_n = recurrent.chunk(3, -1)
            r, z = (r + from_r).sigmoid(), (z + from_z).sigmoid()
            n = (n + r * from_n).tanh()
            h = (1 - z) * n + z * h
            steps.append(dict(hidden=h, reset=r, update=z, new=n))
        else:
            h = (own + recurrent).tanh()
            steps.append(dict(hidden=h))
    return {name: torch.cat([step[name] for step in steps]) for name in steps[0]}


@torch.no_grad()
def trace_model(model, ids):
    """`trace` of every layer of a HftRnn model for one text, (T,) token ids; a list."""
    rows, found = model.base_model.embed_tokens(ids), []
    for layer in model.base_model.layers:
        found.append(trace(layer.forward_rnn, rows))
        rows = found[-1]["hidden"]
    return found


def state_of(traced):
    """What a layer remembers, (T, H): the cells of an LSTM, else the hidden state."""
    return traced.get("cell", traced["hidden"])


def draw_units(rows, tokens, path, *, names=None, title=None):
    """A heat map: a row for each unit, a column for each token.

    Args:
        rows: (units, T).
        tokens: T texts.
        names: of the units.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(4, 0.55 * len(tokens) + 2), max(2.2, 0.22 * len(rows) + 1.4)), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bound = max(float(abs(rows).max()), 1e-6)
    picture = axes.imshow(rows, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
    axes.set_xticks(range(len(tokens)), tokens, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), names or range(len(rows)), fontsize=7)
    axes.set_ylabel("unit")
    figure.colorbar(picture, ax=axes, label="activation")
    if title:
        axes.set_title(title)
    figure.tight_layout()
    save_figure(figure, path)
