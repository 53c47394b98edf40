"""The picture of a reward model's calibration: how often it is right, beside how sure it is."""

from hftoolkit.plots import save_figure

CURVE, IDEAL = "#1f5fa8", "#999999"


def draw_calibration(curve, path, *, error=None, title=None):
    """Draw a reliability diagram into a PNG file, which appears whole or not at all.

    Args:
        curve: of evaluation.reward.calibration: probability, accuracy and pairs of each bin.
        error: expected calibration error, written into the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 6.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: drawing must not touch the state of a program that plots itself
    right, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    probabilities, pairs = [point["probability"] for point in curve], [point["pairs"] for point in curve]
    right.plot([0.5, 1], [0.5, 1], color=IDEAL, linestyle=":", label="as often as it says")
    label = "reward model" if error is None else f"reward model (calibration error {error:.3f})"
    right.plot(probabilities, [point["accuracy"] for point in curve], color=CURVE, marker="o", label=label)
    right.set_ylabel("pairs ordered as people do")
    right.set_ylim(min([0.4, *(point["accuracy"] - 0.05 for point in curve)]), 1.02)
    right.legend(frameon=False, fontsize="small", loc="upper left")
    counts.bar(probabilities, pairs, width=0.03, color=CURVE, alpha=0.6)
    counts.set_ylabel("pairs")
    counts.set_xlabel("probability that the model gives to the answer it prefers")
    for axes in (right, counts):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)
