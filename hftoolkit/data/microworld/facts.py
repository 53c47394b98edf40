"""Facts: what is true in a world, as question, short answer and statement, and what would be false or left open.

where is the lamp?  with Anna  ->  true: The lamp is with Anna.  false: The lamp is in the cellar.
"""

from typing import NamedTuple

from .narration import PLURAL_NUMBERS, whereabouts
from .words import GLAD_MOODS, NUMBERS, SAD_MOODS

# which events can settle a fact about a person or thing; the last one before the moment in question did
SETTLED_BY = {
    "place": ("find", "put", "smash", "take", "give", "steal"),
    "holder": ("take", "give", "steal"),
    "colour": ("describe", "paint"),
    "size": ("describe",),
    "number": ("find",),
    "person": ("meet", "go", "carry", "seek", "visit"),
    "role": ("meet",),
    "mood": ("meet", "feel"),
}


class Fact(NamedTuple):
    """Something about `item`, a Person or a Thing.

    `statement` has {} where `answer` stands; `alternatives` are answers of the same kind that are false. In an open
    fact the text does not say: `answer` is None, and each alternative may be true or not. `span` is the part of the
    answer that stands in the text word for word.
    """

    aspect: str
    item: object
    question: str
    statement: str
    answer: str | None
    alternatives: list
    span: str | None = None

    def state(self, answer):
        """The statement as a sentence, with this answer."""
        sentence = self.statement.format(answer)
        return sentence[0].upper() + sentence[1:]


def facts_of(world) -> list[Fact]:
    """Everything that can be asked about the people and things of a world and has an answer."""
    facts = []
    for thing in world.things:
        if not thing.eaten:
            facts += [fact for fact in thing_facts(world, thing) if fact.answer is not None]
    for person in world.people:
        facts += person_facts(world, person)
    return facts


def open_facts_of(world) -> list[Fact]:
    """The colours, sizes and moods of which the text has not said anything."""
    things = [thing for thing in world.things if not thing.eaten]
    facts = [fact for thing in things for fact in thing_facts(world, thing) if fact.answer is None]
    return facts + [mood_fact(person, None, GLAD_MOODS + SAD_MOODS) for person in world.people if not person.felt]


def others(options, answer):
    """The options without the answer."""
    return [option for option in options if option != answer]


def elsewhere(world, place):
    """All spots that are not at this place: the lamp Anna holds in the cellar is in the cellar, too."""
    people = [f"with {person.word}" for person in world.people if person.place is not place]
    return [other.where for other in world.topic.places if other is not place] + people


def thing_facts(world, thing):
    """Facts about a thing that is still there; its colour and size may be open."""
    is_are, the = "are" if thing.plural else "is", thing.the
    holder = thing.holder and thing.holder.word
    where, spot = whereabouts(thing), holder or thing.place.the
    false_spots = elsewhere(world, thing.place or thing.holder.place)
    colours, sizes = list(world.lexicon.colours), world.lexicon.sizes.options
    colour, size = thing.colour, thing.size
    facts = [
        Fact("place", thing, f"Where {is_are} {the}?", f"{the} {is_are} {{}}.", where, false_spots, spot),
        Fact(
            "colour",
            thing,
            f"What colour {is_are} {the}?",
            f"{the} {is_are} {{}}.",
            colour,
            others(colours, colour),
            colour,
        ),
        Fact("size", thing, f"How large {is_are} {the}?", f"{the} {is_are} {{}}.", size, others(sizes, size), size),
    ]
    if holder:
        names = [person.word for person in world.people]
        facts.append(
            Fact("holder", thing, f"Who has {the}?", f"{{}} has {the}.", holder, others(names, holder), holder)
        )
    if thing.plural:
        number, question = NUMBERS[thing.count], f"How many {thing.word} are there?"
        wrong = others(PLURAL_NUMBERS, number)
        facts.append(Fact("number", thing, question, f"there are {{}} {thing.word}.", number, wrong, number))
    return facts


def person_facts(world, person):
    """Facts about a person."""
    name, place = person.word, person.place
    places = others([place.where for place in world.topic.places], place.where)
    names = others([other.word for other in world.people], name)
    facts = [
        Fact("person", person, f"Where is {name}?", f"{name} is {{}}.", place.where, places, place.the),
        Fact("role", person, f"Who is the {person.role}?", f"{{}} is the {person.role}.", name, names, name),
    ]
    if person.mood is not None:
        moods = SAD_MOODS if person.mood in GLAD_MOODS else GLAD_MOODS  # two glad moods do not exclude each other
        facts.append(mood_fact(person, person.mood, moods))
    return facts


def mood_fact(person, mood, others):
    """A fact about a feeling, told or not."""
    name = person.word
    return Fact("mood", person, f"How does {name} feel?", f"{name} feels {{}}.", mood, list(others), mood)


def settled_at(events, fact):
    """Index of the event that settled a fact: from this sentence on it has been true."""
    for index in range(len(events) - 1, -1, -1):
        event = events[index]
        about = event.actor if fact.aspect in ("person", "role", "mood") else event.thing
        if about is fact.item and event.kind in SETTLED_BY[fact.aspect]:
            is_other_quality = event.kind == "describe" and event.value != fact.answer
            if not is_other_quality:
                return index
    raise AssertionError(f"nothing in the text tells this: {fact.question}")
