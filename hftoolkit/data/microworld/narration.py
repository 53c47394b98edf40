"""Sentences in which the narrator introduces, describes, recalls, compares or counts.

Each is a function (world, source) -> (sentence, Event). What is recalled, compared or counted follows from the state:
only someone who kept track of it can predict these words.
"""

from .choices import Table
from .dialogue import ask
from .morphology import article, comparative
from .names import name_person
from .words import NUMBERS
from .world import Event, Person, Thing

PLURAL_NUMBERS = NUMBERS[2:6]
STAY_VERBS = ("stood", "sat", "waited", "worked")


def open_document(world, source):
    """It was a cold winter morning in the house."""
    lexicon = world.lexicon
    weather, season = source.pick(lexicon.weathers), source.pick(lexicon.seasons)
    day_part, topic = source.pick(lexicon.day_parts), source.pick(lexicon.topics)
    return f"It was a {weather} {season} {day_part} {topic.site}.", Event("open", value=topic)


def meet(world, source):
    """Introduce a person; the name comes first, then what is to be remembered about it."""
    name, female, index = name_person(world.lexicon, source, [person.word for person in world.people])
    source.begin(name)
    taken = [person.role for person in world.people]
    role = source.pick([role for role in world.topic.roles if role not in taken])
    place = choose_place(world, source, world.places_for(index))
    if source.chance(0.6):
        trait, mood = source.draw(world.lexicon.traits), None
        sentence = f"{name}, {article(trait)} {trait} {role}, was {place.where}."
    else:
        verb, mood = source.pick(STAY_VERBS), source.pick(world.lexicon.glad_moods + world.lexicon.sad_moods)
        sentence = f"{name} the {role} {verb} {place.where} and felt {mood}."
    return sentence, Event("meet", Person(name, female, index, role, place, mood), other=mood, value=place)


def choose_place(world, source, places):
    """Most newcomers are where the person last introduced is, so that things can happen."""
    if world.people and world.people[-1].place in places:
        here = world.people[-1].place
        if len(places) == 1 or source.chance(0.6):
            return here
        places = [place for place in places if place is not here]
    return source.pick(places)


def find(world, source):
    """Introduce a thing, or a few of a kind."""
    is_plural = world.lexicon.plural_share > 0 and source.chance(world.lexicon.plural_share)
    count = NUMBERS.index(source.pick(PLURAL_NUMBERS)) if is_plural else 1
    taken = [thing.noun for thing in world.things]
    noun = source.pick([noun for noun in world.topic.things if noun not in taken], hidden=is_plural)
    place = choose_place(world, source, world.topic.places)
    thing = Thing(noun, count, place)
    quantity = NUMBERS[count] if is_plural else article(noun.word)
    if source.chance(0.4):
        sentence = f"There {thing.be} {quantity} {thing.word} {place.where}."
    else:
        sentence = f"{quantity.capitalize()} {thing.word} {noun.rests} {place.where}."
    return sentence, Event("find", thing=thing, value=place)


def refer_to_thing(world, source, thing):
    """The lamp, or "It" if the sentence before was about it."""
    it = thing.they.capitalize() if thing is world.object and source.chance(0.6) else f"The {thing.word}"
    source.begin(it)
    return it


def describe(world, source):
    """Tell the colour or the size of a thing for the first time."""
    things = [thing for thing in world.things if not thing.eaten and (thing.colour is None or thing.size is None)]
    thing = source.pick(things, hidden=True)
    it = refer_to_thing(world, source, thing)
    if thing.colour is None and (thing.size is not None or source.chance(0.6)):
        value = source.pick(world.colours_for(thing))
    else:
        value = source.draw(world.lexicon.sizes)
    return f"{it} {thing.be} {value}.", Event("describe", thing=thing, value=value)


def recall(world, source):
    """Say again what is known of a thing that the sentence before was not about."""
    thing = source.pick([thing for thing in world.things if thing is not world.object])
    it = f"The {thing.word}"
    source.begin(it)
    if thing.eaten:
        return f"{it} {thing.be} gone.", Event("recall", thing=thing)
    aspect = source.pick(known_aspects(thing), hidden=True)
    if aspect == "place":
        state = ("now " if thing.moved else "still ") + whereabouts(thing)
    else:
        state = "still " + {"colour": thing.colour, "size": thing.size}.get(aspect, aspect)
    return f"{it} {thing.be} {state}.", Event("recall", thing=thing, value=aspect)


