"""Tasks about two sentences: paraphrase and entailment.

Every function takes (number, seed, split) and returns a list of dicts. No first text is in two splits.
"""

from .examples import EVENTFUL, collect, iterate_beginnings, pick
from .facts import facts_of, open_facts_of

ENTAILMENT, NEUTRAL, CONTRADICTION = 0, 1, 2  # as in MNLI

# ways to tell one event; a: who does it, b: the other person, t and u: things, v: a colour or a place
TELLINGS = {
    "give": (
        "{a} gave {t} to {b}.",
        "{a} gave {b} {t}.",
        "{b} received {t} from {a}.",
        "{t} {was} given to {b} by {a}.",
    ),
    "steal": ("{a} stole {t} from {b}.", "{b} lost {t} to {a}.", "{t} {was} stolen from {b} by {a}."),
    "take": ("{a} took {t}.", "{t} {was} taken by {a}.", "it was {a} who took {t}."),
    "paint": ("{a} painted {t} {v}.", "{t} {was} painted {v} by {a}.", "{a} gave {t} a coat of {v} paint."),
    "carry": ("{a} carried {t} to {v}.", "{t} {was} carried to {v} by {a}.", "{a} went to {v} and took {t} along."),
    "compare": ("{t} {was} larger than {u}.", "{u} {were} smaller than {t}."),
}
SWAPS = {"give": ("a", "b"), "steal": ("a", "b"), "compare": ("t", "u")}


def roles_of(world, event):
    """The words that TELLINGS needs for an event; None for a comparison of equals."""
    if event.kind == "compare":
        first, second = event.other
        sizes = world.lexicon.sizes.options
        difference = sizes.index(first.size) - sizes.index(second.size)
        if difference == 0:
            return None
        larger, smaller = (first, second) if difference > 0 else (second, first)
        return {"t": larger.the, "was": larger.be, "u": smaller.the, "were": smaller.be}
    value = event.value if event.kind == "paint" else event.value and event.value.the
    other = event.other and event.other.word
    return {"a": event.actor.word, "b": other, "t": event.thing.the, "was": event.thing.be, "v": value}


def spoil_roles(world, kind, roles, random):
    """The roles of another event: two of them swapped, or a colour, a place, a person or the thing replaced."""
    if kind in SWAPS and random() < 0.5:
        first, second = SWAPS[kind]
        swapped = roles | {first: roles[second], second: roles[first]}
        return swapped | {"was": roles["were"], "were": roles["was"]} if kind == "compare" else swapped
    if kind == "paint" and random() < 0.5:
        return roles | {"v": pick(random, [colour for colour in world.lexicon.colours if colour != roles["v"]])}
    if kind == "carry" and random() < 0.5:
        return roles | {"v": pick(random, [place.the for place in world.topic.places if place.the != roles["v"]])}
    people = [person.word for person in world.people if person.word not in (roles.get("a"), roles.get("b"))]
    if people and kind != "compare" and random() < 0.5:
        return roles | {"a": pick(random, people)}
    nouns = [f"the {noun.plural if roles['was'] == 'were' else noun.word}" for noun in world.topic.things]
    return roles | {"t": pick(random, [noun for noun in nouns if noun not in (roles["t"], roles.get("u"))])}


def paraphrase_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Two sentences that tell the same event (1) or two different ones (0), in MRPC's form; half of each.

    Example:
        {"sentence1": "Tom gave the lamp to Anna.", "sentence2": "Tom received the lamp from Anna.", "label": 0}
    """

    def candidates():
        for index, (story, random) in enumerate(iterate_beginnings(seed, split, 12, 24, EVENTFUL)):
            for event in story.events:
                roles = roles_of(story.world, event) if event.kind in TELLINGS else None
                if roles is None:
                    continue
                label, tellings = (index + int(random() * 2)) % 2, TELLINGS[event.kind]
                first = tell_event(pick(random, tellings), roles)
                if label == 0:
                    roles = spoil_roles(story.world, event.kind, roles, random)
                second = tell_event(pick(random, tellings), roles)
                if first != second:
                    yield first, (event.kind, label), {"sentence1": first, "sentence2": second, "label": label}

    labels = [(kind, label) for kind in TELLINGS for label in (0, 1)]
    return collect(candidates(), num_examples, seed, split, labels)


def tell_event(telling, roles):
    """Fill a telling and begin it with a capital."""
    sentence = telling.format(**roles)
    return sentence[0].upper() + sentence[1:]


def entailment_examples(num_examples: int, seed: int = 0, split: str = "train", max_sentences: int = 5) -> list[dict]:
    """A text and a statement: 0 the text entails it, 1 it leaves it open, 2 it contradicts it, as in MNLI.

    The statement is about the moment after the text. A third of the examples has each label.

    Args:
        max_sentences: of the premise, from 3 on. More make the task much harder: the state has to be tracked.

    Example:
        {"premise": "It was a cold winter morning in the house. Anna, a young cook, was in the hall. Anna went to the
         cellar.", "hypothesis": "Anna is in the hall.", "label": 2}
    """
    if max_sentences < 3:
        raise ValueError(f"max_sentences must be at least 3, got {max_sentences}")

    def candidates():
        for index, (story, random) in enumerate(iterate_beginnings(seed, split, 3, max_sentences)):
            label = index % 3
            hypothesis = write_hypothesis(story.world, label, random)
            if hypothesis is not None:
                yield story.text, label, {"premise": story.text, "hypothesis": hypothesis, "label": label}

    return collect(candidates(), num_examples, seed, split, (ENTAILMENT, NEUTRAL, CONTRADICTION))


def write_hypothesis(world, label, random):
    """A statement with this label; None where the world gives none."""
    facts = facts_of(world)
    if label == ENTAILMENT:
        fact = pick(random, facts)
        return fact.state(fact.answer)
    if label == CONTRADICTION:
        fact = pick(random, [fact for fact in facts if fact.alternatives])
        return fact.state(pick(random, fact.alternatives))
    if random() < 0.5:
        return strangers_place(world, random)
    facts = open_facts_of(world)
    if not facts:
        return None
    fact = pick(random, facts)
    return fact.state(pick(random, fact.alternatives))


def strangers_place(world, random):
    """Say where a person or a thing is of which the text does not speak."""
    place = pick(random, world.topic.places).where
    if random() < 0.5:
        initials = {person.word[0] for person in world.people}
        names = world.lexicon.female_names + world.lexicon.male_names
        return f"{pick(random, [name for name in names if name[0] not in initials])} is {place}."
    known = [thing.noun for thing in world.things]
    return f"The {pick(random, [noun for noun in world.topic.things if noun not in known]).word} is {place}."
