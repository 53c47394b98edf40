"""Documents of the microworld: exact probabilities, splits, determinism, and what n-grams cannot do."""

import hashlib
import math
import re
import subprocess
import sys
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from hftoolkit.data.microworld import (
    CHECK_NATS,
    GENERATOR_VERSION,
    LEXICON,
    SPLITS,
    entropy_report,
    iterate_documents,
    iterate_stories,
    make_documents,
    retell,
    score_document,
    split_of,
    word_categories,
)
from hftoolkit.data.microworld.words import HOURS
from hftoolkit.data.microworld.world import is_reserved_colour, is_reserved_place

COLOUR_INDEX = {colour: index for index, colour in enumerate(LEXICON.colours)}


@pytest.fixture(scope="module")
def stories():
    """Two hundred stories of each split."""
    return {split: list(islice(iterate_stories(split=split), 200)) for split in SPLITS}


def plain(value):
    """People, things and places as words: two readings of a text have different objects."""
    if isinstance(value, tuple):
        return tuple(plain(part) for part in value)
    return value if value is None or isinstance(value, (str, int)) else value.word


def test_score_recomputes_the_probability_from_the_text_alone(stories):
    for split in SPLITS:
        for story in stories[split][:12]:
            assert score_document(story.text) == pytest.approx(story.log_probability, abs=1e-9)


def test_retell_finds_the_same_events_and_state(stories):
    for story in stories["test"][12:24]:
        again = retell(story.text)
        assert [plain(event) for event in again.events] == [plain(event) for event in story.events]
        for ours, theirs in zip(again.world.people, story.world.people, strict=True):
            for name in ("word", "female", "role", "place", "mood", "felt"):
                assert plain(getattr(ours, name)) == plain(getattr(theirs, name))
        for ours, theirs in zip(again.world.things, story.world.things, strict=True):
            for name in ("word", "count", "place", "holder", "colour", "size", "broken", "locked", "eaten", "moved"):
                assert plain(getattr(ours, name)) == plain(getattr(theirs, name))


def test_retell_reads_a_beginning(stories):
    story = stories["train"][0]
    beginning = retell(" ".join(story.sentences[:5]), complete=False)
    assert [plain(event) for event in beginning.events] == [plain(event) for event in story.events[:5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-1], "ends with"),
        (lambda text: text.replace("It was", "It is", 1), "sentence 1|ends with"),
        (lambda text: "", "ends with"),
        (lambda text: "At last it was ten.", "sentences"),
        (lambda text: text + " " + text, "sentence"),
    ],
)
def test_score_refuses_texts_outside_the_language(stories, change, message):
    with pytest.raises(ValueError, match=message):
        score_document(change(stories["train"][0].text))


def test_score_refuses_a_wrong_fact(stories):
    """What follows from the state cannot be said otherwise: somebody in the cellar is not still in the attic."""
    story, index = next(
        (story, index)
        for story in stories["train"]
        for index, event in enumerate(story.events)
        if event.kind == "stay"
    )
    true = story.sentences[index]
    wrong = next(place.where for place in story.world.topic.places if place.word not in true)
    sentences = [*story.sentences[:index], re.sub(r"(in|on) the \w+", wrong, true)]
    with pytest.raises(ValueError, match=f"sentence {index + 1} "):
        retell(" ".join(sentences), complete=False)


def test_the_split_is_written_in_the_text(stories):
    for split in SPLITS:
        assert {split_of(story.text) for story in stories[split]} == {split}


def test_any_text_gives_every_split_four_hours():
    """The claim behind CHECK_NATS: the hour alone decides, and each split has four of the twelve."""
    for start in ("", "It was", "Tom went to the hall. Then the clock struck"):
        hours = [split_of(f"{start} {hour}.") for hour in HOURS]
        assert Counter(hours) == dict.fromkeys(SPLITS, 4)
    assert math.log(3) == CHECK_NATS


def reserved_pairs(story):
    """How many forbidden pairs of thing and colour, or name and place, the story contains."""
    found = 0
    for event in story.events:
        if event.kind in ("describe", "paint") and event.value in COLOUR_INDEX:
            found += is_reserved_colour(event.thing.noun, COLOUR_INDEX[event.value])
        if event.kind in ("meet", "go", "carry", "visit", "seek") and event.actor.index is not None:
            found += is_reserved_place(event.actor.index, event.value)
    return found


def test_held_out_combinations_occur_in_test_only(stories):
    counts = {split: [reserved_pairs(story) for story in stories[split]] for split in SPLITS}
    assert sum(counts["train"]) == sum(counts["validation"]) == 0
    assert 0.3 < sum(count > 0 for count in counts["test"]) / 200 < 0.6  # "two in five" in documents.py


def test_same_seed_same_documents():
    assert make_documents(20, seed=3) == make_documents(30, seed=3)[:20]
    assert list(islice(iterate_documents(3, "train", start=15), 5)) == make_documents(20, seed=3)[15:]
    assert make_documents(5, seed=3) != make_documents(5, seed=4)
    assert make_documents(0) == []


def test_change_detector():
    """Not a proof of anything: if this fails on purpose, count GENERATOR_VERSION up and pin the new hash."""
    text = "\n".join(document["text"] for split in SPLITS for document in make_documents(200, split=split))
    assert (GENERATOR_VERSION, hashlib.sha256(text.encode()).hexdigest()[:16]) == (1, "270f96e557bf3539")


