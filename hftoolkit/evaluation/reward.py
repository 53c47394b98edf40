"""What a reward model knows: its pairs, how sure it is, and whether it likes length.

Every pair of answers of which people prefer one counts once. Of a pair with equal rewards half counts as right, so that
a model that says nothing has the accuracy 0.5. Calibration: Guo et al. 2017, https://arxiv.org/abs/1706.04599, Section 2,
with the probability sigmoid(|r_w - r_l|) that the model gives to the answer it prefers (Bai et al. 2022,
https://arxiv.org/abs/2204.05862, Section 3.3, compares the same). Length bias: Singhal et al. 2023,
https://arxiv.org/abs/2310.03716.
Shapes: M = prompts, K = most answers of a prompt, P = pairs.
"""

import math

import numpy as np

from hftoolkit.data.preferences_batches import ABSENT

MARGIN_EDGES = (0.0, 0.5, 1.0, 2.0, 4.0)  # of |r_w - r_l|; the last bin has no end
NUM_BINS = 10  # of the probability, from 0.5 to 1


def pairs_of(rewards, ranks, characters=None):
    """Every pair of answers to one prompt of which one is better.

    Args:
        rewards, ranks: of the answers, (M, K); a higher rank is better, ABSENT is no answer.
        characters: lengths of the answers, (M, K).

    Returns:
        Reward of the better answer less that of the other, (P,); and the same of the lengths, or None.
    """
    rewards, ranks = np.asarray(rewards, dtype=np.float64), np.asarray(ranks)
    present = ranks != ABSENT
    pairs = present[:, :, None] & present[:, None, :] & (ranks[:, :, None] > ranks[:, None, :])
    prompt, better, worse = np.nonzero(pairs)
    lengths = None
    if characters is not None:
        characters = np.asarray(characters)
        lengths = characters[prompt, better] - characters[prompt, worse]
    return rewards[prompt, better] - rewards[prompt, worse], lengths


def pair_accuracy(differences):
    """Share of pairs whose better answer has the higher number; equal ones count half. None without pairs."""
    if not len(differences):
        return None
    return float(np.mean((differences > 0) + 0.5 * (differences == 0)))


def pair_metrics(predictions, label_ids):
    """compute_metrics of a reward model: accuracy, and the mean of r_w - r_l."""
    differences, _ = pairs_of(predictions, label_ids)
    return {"accuracy": pair_accuracy(differences), "margin": float(differences.mean())}


def by_margin(differences):
    """Accuracy by |r_w - r_l|: one dictionary for each bin that has pairs.

    Example:
        [0.2, -0.3, 3.0] -> [{"from": 0.0, "to": 0.5, "pairs": 2, "accuracy": 0.5},
        {"from": 2.0, "to": 4.0, "pairs": 1, "accuracy": 1.0}]
    """
    bins, place = [], np.digitize(np.abs(differences), MARGIN_EDGES[1:])
    for number, start in enumerate(MARGIN_EDGES):
        inside = differences[place == number]
        if len(inside):
            end = MARGIN_EDGES[number + 1] if number + 1 < len(MARGIN_EDGES) else None
            bins.append({"from": start, "to": end, "pairs": len(inside), "accuracy": pair_accuracy(inside)})
    return bins


def calibration(differences):
    """(expected calibration error, curve): how often the model is right, beside how sure it is.

    The error is the mean over the pairs of |accuracy - mean probability| of their bin, in [0, 0.5].

    Returns:
        The curve is one dictionary for each bin that has pairs: probability (mean), accuracy, pairs.
    """
    probability = 1 / (1 + np.exp(-np.abs(differences)))  # of the answer that the model prefers
    place = np.minimum(((probability - 0.5) * 2 * NUM_BINS).astype(int), NUM_BINS - 1)
    curve, error = [], 0.0
    for number in range(NUM_BINS):
        inside = place == number
        if inside.any():
            point = {"probability": float(probability[inside].mean()), "accuracy": pair_accuracy(differences[inside])}
            curve.append(point | {"pairs": int(inside.sum())})
            error += inside.mean() * abs(point["accuracy"] - point["probability"])
    return float(error), curve


def length_bias(rewards, ranks, characters):
    """Whether rewards follow the length of the answers, in characters.

    Returns:
        reward_length_correlation: Pearson's, over all answers, of reward and length, each less the mean of its prompt;
        accuracy where the better answer is the longer or the shorter one, with the numbers of pairs;
        longer_preferred: share of all pairs of different length whose longer answer has the higher reward.
    """
    differences, lengths = pairs_of(rewards, ranks, characters)
    longer, shorter, different = lengths > 0, lengths < 0, lengths != 0
    found = {"reward_length_correlation": _correlation(rewards, ranks, characters)}
    for name, chosen in (("chosen_longer", longer), ("chosen_shorter", shorter)):
        found |= {f"accuracy_{name}": pair_accuracy(differences[chosen]), f"pairs_{name}": int(chosen.sum())}
    signs = np.sign(lengths[different])
    return found | {"longer_preferred": pair_accuracy(differences[different] * signs)}


def _correlation(rewards, ranks, characters):
    present = np.asarray(ranks) != ABSENT
    centred = []
    for values in (rewards, characters):
        values = np.where(present, np.asarray(values, dtype=np.float64), 0.0)
        means = values.sum(1, keepdims=True) / present.sum(1, keepdims=True)
        centred.append((values - means)[present])
    size = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float(centred[0] @ centred[1]) / size if size else None


def reward_report(rewards, ranks, characters, prefix="eval_"):
    """Everything about the rewards of held-out answers, (M, K) each; and what simpler rules reach.

    Returns:
        Results for the record of a run; `baselines` among them: chance, and always the longer or the shorter answer.
    """
    differences, lengths = pairs_of(rewards, ranks, characters)
    error, curve = calibration(differences)
    present = np.asarray(ranks) != ABSENT
    values = np.asarray(rewards, dtype=np.float64)[present]
    found = {"accuracy": pair_accuracy(differences), "margin": float(differences.mean()), "calibration_error": error}
    found |= {"reward_mean": float(values.mean()), "reward_std": float(values.std())}
    found |= length_bias(rewards, ranks, characters)
    longer = pair_accuracy(lengths)
    baselines = {
        "chance": {f"{prefix}accuracy": 0.5, f"{prefix}loss": math.log(2)},
        "longer_answer": {f"{prefix}accuracy": longer},
        "shorter_answer": {f"{prefix}accuracy": 1 - longer},
    }
    found = {f"{prefix}{name}": value for name, value in found.items() if value is not None}
    details = {"accuracy_by_margin": by_margin(differences), "calibration": curve}
    return found | {f"{prefix}pairs": len(differences), "details": details, "baselines": baselines}


def padded(values, num_answers):
    """Lists of different lengths as a table (M, K), filled with ABSENT."""
    return np.array([list(row) + [ABSENT] * (num_answers - len(row)) for row in values])
