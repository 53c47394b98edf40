"""The picture of a run: losses with their baselines, gradient norm, learning rate, over the steps.

Of PPO, whose loss says nothing, the score of the responses and their KL to the reference take the place of the loss.
"""

import math
import os
from pathlib import Path

MOST_POINTS = 2000  # of one curve; more are thinned out, since no screen shows them
TRAINING, EVALUATION, BASELINE = "#1f5fa8", "#c8501e", "#555555"


def points(history, key, most=MOST_POINTS):
    """The steps and values of one logged number, without what is not finite; thinned out to `most` points.

    Example:
        points([{"step": 1, "loss": 3.0}, {"step": 2, "loss": nan}, {"step": 2, "eval_loss": 2.9}], "loss")
        -> ([1], [3.0])
    """
    found = [(entry["step"], float(entry[key])) for entry in history if key in entry and "step" in entry]
    found = [(step, value) for step, value in found if math.isfinite(value)]
    if len(found) > most:
        found = [found[round(i * (len(found) - 1) / (most - 1))] for i in range(most)]
    return [step for step, _ in found], [value for _, value in found]


def plot_curves(history, path, *, baselines=None, title=None, unit="nats"):
    """Draw log_history of a Trainer into a PNG file, which appears whole or not at all.

    Args:
        history: list of dictionaries with `step` and any of loss, eval_loss, grad_norm, learning_rate; or of PPO's
            objective/scores, objective/kl, eval_reward, eval_kl.
        baselines: name -> loss (of PPO, score) of a simpler model on the evaluation data (None: unknown), drawn as a labelled line.
        unit: of the loss.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    figure = Figure(figsize=(8, 8), dpi=120)
    figure.subplots_adjust(left=0.14, right=0.98, bottom=0.07, top=0.95, hspace=0.1)
    FigureCanvasAgg(figure)  # no pyplot: drawing must not touch the state of a program that plots itself
    main = [("loss", "eval_loss", f"loss ({unit})")]
    if points(history, "objective/scores")[0]:
        main = [
            ("objective/scores", "eval_reward", "score"),
            ("objective/kl", "eval_kl", "KL to the reference\n(nats)"),
        ]
    ratios = [2.2] * (len(main) == 1) + [1.5, 1] * (len(main) == 2) + [1, 1]
    *panels, norm, rate = figure.subplots(len(ratios), 1, sharex=True, height_ratios=ratios)
    if title:
        figure.suptitle(title)
    for axes, (training, evaluation, label) in zip(panels, main, strict=True):
        _draw(axes, history, training, TRAINING, "training")
        _draw(axes, history, evaluation, EVALUATION, "evaluation", marker="o", markersize=4)
        axes.set_ylabel(label)
    _draw_baselines(panels[0], baselines or {})
    _draw(norm, history, "grad_norm", TRAINING, "gradient norm")
    norm.set_ylabel("gradient norm\n(L2, before clipping)")
    if norm.lines and min(norm.lines[0].get_ydata()) > 0:
        norm.set_yscale("log")
        norm.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        norm.yaxis.set_major_formatter(FuncFormatter(_short))
        norm.yaxis.set_minor_formatter(NullFormatter())
    _draw(rate, history, "learning_rate", TRAINING, "learning rate")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step (updates of the weights)")
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (*panels, norm, rate):
        axes.margins(y=0.08)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if not axes.get_legend_handles_labels()[0]:
            axes.text(0.5, 0.5, "nothing was logged", ha="center", va="center", transform=axes.transAxes)
            axes.set_yticks([])
    if panels[0].get_legend_handles_labels()[0]:
        place = "upper center" if len(panels) == 1 else "center right"  # a score rises where a loss falls
        panels[0].legend(frameon=False, fontsize="small", loc=place, ncols=2)
    save_figure(figure, path)


def save_figure(figure, path):
    """Write a figure of matplotlib as a PNG file, which appears whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", metadata={"Software": None})
    os.replace(temporary, path)


def _draw(axes, history, key, colour, label, **style):
    steps, values = points(history, key)
    if steps:
        if len(steps) == 1:
            style = {"marker": "o", "markersize": 4}
        axes.plot(steps, values, color=colour, label=label, linewidth=1.4, **style)


def _draw_baselines(axes, baselines):
    """Dashed lines, with name and value at the right end, where a falling curve is below them."""
    for name, value in baselines.items():
        if value is not None and math.isfinite(value):
            axes.axhline(value, color=BASELINE, linestyle="--", linewidth=1)
            axes.annotate(
                f"{name} {value:.3g}",
                xy=(1, value),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 2),
                textcoords="offset points",
                ha="right",
                va="bottom",
                fontsize="small",
                color=BASELINE,
            )


def _short(value, position):
    """The label of a tick."""
    return f"{value:g}"
