"""Multiple choice: every distributed form becomes the one form, and wrong rows are named with their line."""

import json

import pytest

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.choice_builtin import ASPECTS, choice_examples
from hftoolkit.data.choice_rows import ChoiceCollator, describe_rows, pair_choices
from hftoolkit.data.microworld import judge_answer
from hftoolkit.data.multiple_choice import check_choices, describe_choices, load_choices
from hftoolkit.errors import DataError
from hftoolkit.evaluation.choices import baseline_scores
from hftoolkit.tokenization import train_tokenizer

ROW = {"context": "The lamp fell.", "choices": ["It broke.", "It sang."], "label": 0}


@pytest.fixture
def load_files(write):
    def load(files, validation_fraction=0.0):
        return load_choices(ExampleArguments(dataset=str(write(files))), validation_fraction=validation_fraction)

    return load


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        {"ctx": "The lamp fell.", "endings": ["It broke.", "It sang."], "label": "0"},
        {"ctx": "x", "ctx_a": "The lamp fell.", "ctx_b": "It", "endings": ["broke.", "sang."], "label": 0},
        {"sent1": "The lamp fell.", "sent2": "It", "ending0": "broke.", "ending1": "sang.", "label": "0"},
        {"goal": "The lamp fell.", "sol1": "It broke.", "sol2": "It sang.", "label": 0},
        {"question": "The lamp fell.", "choices": ["It broke.", "It sang."], "label": 0},
        {"article": "The lamp", "question": "fell.", "options": ["It broke.", "It sang."], "answer": "A"},
        {
            "question": "The lamp fell.",
            "choices": {"text": ["It broke.", "It sang."], "label": ["A", "B"]},
            "answerKey": "A",
        },
        {"question_stem": "The lamp fell.", "choices": {"text": ["It broke.", "It sang."], "label": ["1", "2"]},
         "answerKey": "1"},
        {"question": {"stem": "The lamp fell.", "choices": [{"text": "It broke.", "label": "A"},
                                                            {"text": "It sang.", "label": "B"}]}, "answerKey": "A"},
    ],
)  # fmt: skip
def test_every_form_becomes_one(row):
    assert check_choices(row, "n", "here") == {"id": "n"} | ROW
    assert check_choices(row | {"id": "own"}, "n", "here")["id"] == "own"


def test_files(load_files):
    rows = [ROW, ROW | {"choices": ["a", "b", "c"], "label": 2}]
    splits = load_files({"train.jsonl": "\n".join(map(json.dumps, rows)), "val.json": json.dumps(rows)})
    assert splits["train"]["choices"] == splits["validation"]["choices"] == [row["choices"] for row in rows]
    assert splits["train"]["label"] == [0, 2]
    assert describe_choices(splits["train"]) == {"questions": 2, "choices": "1 x 2, 1 x 3"}


def test_tables(load_files):
    codah = 'i\tHe said "no\tone\ttwo\tthree\tfour\t3\n\n'
    swag = "sent1,sent2,ending0,ending1,label\nA fall.,It,broke.,sang.,1\n"
    splits = load_files({"train.tsv": codah, "dev.csv": swag})
    assert splits["train"][0]["context"] == 'He said "no' and splits["train"][0]["label"] == 3
    assert splits["validation"][0]["choices"] == ["It broke.", "It sang."]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"label": 2}, "train.jsonl:2: the label 2 is none of the choices 0 to 1"),
        (ROW | {"label": -2}, "the label -2"),
        (ROW | {"label": "b"}, "the label 'b'"),
        (ROW | {"label": True}, "the label True"),
        (ROW | {"label": ""}, "train.jsonl:2: no label"),
        (ROW | {"choices": ["one"]}, "train.jsonl:2: 1 choices"),
        (ROW | {"choices": "one"}, "list of texts, not str"),
        (ROW | {"choices": ["one", None]}, "are texts"),
        (ROW | {"context": None}, "no known form|are texts"),
        ({"text": "x"}, r"train.jsonl:2: no known form \(text\)"),
        ([1], "a row is an object"),
        ({"question": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"}, "answerKey 'C'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(load_files, row, message):
    with pytest.raises(DataError, match=message):
        load_files({"train.jsonl": f"{json.dumps(ROW)}\n{json.dumps(row)}\n"})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.jsonl": json.dumps(ROW)[:-4]}, r"train.jsonl:1:\d+: broken JSON"),
        ({"train.json": json.dumps(ROW)}, "holds a list of objects"),
        ({"train.tsv": "a\tb\n"}, "train.tsv:1: 2 columns; CODAH has"),
        ({"train.csv": "sent1,ending0,ending1,label\na,b\n"}, "train.csv:2: another number of fields"),
        ({"train.csv": "sent1,ending0,ending1,label\na,b,c,0,7\n"}, "train.csv:2: another number of fields"),
    ],
)
def test_damaged_files(load_files, files, message):
    with pytest.raises(DataError, match=message):
        load_files(files)


