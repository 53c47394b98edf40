"""Tasks as text to text: a prefix names the task, the answer is a string, and a string becomes an answer again.

Paper: Raffel et al. 2020, "T5", https://arxiv.org/abs/1910.10683, Section 2.4 and Appendix D, with its prefixes and label
words. Differs from it: SQuAD's texts keep their spacing (the authors' program puts spaces around punctuation).

    sst2           sst2 sentence: it is a fine film                        -> positive
    mnli           mnli hypothesis: It rains. premise: It pours.           -> entailment
    stsb           stsb sentence1: A cat sits. sentence2: A cat sat.       -> 4.2
    squad          question: Who fell? context: Anna saw Tom fall.         -> Tom
    translation    translate English to German: A dog runs.                -> Ein Hund rennt.
    summarization  summarize: Anna went home. ... She slept.               -> Anna slept at home.
"""

import difflib
import math
import re
from dataclasses import dataclass, replace

from hftoolkit.errors import DataError

from .glue_tasks import SCORES, TASKS

NUMBER = re.compile(r"\d+(\.\d+)?")
STEPS_OF_SCORE = 5  # per point: STS-B's scores are rounded to 0.2, Section 2.4
LANGUAGES = {
    **{"cs": "Czech", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish", "fr": "French"},
    **{"hi": "Hindi", "it": "Italian", "ja": "Japanese", "nl": "Dutch", "pl": "Polish", "pt": "Portuguese"},
    **{"ro": "Romanian", "ru": "Russian", "tamo": "Tamo", "tr": "Turkish", "zh": "Chinese"},
}


@dataclass(frozen=True)
class TextTask:
    """One task.

    Attributes:
        prefix: what begins every input; it may be empty.
        parts: (what stands before a text, the column of the text), in their order.
        metrics: names of what is measured; the first one counts.
        words: the answers of a classification, in the order of its classes; None elsewhere.
        is_score: whether the answer is a number, rounded to 0.2.
    """

    prefix: str
    parts: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    words: tuple[str, ...] | None = None
    is_score: bool = False

    @property
    def opening(self):
        """What stands before the first text, by which a model tells the tasks apart."""
        return " ".join(text for text in (self.prefix, self.parts[0][0]) if text)

    @property
    def is_text(self):
        """Whether the answer is free text."""
        return self.words is None and not self.is_score

    def inputs(self, row):
        """The input of an example, a string."""
        pieces = (piece for name, column in self.parts for piece in (name, row[column]))
        return " ".join(piece for piece in (self.prefix, *pieces) if piece)

    def answers(self):
        """Every answer as it is written, to its label; empty for free text."""
        if self.is_score:
            low, high = (round(limit * STEPS_OF_SCORE) for limit in SCORES)
            return {written_score(step / STEPS_OF_SCORE): step / STEPS_OF_SCORE for step in range(low, high + 1)}
        return {word: label for label, word in enumerate(self.words or ())}

    def target(self, label):
        """The answer for a label, a string: a class's word, a rounded score, or the text itself."""
        if self.is_score:
            return written_score(label)
        return label if self.words is None else self.words[label]

    def label(self, text, answers=None):
        """The label that a generated text stands for, or None where it is malformed.

        Args:
            answers: what `answers` gives, where a tokenizer writes the words in another way.
        """
        text = text.strip()
        if self.is_text:
            return text or None
        known = self.answers() if answers is None else answers
        if text in known or not self.is_score:
            return known.get(text)
        is_near = NUMBER.fullmatch(text) and SCORES[0] <= float(text) <= SCORES[1]
        return float(text) if is_near else None


def written_score(score):
    """A number from 0 to 5 to the nearest 0.2, as STS-B's answers are written: 3.847 -> "3.8"."""
    if not math.isfinite(score):
        raise DataError(f"a score of {score} cannot be written")
    return f"{round(score * STEPS_OF_SCORE) / STEPS_OF_SCORE:.1f}"


def _glue(name, *columns):
    """A task of GLUE; columns: (name in the input, column), sorted by name as the authors' program does."""
    task = TASKS[name]
    parts = tuple((f"{shown}:", column) for shown, column in columns)
    return TextTask(name, parts, task.metrics, task.names, is_score=task.names is None)


_ONE, _TWO = ("sentence", "sentence1"), (("sentence1", "sentence1"), ("sentence2", "sentence2"))
TEXT_TASKS = {
    "mnli": _glue("mnli", ("hypothesis", "sentence2"), ("premise", "sentence1")),
    "qqp": _glue("qqp", ("question1", "sentence1"), ("question2", "sentence2")),
    "qnli": _glue("qnli", ("question", "sentence1"), ("sentence", "sentence2")),
    "sst2": _glue("sst2", _ONE),
    "cola": _glue("cola", _ONE),
    "stsb": _glue("stsb", *_TWO),
    "mrpc": _glue("mrpc", *_TWO),
    "rte": _glue("rte", *_TWO),
    "wnli": _glue("wnli", *_TWO),
    "squad": TextTask("", (("question:", "question"), ("context:", "context")), ("f1", "exact_match")),
    "translation": TextTask("translate English to German:", (("", "source"),), ("bleu", "chrf")),
    "summarization": TextTask("summarize:", (("", "document"),), ("rougeLsum", "rouge1", "rouge2")),
}


def task_names(text):
    """The tasks of a comma-separated list.

    Raises:
        ValueError: none, an unknown one (the message has the nearest), or one named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in TEXT_TASKS:
            near = difflib.get_close_matches(name, TEXT_TASKS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"tasks: no task {name!r}; {hint}the tasks are {', '.join(TEXT_TASKS)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tasks: {text!r} must name at least one task, and none twice")
    return names


def check_choice(tasks, prefixes, sources, languages, columns):
    """Refuse, before anything is loaded, what cannot be: see task_names and text_tasks.

    Raises:
        ValueError: also a source of a task that is not chosen, or not two columns.
    """
    names = task_names(tasks)
    text_tasks(names, prefixes, languages)
    for name in sources:
        if name not in names:
            raise ValueError(f"sources: {name!r} is not among the tasks ({', '.join(names)})")
    if columns is not None and (len(columns) != 2 or columns[0] == columns[1]):
        raise ValueError(f"columns: give that of the document and that of the summary, got {columns}")


def text_tasks(names, prefixes=None, languages=None):
    """The chosen tasks by name.

    Args:
        prefixes: {task: other prefix}.
        languages: of the source and the target of a translation; None is English and German.

    Raises:
        ValueError: not two languages, a prefix for a task that is not chosen, or two tasks whose inputs begin alike.
    """
    prefixes, tasks, languages = prefixes or {}, {}, languages or ("en", "de")
    if len(languages) != 2 or languages[0] == languages[1]:
        raise ValueError(f"languages: give the source and the target of a translation, got {list(languages)}")
    for name in prefixes:
        if name not in names:
            raise ValueError(f"prefixes: {name!r} is not among the tasks ({', '.join(names)})")
    for name in names:
        task = TEXT_TASKS[name]
        if name == "translation":
            source, target = (LANGUAGES.get(language, language) for language in languages)
            task = replace(task, prefix=f"translate {source} to {target}:")
        tasks[name] = replace(task, prefix=str(prefixes[name])) if name in prefixes else task
    openings = [(task.opening, name) for name, task in tasks.items()]
    for opening, name in openings:
        for other, another in openings:
            if name != another and other.startswith(opening):
                raise ValueError(
                    f"prefixes: the inputs of {name} and {another} both begin with {opening!r}, so that a model could "
                    "not tell the tasks apart; give one another prefix"
                )
    return tasks
