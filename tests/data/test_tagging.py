"""Tagged sentences: files are read exactly, schemes become IOB2 without changing an entity, mistakes have a place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.tagging import describe_sentences, load_tagged, to_iob2
from hftoolkit.errors import DataError


@pytest.fixture
def load_files(write):
    def load(files, validation_fraction=0.0, **options):
        files = {"train.conll": files} if isinstance(files, str) else files
        arguments = ExampleArguments(dataset=str(write(files)))
        return load_tagged(arguments, validation_fraction=validation_fraction, **options)

    return load


def read(load, text, **options):
    train = load(text, **options)["train"]
    return [list(zip(row["tokens"], row["tags"], strict=True)) for row in train]


EXPECTED = [[("Anna", "B-PER"), ("Lee", "I-PER"), ("left", "O")], [("Rome", "B-LOC")]]


@pytest.mark.parametrize(
    "text",
    [
        "Anna\tB-PER\nLee\tI-PER\nleft\tO\n\nRome\tB-LOC\n",
        "\ufeffAnna B-PER\r\nLee I-PER\r\nleft O\r\n\r\n\r\nRome B-LOC",
        "\n-DOCSTART- -X- O O\n\nAnna NNP I-NP I-PER\nLee NNP I-NP I-PER\nleft VBD O O\n-DOCSTART- -X- O O\nRome N O I-LOC\n",
        "Anna B-PER\nLee E-PER\nleft O\n \t\nRome S-LOC\n",
        "Anna I-PER\nLee I-PER\nleft O\n\ufeff\nRome I-LOC\n",
        "Anna  I-PER\nLee  I-PER\nleft O\n\nRome I-LOC\n\n",
    ],
    ids=["tabs", "spaces, BOM, CRLF", "CoNLL-2003", "BIOES", "a mark in the middle", "IOB1"],
)
def test_forms_of_the_same_sentences(load_files, text):
    assert read(load_files, text) == EXPECTED


def test_columns(load_files):
    text = "1\tAnna\tanna\tPROPN\n2\tleft\tleave\tVERB\n"
    expected = [[("Anna", "PROPN"), ("left", "VERB")]]
    assert read(load_files, text, task="pos", word_column=1) == expected
    assert read(load_files, text, task="pos", word_column=-3, tag_column=-1) == expected


def test_conllu(load_files):
    text = "1\tAnna\tanna\tPROPN\n2\tleft\tleave\tVERB\n"
    universal = {"train.conllu": f"# text = Anna left\n1-2\tAnnaleft\t_\t_\n{text}2.1\tx\tx\tX\n"}
    assert read(load_files, universal, task="pos") == [[("Anna", "PROPN"), ("left", "VERB")]]


def test_json_lines(load_files):
    lines = [{"tokens": [word for word, _ in row], "tags": [tag for _, tag in row]} for row in EXPECTED]
    assert read(load_files, {"train.jsonl": "\n\n".join(map(json.dumps, lines))}) == EXPECTED


def test_words_that_hold_white_space_stay_whole(load_files):
    assert read(load_files, "New\u00a0York\u2028 B-LOC\n") == [[("New\u00a0York\u2028", "B-LOC")]]
    assert read(load_files, "New York\tB-LOC\n") == [[("New York", "B-LOC")]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("Anna\tB-PER\n\nLee\n", r"train.conll:3: 1 columns, but the rows before have 2: 'Lee'"),
        ("Anna B-PER O\n", None),
        ("a B-PER x\n", r"train.conll:1: the tag 'x' is of no known scheme"),
        ("Anna\n", r"train.conll:1: 1 columns.*|train.conll:1: word and tag are both in column 0"),
        ("Anna O\nleft PER\n", r"train.conll:2: the tag 'PER' is of no known scheme"),
        ("Anna O\nleft b-PER\n", r"train.conll:2: the tag 'b-PER'"),
        ("Anna O\nleft B-\n", r"train.conll:2: the tag 'B-'"),
        ("Anna\tO\n\tO\n", r"train.conll:2: an empty word"),
        ("\n\n", "the train data hold no examples"),
        ({"train.jsonl": '{"tokens": ["a", "b"], "tags": ["O"]}'}, "train.jsonl:1: 2 words, but 1 tags"),
        ({"train.jsonl": '\n{"tokens": ["a"], "tags": [0]}'}, "train.jsonl:2: a line is"),
        ({"train.jsonl": '{"tokens": ["a"], "tags"'}, r"train.jsonl:1:\d+: broken JSON"),
        ({"train.jsonl": "[1]"}, "train.jsonl:1: a line is"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(load_files, files, message):
    if message is None:  # the last column is the tag
        assert read(load_files, files) == [[("Anna", "O")]]
        return
    with pytest.raises(DataError, match=message):
        load_files(files)


def test_a_column_that_is_not_there(load_files):
    with pytest.raises(DataError, match="2 columns, so there is no tag_column 2"):
        load_files("Anna O\n", tag_column=2)


def entities(tags):
    """(first, last, type) by the BIOES letters, the simplest reading."""
    found, start = set(), None
    for place, tag in enumerate(tags):
        if tag[0] in "BS":
            start = place
        if tag[0] in "ES":
            found.add((start, place, tag[2:]))
    return found


@st.composite
def tagged(draw):
    """Entities and gaps as (type or None, length)."""
    return draw(st.lists(st.tuples(st.sampled_from([None, "PER", "LOC"]), st.integers(1, 3)), max_size=6))


@given(tagged())
def test_every_scheme_becomes_the_same_iob2(parts):
    bioes, iob1, iob2, before = [], [], [], None
    for kind, length in parts:
        if kind is None:
            for tags in (bioes, iob1, iob2):
                tags.extend(["O"] * length)
        else:
            letters = "S" if length == 1 else "B" + "I" * (length - 2) + "E"
            bioes.extend(f"{letter}-{kind}" for letter in letters)
            iob1.extend([f"{'B' if before == kind else 'I'}-{kind}"] + [f"I-{kind}"] * (length - 1))
            iob2.extend([f"B-{kind}"] + [f"I-{kind}"] * (length - 1))
        before = kind
    assert to_iob2(bioes) == to_iob2(iob1) == to_iob2(iob2) == iob2
    starts = {place for place, tag in enumerate(iob2) if tag[0] == "B"}
    assert starts == {first for first, _, _ in entities(bioes)}


def test_converted_tags_are_counted(load_files):
    train = load_files("Anna I-PER\nLee I-PER\nleft O\n")["train"]
    counts = {"sentences": 1, "words": 3, "tags_converted": 1, "different_tags": 3}
    assert describe_sentences(train) == counts
    assert "tags_converted" not in describe_sentences(load_files("Anna\tB-PER\n")["train"])


def test_built_in_sentences():
    splits = load_tagged(ExampleArguments(builtin_examples=50))
    assert {split: len(part) for split, part in splits.items()} == {"train": 50, "validation": 10, "test": 10}
    with pytest.raises(DataError, match="entity tags only"):
        load_tagged(ExampleArguments(), task="pos")


@pytest.mark.realdata
def test_real_files(real_data):
    splits = load_tagged(ExampleArguments(dataset=str(real_data / "ner")))
    counts = {split: describe_sentences(part) for split, part in splits.items()}
    assert counts["train"]["sentences"] == 3394 and counts["validation"]["sentences"] == 1009
    assert counts["train"]["words"] == 62730 and counts["train"]["different_tags"] == 13
    assert [counts[split].get("tags_converted", 0) for split in splits] == [0, 1]  # one I- without its B-