def test_exactly_one_built_in_choice_is_true():
    """By the judge of the microworld, which replays the story."""
    questions = {
        "place": "Where",
        "person": "Where",
        "colour": "What colour",
        "size": "How large",
        "number": "How many",
    }
    for row in choice_examples(40, seed=3):
        truths = [true_in(row["context"], choice) for choice in row["choices"]]
        assert truths == [number == row["label"] for number in range(4)], row
        assert len(set(row["choices"])) == 4
    assert set(questions) == set(ASPECTS)


def true_in(story, statement):
    """Whether any question about the story has this statement as its true answer."""
    from hftoolkit.data.microworld import retell
    from hftoolkit.data.microworld.facts import facts_of

    facts = facts_of(retell(story, complete=False).world)
    prompts = (f"{story}\nQuestion: {fact.question}\nAnswer:" for fact in facts)
    return any(judge_answer(prompt, statement) == 1.0 for prompt in prompts)


def test_built_in_choices_do_not_give_themselves_away():
    splits = {split: choice_examples(400, split=split) for split in ("train", "validation")}
    from datasets import Dataset

    scores = baseline_scores(*(Dataset.from_list(rows) for rows in splits.values()))
    chance, deviation = 0.25, (0.25 * 0.75 / 400) ** 0.5
    for name in ("majority", "longest", "choices_only"):
        assert abs(scores[name]["eval_accuracy"] - chance) < 4 * deviation, name
    assert not {row["context"] for row in splits["train"]} & {row["context"] for row in splits["validation"]}


@pytest.fixture
def rows(load_files):
    more = [ROW | {"choices": ["a", "b", "c", "d " * 30], "label": 3, "context": "x " * 30}]
    questions = load_files({"train.jsonl": "\n".join(map(json.dumps, [ROW, *more]))})["train"]
    tokenizer = train_tokenizer("wordpiece", ["The lamp fell. It broke. It sang. a b c d x"], vocab_size=100)
    return pair_choices(questions, tokenizer, max_length=40), tokenizer


def test_rows_are_pairs_and_cuts_are_counted(rows):
    rows, tokenizer = rows
    assert tokenizer.decode(rows[0]["input_ids"][1]) == "[CLS] the lamp fell. [SEP] it sang. [SEP]"
    assert [len(row["input_ids"]) for row in rows] == [2, 4]
    assert [len(ids) for ids in rows[1]["input_ids"]] == [34, 34, 34, 40]
    assert describe_rows(rows)["choices_cut"] == 1
    with pytest.raises(DataError, match="max_length 4 leaves no room"):
        pair_choices(rows, tokenizer, max_length=4)


def test_choices_that_fill_a_batch_are_marked(rows):
    rows, tokenizer = rows
    batch = ChoiceCollator(tokenizer)([{k: v for k, v in row.items() if k != "choices_cut"} for row in rows])
    assert batch["input_ids"].shape == (2, 4, 40) and batch["labels"].tolist() == [0, 3]
    assert batch["choice_mask"].tolist() == [[True, True, False, False], [True] * 4]
    assert batch["input_ids"][0, 2].equal(batch["input_ids"][0, 0])


