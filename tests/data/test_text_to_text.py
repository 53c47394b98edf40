"""Text-to-text forms against Raffel et al., Appendix D, and back from text to label."""

import pytest

from hftoolkit.data.glue_tasks import TASKS
from hftoolkit.data.text_to_text import TEXT_TASKS, check_choice, task_names, text_tasks, written_score
from hftoolkit.errors import DataError

A, B = {"sentence1": "A."}, {"sentence1": "A.", "sentence2": "B."}


@pytest.mark.parametrize(
    "name, row, label, inputs, target",
    [  # the forms of Appendix D
        ("cola", A, 1, "cola sentence: A.", "acceptable"),
        ("cola", A, 0, "cola sentence: A.", "unacceptable"),
        ("sst2", A, 1, "sst2 sentence: A.", "positive"),
        ("mrpc", B, 1, "mrpc sentence1: A. sentence2: B.", "equivalent"),
        ("mrpc", B, 0, "mrpc sentence1: A. sentence2: B.", "not_equivalent"),
        ("stsb", B, 3.25, "stsb sentence1: A. sentence2: B.", "3.2"),
        ("qqp", B, 0, "qqp question1: A. question2: B.", "not_duplicate"),
        ("mnli", B, 2, "mnli hypothesis: B. premise: A.", "contradiction"),
        ("mnli", B, 1, "mnli hypothesis: B. premise: A.", "neutral"),
        ("qnli", B, 0, "qnli question: A. sentence: B.", "entailment"),
        ("rte", B, 1, "rte sentence1: A. sentence2: B.", "not_entailment"),
        ("wnli", B, 0, "wnli sentence1: A. sentence2: B.", "not_entailment"),
        ("squad", {"question": "Q?", "context": "C."}, "it", "question: Q? context: C.", "it"),
        ("translation", {"source": "A."}, "X.", "translate English to German: A.", "X."),
        ("summarization", {"document": "A."}, "X.", "summarize: A.", "X."),
    ],
)
def test_forms(name, row, label, inputs, target):
    task = TEXT_TASKS[name]
    assert task.inputs(row) == inputs and task.target(label) == target
    assert inputs.startswith(task.opening)
    assert task.label(f" {target} ") == (3.2 if name == "stsb" else label)


@pytest.mark.parametrize(
    "score, text", [(0, "0.0"), (2.57, "2.6"), (2.5, "2.4"), (3.1, "3.2"), (5.0, "5.0"), (4.9, "4.8")]
)
def test_scores_in_steps_of_a_fifth(score, text):
    """Halves go to the even step, as in the authors' program (numpy rounds so)."""
    assert written_score(score) == text


def test_all_scores():
    answers = TEXT_TASKS["stsb"].answers()
    assert len(answers) == 26 and list(answers)[:3] == ["0.0", "0.2", "0.4"]
    assert all(TEXT_TASKS["stsb"].label(written_score(score)) == score for score in answers.values())
    with pytest.raises(DataError, match="nan"):
        written_score(float("nan"))


@pytest.mark.parametrize(
    "name, text, label",
    [
        ("sst2", "positives", None),
        ("sst2", "", None),
        ("sst2", "negative positive", None),
        ("sst2", "Positive", None),
        ("stsb", "2.7", 2.7),  # a number, though not one of the steps
        ("stsb", "5.2", None),
        ("stsb", "-1", None),
        ("stsb", "nan", None),
        ("stsb", "entailment", None),
        ("squad", "  ", None),
        ("squad", " anything ", "anything"),
    ],
)
def test_malformed_answers(name, text, label):
    assert TEXT_TASKS[name].label(text) == label


def test_every_task_of_glue_has_a_form_of_its_own():
    assert set(TASKS) < set(TEXT_TASKS)
    text_tasks(list(TEXT_TASKS))  # no two begin alike
    for name, task in TASKS.items():
        assert tuple(TEXT_TASKS[name].words or ()) == tuple(task.names or ())


def test_a_prefix_that_two_tasks_share():
    tasks = text_tasks(["mrpc", "rte"], {"rte": "rte2"})
    assert tasks["rte"].inputs(B) == "rte2 sentence1: A. sentence2: B."
    with pytest.raises(ValueError, match="mrpc and rte both begin with 'mrpc sentence1:'"):
        text_tasks(["mrpc", "rte"], {"rte": "mrpc"})
    with pytest.raises(ValueError, match="summarization and translation both begin with 'go:'"):
        text_tasks(["translation", "summarization"], {"translation": "go: on", "summarization": "go:"})
    with pytest.raises(ValueError, match="'cola' is not among the tasks"):
        text_tasks(["mrpc"], {"cola": "x"})


def test_languages():
    tasks = text_tasks(["translation"], languages=("en", "tamo"))
    assert tasks["translation"].inputs({"source": "A."}) == "translate English to Tamo: A."
    assert text_tasks(["translation"], languages=("xx", "fr"))["translation"].prefix == "translate xx to French:"
    for wrong in (("en",), ("de", "de"), ("en", "de", "fr")):
        with pytest.raises(ValueError, match="languages: give the source and the target"):
            text_tasks(["translation"], languages=wrong)


def test_names():
    assert task_names(" sst2, rte ,squad") == ["sst2", "rte", "squad"]
    with pytest.raises(ValueError, match="no task 'sts2'; did you mean 's"):
        task_names("sts2")
    for wrong in ("", ",", "rte,rte"):
        with pytest.raises(ValueError, match="at least one task, and none twice"):
            task_names(wrong)
    with pytest.raises(ValueError, match="'squad' is not among the tasks"):
        check_choice("rte", {}, {"squad": "x"}, None, None)
    with pytest.raises(ValueError, match="columns: give"):
        check_choice("summarization", {}, {}, None, ["text"])
