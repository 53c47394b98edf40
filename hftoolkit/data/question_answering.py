"""Questions whose answer is a span of a text: SQuAD 1.1 and 2.0, from files, the Hub or the microworld.

Papers: Rajpurkar et al. 2016, https://aclanthology.org/D16-1264; Rajpurkar et al. 2018,
https://aclanthology.org/P18-2124 (questions without an answer).
An answer must stand in the context at its answer_start. One that is off by white space is repaired; any other is
misplaced: a question with no other answer is not trained on, and counted.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from datasets import Dataset, DatasetDict, Features, List, Value

from hftoolkit.errors import DataError

from .labelled import load_examples, parse_json
from .opening import opened

FEATURES = Features(
    {
        "id": Value("string"),
        "article": Value("string"),
        "context": Value("string"),
        "question": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
        "state": Value("string"),  # exact, repaired, misplaced or unanswerable
        "span": List(Value("int64")),  # of the answer to train on, in characters; empty where there is none
    }
)
LARGEST_SHIFT = 2  # characters by which answers move when a text is stripped or its line ends are changed
SHOWN = 3  # misplaced answers in a message


def load_questions(
    data_args, *, validation_fraction: float = 0.1, misplaced_answers: Literal["drop", "stop"] = "drop"
) -> DatasetDict:
    """Load questions, each with its context, answers and the span to train on (see FEATURES).

    Questions whose answers are all misplaced leave the training data; `describe_questions` counts them. In the
    other splits they stay: their answers are compared as texts.

    Args:
        data_args: ExampleArguments.
        validation_fraction: share of the articles held out where the source has no validation data.
        misplaced_answers: "stop" makes a misplaced answer an error.

    Raises:
        DataError: the data are missing or damaged, or a misplaced answer with "stop".
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    from hftoolkit.data.microworld import question_examples

    def builtin(number, seed, split):
        rows = question_examples(number, seed, split, unanswerable=data_args.dataset_config == "unanswerable")
        return [check_question(row | {"article": row["title"]}, f"builtin, {row['id']}") for row in rows]

    if data_args.dataset == "builtin" and data_args.dataset_config not in (None, "answerable", "unanswerable"):
        known = "answerable (the default) or unanswerable"
        raise DataError(f"dataset_config {data_args.dataset_config!r}: the built-in questions are {known}")
    splits = load_examples(
        data_args, FEATURES, builtin=builtin, read_file=read_squad, read_hub=_read_hub, suffixes=(".json",),
        validation_fraction=validation_fraction, group="article",
    )  # fmt: skip
    for split, questions in splits.items():
        _refuse_repeated_ids(questions, f"{data_args.dataset}, {split}")
        if misplaced_answers == "stop":
            _refuse_misplaced(questions, f"{data_args.dataset}, {split}")
    return splits


def describe_questions(questions: Dataset) -> dict[str, int]:
    """Numbers of questions and articles, and of questions by the state of their answer."""
    states = Counter(questions["state"])
    counts = {f"{state}_answers": states[state] for state in ("repaired", "misplaced") if states[state]}
    if states["unanswerable"]:
        counts["unanswerable"] = states["unanswerable"]
    return {"questions": len(questions), "articles": len(set(questions["article"]))} | counts


def trainable(questions: Dataset) -> Dataset:
    """The questions that can be trained on: without those whose answers are all misplaced."""
    return questions.select([row for row, state in enumerate(questions["state"]) if state != "misplaced"])


def read_squad(file: Path) -> Iterator[dict]:
    """Read the official JSON: {"version", "data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}.

    Raises:
        DataError: broken JSON, or a part that is missing or of another kind, with its place.
    """
    with opened(file) as text:
        whole = parse_json(text.read(), str(file))
    for a, article in enumerate(_part(whole, "data", list, str(file))):
        place = f"{file}: data[{a}]"
        name = str(article["title"]) if isinstance(article, dict) and article.get("title") else f"article {a}"
        for p, paragraph in enumerate(_part(article, "paragraphs", list, place)):
            context = _part(paragraph, "context", str, f"{place}.paragraphs[{p}]")
            for q, question in enumerate(_part(paragraph, "qas", list, f"{place}.paragraphs[{p}]")):
                where = f"{place}.paragraphs[{p}].qas[{q}]"
                row = {
                    "id": str(_part(question, "id", (str, int), where)),
                    "article": name,
                    "context": context,
                    "question": _part(question, "question", str, where),
                    "answers": _read_answers(question, where),
                    "is_impossible": question.get("is_impossible"),
                }
                yield check_question(row, where)


