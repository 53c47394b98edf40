"""Sentence splitting on cases made by hand, and the law that nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.data.sentences import split_lines, split_sentences

CASES = {
    "titles": ("Mr. Hill met Dr. J. Smith. He left.", ["Mr. Hill met Dr. J. Smith.", "He left."]),
    "an abbreviation inside": ("The U.S. Army came.", ["The U.S. Army came."]),
    "an abbreviation at the end": (
        "He lives in the U.S. The town is small.",
        ["He lives in the U.S.", "The town is small."],
    ),
    "for example": ("Fruits, e.g. Apples, are good. Eat!", ["Fruits, e.g. Apples, are good.", "Eat!"]),
    "initials": ("J. K. Rowling wrote it. So do I. The end.", ["J. K. Rowling wrote it.", "So do I.", "The end."]),
    "a decimal": ("It is 3.14. That is pi.", ["It is 3.14.", "That is pi."]),
    "an ellipsis that ends": ("Wait... What? No.", ["Wait...", "What?", "No."]),
    "an ellipsis that goes on": ("Well... he said.", ["Well... he said."]),
    "dots apart": ("It went . . . Then nothing .", ["It went . . .", "Then nothing ."]),
    "a question inside": ('"Why?" asked he. She left.', ['"Why?" asked he.', "She left."]),
    "quotes": ('Then: "Stop!" Bob ran.', ['Then: "Stop!"', "Bob ran."]),
    "curly quotes": ("\u201cHello.\u201d She left.", ["\u201cHello.\u201d", "She left."]),
    "brackets": ("She left. (It rained.) He slept.", ["She left.", "(It rained.)", "He slept."]),
    "WikiText's quotes": ('He said , " Go . " She went .', ['He said , " Go . "', "She went ."]),
    "quote after quote": ('" Yes . " " No . " He left .', ['" Yes . "', '" No . "', "He left ."]),
    "WikiText's numbers": ("It is 3 @.@ 14 @-@ ish . Good .", ["It is 3 @.@ 14 @-@ ish .", "Good ."]),
    "WikiText's titles": (" = Title = \n Text here . More . \n", ["= Title =", "Text here .", "More ."]),
    "a list": ("1. First item. Then more.", ["1. First item.", "Then more."]),
    "a year": ("He was born in 1990. Then he left.", ["He was born in 1990.", "Then he left."]),
    "numbers of things": ("See No. 5 and Fig. 7. Yes.", ["See No. 5 and Fig. 7.", "Yes."]),
    "times": (
        "At 5 p.m. Tuesday he left. He came at 6 a.m. He slept.",
        ["At 5 p.m. Tuesday he left.", "He came at 6 a.m.", "He slept."],
    ),
    "firms": (
        "Apple Inc. Chairman Jobs left. This is Apple Inc. It sells.",
        ["Apple Inc. Chairman Jobs left.", "This is Apple Inc.", "It sells."],
    ),
    "Chinese": (
        "\u4eca\u5929\u597d\u3002\u6211\u4eec\u53bb\uff01",
        ["\u4eca\u5929\u597d\u3002", "\u6211\u4eec\u53bb\uff01"],
    ),
    "no space": ("See example.com now.", ["See example.com now."]),
    "lines": ("a title\n\nA text\r\nof lines", ["a title", "A text", "of lines"]),
    "nothing": (" \n\t\n", []),
}


@pytest.mark.parametrize("case", CASES)
def test_splits(case):
    text, expected = CASES[case]
    assert split_sentences(text) == expected


@given(st.text(alphabet="aB .!?\"'\n)(3\u3002\u2026U", max_size=60))
def test_nothing_but_white_space_is_lost(text):
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)
    assert not any("\n" in sentence for sentence in sentences)


def test_a_long_run_of_marks_takes_no_time():
    assert split_sentences("." * 50_000 + "x") == ["." * 50_000 + "x"]


def test_lines_are_sentences():
    assert split_lines(" Mr. A. B\n\n c ") == ["Mr. A. B", "c"]
