"""The picture of a run is drawn for any history, and says what it shows."""

import math

import matplotlib.figure
import matplotlib.image
import pytest

from hftoolkit.plots import MOST_POINTS, plot_curves, points


def history(steps, loss=lambda step: 5 / step):
    rows = [{"step": step, "loss": loss(step), "grad_norm": 1.0 + step % 3, "learning_rate": 1e-3} for step in steps]
    return rows + [{"step": step, "eval_loss": loss(step) + 0.1} for step in steps if step % 10 == 0]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, for a look at what is in them."""
    figures, save = [], matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *args, **kw: (figures.append(self), save(self, *args, **kw))
    )
    return figures


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.inf, "grad_norm": 0.0}],
        history(range(1, 50)),
        history(range(1, 50), loss=lambda step: math.nan if step % 2 else -1.0),
        [{"loss": 1.0}, {"step": 3, "train_loss": 1.0}],
    ],
    ids=["nothing", "one point", "nothing finite", "usual", "holes", "no steps"],
)
def test_any_history_is_drawn(tmp_path, rows):
    plot_curves(rows, tmp_path / "curves.png", baselines={"unigram": 3.0, "nan": math.nan, "unknown": None})
    picture = matplotlib.image.imread(tmp_path / "curves.png")
    assert picture.shape == (960, 960, 4) and picture[..., :3].min() < 0.2
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_axes_and_baselines_are_named(tmp_path, drawn):
    plot_curves(history(range(1, 50)), tmp_path / "curves.png", baselines={"unigram": 3.25}, title="tiny")
    loss, norm, rate = drawn[0].axes
    assert (loss.get_ylabel(), rate.get_xlabel()) == ("loss (nats)", "step (updates of the weights)")
    assert norm.get_ylabel().startswith("gradient norm") and rate.get_ylabel() == "learning rate"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "evaluation"]
    assert [text.get_text() for text in loss.texts] == ["unigram 3.25"]


def test_of_ppo_score_and_kl_are_drawn(tmp_path, drawn):
    rows = history(range(1, 50)) + [
        {"step": 1, "objective/scores": 0.1, "objective/kl": 0.0},
        {"step": 9, "objective/scores": 0.5, "objective/kl": 3.0},
        {"step": 9, "eval_reward": 0.4, "eval_kl": 2.5},
    ]
    plot_curves(rows, tmp_path / "curves.png", baselines={"before PPO": 0.08})
    scores, kl, norm, rate = drawn[0].axes
    assert scores.get_ylabel() == "score" and kl.get_ylabel().startswith("KL to the reference")
    assert [list(line.get_ydata()) for line in scores.lines[:2]] == [[0.1, 0.5], [0.4]]
    assert [list(line.get_ydata()) for line in kl.lines] == [[0.0, 3.0], [2.5]]
    assert [text.get_text() for text in scores.texts] == ["before PPO 0.08"]


def test_a_million_points_are_thinned_out():
    steps, values = points([{"step": step, "loss": float(step)} for step in range(1, 100_001)], "loss")
    assert len(steps) == MOST_POINTS and steps[0] == 1 and steps[-1] == 100_000 and values == [float(s) for s in steps]
    assert steps == sorted(steps)


def test_what_is_not_finite_is_left_out():
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": math.nan}, {"step": 2, "eval_loss": 2.9}]
    assert points(rows, "loss") == ([1], [3.0])
