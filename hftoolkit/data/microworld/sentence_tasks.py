"""Tasks about one sentence or a short text: acceptability, sentiment, topic.

Every function takes (number, seed, split) and returns a list of dicts. No text is in two splits.
"""

import re

from .actions import GLAD_CAUSES
from .examples import EVENTFUL, collect, iterate_beginnings
from .lexicon import LEXICON
from .morphology import adverb
from .words import GLAD_MOODS

AGREEMENT = {"was": "were", "were": "was", "is": "are", "are": "is"}
REGULARISED = {"went": "goed", "took": "taked", "gave": "gived", "stole": "stealed", "ran": "runned", "ate": "eated"}
REGULARISED |= {"felt": "feeled", "wept": "weeped", "sang": "singed", "broke": "breaked"}
PARTICIPLES = {"had given": "had gave", "had stolen": "had stole"}
CASES = {"had given her": "had given she", "had given him": "had given he"}
COMPARATIVES = {"larger than": "large than", "smaller than": "small than"}
COMPARATIVES |= {f"as {size} as": f"more {size} as" for size in LEXICON.sizes.options}
REFLEXIVES = {"himself": "herself", "herself": "himself"}
ARTICLES = {"a": "an", "an": "a", "A": "An", "An": "A"}


def swap(sentence, table):
    """Replace the first part of the sentence that is a key of the table; None if there is none."""
    match = re.search(rf"\b({'|'.join(table)})\b", sentence)
    return match and sentence[: match.start()] + table[match[0]] + sentence[match.end() :]


def break_noun_number(sentence, event):
    """Three lamps stood in the cellar. -> Three lamp stood in the cellar."""
    noun = event.thing.noun
    right, wrong = (noun.plural, noun.word) if event.thing.plural else (noun.word, noun.plural)
    return swap(sentence, {right: wrong}) if right != wrong else None


def break_reflexive(sentence, event):
    """Anna washed herself. -> Anna washed himself. Only where name or pronoun tell the gender."""
    return None if f"the {event.actor.role}" in sentence.lower() else swap(sentence, REFLEXIVES)


def break_adverb(sentence, event):
    """Anna smiled happily. -> Anna smiled happy."""
    return swap(sentence, {adverb(event.value): event.value})


def break_order(sentence, event):
    """Anna took the lamp. -> Anna took lamp the."""
    return re.sub(r"\bthe (\w+)(\W*)$", r"\1 the\2", sentence) if re.search(r"\bthe \w+\W*$", sentence) else None


MISTAKES = {  # UID: (kinds of events in whose sentences it can be made, how)
    "subject_verb_agreement": (("describe", "recall", "find", "compare"), lambda s, event: swap(s, AGREEMENT)),
    "question_agreement": (("ask",), lambda s, event: swap(s, AGREEMENT) if event.thing else None),
    "determiner_noun_agreement": (("find",), break_noun_number),
    "article_form": (("find", "meet"), lambda s, event: swap(s, ARTICLES)),
    "irregular_past": (
        ("go", "take", "give", "steal", "eat", "feel", "show", "smash"),
        lambda s, event: swap(s, REGULARISED),
    ),
    "irregular_participle": (("feel",), lambda s, event: swap(s, PARTICIPLES)),
    "pronoun_case": (("feel",), lambda s, event: swap(s, CASES)),
    "reflexive_gender": (("reflect",), break_reflexive),
    "comparative_form": (("compare",), lambda s, event: swap(s, COMPARATIVES)),
    "adverb_form": (("show",), break_adverb),
    "determiner_noun_order": (("take", "go", "seek", "visit", "eat", "lock", "carry", "count"), break_order),
}


def iterate_pairs(seed, split):
    """Yield (good sentence, UID, pair) without end."""
    for story, _ in iterate_beginnings(seed, split, 12, 24, EVENTFUL):
        for sentence, event in zip(story.sentences, story.events, strict=True):
            for uid, (kinds, spoil) in MISTAKES.items():
                bad = spoil(sentence, event) if event.kind in kinds else None
                if bad is not None:
                    yield sentence, uid, {"sentence_good": sentence, "sentence_bad": bad, "UID": uid}


def acceptability_pairs(num_pairs: int, seed: int = 0, split: str = "validation") -> list[dict]:
    """Minimal pairs in BLiMP's JSONL form: a sentence of the grammar, and the same with one mistake.

    Example:
        {"sentence_good": "The lamps were red.", "sentence_bad": "The lamps was red.",
         "UID": "subject_verb_agreement", "pairID": "0"}
    """
    pairs = collect(iterate_pairs(seed, split), num_pairs, seed, split, tuple(MISTAKES))
    return [pair | {"pairID": str(number)} for number, pair in enumerate(pairs)]


def acceptability_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Single sentences, as many good (1) as bad (0), in CoLA's form. A pair never gives both of its sentences.

    Example:
        {"sentence": "Anna washed himself.", "label": 0, "UID": "reflexive_gender"}
    """
    labels = [(uid, label) for uid in MISTAKES for label in (0, 1)]

    def candidates():
        for index, (good, uid, pair) in enumerate(iterate_pairs(seed, split)):
            label = index % 2
            sentence = good if label else pair["sentence_bad"]
            yield good, (uid, label), {"sentence": sentence, "label": label, "UID": uid}

    return collect(candidates(), num_examples, seed, split, labels)


def feeling_of(event):
    """1 if the actor feels well after the event, 0 if not, None if the sentence does not say."""
    if event.kind == "feel":
        return int(event.other.kind in GLAD_CAUSES)
    if event.kind in ("show", "fade"):
        return int((event.value in GLAD_MOODS) == (event.kind == "show"))
    if event.kind == "meet" and event.other is not None:
        return int(event.other in GLAD_MOODS)
    return None


def sentiment_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Sentences about a feeling, as many good (1) as bad ones (0), in SST-2's form.

    A single word does not decide: "was not sad", "overcame his sadness", "lost her happiness".

    Example:
        {"sentence": "Anna was not sad because Tom had given her the lamp.", "label": 1}
    """

    def candidates():
        for story, _ in iterate_beginnings(seed, split, 12, 24, EVENTFUL):
            for sentence, event in zip(story.sentences, story.events, strict=True):
                label = feeling_of(event)
                if label is not None:
                    yield sentence, (label, event.kind), {"sentence": sentence, "label": label}

    labels = [(label, kind) for kind in ("feel", "show", "fade", "meet") for label in (0, 1)]
    return collect(candidates(), num_examples, seed, split, labels)


def topic_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Short texts and what they are about; the opening, which names the topic, is left out.

    Example:
        {"text": "Anna, a young sailor, was on the pier. A rope lay on the pier.", "label": 1, "label_text": "harbour"}
    """
    names = [topic.word for topic in LEXICON.topics]

    def candidates():
        for story, _ in iterate_beginnings(seed, split, 3, 7):
            text, topic = " ".join(story.sentences[1:]), story.world.topic.word
            yield text, topic, {"text": text, "label": names.index(topic), "label_text": topic}

    return collect(candidates(), num_examples, seed, split, tuple(names))
