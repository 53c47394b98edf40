"""The lexicon: kinds of things and places, topics, and how frequent everything is.

A topic is a site (a house, a harbour) with its places, roles and things. A Lexicon gathers all topics, names and
adjectives, and says how long documents are; a smaller Lexicon makes a smaller language (see the tests).
"""

from dataclasses import dataclass, field

from .choices import Table, zipf
from .morphology import plural
from .words import (
    BREAKABLES,
    COLOURS,
    DAY_PARTS,
    EDIBLES,
    FEMALE_NAMES,
    GLAD_MOODS,
    LOCKABLES,
    MALE_NAMES,
    SAD_MOODS,
    SEASONS,
    SIZES,
    STANDING,
    TOPICS,
    TRAITS,
    WEATHERS,
)

NARRATION_WEIGHTS = {  # of the sentences that the state allows; narration.py changes those of meet and find
    "meet": 1.0,
    "find": 1.4,
    "describe": 2.2,
    "recall": 1.6,
    "stay": 0.4,
    "compare": 2.0,
    "count": 0.3,
    "carry_list": 0.6,
    "ask": 1.8,
    "act": 8.0,
}
ACTION_WEIGHTS = {  # of the actions that the scene allows
    "go": 0.25,
    "seek": 1.0,
    "visit": 1.0,
    "take": 3.0,
    "put": 0.8,
    "carry": 0.8,
    "give": 3.0,
    "steal": 0.8,
    "paint": 1.2,
    "lock": 1.5,
    "smash": 1.2,
    "mend": 4.0,
    "eat": 0.8,
    "feel": 10.0,
    "show": 0.35,
    "fade": 0.15,
    "thank": 4.0,
    "greet": 0.3,
    "reflect": 0.06,
}


BREAKABLE, EDIBLE, LOCKABLE, PAINTABLE = 1, 2, 4, 8  # uses of a thing; a number can hold several


class Noun:
    """A kind of thing: its two forms, how it rests ("stood" or "lay"), and what can be done with it."""

    __slots__ = ("index", "plural", "rests", "uses", "word")

    def __init__(self, word, index):
        self.word, self.index, self.plural = word, index, plural(word)
        self.rests = "stood" if word in STANDING else "lay"
        self.uses = EDIBLE if word in EDIBLES else PAINTABLE
        self.uses |= (BREAKABLE if word in BREAKABLES else 0) | (LOCKABLE if word in LOCKABLES else 0)


class Place:
    """A place, with its preposition: "in the cellar", "on the pier"."""

    __slots__ = ("index", "the", "where", "word")

    def __init__(self, word, preposition, index):
        self.word, self.index = word, index
        self.the = f"the {word}"
        self.where = f"{preposition} the {word}"


@dataclass(frozen=True)
class Topic:
    """A site with the places, roles and things that a document about it can mention."""

    word: str
    site: str
    places: tuple
    roles: tuple
    things: tuple


def build_topics(topics):
    """Make Topic objects of the entries of TOPICS; indices count on from topic to topic."""
    built, places, things = [], 0, 0
    for word, (site, place_list, role_list, thing_list) in topics.items():
        pairs = [entry.split() for entry in place_list.split(", ")]
        nouns = thing_list.split(", ")
        built.append(
            Topic(
                word,
                site,
                tuple(Place(name, preposition, places + i) for i, (preposition, name) in enumerate(pairs)),
                tuple(role_list.split(", ")),
                tuple(Noun(noun, things + i) for i, noun in enumerate(nouns)),
            )
        )
        places, things = places + len(pairs), things + len(nouns)
    return tuple(built)


def document_lengths():
    """Sentences between the introduction of the first person and the close: a few short, most 9 to 25."""
    lengths = range(2, 29)
    return Table(lengths, [0.8 if n < 6 else 2.0 if n < 9 else 4.0 if n < 24 else 2.0 for n in lengths])


@dataclass(frozen=True)
class Lexicon:
    """All words and their frequencies. Change fields with `dataclasses.replace` for another language."""

    topics: tuple = build_topics(TOPICS)
    weathers: tuple = WEATHERS
    seasons: tuple = SEASONS
    day_parts: tuple = DAY_PARTS
    female_names: tuple = FEMALE_NAMES
    male_names: tuple = MALE_NAMES
    coined_share: float = 0.3  # of the names; they come from a syllable grammar (names.py)
    traits: Table = zipf(TRAITS)
    colours: tuple = COLOURS
    sizes: Table = Table(SIZES)
    glad_moods: tuple = GLAD_MOODS
    sad_moods: tuple = SAD_MOODS
    plural_share: float = 0.25  # of the things
    lengths: Table = document_lengths()
    closings: tuple = ("Then the clock struck", "Everyone went home at", "At last it was", "The day ended at")
    max_people: int = 4
    max_things: int = 6
    narration_weights: dict = field(default_factory=lambda: NARRATION_WEIGHTS)
    action_weights: dict = field(default_factory=lambda: ACTION_WEIGHTS)
    cache: dict = field(init=False, default_factory=dict, compare=False, repr=False)  # tables made on demand


LEXICON = Lexicon()


def word_categories(lexicon: Lexicon = LEXICON) -> dict[str, list[str]]:
    """Words that belong together: what good word vectors should find out.

    Example:
        {"colour": ["red", "blue", ...], "mood": ["happy", ...], "place": ["kitchen", ...], ...}
    """
    return {
        "colour": list(lexicon.colours),
        "size": list(lexicon.sizes.options),
        "mood": list(lexicon.glad_moods + lexicon.sad_moods),
        "trait": list(lexicon.traits.options),
        "place": [place.word for topic in lexicon.topics for place in topic.places],
        "role": [role for topic in lexicon.topics for role in topic.roles],
        "thing": [noun.word for topic in lexicon.topics for noun in topic.things],
        "female name": list(lexicon.female_names),
        "male name": list(lexicon.male_names),
    }
