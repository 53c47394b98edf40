"""Questions and answers of the people in a document: "Where is the lamp?" asked Tom.

A question is asked of somebody in the same place, and the next sentence is the answer: true, and from the speaker's
point of view ("I have it", "You have it").
"""

from .words import NUMBERS
from .world import Event


def ask(world, source):
    """Somebody who is not alone asks something that the listener can answer."""
    people = world.people
    source.begin('"')
    asker = source.pick([one for one in people if any(one.place is two.place for two in people if two is not one)])
    topics = [(aspect, thing) for aspect in ("place", "holder") for thing in world.things]
    topics += [("colour", thing) for thing in world.things if thing.colour and not thing.eaten]
    topics += [("number", thing) for thing in world.things if thing.plural and not thing.eaten]
    topics += [("person", person) for person in people if person.place is not asker.place]
    aspect, item = source.pick(topics, hidden=True)
    if aspect == "person":
        return f'"Where is {item.word}?" asked {asker.word}.', Event("ask", asker, other=item, value=aspect)
    is_are = "are" if item.plural else "is"
    question = {
        "place": f"Where {is_are} {item.the}",
        "holder": f"Who has {item.the}",
        "colour": f"What colour {is_are} {item.the}",
        "number": f"How many {item.word} are there",
    }[aspect]
    return f'"{question}?" asked {asker.word}.', Event("ask", asker, item, value=aspect)


def answer(world, source):
    """Somebody in the same place gives the true answer to the question of the sentence before."""
    _, asker, thing, other, aspect = world.question
    speaker = source.pick([person for person in world.people if person is not asker and person.place is asker.place])
    if aspect == "person":
        reply = f"{other.he.capitalize()} is {other.place.where}"
    else:
        reply = answer_about(thing, aspect, asker, speaker)
    return f'"{reply}," said {speaker.word}.', Event("answer", speaker, thing, other, aspect)


def answer_about(thing, aspect, asker, speaker):
    """What the speaker says of the thing."""
    they_are = "They are" if thing.plural else "It is"
    if aspect == "number":
        return f"There are {NUMBERS[thing.count]}"
    if aspect == "colour":
        return f"{they_are} {thing.colour}"
    if thing.eaten:
        return f"{they_are} gone"
    if thing.holder is not None:
        who = "I have" if thing.holder is speaker else "You have" if thing.holder is asker else None
        return f"{who or thing.holder.word + ' has'} {thing.it}"
    return f"{they_are} {thing.place.where}" if aspect == "place" else f"Nobody has {thing.it}"
