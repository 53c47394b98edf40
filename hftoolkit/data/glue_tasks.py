"""The tasks of GLUE: files, columns, labels and metrics.

Paper: Wang et al. 2018, "GLUE", https://arxiv.org/abs/1804.07461, Table 1. The files are those of
https://gluebenchmark.com/tasks, the classes are numbered as in nyu-mll/glue on the Hub.
"""

from dataclasses import dataclass, field

ENTAILMENT = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not_entailment")


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        title: the folder of the download, and the name in the paper's table.
        texts: the columns of one text or two in the TSV files.
        label: the column of the label.
        written: the labels as the files write them, in the order of the classes; None: a number from 0 to 5.
        names: the classes by name, for the model's config.
        metrics: of hftoolkit.evaluation.metrics; the first is the one of BERT's Table 1, which the average takes.
        hub_texts: the columns of the texts in nyu-mll/glue.
        files: split -> file. Other splits than train and validation may be missing.
        without_header: the columns of train.tsv and dev.tsv where these have no header.
        broken_share: share of rows with too few or too many cells that is left out and counted, not an error.
    """

    title: str
    texts: tuple[str, ...]
    label: str
    written: tuple[str, ...] | None
    names: tuple[str, ...] | None
    metrics: tuple[str, ...]
    hub_texts: tuple[str, ...]
    files: dict = field(default_factory=lambda: {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"})
    without_header: tuple[str, ...] | None = None
    broken_share: float = 0.0

    @property
    def num_labels(self):
        """Outputs of a model for this task; 1 is regression."""
        return len(self.names) if self.names else 1

    @property
    def config_fields(self):
        """What the config of a model for this task says about its head."""
        if not self.names:
            return {"num_labels": 1, "problem_type": "regression"}
        fields = {"num_labels": self.num_labels, "problem_type": "single_label_classification"}
        return fields | {"id2label": dict(enumerate(self.names)), "label2id": {n: i for i, n in enumerate(self.names)}}

    def submission(self, split):
        """Name of the file in which GLUE wants the predictions for a test split."""
        return {"test_mismatched": "MNLI-mm.tsv", "ax": "AX.tsv"}.get(
            split, "MNLI-m.tsv" if self.title == "MNLI" else f"{self.title}.tsv"
        )


_PAIR = ("sentence1", "sentence2")
_MNLI_FILES = {
    "train": "train.tsv",
    "validation": "dev_matched.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
    "test": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}

TASKS = {
    "mnli": Task(
        *("MNLI", _PAIR, "gold_label", ENTAILMENT, ENTAILMENT, ("accuracy",), ("premise", "hypothesis")),
        files=_MNLI_FILES,
    ),
    # The official train.tsv has two dozen lines that a line break inside a question tore apart.
    "qqp": Task(
        *("QQP", ("question1", "question2"), "is_duplicate", ("0", "1"), ("not_duplicate", "duplicate")),
        *(("f1", "accuracy"), ("question1", "question2")),
        broken_share=1e-3,
    ),
    "qnli": Task("QNLI", ("question", "sentence"), "label", TWO_WAY, TWO_WAY, ("accuracy",), ("question", "sentence")),
    "sst2": Task("SST-2", ("sentence",), "label", ("0", "1"), ("negative", "positive"), ("accuracy",), ("sentence",)),
    "cola": Task(
        *("CoLA", ("sentence",), "label", ("0", "1"), ("unacceptable", "acceptable")),
        *(("matthews_correlation",), ("sentence",)),
        without_header=("source", "label", "mark", "sentence"),
    ),
    "stsb": Task("STS-B", _PAIR, "score", None, None, ("spearman", "pearson"), _PAIR),
    "mrpc": Task(
        *("MRPC", ("#1 String", "#2 String"), "Quality", ("0", "1"), ("not_equivalent", "equivalent")),
        *(("f1", "accuracy"), _PAIR),
    ),
    "rte": Task("RTE", _PAIR, "label", TWO_WAY, TWO_WAY, ("accuracy",), _PAIR),
    "wnli": Task("WNLI", _PAIR, "label", ("0", "1"), ("not_entailment", "entailment"), ("accuracy",), _PAIR),
}
# GLUE's diagnostic set has no training data: a model for MNLI answers it. The longer file has the labels.
DIAGNOSTIC_FILES = (
    ("diagnostic/diagnostic-full.tsv", ("Premise", "Hypothesis"), "Label"),
    ("diagnostic/diagnostic.tsv", _PAIR, None),
    ("AX/AX.tsv", _PAIR, None),
)
SCORES = (0.0, 5.0)  # of STS-B
