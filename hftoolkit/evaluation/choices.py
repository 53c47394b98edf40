"""How good choices are, and what is reached without a model, without the context, or by counting words."""

import math
import re
from collections import Counter

import numpy as np

from hftoolkit.evaluation.metrics import accuracy

WORD = re.compile(r"\w+")


def best_choices(logits, questions):
    """Number of the best choice of each question, (N,); what lies beyond its choices does not count.

    Args:
        logits: (N, most choices).
    """
    sizes = np.array([len(choices) for choices in questions["choices"]])
    possible = np.arange(logits.shape[1]) < sizes[:, None]
    return np.where(possible, logits, -np.inf).argmax(axis=1)


def baseline_scores(train, questions):
    """Accuracy of choices that need no model, in the form of run_training's baselines.

    random: its expectation. majority: the most frequent label. longest: the choice of most characters. overlap: the
    choice with the largest share of words that stand in the context. choices_only: a naive Bayes classifier of the
    choices' words, trained on the training data; above chance it shows that the choices give themselves away.
    """
    sizes, common = [len(choices) for choices in questions["choices"]], Counter(train["label"]).most_common(1)[0][0]
    weights = _word_weights(train)
    guesses = {"majority": [common] * len(sizes), "longest": [], "overlap": [], "choices_only": []}
    for row in questions:
        known, words = set(_words(row["context"])), [_words(choice) for choice in row["choices"]]
        guesses["longest"].append(_best(map(len, row["choices"])))
        guesses["overlap"].append(_best(sum(word in known for word in one) / max(len(one), 1) for one in words))
        guesses["choices_only"].append(_best(sum(weights.get(word, 0.0) for word in one) for one in words))
    scores = {"random": float(np.mean([1 / size for size in sizes]))}
    scores |= {name: accuracy(guess, questions["label"])["accuracy"] for name, guess in guesses.items()}
    return {name: {"eval_accuracy": score} for name, score in scores.items()}


def _word_weights(train):
    """Log odds that a choice with this word is right, smoothed by one."""
    right, wrong = Counter(), Counter()
    for row in train:
        for number, choice in enumerate(row["choices"]):
            (right if number == row["label"] else wrong).update(set(_words(choice)))
    totals = [sum(counts.values()) + len(right | wrong) for counts in (right, wrong)]
    return {
        word: math.log((right[word] + 1) / totals[0]) - math.log((wrong[word] + 1) / totals[1])
        for word in right | wrong
    }


def _words(text):
    return WORD.findall(text.lower())


def _best(values):
    """The first place of the largest value."""
    values = list(values)
    return values.index(max(values))
