"""GPT-1's text cleaning: literals worked out from its rules, and laws."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.tokenization import text_standardize


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Wait\u2014what?!", "Wait - what ? !"),
        ("so\u2026 it\u00b4s \u2013 \u2015", "so... it's - -"),
        ("a--b---c", "a -- b --- c"),
        ("x+-+y", "x + - + y"),
        ('"(yes)", [no]{or}|c\\d/e*_f', '" ( yes ) " , [ no ] { or } | c \\ d / e * _ f'),
        ("~!!;;?", "~ !! ;; ?"),
        ("  one\t two \n\n \n three  ", "one two \n three"),
        ("Mr. Smith's: 3.5% & <b>", "Mr. Smith's: 3.5% & <b>"),
        ("a\r\nb", "a \n b"),
        ("", ""),
    ],
)
def test_literals(text, cleaned):
    assert text_standardize(text) == cleaned


@given(st.text())
def test_laws(text):
    cleaned = text_standardize(text)
    assert cleaned == cleaned.strip()
    assert not re.search(r"[^\S\n]{2,}|[\u2013\u2014\u2015\u2026\u00b4]", cleaned)
    assert re.sub(r"\s", "", cleaned) == re.sub(
        r"\s", "", re.sub("[\u2013\u2014\u2015]", "-", text).replace("\u2026", "...").replace("\u00b4", "'")
    ), "only white space is added or taken away"
