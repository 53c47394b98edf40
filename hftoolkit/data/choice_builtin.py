"""Multiple choice about the microworld: a story, and four statements about the moment after it, one of them true.

The statements speak of the same person or thing and differ in one answer (a place, a colour, a size, a number) that
may be true in some story: which one is true can be told from the story alone.
"""

from .microworld.examples import collect, iterate_beginnings, pick
from .microworld.facts import facts_of

NUM_CHOICES = 4
ASPECTS = ("place", "person", "colour", "size", "number")


def choice_examples(num_examples: int, seed: int = 0, split: str = "train", max_sentences: int = 8) -> list[dict]:
    """Stories with true and false statements, as many of each aspect and of each label.

    Where the story speaks of other places, colours, ... that would be false, these are the first to be offered.

    Example:
        {"context": "... Anna went to the cellar.", "choices": ["Anna is in the hall.", "Anna is in the cellar.",
         "Anna is in the attic.", "Anna is in the kitchen."], "label": 1, "kind": "person"}
    """
    labels = [(aspect, label) for aspect in ASPECTS for label in range(NUM_CHOICES)]

    def candidates():
        for index, (story, random) in enumerate(iterate_beginnings(seed, split, 3, max_sentences)):
            label = index % NUM_CHOICES
            for fact in facts_of(story.world):
                wrong = false_answers(story, fact, random)
                if len(wrong) >= NUM_CHOICES - 1:
                    answers = wrong[: NUM_CHOICES - 1]
                    answers.insert(label, fact.answer)
                    choices = [fact.state(answer) for answer in answers]
                    example = {"context": story.text, "choices": choices, "label": label, "kind": fact.aspect}
                    yield story.text, (fact.aspect, label), example

    return collect(candidates(), num_examples, seed, split, labels)


def false_answers(story, fact, random):
    """False answers of the form of the true one, in random order, those that the story mentions first.

    None where the form of the true answer would tell it from false ones: with whom a thing is.
    """
    world, item = story.world, fact.item
    if fact.aspect not in ASPECTS or (fact.aspect == "place" and item.holder is not None):
        return []
    possible = list(fact.alternatives)
    if fact.aspect == "colour":
        possible = world.colours_for(item)  # never one that training data do not have for this thing
    elif fact.aspect == "person":
        possible = [place.where for place in world.places_for(item.index)]
    elif fact.aspect == "place":
        possible = [place.where for place in world.topic.places]
    possible = [answer for answer in fact.alternatives if answer in possible]
    order = []
    while possible:
        order.append(pick(random, possible))
        possible.remove(order[-1])
    return sorted(order, key=lambda answer: answer.split(" the ")[-1] not in story.text)