@pytest.mark.parametrize(
    "arguments", [{"num_documents": -1}, {"num_documents": 2.0}, {"seed": -1}, {"seed": "0"}, {"split": "dev"}]
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        make_documents(**{"num_documents": 1} | arguments)


def test_documents_are_readable_and_of_varied_length(stories):
    lengths = sorted(len(story.text.split()) for story in stories["train"])
    assert lengths[10] < 70 and 90 < lengths[100] < 150 and lengths[190] < 210
    for story in stories["train"]:
        assert not re.search(r"  | [.,?]|\ba [aeiou]|\b(\w+) \1\b", story.text), story.text


def test_vocabulary_is_closed_but_for_names():
    words = Counter(word for document in make_documents(2000, seed=1) for word in re.findall(r"\w+", document["text"]))
    lower = [word for word in words if word.islower()]
    names = [word for word in words if word.istitle() and word.lower() not in words]
    assert 450 < len(lower) < 700
    assert sum(words[name] < 10 for name in names) > 500  # the long tail


def encode(train, held_out):
    """Word ids of two lists of texts, each text between two starts and an end; words seen once in train are unknown."""
    texts = [
        [re.findall(r"\w+|[^\w\s]", document["text"]) for document in documents] for documents in (train, held_out)
    ]
    counts = Counter(word for text in texts[0] for word in text)
    ids = {word: number for number, word in enumerate((word for word in counts if counts[word] > 1), start=3)}
    encoded = [[[0, 0, *(ids.get(word, 1) for word in text), 2] for text in part] for part in texts]
    return *(np.array([number for text in part for number in text]) for part in encoded), len(ids) + 3


def ngram_nats(train, held_out, size):
    """Cross-entropies of interpolated unigram, bigram and trigram models (Witten-Bell), in nats.

    The spelling of an unknown word is free, which favours the n-grams.
    """
    real = held_out[2:] > 0
    probability, nats = np.full(real.sum(), 1 / size), []
    for order in range(3):
        seen, asked = (sum(ids[2 - n : len(ids) - n] * size**n for n in range(order + 1)) for ids in (train, held_out))
        grams, counts = np.unique(seen[train[2:] > 0], return_counts=True)
        contexts, index = np.unique(grams // size, return_inverse=True)
        totals, types = np.bincount(index, weights=counts), np.bincount(index)
        asked = asked[real]
        gram, context = np.searchsorted(grams, asked), np.searchsorted(contexts, asked // size)
        gram, context = np.minimum(gram, len(grams) - 1), np.minimum(context, len(contexts) - 1)
        count = np.where(grams[gram] == asked, counts[gram], 0)
        mixed = (count + types[context] * probability) / (totals[context] + types[context])
        probability = np.where(contexts[context] == asked // size, mixed, probability)
        nats.append(-np.log(probability).sum())
    return nats


def test_a_trigram_model_does_not_solve_it():
    """Measured per word: unigram 6.0, bigram 3.1, trigram 2.6, true 1.0 nats."""
    train, held_out = make_documents(3000), make_documents(200, split="validation")
    report = entropy_report(held_out)
    nats = ngram_nats(*encode(train, held_out))
    unigram, bigram, trigram = (total / report["num_words"] for total in nats)
    assert unigram > bigram + 1 > trigram + 1
    assert trigram > report["nats_per_word"] + 1.2
    assert 0.8 < report["nats_per_word"] < 1.3


def test_validation_has_the_entropy_of_train():
    """Same distribution but for the check word: the means differ by sampling only (standard error 1.3 nats)."""
    train, validation = (entropy_report(make_documents(1500, split=split)) for split in ("train", "validation"))
    assert train["nats_per_document"] == pytest.approx(validation["nats_per_document"], abs=6)
    assert train["nats_per_word"] == pytest.approx(validation["nats_per_word"], rel=0.02)


def test_entropy_report_adds_up():
    documents = make_documents(10)
    report = entropy_report(documents)
    assert report["nats"] == pytest.approx(-sum(document["log_probability"] for document in documents))
    assert report["nats_per_word"] * report["num_words"] == pytest.approx(report["nats"])
    assert report["nats_per_character"] * sum(len(d["text"]) for d in documents) == pytest.approx(report["nats"])
    assert report["reachable_nats"] == pytest.approx(report["nats"] + 10 * CHECK_NATS)
    with pytest.raises(ValueError, match="at least one"):
        entropy_report([])


def test_fast():
    """A word takes no longer than 45 rounds of a trivial loop (measured: 15), whatever the machine.

    The least of three ratios, each of two measurements in turn: other programs can only slow one of them down.
    """
    make_documents(300)
    ratios = []
    for seed in (1, 2, 3):
        start = time.process_time()
        total = 0
        for i in range(1_000_000):
            total += i & 7
        seconds_per_round = (time.process_time() - start) / 1_000_000
        start = time.process_time()
        num_words = sum(len(document["text"].split()) for document in make_documents(500, seed=seed))
        ratios.append((time.process_time() - start) / num_words / seconds_per_round)
    assert min(ratios) < 45


def test_imports_no_heavy_package():
    code = "import sys, hftoolkit.data.microworld; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_word_categories_hold_words_of_the_documents():
    words = set(re.findall(r"\w+", " ".join(document["text"] for document in make_documents(2000))))
    for members in word_categories().values():
        assert len(set(members)) == len(members)
        assert sum(member in words for member in members) >= 0.9 * len(members)
