"""A second language, Tamo, and a translator into it: same meaning, own words, own endings, another order.

A translation follows from the English sentence alone. Nouns end in -k in the plural, and in -n (-en after -k) if
definite; there are no articles. Numbers and adjectives follow their noun, prepositions follow what they govern, and
the verb ends its clause, with -ta in the past. Gender is not told: she and he are one word. Names stay.
"""

import re
from functools import cache

from .actions import VERBS
from .examples import collect, iterate_beginnings
from .lexicon import LEXICON
from .morphology import adverb, quality
from .narration import STAY_VERBS
from .words import COLOURS, GLAD_MOODS, HOURS, NUMBERS, SAD_MOODS, SIZES, TRAITS, words

LANGUAGE = "Tamo"
SYLLABLES = [onset + vowel for onset in "bdfghklmnprstvyz" for vowel in "aeiou"]
PREPOSITIONS = words("in on at to with from for")
ARTICLES = ("the", "a", "an")
LINKS = words("so because and than as")  # a clause ends before them
PRESENT = words("is are has have")
PAST = words(
    "was were had asked said struck went ended dropped broke wanted painted repainted locked unlocked carried ate felt "
    "lost overcame thanked given stolen"
)
PAST += tuple(verb.split()[0] for verb in (*VERBS, *STAY_VERBS))
INFINITIVES = ("see",)
OTHERS = words(
    "he him himself it them they i you where what who how many there nobody everyone home last not still now then soon "
    "later after that little down gone broken locked whole again larger smaller"
)
SAME = {"she": "he", "her": "him", "his": "him", "herself": "himself", "were": "was", "are": "is", "have": "has"}
SAME |= {"given": "gave", "stolen": "stole", "people": "person"}


@cache
def dictionary():
    """English word -> (class, root in Tamo, ending). A class is noun, modifier, verb, infinitive or other."""
    nouns = [noun for topic in LEXICON.topics for noun in topic.things]
    singular = {noun.word for noun in nouns} | {"clock", "day", "person", "colour", *LEXICON.day_parts}
    singular |= {word for topic in LEXICON.topics for word in (topic.word, *topic.roles)}
    singular |= {place.word for topic in LEXICON.topics for place in topic.places}
    singular |= {quality(mood) for mood in GLAD_MOODS + SAD_MOODS}
    modifiers = {*COLOURS, *SIZES, *TRAITS, *GLAD_MOODS, *SAD_MOODS, *LEXICON.weathers, *LEXICON.seasons}
    modifiers |= {*NUMBERS, *HOURS}
    classes = {word: ("noun", "") for word in singular} | {word: ("modifier", "") for word in modifiers}
    classes |= {noun.plural: ("noun", "k") for noun in nouns if noun.plural != noun.word} | {"people": ("noun", "k")}
    verbs = {*PAST} | {noun.rests for noun in nouns}
    classes |= {word: ("verb", "ta") for word in verbs} | {word: ("verb", "") for word in PRESENT}
    classes |= {word: ("infinitive", "ri") for word in INFINITIVES}
    adverbs = [adverb(mood) for mood in GLAD_MOODS + SAD_MOODS]
    classes |= {
        word: ("other", "") for word in (*OTHERS, *PREPOSITIONS, *LINKS, *adverbs, *SAME) if word not in classes
    }
    lemma = SAME | {noun.plural: noun.word for noun in nouns}
    lemmas = sorted({lemma.get(word, word) for word in classes})
    # 2731 is prime to 80 * 80, so different words get different pairs of syllables
    pairs = [divmod((index * 2731 + 97) % len(SYLLABLES) ** 2, len(SYLLABLES)) for index in range(len(lemmas))]
    roots = {word: SYLLABLES[first] + SYLLABLES[second] for word, (first, second) in zip(lemmas, pairs, strict=True)}
    return {word: (kind, roots[lemma.get(word, word)], ending) for word, (kind, ending) in classes.items()}


def look_up(token):
    """(class, root, ending) of a token; a name is a noun in no need of translation.

    Raises:
        ValueError: the word is neither in the dictionary nor a name.
    """
    entry = dictionary().get(token.lower())
    if entry is None:
        if not token[0].isupper():
            raise ValueError(f"{LANGUAGE} has no word for {token!r}")
        return "name", token, ""
    return entry


def translate(sentence: str) -> str:
    """Translate a sentence of the microworld into Tamo.

    Example:
        "Anna took the lamp." -> "Anna refan baseta."

    Raises:
        ValueError: a word is not known.
    """
    parts = sentence.split('"')  # every second one is quoted
    translated = [" ".join(translate_clauses(part)) for part in parts]
    translated = [re.sub(r" (?=[.,?])", "", part) for part in translated]
    if len(parts) == 1:
        return translated[0][0].upper() + translated[0][1:]
    return f'"{translated[1][0].upper() + translated[1][1:]}" {translated[2]}'


def translate_clauses(text):
    """The words and marks of a text in the order of Tamo."""
    output, verbs, preposition = [], [], []
    tokens = re.findall(r"\w+|[^\w\s]", text)
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token in ".,?" or token in LINKS:
            output += preposition + verbs + [token if token in ".,?" else look_up(token)[1]]
            verbs, preposition = [], []
        elif token in PREPOSITIONS:
            preposition = [look_up(token)[1]]
        elif token.lower() not in ARTICLES:
            kind, root, ending = look_up(token)
            if kind == "infinitive":
                preposition = []  # the "to" before it
            if kind in ("verb", "infinitive"):
                verbs.append(root + ending)
                continue
            if kind == "modifier":
                phrase, position = translate_phrase(tokens, position - 1, definite=False)
                output += phrase + preposition
            else:
                output += [root + ending] + preposition
            preposition = []
        else:
            phrase, position = translate_phrase(tokens, position, definite=token.lower() == "the")
            output += phrase + preposition
            preposition = []
    return output + preposition + verbs


def translate_phrase(tokens, position, definite):
    """Translate modifiers and the noun after them, if there is one; return the words and the next position."""
    modifiers = []
    while position < len(tokens) and re.match(r"\w", tokens[position]):
        kind, root, ending = look_up(tokens[position])
        if kind == "noun":
            article = ("en" if ending else "n") if definite else ""
            return [root + ending + article, *modifiers], position + 1
        if kind != "modifier":
            break
        modifiers.append(root)
        position += 1
    return modifiers, position


def translation_examples(num_examples: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Pairs of sentences, in the form of the Hub's translation data.

    Example:
        {"translation": {"en": "Anna took the lamp.", "tamo": "Anna refan baseta."}}
    """

    def candidates():
        for story, _ in iterate_beginnings(seed, split, 6, 16):
            for sentence in story.sentences:
                yield sentence, None, {"translation": {"en": sentence, "tamo": translate(sentence)}}

    return collect(candidates(), num_examples, seed, split)
