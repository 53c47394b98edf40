"""Questions with answer spans: SQuAD's files are read exactly, and what is wrong in them is named or counted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.question_answering import describe_questions, load_questions, locate_answer, trainable
from hftoolkit.errors import DataError

CONTEXT = "Anna took the  red lamp. Tom went to the cellar."


def question(name="q1", text="Tom", start=25, **more):
    answers = [] if text is None else [{"text": text, "answer_start": start}]
    return {"id": name, "question": "Who went?", "answers": answers} | more


def squad(*articles, **more):
    """The official form; an article is a list of questions about CONTEXT."""
    paragraphs = [[{"context": CONTEXT, "qas": qas}] for qas in articles]
    return json.dumps(
        {"version": "1.1", "data": [{"title": f"t{n}", "paragraphs": p} for n, p in enumerate(paragraphs)]}
    )


@pytest.fixture
def load_squad(write):
    def load(files, validation_fraction=0.0, misplaced_answers="drop", **options):
        files = {"train.json": files} if isinstance(files, str) else files
        arguments = ExampleArguments(dataset=str(write(files)), **options)
        return load_questions(arguments, validation_fraction=validation_fraction, misplaced_answers=misplaced_answers)

    return load


@pytest.mark.parametrize(
    ("text", "start", "span"),
    [
        ("red lamp", 15, (15, 23)),
        (" red lamp ", 14, (15, 23)),  # white space of the answer is not of the span
        ("red lamp", 14, (15, 23)),  # one or two characters off
        ("red lamp", 17, (15, 23)),
        ("the red", 10, (10, 18)),  # the text has two spaces
        ("red lamp", 18, None),
        ("red lamp", -5, None),
        ("blue lamp", 15, None),
        ("  ", 4, None),
        ("cellar.", 41, (41, 48)),
        ("cellar.x", 41, None),
    ],
)
def test_where_an_answer_is(text, start, span):
    assert locate_answer(CONTEXT, text, start) == span


@given(st.text(min_size=1), st.data())
def test_every_true_answer_is_found_where_it_is(context, data):
    start = data.draw(st.integers(0, len(context) - 1))
    text = context[start : data.draw(st.integers(start + 1, len(context)))]
    span = locate_answer(context, text, start)
    assert (span is None) == (not text.strip())
    assert span is None or context[slice(*span)] == text.strip()


def test_misplaced_answers_are_repaired_dropped_and_counted(load_squad):
    rows = [question(), question("q2", start=24), question("q3", "Eve"), question("q4", None, is_impossible=True)]
    train = load_squad(squad(rows))["train"]
    assert train["state"] == ["exact", "repaired", "misplaced", "unanswerable"]
    assert train["span"] == [[25, 28], [25, 28], [], []]
    assert describe_questions(train) == {
        "questions": 4, "articles": 1, "repaired_answers": 1, "misplaced_answers": 1, "unanswerable": 1,
    }  # fmt: skip
    assert trainable(train)["id"] == ["q1", "q2", "q4"]
    assert train[2]["answers"] == {"text": ["Eve"], "answer_start": [25]}  # still compared with in an evaluation
    with pytest.raises(DataError, match=r"1 questions have no answer that stands.*q3: 'Eve' is not at 25"):
        load_squad(squad(rows), misplaced_answers="stop")


def test_the_first_answer_that_is_in_its_place_is_trained_on(load_squad):
    answers = [{"text": text, "answer_start": start} for text, start in (("Eve", 25), ("Tom", 24), ("lamp", 19))]
    row = load_squad(squad([question() | {"answers": answers}]))["train"][0]
    assert row["span"] == [19, 23] and row["state"] == "exact"


def test_articles_are_held_out_whole(load_squad):
    articles = [[question(f"{a}-{q}") for q in range(a + 1)] for a in range(10)]
    splits = load_squad(squad(*articles), validation_fraction=0.2)
    assert set(splits["validation"]["article"]) == {"t8", "t9"} and len(splits["validation"]) == 19
    assert not set(splits["train"]["article"]) & set(splits["validation"]["article"])
    with pytest.raises(DataError, match="one article only"):
        load_squad(squad([question()]), validation_fraction=0.2)


def test_a_folder_of_train_and_dev(load_squad):
    files = {"train-v1.1.json": squad([question("a"), question("c")]), "dev-v1.1.json": squad([question("b")])}
    splits = load_squad(files, validation_fraction=0.5, max_examples=1)
    assert {split: part["id"] for split, part in splits.items()} == {"train": ["a"], "validation": ["b"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (squad([question()])[:-9], r"train.json:1:\d+: broken JSON.*the file ends too early"),
        ("[]", "no 'data'.*data > paragraphs > context"),
        ('{"data": {}}', "'data' is dict"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\].paragraphs\[0\]: no 'context'"),
        (squad([question() | {"question": None}]), r"qas\[0\]: 'question' is NoneType"),
        (squad([question(start="25")]), r"answers\[0\]: 'answer_start' is str: '25'"),
        (squad([question(start=True)]), "'answer_start' is bool"),
        (squad([question(), question()]), "1 ids belong to several questions, such as q1"),
        (squad([question(is_impossible=True)]), "said to be impossible, but has answers"),
        (squad([question(text=None, is_impossible=False)]), "said to be answerable, but has no answers"),
        (squad([]), "the train data hold no examples"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(load_squad, text, message):
    with pytest.raises(DataError, match=message):
        load_squad(text)


def test_sources_that_do_not_fit(write, load_squad):
    with pytest.raises(DataError, match="unknown format .csv"):
        load_questions(ExampleArguments(dataset=str(write({"x.csv": "a,b"}) / "x.csv")))
    with pytest.raises(DataError, match=r"none of the files is named train \(a.json, b.json, x.csv\)|named train"):
        load_squad({"a.json": "{}", "b.json": "{}"})
    with pytest.raises(DataError, match="answerable .the default. or unanswerable"):
        load_questions(ExampleArguments(dataset_config="2.0"))


def test_built_in_questions():
    splits = load_questions(ExampleArguments(builtin_examples=45, dataset_config="unanswerable"))
    assert {split: len(part) for split, part in splits.items()} == {"train": 45, "validation": 9, "test": 9}
    assert set(splits["train"]["state"]) == {"exact", "unanswerable"}
    assert len({text for part in splits.values() for text in part["context"]}) == 63
    assert set(load_questions(ExampleArguments(builtin_examples=9))["train"]["state"]) == {"exact"}


@pytest.mark.realdata
def test_real_files(real_data):
    splits = load_questions(ExampleArguments(dataset=str(real_data / "qa/xquad.en.json")), validation_fraction=0.25)
    counts = {split: describe_questions(part) for split, part in splits.items()}
    assert counts["train"]["articles"] == 36 and counts["validation"]["articles"] == 12
    assert sum(part["questions"] for part in counts.values()) == 1190
    assert all(set(part["state"]) == {"exact"} for part in splits.values())
    sample = load_questions(
        ExampleArguments(dataset=str(real_data / "qa/squad_v2.0_sample.json")), validation_fraction=0.0
    )["train"]
    assert describe_questions(sample) == {"questions": 14, "articles": 2, "unanswerable": 6}