@pytest.mark.realdata
def test_real_files(real_data):
    folder = real_data / "multiple_choice"
    numbers = {"hellaswag_val_1000": 1000, "piqa_train": 16113, "openbookqa_train": 4957, "arc_easy_train": 2251}
    for name, number in numbers.items():
        train = load_choices(ExampleArguments(dataset=str(folder / f"{name}.jsonl.gz")), validation_fraction=0)[
            "train"
        ]
        assert len(train) == number, name
    codah = load_choices(ExampleArguments(dataset=str(folder / "codah/fold_0")))
    assert {split: len(part) for split, part in codah.items()} == {"train": 1665, "validation": 556, "test": 555}
    everything = load_choices(ExampleArguments(dataset=str(folder / "codah/full_data.tsv")), validation_fraction=0)
    assert len(everything["train"]) == 2776


STORY = {f"InputSentence{n}": word for n, word in enumerate(["The", "lamp", "fell", "down."], start=1)}
STORY |= {"RandomFifthSentenceQuiz1": "It sang.", "RandomFifthSentenceQuiz2": "It broke.", "AnswerRightEnding": "2"}


def test_story_cloze_counts_its_endings_from_one():
    names = {"RandomFifthSentenceQuiz": "sentence_quiz", "InputSentence": "input_sentence_"}
    hub = {"answer_right_ending": 2}
    for key, value in STORY.items():
        for own, other in names.items():
            if key.startswith(own):
                hub[key.replace(own, other)] = value
    for row in (STORY, hub):
        found = check_choices(row, "1", "here")
        assert found["context"] == "The lamp fell down."
        assert found["choices"][found["label"]] == "It broke."
    with pytest.raises(DataError, match="here: the label 2 is none"):
        check_choices(STORY | {"AnswerRightEnding": "3"}, "1", "here")


def test_race_articles_hold_several_questions(load_files):
    article = {"article": "The lamp fell.", "questions": ["Did it break?", "Did it sing?"], "answers": ["B", "A"]}
    article |= {"options": [["No.", "Yes."], ["No.", "Yes.", "Often."]], "id": "high1.txt"}
    rows = load_files({"RACE/train/high/1.txt": json.dumps(article)})["train"]
    assert rows["id"] == ["high1.txt-0", "high1.txt-1"]
    assert rows["context"] == ["The lamp fell. Did it break?", "The lamp fell. Did it sing?"]
    assert rows["label"] == [1, 0]
    with pytest.raises(DataError, match=r"1.txt:1: questions, options and answers"):
        load_files({"RACE/train/high/1.txt": json.dumps(article | {"answers": ["A"]})})
    with pytest.raises(DataError, match="no label"):
        check_choices({"article": "x", "question": "y", "options": ["a", "b"], "answer": ""}, "1", "here")


def test_piqa_has_its_labels_beside_the_questions(load_files):
    rows = [{"goal": f"Goal {n}.", "sol1": "One.", "sol2": "Two."} for n in range(3)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    files = {
        "train.jsonl": text,
        "train-labels.lst": "0\n1\n1\n",
        "valid.jsonl": text,
        "valid-labels.lst": "1\n1\n0\n",
    }
    found = load_files(files | {"tests.jsonl": text})
    assert {split: part["label"][:] for split, part in found.items()} == {"train": [0, 1, 1], "validation": [1, 1, 0]}
    for labels, number in (("0\n1\n", 2), ("0\n1\n1\n0\n", 4)):
        with pytest.raises(DataError, match=f"train.jsonl has 3 rows, but train-labels.lst has {number} labels"):
            load_files(files | {"train-labels.lst": labels})
    with pytest.raises(DataError, match="train.jsonl:2: the label 2 is none of the choices 0 to 1"):
        load_files(files | {"train-labels.lst": "0\n2\n1\n"})
