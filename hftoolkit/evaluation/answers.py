"""From a span model's logits to answers: the best spans, when to say that there is none, and the official files.

Papers: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Sections 4.2 and 4.3 (a span's score is the sum of its
start's and its end's logit; no answer where the [CLS] span's score exceeds it by a threshold tuned on the dev set);
google-research/bert run_squad.py, write_predictions; SQuAD's evaluate-v2.0.py, find_best_thresh.
Shapes: W = windows, T = tokens, N = n_best.
"""

import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from hftoolkit.errors import MachineError
from hftoolkit.evaluation.squad import word_f1


def best_spans(start_logits, end_logits, is_context, *, n_best=20, max_answer_length=30):
    """The spans of the n_best starts and n_best ends of each window, by score.

    Args:
        start_logits, end_logits: (W, T).
        is_context: True where an answer may start or end, (W, T).
        max_answer_length: in tokens.

    Returns:
        scores, starts, ends, each (W, N * N), best first; the score is -inf where no span is left.
    """
    W, T = start_logits.shape
    N = min(n_best, T)
    masked = [np.where(is_context, logits, -np.inf) for logits in (start_logits, end_logits)]
    starts, ends = (np.argpartition(-logits, N - 1, axis=1)[:, :N] for logits in masked)  # (W, N)
    start_scores, end_scores = (np.take_along_axis(*pair, axis=1) for pair in zip(masked, (starts, ends), strict=True))
    lengths = ends[:, None, :] - starts[:, :, None] + 1  # (W, N, N)
    possible = (lengths >= 1) & (lengths <= max_answer_length)
    scores = np.where(possible, start_scores[:, :, None] + end_scores[:, None, :], -np.inf).reshape(W, -1)
    order = np.argsort(-scores, axis=1, kind="stable")
    rows, columns = order // N, order % N
    picked = (np.take_along_axis(*pair, axis=1) for pair in ((scores, order), (starts, rows), (ends, columns)))
    return tuple(picked)


def find_answers(questions, windows, start_logits, end_logits, *, n_best=20, max_answer_length=30):
    """The n best answers of every question over all its windows, and how likely it is that there is none.

    Args:
        questions, windows: from load_questions and make_windows.
        start_logits, end_logits: of the windows, in their order, (W, T); columns beyond a window do not count.

    Returns:
        {question id: {"answers": [{"text", "start_logit", "end_logit"}], best first and without repetitions,
        "null": {"text": "", "start_logit", "end_logit"}, "null_odds": its score minus that of the best answer}}.
    """
    W, T = start_logits.shape
    first, last = (_padded(windows[name], T) for name in ("first_characters", "last_characters"))
    options = {"n_best": n_best, "max_answer_length": max_answer_length}
    scores, starts, ends = best_spans(start_logits, end_logits, last > np.maximum(first, 0), **options)
    null = np.array(windows["null_position"])
    rows_of = defaultdict(list)
    for window, row in enumerate(windows["question_row"]):
        rows_of[row].append(window)
    found = {}
    for row, question in enumerate(questions.select_columns(["id", "context"])):
        mine, context = np.array(rows_of[row], dtype=int), question["context"]
        answers, seen = [], set()
        flat = np.argsort(-scores[mine], axis=None, kind="stable") if len(mine) else []
        for place in flat:
            window, rank = mine[place // scores.shape[1]], place % scores.shape[1]
            if scores[window, rank] == -np.inf or len(answers) == n_best:
                break
            start, end = starts[window, rank], ends[window, rank]
            text = context[first[window, start] : last[window, end]].strip()
            if text and text not in seen:
                seen.add(text)
                answers.append(_answer(text, start_logits[window, start], end_logits[window, end]))
        nulls = [(start_logits[window, null[window]], end_logits[window, null[window]]) for window in mine]
        least = _answer("", *min(nulls, key=sum, default=(0.0, 0.0)))
        odds = _score(least) - _score(answers[0]) if answers else float("inf")
        found[question["id"]] = {"answers": answers, "null": least, "null_odds": odds}
    return found


def _padded(lists, length):
    padded = np.full((len(lists), length), -1, dtype=np.int32)
    for row, values in enumerate(lists):
        padded[row, : len(values)] = values[:length]
    return padded


def _answer(text, start_logit, end_logit):
    return {"text": text, "start_logit": float(start_logit), "end_logit": float(end_logit)}


def _score(answer):
    return answer["start_logit"] + answer["end_logit"]


def choose_texts(found, threshold=None):
    """{question id: text}: the best answer, or "" where the null odds are above the threshold (None: never)."""
    return {
        name: "" if not one["answers"] or (threshold is not None and one["null_odds"] > threshold)
        else one["answers"][0]["text"]
        for name, one in found.items()
    }  # fmt: skip


def best_threshold(found, golds, score=word_f1):
    """The threshold of the null odds that gives the best mean score, as find_best_thresh of the official script.

    Args:
        found: from find_answers.
        golds: {question id: list of right answers, empty where there is none}.
        score: of a text against one right answer.

    Returns:
        (threshold, mean score with it). One below all odds answers no question, the highest odds answers all.
    """
    names = sorted(golds, key=lambda name: found[name]["null_odds"])
    odds = [found[name]["null_odds"] for name in names]
    texts = choose_texts(found)
    total = best = sum(not golds[name] for name in names)
    threshold = odds[0] - 1
    for position, name in enumerate(names):
        if golds[name]:
            total += max(score(texts[name], answer) for answer in golds[name])
        elif texts[name]:
            total -= 1
        tied = position + 1 < len(names) and odds[position + 1] == odds[position]
        if total > best and not tied:
            best, threshold = total, odds[position]
    return float(threshold), best / max(len(names), 1)


def write_predictions(folder, found, threshold=None, unanswerable=False):
    """Write predictions.json and nbest_predictions.json, and null_odds.json where there may be no answer.

    Args:
        unanswerable: "" competes among the n best, too.

    Raises:
        MachineError: the folder cannot be written.
    """
    folder = Path(folder)
    _write(folder / "predictions.json", choose_texts(found, threshold))
    n_best = {}
    for name, one in found.items():
        answers = sorted(one["answers"] + [one["null"]] * unanswerable, key=_score, reverse=True) or [one["null"]]
        weights = np.exp(np.array([_score(answer) for answer in answers]) - _score(answers[0]))
        shares = weights / weights.sum()
        n_best[name] = [
            {"text": answer["text"], "probability": float(share)} | answer
            for answer, share in zip(answers, shares, strict=True)
        ]
    _write(folder / "nbest_predictions.json", n_best)
    if unanswerable:
        _write(folder / "null_odds.json", {name: min(one["null_odds"], 1e9) for name, one in found.items()})


def _write(path, content):
    """JSON, whole or not at all."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error}") from error