def _read_answers(question: dict, where: str) -> dict[str, list]:
    answers = {"text": [], "answer_start": []}
    for n, answer in enumerate(question.get("answers") or []):
        answers["text"].append(_part(answer, "text", str, f"{where}.answers[{n}]"))
        answers["answer_start"].append(_part(answer, "answer_start", int, f"{where}.answers[{n}]"))
    return answers


def _part(whole, key: str, kind, place: str):
    if not isinstance(whole, dict) or key not in whole:
        found = f"it has {', '.join(list(whole)[:6])}" if isinstance(whole, dict) else f"a {type(whole).__name__}"
        raise DataError(f"{place}: no '{key}' ({found}); SQuAD's form is data > paragraphs > context, qas")
    value = whole[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{place}: '{key}' is {type(value).__name__}: {str(value)[:60]!r}")
    return value


def _read_hub(split: Dataset, where: str) -> Iterator[dict]:
    missing = {"id", "context", "question", "answers"} - set(split.column_names)
    if missing:
        raise DataError(f"{where}: no column {', '.join(sorted(missing))}; it has {', '.join(split.column_names)}")
    for row in split:
        yield check_question(row | {"article": row.get("title") or row["context"]}, f"{where}, {row['id']}")


def check_question(row: dict, where: str) -> dict:
    """Find the answer to train on: the first that stands in the context where it says, else the first repaired one.

    Raises:
        DataError: texts and starts do not match; a question said to be impossible has an answer, or the reverse.

    Example (the start is one too large):
        {"context": "It was red.", "answers": {"text": ["red"], "answer_start": [8]}, ...}
        -> state "repaired", span [7, 10]
    """
    texts, starts = list(row["answers"]["text"]), list(row["answers"]["answer_start"])
    if len(texts) != len(starts):
        raise DataError(f"{where}: {len(texts)} answer texts, but {len(starts)} starts")
    impossible = row.get("is_impossible")
    if impossible is not None and bool(impossible) == bool(texts):
        said = "impossible, but has answers" if impossible else "answerable, but has no answers"
        raise DataError(f"{where}: the question is said to be {said}")
    found = [locate_answer(row["context"], text, start) for text, start in zip(texts, starts, strict=True)]
    placed = [span for span in found if span is not None]
    exact = [span for span, start in zip(found, starts, strict=True) if span is not None and span[0] == start]
    state = "exact" if exact else "repaired" if placed else "misplaced" if texts else "unanswerable"
    kept = {key: row[key] for key in ("id", "article", "context", "question")}
    answers = {"text": texts, "answer_start": starts}
    return kept | {"answers": answers, "state": state, "span": list((exact or placed or [()])[0])}


def locate_answer(context: str, text: str, start: int) -> tuple[int, int] | None:
    """The answer's characters [start, end) in the context, without white space around it; None where it is not there.

    White space inside may differ, and the start may be off by `LARGEST_SHIFT` characters beside white space.
    """
    words = text.split()
    if not words:
        return None
    inner = start + len(text) - len(text.lstrip())
    if start >= 0 and context.startswith(text.strip(), inner):
        return inner, inner + len(text.strip())
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    low, high = inner - LARGEST_SHIFT, inner + LARGEST_SHIFT + 1
    matches = [match for at in range(max(low, 0), max(high, 0)) if (match := pattern.match(context, at))]
    best = min(matches, key=lambda match: abs(match.start() - inner), default=None)
    return best and best.span()


def _refuse_repeated_ids(questions: Dataset, where: str) -> None:
    repeated = [name for name, times in Counter(questions["id"]).items() if times > 1]
    if repeated:
        shown = ", ".join(repeated[:SHOWN])
        raise DataError(f"{where}: {len(repeated)} ids belong to several questions, such as {shown}; ids are unique")


def _refuse_misplaced(questions: Dataset, where: str) -> None:
    rows = [row for row, state in enumerate(questions["state"]) if state == "misplaced"]
    if rows:
        shown = "; ".join(
            f"{row['id']}: {row['answers']['text'][0]!r} is not at {row['answers']['answer_start'][0]}"
            for row in questions.select(rows[:SHOWN])
        )
        raise DataError(f"{where}: {len(rows)} questions have no answer that stands in the context ({shown})")