def known_aspects(thing):
    """What `recall` can say of a thing that is still there."""
    told = (("colour", thing.colour), ("size", thing.size), ("broken", thing.broken), ("locked", thing.locked))
    return ["place"] + [aspect for aspect, value in told if value]


def whereabouts(thing):
    """In the cellar, or with Tom."""
    return thing.place.where if thing.holder is None else f"with {thing.holder.word}"


def stay(world, source):
    """Say that somebody is still there, but not of the subject of the sentence before."""
    person = source.pick([person for person in world.people if person is not world.subject])
    source.begin(person.word)
    return f"{person.word} was still {person.place.where}.", Event("stay", person)


def compare(world, source):
    """Compare two things whose sizes have been told."""
    sized = [thing for thing in world.things if thing.size and not thing.eaten]
    first = source.pick(sized)
    source.begin(f"The {first.word}")
    second = source.pick([thing for thing in sized if thing is not first])
    return f"The {first.word} {first.be} {relation(world, first, second)}.", Event("compare", other=(first, second))


def relation(world, first, second):
    """Larger than the box; as large as the box."""
    sizes = world.lexicon.sizes.options
    difference = sizes.index(first.size) - sizes.index(second.size)
    if difference == 0:
        return f"as {first.size} as {second.the}"
    return f"{comparative('large' if difference > 0 else 'small')} than {second.the}"


def count(world, source):
    """Say how many people are at a place."""
    source.begin("There")
    place = source.pick(world.topic.places)
    number = sum(person.place is place for person in world.people)
    who = ("was nobody", "was one person")[number] if number < 2 else f"were {NUMBERS[number]} people"
    return f"There {who} {place.where}.", Event("count", value=place)


def carry_list(world, source):
    """List what somebody has."""
    holders = [thing.holder for thing in world.things]
    person = source.pick([person for person in world.people if person in holders and person is not world.subject])
    return f"{person.word} had {belongings(world, person)}.", Event("carry_list", person)


def belongings(world, person):
    """The lamp, the cups and the box: in the order in which the document introduced them."""
    things = [thing.the for thing in world.things if thing.holder is person]
    if not things:
        return "nothing"
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


NARRATION = {
    "meet": meet,
    "find": find,
    "describe": describe,
    "recall": recall,
    "stay": stay,
    "compare": compare,
    "count": count,
    "carry_list": carry_list,
    "ask": ask,
}


def possible_narration(world, act):
    """Table of the sentence functions that the state allows, `act` among them."""
    people, things = world.people, world.things
    blank = sized = held = False
    for thing in things:
        held = held or thing.holder not in (None, world.subject)
        if not thing.eaten:
            blank = blank or thing.colour is None or thing.size is None
            sized += thing.size is not None
    together = len({person.place for person in people}) < len(people)
    can_ask = together and bool(things) and world.sentences_left > 2  # the answer and the close must follow
    can_stay, can_recall = len(people) > (world.subject is not None), len(things) > (world.object is not None)
    key = (len(people), len(things), can_stay, can_recall, blank, sized > 1, held, can_ask)
    table = world.lexicon.cache.get(key)
    if table is None:
        table = world.lexicon.cache[key] = _narration_table(world.lexicon, act, *key)
    return table


def _narration_table(lexicon, act, num_people, num_things, can_stay, can_recall, blank, comparable, held, can_ask):
    few_people, few_things = (
        4.0 if num_people == 1 else 0.5,
        4.0 if num_things == 0 else 2.0 if num_things < 3 else 0.7,
    )
    factors = {
        "meet": few_people if num_people < lexicon.max_people else 0,
        "find": few_things if num_things < lexicon.max_things else 0,
        "describe": blank,
        "recall": can_recall * (1.0 if num_things > 2 else 0.4),  # with little to recall it would repeat itself
        "stay": can_stay,
        "compare": comparable,
        "carry_list": held,
        "ask": can_ask,
    }
    weights = {name: weight * factors.get(name, 1) for name, weight in lexicon.narration_weights.items()}
    names = [name for name, weight in weights.items() if weight]
    return Table([NARRATION.get(name, act) for name in names], [weights[name] for name in names])
