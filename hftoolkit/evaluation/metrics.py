"""Metrics of classification, regression, spans and tagging: as functions, and as `evaluate.Metric` that work offline.

    f1([1, 0, 1], [1, 1, 1])                                            -> {"f1": 0.8}
    metric("f1").compute(predictions=[1, 0, 1], references=[1, 1, 1])   -> {"f1": 0.8}
    from hftoolkit.evaluation.metrics import F1                         # the class, a subclass of evaluate.Metric

`evaluate.load` needs the Hub. `evaluate` is imported when the first class is asked for (it takes seconds); the
functions need only scikit-learn, scipy or seqeval. Every score is a share between 0 and 1 (correlations: -1 and 1),
also where the official script prints percent. Predictions of a single value have defined scores, never NaN.
"""

import importlib
import logging
from functools import cache

import numpy as np

from hftoolkit.errors import DataError, DivergedError, MachineError
from hftoolkit.evaluation.squad import squad, squad_v2

logger = logging.getLogger(__name__)

__all__ = ["FUNCTIONS", "metric", "squad", "squad_v2"]


def _checked(predictions, references, name):
    """Both as arrays of one length, not empty."""
    predictions, references = np.asarray(predictions), np.asarray(references)
    if predictions.shape != references.shape:
        raise DataError(f"{name}: {predictions.shape} predictions, but {references.shape} references")
    if not len(references):
        raise DataError(f"{name}: there is not a single example to score")
    return predictions, references


def accuracy(predictions, references):
    """Share of the predictions that are right."""
    predictions, references = _checked(predictions, references, "accuracy")
    return {"accuracy": float((predictions == references).mean())}


def f1(predictions, references):
    """F1 of class 1, MRPC's and QQP's metric; 0 where class 1 is never predicted rightly.

    Raises:
        DataError: a value that is neither 0 nor 1.
    """
    from sklearn.metrics import f1_score

    predictions, references = _checked(predictions, references, "f1")
    foreign = np.setdiff1d(np.concatenate([predictions, references]), [0, 1])
    if len(foreign):
        raise DataError(f"f1 is binary, of classes 0 and 1; got {foreign[0]}")
    return {"f1": float(f1_score(references, predictions, zero_division=0))}


def matthews_correlation(predictions, references):
    """Matthews correlation of two classifications; 0 where either has one class only."""
    from sklearn.metrics import matthews_corrcoef

    predictions, references = _checked(predictions, references, "Matthews")
    if np.ptp(predictions) == 0 or np.ptp(references) == 0:
        return {"matthews_correlation": 0.0}
    return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


def pearson(predictions, references):
    """Pearson correlation; 0, with a note in the log, where either side is constant."""
    return {"pearson": _correlation("pearsonr", predictions, references)}


def spearman(predictions, references):
    """Spearman's rank correlation, ties sharing their mean rank; 0, with a note, where either side is constant."""
    return {"spearman": _correlation("spearmanr", predictions, references)}


def _correlation(function, predictions, references):
    from scipy import stats

    predictions, references = (x.astype(np.float64) for x in _checked(predictions, references, function))
    for name, values in (("predictions", predictions), ("references", references)):
        if broken := int((~np.isfinite(values)).sum()):
            raise DivergedError(f"{broken} of {len(values)} {name} are not finite")
        if np.ptp(values) == 0:
            logger.warning(
                "all %d %s are %g: their correlation is undefined and counts 0", len(values), name, values[0]
            )
            return 0.0
    return float(getattr(stats, function)(predictions, references).statistic)


def token_accuracy(predictions, references):
    """Share of tokens whose label is right, over all sentences: part-of-speech tagging's metric.

    Args:
        predictions, references: one list of labels per sentence.
    """
    _check_sentences(predictions, references, "token accuracy")
    pairs = [pair for sides in zip(predictions, references, strict=True) for pair in zip(*sides, strict=True)]
    return {"accuracy": sum(ours == right for ours, right in pairs) / len(pairs)}


def _check_sentences(predictions, references, name):
    if len(predictions) != len(references):
        raise DataError(f"{name}: {len(predictions)} sentences predicted, {len(references)} given")
    for number, (ours, right) in enumerate(zip(predictions, references, strict=True)):
        if len(ours) != len(right):
            raise DataError(f"{name}: sentence {number} has {len(ours)} predicted labels and {len(right)} tokens")
    if not any(len(right) for right in references):
        raise DataError(f"{name}: there is not a single token to score")


