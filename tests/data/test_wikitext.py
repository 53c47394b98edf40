"""WikiText's files: one long text in which titles of level one begin the articles."""

import pytest

LOBSTER = [
    " = Homarus gammarus = ",
    " ",
    " A lobster . ",
    " ",
    " = = Description = = ",
    " ",
    " The formula is ",
    " = 1 rad / s and k = ",
    " not a title . ",
    " ",
    " = x = ",
    " nor is this . ",
]
ROAD = [" = M @-@ 82 ( highway ) = ", " ", " = = = Deep = = = ", " ", " A road . "]
TEXT = "\n".join([" ", *LOBSTER, " ", *ROAD, " ", " ", ""])
OPTIONS = {"document_separator": "wikitext", "validation_fraction": 0.0}


def test_articles(write, load):
    """A level-one heading between blank lines begins a document; headings of sections and formulas stay in it."""
    folder = write({"a.tokens": TEXT, "b.tokens": "before any title\n" + TEXT})
    expected = ["\n".join(LOBSTER), "\n".join(ROAD)]
    assert load(folder / "a.tokens", **OPTIONS) == {"train": expected}
    assert load(folder / "b.tokens", **OPTIONS) == {"train": ["before any title", *expected]}


def test_the_end_of_a_file(write, load):
    folder = write({"a.tokens": " = A = \n", "b.tokens": " = A = \n\n = B = \n\nb"})
    assert load(folder / "a.tokens", **OPTIONS) == {"train": [" = A = "]}
    assert load(folder / "b.tokens", **OPTIONS) == {"train": [" = A = ", " = B = \n\nb"]}


def test_long_articles_are_shortened(write, load):
    folder = write({"a.tokens": TEXT[2:]})
    texts = load(folder / "a.tokens", max_document_characters=30, **OPTIONS)["train"]
    assert texts == ["\n".join(LOBSTER)[:30], "\n".join(ROAD)[:30]]


@pytest.mark.realdata
def test_wikitext_2(real_data, load):
    """60 articles each, as Merity et al. 2016, https://arxiv.org/abs/1609.07843, Table 1, count them."""
    for name, first in (("wiki.valid.raw", " = Homarus gammarus = \n"), ("wiki.test.raw", " = Robert Boulter = \n")):
        path = real_data / "lm" / "wikitext-2-raw" / name
        articles = load(path, **OPTIONS)["train"]
        assert len(articles) == 60 and articles[0].startswith(first)
        assert "".join("".join(articles).split()) == "".join(path.read_text(encoding="utf-8").split())
