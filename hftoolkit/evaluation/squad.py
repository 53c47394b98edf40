"""SQuAD's exact match and F1 over the words of an answer, for version 1.1 and 2.0.

Papers: Rajpurkar et al. 2016, https://aclanthology.org/D16-1264, Section 6.1; 2018, https://aclanthology.org/P18-2124.
The definitions are those of the official evaluate-v1.1.py and evaluate-v2.0.py; scores are shares, not percent.
"""

import re
import string
from collections import Counter

from hftoolkit.errors import DataError

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text):
    """Lower case, without ASCII punctuation and articles, single spaces.

    Example:
        "The  Denver Broncos!" -> "denver broncos"
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction, answer):
    """1.0 where both are the same after normalisation, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def word_f1(prediction, answer, empty_agree=True):
    """F1 of the bags of words of two texts after normalisation.

    Args:
        empty_agree: two empty texts score 1, as in version 2.0; in 1.1 they score 0.
    """
    ours, right = normalize_answer(prediction).split(), normalize_answer(answer).split()
    if empty_agree and not (ours and right):
        return float(ours == right)
    same = sum((Counter(ours) & Counter(right)).values())
    return 2 * same / (len(ours) + len(right)) if same else 0.0


def squad(predictions, references):
    """SQuAD 1.1: mean exact match and F1, each the best over the answers of a question.

    Args:
        predictions: [{"id", "prediction_text"}]; a question without prediction scores 0.
        references: [{"id", "answers": {"text": [...]}}].

    Raises:
        DataError: a prediction for an unknown question, two for one, a question without answers.
    """
    texts = _texts_by_id(predictions, references)
    totals = {"exact_match": 0.0, "f1": 0.0}
    for reference in references:
        answers = reference["answers"]["text"]
        if not answers:
            raise DataError(f"question {reference['id']} has no answer: that is SQuAD 2.0, use the metric squad_v2")
        if reference["id"] in texts:
            text = texts[reference["id"]]
            totals["exact_match"] += max(exact_match(text, answer) for answer in answers)
            totals["f1"] += max(word_f1(text, answer, empty_agree=False) for answer in answers)
    return {name: total / len(references) for name, total in totals.items()}


def squad_v2(predictions, references, no_answer_threshold=1.0):
    """SQuAD 2.0: exact match and F1 over all questions, and over those with and without an answer.

    The empty text says that there is no answer.

    Args:
        predictions: [{"id", "prediction_text"}], also with "no_answer_probability"; a question without prediction
            scores 0.
        references: [{"id", "answers": {"text": [...]}}], an empty list where there is no answer.
        no_answer_threshold: a prediction whose no_answer_probability is above it counts as "no answer".

    Returns:
        exact, f1, total; the same with HasAns_ and NoAns_ before them where there are such questions.
    """
    texts = _texts_by_id(predictions, references)
    denied = {row["id"] for row in predictions if row.get("no_answer_probability", 0.0) > no_answer_threshold}
    scores = {"": [], "HasAns_": [], "NoAns_": []}
    for reference in references:
        answers = [answer for answer in reference["answers"]["text"] if normalize_answer(answer)] or [""]
        text, group = texts.get(reference["id"]), "HasAns_" if reference["answers"]["text"] else "NoAns_"
        if text is None:
            best = (0.0, 0.0)
        else:
            best = tuple(max(score(text, answer) for answer in answers) for score in (exact_match, word_f1))
        if reference["id"] in denied:
            best = (float(group == "NoAns_"),) * 2
        scores[""].append(best)
        scores[group].append(best)
    results = {}
    for prefix, pairs in scores.items():
        if pairs:
            exact, f1 = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
            results |= {f"{prefix}exact": exact, f"{prefix}f1": f1, f"{prefix}total": len(pairs)}
    return results


def _texts_by_id(predictions, references):
    """{question id: predicted text}, checked against the questions."""
    known, texts = {reference["id"] for reference in references}, {}
    if not known:
        raise DataError("there is not a single question to score")
    for row in predictions:
        if row["id"] not in known:
            raise DataError(f"the prediction for question {row['id']} belongs to none of the {len(known)} questions")
        if row["id"] in texts:
            raise DataError(f"question {row['id']} has two predictions")
        texts[row["id"]] = row["prediction_text"]
    return texts
