"""What word vectors know, in one report: pairs judged by people, analogies, categories, neighbours, and a picture."""

from pathlib import Path

import numpy as np

from hftoolkit.evaluation.analogies import read_questions, score_analogies
from hftoolkit.evaluation.nearest_words import WordVectors, nearest_table
from hftoolkit.evaluation.word_similarity import rank_correlation, read_pairs
from hftoolkit.plots import save_figure

PICTURE_WORDS = 60
COLOURS = (
    "#1f5fa8",
    "#c8501e",
    "#3b8132",
    "#8a3fa0",
    "#a07800",
    "#00838a",
    "#b0306a",
    "#555555",
    "#6a4a2a",
    "#2040d0",
)


class WordTests:
    """Tests of word vectors, read before training starts.

    Args:
        similarity_files: pairs with judgements, see word_similarity.read_pairs.
        analogies_file: see analogies.read_questions; None: no analogies.
        categories: {name: words that belong together}.

    Raises:
        DataError: a file that is missing or cannot be read.
    """

    def __init__(self, similarity_files=(), analogies_file=None, categories=None):
        self.pairs = {Path(file).stem: read_pairs(file) for file in similarity_files}
        self.questions = None if analogies_file is None else read_questions(analogies_file)
        self.categories = categories or {}

    def report(self, vectors):
        """All figures of WordVectors; details under `similarity` and `analogies`.

        Returns:
            per file of pairs spearman_<name> and covered_<name>, the share of its pairs whose words have vectors; for
            analogies 3CosAdd and 3CosMul, with covered_analogies; for categories same_category.
        """
        found = {}
        for name, pairs in self.pairs.items():
            figures = rank_correlation(vectors, pairs)
            found |= {f"spearman_{name}": figures["spearman"], f"covered_{name}": figures["pairs"] / len(pairs)}
            found.setdefault("similarity", {})[name] = figures
        if self.questions is not None:
            details = {name: score_analogies(vectors, self.questions, name) for name in ("3CosAdd", "3CosMul")}
            found |= {f"analogies_{name}": figures["accuracy"] for name, figures in details.items()}
            asked = details["3CosAdd"]
            total = asked["questions"] + asked["uncovered_questions"]
            found |= {"covered_analogies": asked["questions"] / total, "analogies": details}
        if self.categories:
            found["same_category"] = same_category(vectors, self.categories)
        return {name: value for name, value in found.items() if value is not None}

    def baselines(self, vectors, seed=0):
        """The same figures of vectors drawn at random for the same words."""
        drawn = np.random.default_rng(seed).standard_normal(vectors.unit.shape).astype(np.float32)
        figures = self.report(WordVectors(vectors.words, drawn))
        return {"random_vectors": {name: value for name, value in figures.items() if isinstance(value, float)}}


def same_category(vectors, categories):
    """Share of the words of categories whose nearest word, among these words, is of the same category.

    Returns:
        None where fewer than two of the words have vectors.
    """
    numbers, kinds = [], []
    for kind, words in enumerate(categories.values()):
        known = [vectors.find(word) for word in words if word in vectors]
        numbers += known
        kinds += [kind] * len(known)
    if len(numbers) < 2:
        return None
    unit, kinds = vectors.unit[numbers], np.array(kinds)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return float((kinds[cosines.argmax(axis=1)] == kinds).mean())


def neighbour_lines(vectors, words, count=6):
    """A line for each word that has a vector, such as "lamp: lantern 0.91, candle 0.88"."""
    return [
        f"{word}: " + ", ".join(f"{near} {score:.2f}" for near, score in found)
        for word, found in nearest_table(vectors, words, count).items()
    ]


def draw_words(vectors, groups, path, *, method="pca", title=None, seed=0):
    """Draw words as points in the plane, a colour for each group, into a PNG file, whole or not at all.

    Args:
        groups: {name: words}; words without a vector are left out, and of very many some of each group are drawn.
        method: "pca" (how much of the variance is seen stands at the axes), or "tsne", which keeps neighbours
            together and says nothing about distances.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = {name: [word for word in words if word in vectors] for name, words in groups.items()}
    most = max(PICTURE_WORDS // max(len(groups), 1), 6)
    groups = {name: words[:: -(-len(words) // most)] for name, words in groups.items() if words}
    words = [word for group in groups.values() for word in group]
    places, labels = _plane(vectors.unit[[vectors.find(word) for word in words]], method, seed)
    figure = Figure(figsize=(9, 8), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: drawing must not touch the state of a program that plots itself
    axes, begin = figure.subplots(), 0
    for number, (name, group) in enumerate(groups.items()):
        colour, part = COLOURS[number % len(COLOURS)], places[begin : begin + len(group)]
        begin += len(group)
        axes.scatter(*part.T, s=12, color=colour, label=name)
        for word, place in zip(group, part, strict=True):
            axes.annotate(
                word, place, xytext=(3, 2), textcoords="offset points", fontsize="x-small", color=colour,
                parse_math=False,
            )  # fmt: skip
    for axis, label in zip((axes.set_xlabel, axes.set_ylabel), labels, strict=True):
        axis(label)
    axes.margins(0.08)
    axes.spines[["top", "right"]].set_visible(False)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if title:
        axes.set_title(title)
    save_figure(figure, path)


def _plane(unit, method, seed):
    """(places (N, 2), labels of the two axes)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if method == "tsne" and len(unit) > 3:
        perplexity = min(30.0, (len(unit) - 1) / 3)
        tsne = TSNE(2, metric="cosine", init="random", perplexity=perplexity, random_state=seed)
        return tsne.fit_transform(unit), ("t-SNE 1", "t-SNE 2")
    pca = PCA(min(2, len(unit)), random_state=seed)
    places = pca.fit_transform(unit)
    shares = [*pca.explained_variance_ratio_, 0.0][:2]
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    return places, [f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares)]
