"""How far back a gradient reaches: the norm of d(state at the end) / d(state at t), for every t.

Papers: Bengio et al. 1994, https://doi.org/10.1109/72.279181, Section IV; Hochreiter and Schmidhuber 1997, LSTM; Pascanu
et al. 2013, https://arxiv.org/abs/1211.5063, Section 2.1: where the linear part of a step has only eigenvalues of size r,
the norm changes by r at every step, so it vanishes below 1 and explodes above.
Shapes: T = tokens, H = hidden size.
"""

import torch

from hftoolkit.models.layers_recurrent_attention import cell_step
from hftoolkit.plots import save_figure


def gradient_norms(rnn, inputs):
    """Frobenius norms of the Jacobians of the last hidden state by earlier states, divided by the square root of H.

    Args:
        rnn: a torch.nn.RNN, GRU or LSTM with one layer and no projection.
        inputs: of one text, (T, D).

    Returns:
        (T,), the last of which is 1; of an LSTM the state is h and c together.
    """
    rows = torch.nn.functional.linear(inputs, rnn.weight_ih_l0, rnn.bias_ih_l0).detach()
    H = rnn.hidden_size
    parts = 2 if isinstance(rnn, torch.nn.LSTM) else 1
    state = tuple(torch.zeros(H, H, dtype=rows.dtype, requires_grad=True) for _ in range(parts))  # H equal rows
    states = []
    for gates in rows.split(1):
        state = tuple(part.clone() for part in cell_step(rnn, gates, state))  # c acts on h only through the next step
        states.append(state)
    flat = [part for state in states for part in state]
    # Row k of the batch gives the gradient of unit k: one pass backwards for the whole Jacobian.
    gradients = torch.autograd.grad(states[-1][0].diagonal().sum(), flat, allow_unused=True)
    squares = torch.stack([torch.zeros(()) if g is None else g.square().sum() for g in gradients])
    return (squares.view(len(states), parts).sum(1) / H).sqrt()


def scaled_to_radius(rnn, radius):
    """Turn the recurrent matrix of a torch.nn.RNN into an orthogonal one times `radius`, in place; the RNN."""
    with torch.no_grad():
        torch.nn.init.orthogonal_(rnn.weight_hh_l0).mul_(radius)
        rnn.bias_ih_l0.zero_(), rnn.bias_hh_l0.zero_()
    return rnn


def compare_cells(hidden_size=32, tokens=60, seed=0):
    """The norms for RNNs of radius 0.5, 1 and 1.5, a GRU and an LSTM with open forget gates, on the same noise.

    It is so weak that no unit saturates: tanh would hold an explosion back.

    Returns:
        {name: list of T norms, from the first token to the last}.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = 1e-14 * torch.randn(tokens, hidden_size, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = {}
        for radius in (0.5, 1.0, 1.5):
            found[f"RNN, radius {radius}"] = scaled_to_radius(torch.nn.RNN(hidden_size, hidden_size), radius)
        found["GRU"] = torch.nn.GRU(hidden_size, hidden_size)
        found["LSTM, forget gates open"] = torch.nn.LSTM(hidden_size, hidden_size)
        with torch.no_grad():
            found["LSTM, forget gates open"].bias_ih_l0[hidden_size : 2 * hidden_size] = 5.0
    return {name: gradient_norms(rnn, inputs).tolist() for name, rnn in found.items()}


def draw_gradient_norms(curves, path):
    """The curves over the distance to the last token, on a logarithmic scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, norms in curves.items():
        axes.plot(range(len(norms)), [max(norm, 1e-30) for norm in reversed(norms)], label=name)
    axes.set_yscale("log")
    axes.set_xlabel("tokens back from the last one")
    axes.set_ylabel("norm of d h(last) / d state")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    save_figure(figure, path)
