"""Stories: sentences with the events and the state of the world behind them.

`tell` walks through the grammar (narration.py, dialogue.py, actions.py) with a source that draws, `retell` with one
that follows a given text. Which split a document belongs to can be read off its last word: see documents.py.
"""

import re
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import NamedTuple
from zlib import crc32

from .actions import act
from .choices import Draw, derivations
from .dialogue import answer
from .lexicon import LEXICON, Lexicon
from .narration import meet, open_document, possible_narration
from .words import HOURS
from .world import Event, World

SPLITS = ("train", "validation", "test")
FRAME = 3  # sentences around the body: opening, first person, close
SENTENCE_END = re.compile(r"(?<=\.) ")


class Story(NamedTuple):
    """A document with what lies behind it: `events[i]` is what `sentences[i]` tells, `world` the state at the end."""

    sentences: list
    events: list
    world: World
    log_probability: float

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def hours_for(split, text):
    """The hours that can end a document of this split which begins with `text`."""
    return HOURS[(SPLITS.index(split) - crc32(text.encode())) % len(SPLITS) :: len(SPLITS)]


def split_of(text: str) -> str:
    """Name the split a document belongs to.

    Raises:
        ValueError: the text does not end with an hour and a full stop.
    """
    start, _, hour = text.removesuffix(".").rpartition(" ")
    if hour not in HOURS or not text.endswith("."):
        raise ValueError(f"not a document of the microworld: it ends with {text[-20:]!r} instead of an hour")
    return SPLITS[(crc32(start.encode()) + HOURS.index(hour)) % len(SPLITS)]


def write_body(world, source):
    """Return the next sentence of the body and its event."""
    if world.question is not None:
        return answer(world, source)
    return source.draw(possible_narration(world, act), hidden=True)(world, source)


def write_close(world, source, begun, split):
    """Return the last sentence, whose hour makes a text that begins with `begun` one of this split."""
    closing = source.pick(world.lexicon.closings)
    hour = source.pick(hours_for(split, f"{begun} {closing}"))
    return f"{closing} {hour}.", Event("close")


def sentence_writers(split, sentences, num_sentences):
    """Yield the function (world, source) -> (sentence, event) of each sentence; `sentences` are those written so far."""
    yield open_document
    yield meet
    for _ in range(num_sentences - FRAME):
        yield write_body
    yield lambda world, source: write_close(world, source, " ".join(sentences), split)


def tell(source, split: str = "train", lexicon: Lexicon = LEXICON) -> Story:
    """Write one document; `source` (choices.py) makes every choice."""
    num_sentences = source.draw(lexicon.lengths, hidden=True) + FRAME
    world = World(lexicon, split == "test", num_sentences)
    sentences, events = [], []
    for write in sentence_writers(split, sentences, num_sentences):
        sentence, event = write(world, source)
        world.apply(event)
        sentences.append(sentence)
        events.append(event)
    return Story(sentences, events, world, source.log_probability)


def begin(source, split: str, num_sentences: int, lexicon: Lexicon = LEXICON) -> Story:
    """Write the first sentences of a document: so many, or one more if the last would leave a question open."""
    world = World(lexicon, split == "test", num_sentences + 1 + FRAME)
    sentences, events = [], []
    for write in sentence_writers(split, sentences, num_sentences + 1 + FRAME):
        if len(sentences) >= num_sentences and world.question is None:
            break
        sentence, event = write(world, source)
        world.apply(event)
        sentences.append(sentence)
        events.append(event)
    return Story(sentences, events, world, source.log_probability)


def retell(text: str, complete: bool = True, lexicon: Lexicon = LEXICON) -> Story:
    """Read a document: find the choices that wrote it, and with them its events, state and log probability.

    Args:
        text: a document, or with `complete=False` its first sentences (at least one).
        complete: False for the beginning of a document. Its log probability is that of the sentences in the
            test split, without the length and the close.

    Raises:
        ValueError: the grammar does not write this text; the message names the first sentence that does not fit.
    """
    parts = SENTENCE_END.split(text)
    log_probability, split, num_sentences = 0.0, "test", len(parts) + FRAME
    if complete:
        split, num_sentences = split_of(text), len(parts)
        if num_sentences - FRAME not in lexicon.lengths.options:
            raise ValueError(f"not a document of the microworld: it has {num_sentences} sentences")
        log_probability = lexicon.lengths.logs[lexicon.lengths.options.index(num_sentences - FRAME)]
    world = World(lexicon, split == "test", num_sentences)
    sentences, events = [], []
    for part, write in zip(parts, sentence_writers(split, sentences, num_sentences), strict=complete):
        event, logs = read_sentence(world, write, part, len(sentences) + 1)
        world.apply(event)
        sentences.append(part)
        events.append(event)
        log_probability += logs
    return Story(sentences, events, world, log_probability)


def read_sentence(world, write, sentence, number):
    """Return the event a sentence tells and its log probability: the one way in which `write` can write it."""
    readings = [
        (event, logs)
        for (written, event), logs in derivations(lambda source: write(world, source), sentence)
        if written == sentence
    ]
    if not readings:
        raise ValueError(f"not a document of the microworld: sentence {number} cannot stand there: {sentence!r}")
    assert len(readings) == 1, f"the grammar is ambiguous: {sentence!r}"
    return readings[0]


def check_arguments(split, **counts):
    """Refuse an unknown split and anything but integers >= 0.

    Raises:
        ValueError: names the argument, its value and what is allowed.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    for name, value in counts.items():
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} must be an integer >= 0, got {value!r}")


def document_random(seed: int, split: str, index: int):
    """The random numbers of one document. Every document has its own, so any of them can be made alone."""
    return Random(((seed * len(SPLITS) + SPLITS.index(split)) << 40) + index).random


def iterate_stories(
    seed: int = 0, split: str = "train", start: int = 0, lexicon: Lexicon = LEXICON
) -> Iterator[Story]:
    """Yield the stories of a split without end, from number `start` on.

    Raises:
        ValueError: `split` is unknown, or `seed` or `start` is negative or not an integer.
    """
    check_arguments(split, seed=seed, start=start)
    for index in count(start):
        yield tell(Draw(document_random(seed, split, index)), split, lexicon)
