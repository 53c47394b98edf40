"""Tasks about a whole text: questions with answer spans, tags of people, places and things, summaries.

Every function takes (number, seed, split) and returns a list of dicts. No text is in two splits.
"""

import re

from .examples import collect, iterate_beginnings, pick
from .facts import SETTLED_BY, facts_of, open_facts_of, settled_at
from .lexicon import LEXICON
from .narration import belongings
from .words import NUMBERS

UNANSWERABLE = "unanswerable"


def find_answer(story, fact):
    """Offset of the answer in the text: its last mention up to the sentence that settled the fact."""
    text = " ".join(story.sentences[: settled_at(story.events, fact) + 1])
    matches = list(re.finditer(rf"\b{re.escape(fact.span)}\b", text, re.IGNORECASE))
    return matches[-1].start()


def iterate_kinds(seed, split, shortest, longest, kinds):
    """Yield (story, kind, the facts of this kind, random) for every kind that a story has, each kind first in turn."""
    for index, (story, random) in enumerate(iterate_beginnings(seed, split, shortest, longest)):
        facts, open_facts = facts_of(story.world), open_facts_of(story.world)
        for kind in kinds[index % len(kinds) :] + kinds[: index % len(kinds)]:
            found = open_facts if kind == UNANSWERABLE else [fact for fact in facts if fact.aspect == kind]
            if found:
                yield story, kind, found, random


def question_examples(
    num_examples: int, seed: int = 0, split: str = "train", max_sentences: int = 14, unanswerable: bool = False
) -> list[dict]:
    """Questions with the span of the answer in the context, in SQuAD's form.

    The kinds of questions (place, holder, colour, size, number, person, role, mood) are equally frequent; a question
    is about the moment after the text, so that the last of several mentions counts.

    Args:
        max_sentences: of the context, from 4 on.
        unanswerable: with SQuAD 2.0's questions without an answer as one more kind.

    Example:
        {"id": "train-0", "title": "house", "context": "... Anna took the lamp. Anna gave it to Tom.",
         "question": "Who has the lamp?", "answers": {"text": ["Tom"], "answer_start": [190]}}
    """
    if max_sentences < 4:
        raise ValueError(f"max_sentences must be at least 4, got {max_sentences}")
    kinds = (*SETTLED_BY, UNANSWERABLE) if unanswerable else tuple(SETTLED_BY)

    def candidates():
        for story, kind, facts, random in iterate_kinds(seed, split, 4, max_sentences, kinds):
            yield story.text, kind, write_question(story, pick(random, facts))

    examples = collect(candidates(), num_examples, seed, split, kinds)
    return [{"id": f"{split}-{number}"} | example for number, example in enumerate(examples)]


def write_question(story, fact):
    """A question in SQuAD's form, without its id."""
    answers = {"text": [], "answer_start": []}
    if fact.answer is not None:
        start = find_answer(story, fact)
        answers = {"text": [story.text[start : start + len(fact.span)]], "answer_start": [start]}
    title = story.world.topic.word
    return {"title": title, "context": story.text, "question": fact.question, "answers": answers}


def tag_sentence(sentence, people, lexicon=LEXICON):
    """Tokens of a sentence with BIO tags: PER a name, LOC a place or site, OBJ a thing with its number.

    Example:
        "Three lamps stood in the cellar." ->
        Three/B-OBJ lamps/I-OBJ stood/O in/O the/O cellar/B-LOC ./O
    """
    kinds = {name: "PER" for name in people}
    for topic in lexicon.topics:
        kinds |= {place.word: "LOC" for place in topic.places} | {topic.word: "LOC"}
        kinds |= {word: "OBJ" for noun in topic.things for word in (noun.word, noun.plural)}
    tokens = re.findall(r"\w+|[^\w\s]", sentence)
    tags = [f"B-{kinds[token]}" if token in kinds else "O" for token in tokens]
    for i in range(1, len(tokens)):
        if tags[i] == "B-OBJ" and tokens[i - 1].lower() in NUMBERS:
            tags[i - 1 : i + 1] = ["B-OBJ", "I-OBJ"]
    return tokens, tags


def tagging_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Sentences with one tag per token, as CoNLL's columns hold them.

    Example:
        {"tokens": ["Anna", "took", "the", "lamp", "."], "tags": ["B-PER", "O", "O", "B-OBJ", "O"]}
    """

    def candidates():
        for story, _ in iterate_beginnings(seed, split, 6, 14):
            people = [person.word for person in story.world.people]
            for sentence in story.sentences:
                tokens, tags = tag_sentence(sentence, people)
                yield sentence, None, {"tokens": tokens, "tags": tags}

    return collect(candidates(), num_examples, seed, split)


def summarise(world):
    """One sentence for each person: where they are and what they have in the end."""
    return " ".join(
        f"{person.word} is {person.place.where} and has {belongings(world, person)}." for person in world.people
    )


def summary_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Texts with a summary of how things stand in the end.

    Example:
        {"document": "... Anna, a young cook, was in the hall. A lamp stood in the hall. She took it.",
         "summary": "Anna is in the hall and has the lamp."}
    """

    def candidates():
        for story, _ in iterate_beginnings(seed, split, 5, 16):
            yield story.text, None, {"document": story.text, "summary": summarise(story.world)}

    return collect(candidates(), num_examples, seed, split)
