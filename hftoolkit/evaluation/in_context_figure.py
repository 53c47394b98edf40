"""The picture of a study: bars where there is one number of shots, curves where there are several."""

import math

from hftoolkit.evaluation.in_context_study import NONE, shown_variant
from hftoolkit.plots import save_figure

COLOURS = {NONE: "#555555", "gold": "#1f5fa8", "random": "#c8501e", "no_labels": "#3a8a4d", "random_words": "#8a4fa8"}
OTHERS = ("#b08a1e", "#2a9d9d", "#a03050", "#707a20")
WIDTH = 0.8  # of a group of bars


def draw_study(results, path, *, chance=None, title=None):
    """Draw a study into a PNG file, which appears whole or not at all.

    Args:
        results: content of results.json.
        chance: accuracy of guessing, drawn as a line; None: unknown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = results["metric"]
    rows = [row for row in results["summary"] if metric in row]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    curves = len({row["shots"] for row in rows} - {0}) > 1
    panels = len(methods) if curves else 1
    figure = Figure(figsize=(1.2 + 5.2 * panels, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: drawing must not touch the state of a program that plots itself
    axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    if curves:
        for one, method in zip(axes, methods, strict=True):
            _draw_curves(one, [row for row in rows if row["method"] == method], metric)
            one.set_title(f"{method} scores" if panels > 1 else "")
    else:
        _draw_bars(axes[0], rows, methods, metric)
    for one in axes:
        if chance is not None:
            one.axhline(
                chance, color="#999999", linestyle=":", linewidth=1.2, label=f"guessing ({chance:.2f})", zorder=0
            )
        one.grid(axis="y", alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
        one.set_ylim(min(0.0, *(row[metric]["mean"] for row in rows)), 1.08 if panels == 1 and not curves else 1.03)
    axes[0].set_ylabel(metric.replace("_", " ") + "\n(mean over seeds, 95% interval)")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    if title:
        figure.suptitle(title)
    save_figure(figure, path)


def _colours(rows):
    """A colour for each variant; those of the usual ones never change."""
    others = [name for name in dict.fromkeys(row["variant"] for row in rows) if name not in COLOURS]
    return COLOURS | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}


def _draw_curves(axes, rows, metric):
    """A line for each variant; all begin at the figure without demonstrations."""
    ticks = sorted({row["shots"] for row in rows})
    places = {shots: math.log2(shots + 1) for shots in ticks}
    start = [row for row in rows if row["shots"] == 0]
    for variant in dict.fromkeys(row["variant"] for row in rows if row["shots"]):
        found = sorted([*start, *(row for row in rows if row["variant"] == variant)], key=lambda row: row["shots"])
        x = [places[row["shots"]] for row in found]
        mean = [row[metric]["mean"] for row in found]
        half = [row[metric]["half_width"] or 0.0 for row in found]
        colour = _colours(rows)[variant]
        axes.plot(x, mean, color=colour, marker="o", markersize=4, linewidth=1.6, label=shown_variant(variant))
        low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xticks([places[shots] for shots in ticks], [str(shots) for shots in ticks])
    axes.set_xlabel("demonstrations")


def _draw_bars(axes, rows, methods, metric):
    """A group for each method, a bar for each variant."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    step = WIDTH / len(variants)
    for number, variant in enumerate(variants):
        found = [
            (i, row) for i, m in enumerate(methods) for row in rows if (row["method"], row["variant"]) == (m, variant)
        ]
        x = [i - WIDTH / 2 + (number + 0.5) * step for i, _ in found]
        mean = [row[metric]["mean"] for _, row in found]
        half = [row[metric]["half_width"] or 0.0 for _, row in found]
        bars = axes.bar(
            x, mean, 0.9 * step, yerr=half, capsize=3, color=_colours(rows)[variant], label=shown_variant(variant)
        )
        axes.bar_label(bars, [f"{value:.2f}" for value in mean], padding=2, fontsize="small")
    axes.set_xticks(range(len(methods)), [f"{method} scores" for method in methods])
