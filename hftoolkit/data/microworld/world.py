"""The state of the world behind a document: people, things, who has what, who is where, and what an event changes.

A sentence of the grammar comes with an Event; `World.apply` is the only place where the state changes.
"""

from typing import NamedTuple

PARTNER_EVENTS = ("give", "steal", "thank", "greet")
COLOUR_STEP, RESERVED_COLOURS, RESERVED_PLACES = 3, 7, 9


class Event(NamedTuple):
    """What a sentence tells. Fields that the kind of event does not need are None.

    `actor` is the grammatical subject if that is a person, `thing` what is talked about, `other` a second person,
    two things that are compared, the cause or the mood; `value` a colour, a place, a mood ...
    """

    kind: str
    actor: object = None
    thing: object = None
    other: object = None
    value: object = None


class Person:
    """Somebody in a document.

    `mood` is None while unknown or over, `felt` whether the text has said anything about it; `cause` is an event not
    yet answered by a feeling, `debt` a gift not yet thanked for.
    """

    __slots__ = ("cause", "debt", "felt", "female", "index", "mood", "place", "role", "word")

    def __init__(self, name, female, index, role, place, mood):
        self.word, self.female, self.index = name, female, index
        self.role, self.place, self.mood = role, place, mood
        self.cause = self.debt = None
        self.felt = mood is not None

    @property
    def he(self):
        return "she" if self.female else "he"

    @property
    def him(self):
        return "her" if self.female else "him"

    @property
    def his(self):
        return "her" if self.female else "his"


class Thing:
    """A thing, or several of a kind that stay together ("three cups"). `colour` and `size` are None until told.

    `place` is where it rests, None while somebody (`holder`) has it or when it has been eaten. `moved`: its place
    has changed since the text last said where it is.
    """

    __slots__ = [
        "be",
        "broken",
        "colour",
        "count",
        "eaten",
        "holder",
        "it",
        "locked",
        "moved",
        "noun",
        "painted",
        "place",
        "plural",
        "size",
        "the",
        "they",
        "word",
    ]

    def __init__(self, noun, count, place):
        self.noun, self.count, self.place, self.plural = noun, count, place, count > 1
        self.word = noun.plural if self.plural else noun.word
        self.the = f"the {self.word}"
        self.be, self.it, self.they = ("were", "them", "they") if self.plural else ("was", "it", "it")
        self.holder = self.colour = self.size = None
        self.broken = self.eaten = self.locked = self.moved = self.painted = False


class World:
    """Everything that is true at one moment of a document.

    Args:
        lexicon: the words.
        reserved: whether the combinations that are held out of training (see documents.py) may occur.
        num_sentences: how long the document will be.
    """

    def __init__(self, lexicon, reserved, num_sentences):
        self.lexicon, self.reserved, self.sentences_left = lexicon, reserved, num_sentences
        self.topic = None
        self.people, self.things = [], []
        self.subject = self.object = None  # what "she" and "it" would mean in the next sentence
        self.partner = None  # the person to whom something was done in the sentence before
        self.question = None  # an Event of kind "ask" that the next sentence answers

    def places_for(self, index):
        """The places where a person may be, by the position of the name in the lists (None for a coined one)."""
        places = self.topic.places
        if self.reserved or index is None:
            return places
        key = (self.topic.word, index % RESERVED_PLACES)
        if key not in self.lexicon.cache:
            self.lexicon.cache[key] = tuple(place for place in places if not is_reserved_place(index, place))
        return self.lexicon.cache[key]

    def colours_for(self, thing):
        """The colours a thing may get, other than the one it has."""
        key = (thing.noun.index % RESERVED_COLOURS, thing.colour, self.reserved)
        colours = self.lexicon.cache.get(key)
        if colours is None:
            colours = [
                colour
                for index, colour in enumerate(self.lexicon.colours)
                if colour != thing.colour and (self.reserved or not is_reserved_colour(thing.noun, index))
            ]
            self.lexicon.cache[key] = colours
        return colours

    def apply(self, event):
        """Change the state as the event says, and remember whom and what it was about."""
        kind, actor, thing, other, value = event
        match kind:
            case "describe":
                if value in self.lexicon.colours:
                    thing.colour = value
                else:
                    thing.size = value
            case "go" | "carry" | "visit":
                actor.place = value
            case "seek":
                actor.place = thing.place
            case "take":
                thing.place, thing.holder, thing.moved = None, actor, True
            case "put":
                thing.place, thing.holder, thing.moved = actor.place, None, value is None
            case "give":
                thing.holder, thing.moved = other, True
                other.cause = other.debt = event
            case "steal":
                thing.holder, thing.moved = actor, True
                other.cause = event
            case "paint":
                thing.colour, thing.painted = value, True
            case "lock":
                thing.locked = not thing.locked
            case "smash":
                thing.place, thing.holder, thing.moved, thing.broken = actor.place, None, True, True
                actor.cause = event
            case "mend":
                thing.broken, actor.cause = False, event
            case "eat":
                thing.holder, thing.eaten = None, True
            case "feel":
                actor.mood, actor.cause, actor.felt = value, None, True
            case "fade":
                actor.mood = None
            case "thank":
                actor.debt = None
            case "recall" if value == "place":
                thing.moved = False
            case "ask":
                self.question = event
            case "answer":
                self.question = None
            case "find":
                self.things.append(thing)
            case "meet":
                self.people.append(actor)
            case "open":
                self.topic = value
        self.subject, self.object = actor, thing
        self.partner = other if kind in PARTNER_EVENTS else None
        self.sentences_left -= 1


def is_reserved_colour(noun, colour_index):
    """True for the (thing, colour) pairs that occur in the test split only: one in seven."""
    return (noun.index + COLOUR_STEP * colour_index) % RESERVED_COLOURS == 0


def is_reserved_place(name_index, place):
    """True for the (common name, place) pairs that occur in the test split only: one in nine."""
    return (name_index + place.index) % RESERVED_PLACES == 0
