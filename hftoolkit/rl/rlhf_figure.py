"""The picture of over-optimisation: the reward that PPO learns from, and the true one, over the distance it has gone.

As in Gao et al. 2022, "Scaling Laws for Reward Model Overoptimization", https://arxiv.org/abs/2210.10760, Figure 1.
"""

from hftoolkit.plots import save_figure

LEARNED, TRUE, PATH = "#1f5fa8", "#c8501e", "#999999"


def draw_over_optimisation(path, file, *, title=None):
    """Draw the rewards over the KL into a PNG file, which appears whole or not at all.

    Args:
        path: of rlhf_report.path_of: step, kl, learned_reward and perhaps true_reward of each evaluation.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: drawing must not touch the state of a program that plots itself
    panels = [("learned_reward", LEARNED, "learned reward"), ("true_reward", TRUE, "true reward")]
    panels = [panel for panel in panels if panel[0] in path[0]]
    kl = [point["kl"] for point in path]
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (key, colour, label) in zip(all_axes, panels, strict=True):
        values = [point[key] for point in path]
        axes.plot(kl, values, color=PATH, linewidth=1, zorder=1)
        axes.scatter(kl, values, color=colour, s=24, zorder=2)
        best = max(range(len(path)), key=values.__getitem__)
        for number in sorted({0, best, len(path) - 1}):
            note = f"step {path[number]['step']}" + (" (highest)" if number == best else "")
            axes.annotate(
                note, (kl[number], values[number]), xytext=(5, 6), textcoords="offset points", fontsize="small"
            )
        axes.margins(x=0.12, y=0.15)
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[-1].set_xlabel("KL to the model before PPO (nats per response)")
    if title:
        figure.suptitle(title)
    save_figure(figure, file)
