"""How good the answers of a span model are, during training and at its end, and what is reached without a model."""

from collections import Counter, defaultdict

import numpy as np

from hftoolkit.evaluation.answers import best_threshold, choose_texts, find_answers, write_predictions
from hftoolkit.evaluation.squad import exact_match, squad, squad_v2, word_f1

MOST_FREQUENT = 1000  # training answers per kind of question that a baseline tries


class AnswerScorer:
    """Scores predictions for one set of questions: compute_metrics of a Trainer, and the official files.

    Args:
        questions, windows: from load_questions and make_windows; predictions are of these windows, in their order.
        unanswerable: SQuAD 2.0: questions may have no answer.
        threshold: of the null odds, 2.0 only; None is the one with the best F1 on these very questions.
        limits: n_best and max_answer_length of find_answers.
    """

    def __init__(self, questions, windows, *, unanswerable=False, threshold=None, **limits):
        self.questions, self.windows, self.limits = questions, windows, limits
        self.unanswerable, self.threshold = unanswerable, threshold

    def __call__(self, prediction):
        """Scores of an EvalPrediction, as shares."""
        return self.score(self._find(prediction))

    def score(self, found):
        """Exact match and F1 of version 1.1; for 2.0 also the best thresholds, as the official script."""
        best, threshold = {}, None
        if self.unanswerable:
            golds = dict(zip(self.questions["id"], (row["text"] for row in self.questions["answers"]), strict=True))
            for name, score in (("exact", exact_match), ("f1", word_f1)):
                best[f"best_{name}_thresh"], best[f"best_{name}"] = best_threshold(found, golds, score)
            threshold = best["best_f1_thresh"] if self.threshold is None else self.threshold
        return score_texts(self.questions, choose_texts(found, threshold), self.unanswerable) | best

    def write(self, folder, prediction):
        """Write predictions.json, nbest_predictions.json and, for 2.0, null_odds.json."""
        found = self._find(prediction)
        threshold = self.threshold
        if self.unanswerable and threshold is None:
            threshold = self.score(found)["best_f1_thresh"]
        write_predictions(folder, found, threshold, self.unanswerable)

    def _find(self, prediction):
        return find_answers(self.questions, self.windows, *prediction.predictions[:2], **self.limits)


def score_texts(questions, texts, unanswerable=False):
    """Scores of {question id: text}."""
    predictions = [{"id": name, "prediction_text": text} for name, text in texts.items()]
    return (squad_v2 if unanswerable else squad)(predictions, questions.select_columns(["id", "answers"]))


def baseline_scores(train, questions, unanswerable=False):
    """Scores of answers that need no model, in the form of run_training's baselines.

    first_words: the first words of the context, as many as the median answer of the training data has.
    frequent_answer: of the answers to training questions with the same first two words, the most frequent one that
    stands in the context (else the first words). no_answer: always "", for version 2.0.
    """
    lengths, kinds = [], defaultdict(Counter)
    for row in train.select_columns(["question", "answers"]):
        for text in row["answers"]["text"][:1]:
            lengths.append(len(text.split()))
            kinds[_kind(row["question"])][text] += 1
    number = max(int(np.median(lengths or [1])), 1)
    tried = {kind: [text for text, _ in answers.most_common(MOST_FREQUENT)] for kind, answers in kinds.items()}
    texts = {"first_words": {}, "frequent_answer": {}}
    for row in questions.select_columns(["id", "question", "context"]):
        start = " ".join(row["context"].split()[:number])
        known = (text for text in tried.get(_kind(row["question"]), ()) if text in row["context"])
        texts["first_words"][row["id"]], texts["frequent_answer"][row["id"]] = start, next(known, start)
    if unanswerable:
        texts["no_answer"] = dict.fromkeys(questions["id"], "")
    names = ("exact", "f1") if unanswerable else ("exact_match", "f1")
    scores = {name: score_texts(questions, found, unanswerable) for name, found in texts.items()}
    return {name: {f"eval_{key}": found[key] for key in names} for name, found in scores.items()}


def _kind(question):
    return tuple(question.lower().split()[:2])