def entity_f1(predictions, references, strict=False, by_type=False):
    """Precision, recall and F1 over whole entities, micro-averaged, by seqeval.

    An entity is right when its type, first and last token are. 0 where there is none to count.

    Args:
        predictions, references: one list of BIO tags per sentence, such as ["B-PER", "I-PER", "O"].
        strict: count only entities that IOB2 allows; otherwise, as conlleval does, an I- without its B- begins one.
        by_type: also `by_type`, {type: {"precision", "recall", "f1", "number"}}, number counted in the references.

    Raises:
        MachineError: seqeval is not installed.
    """
    metrics, scheme = (_seqeval_module(name) for name in ("metrics", "scheme"))
    _check_sentences(predictions, references, "entity F1")
    predictions, references = ([list(tags) for tags in sentences] for sentences in (predictions, references))
    mode = {"mode": "strict", "scheme": scheme.IOB2} if strict else {}
    results = {"precision": 0.0, "recall": 0.0, "f1": 0.0} | token_accuracy(predictions, references)
    tags = {tag for sentences in (predictions, references) for sentence in sentences for tag in sentence}
    if tags == {"O"}:  # seqeval fails where neither side has an entity
        return results | ({"by_type": {}} if by_type else {})
    report = metrics.classification_report(references, predictions, output_dict=True, zero_division=0, **mode)
    table = {
        name: {"precision": row["precision"], "recall": row["recall"], "f1": row["f1-score"], "number": row["support"]}
        for name, row in report.items()
    }
    table = {
        name: {key: x.item() if hasattr(x, "item") else x for key, x in row.items()} for name, row in table.items()
    }
    micro = {key: float(table["micro avg"][key]) for key in ("precision", "recall", "f1")}
    types = {name: row for name, row in table.items() if not name.endswith(" avg")}
    return results | micro | ({"by_type": types} if by_type else {})


def _seqeval_module(name):
    try:
        return importlib.import_module(f"seqeval.{name}")
    except ImportError as error:
        raise MachineError("entity F1 needs the package seqeval: pip install 'hftoolkit[text]'") from error


FUNCTIONS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearman": spearman,
    "squad": squad,
    "squad_v2": squad_v2,
    "token_accuracy": token_accuracy,
    "entity_f1": entity_f1,
}
CLASSES = {"".join(word.capitalize() for word in name.split("_")): name for name in FUNCTIONS}  # EntityF1, SquadV2


def metric(name, **options):
    """An `evaluate.Metric` by its name in FUNCTIONS.

    Args:
        options: of evaluate.Metric, such as num_process and process_id; by default everything stays in memory.

    Raises:
        ValueError: an unknown name.
    """
    if name not in FUNCTIONS:
        raise ValueError(f"no metric {name!r}; the metrics are {', '.join(FUNCTIONS)}")
    return _metric_class(name)(**({"keep_in_memory": options.get("num_process", 1) == 1} | options))


def __getattr__(name):
    """The metric classes as attributes of this module, made when asked for."""
    if name in CLASSES:
        return _metric_class(CLASSES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _metric_class(name):
    """The subclass of evaluate.Metric that calls one of FUNCTIONS."""
    import evaluate

    function, title = FUNCTIONS[name], next(title for title, known in CLASSES.items() if known == name)

    def _info(self):
        return evaluate.MetricInfo(
            description=function.__doc__, citation="", inputs_description="", features=_features(name)
        )

    def _compute(self, predictions, references, **options):
        return function(predictions, references, **options)

    methods = {"_info": _info, "_compute": _compute, "__module__": __name__, "__doc__": function.__doc__}
    return type(title, (evaluate.Metric,), methods)


def _features(name):
    """What a metric is given, as `datasets` describes it; SQuAD's are those of evaluate's own metrics."""
    from datasets import Features, List, Value

    if name in ("squad", "squad_v2"):
        answers = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
        prediction = {"id": Value("string"), "prediction_text": Value("string")}
        if name == "squad_v2":
            prediction["no_answer_probability"] = Value("float32")
        return Features({"predictions": prediction, "references": {"id": Value("string"), "answers": answers}})
    kinds = {"pearson": Value("float64"), "spearman": Value("float64")}
    kinds |= {"token_accuracy": List(Value("string")), "entity_f1": List(Value("string"))}
    kind = kinds.get(name, Value("int64"))
    return Features({"predictions": kind, "references": kind})
