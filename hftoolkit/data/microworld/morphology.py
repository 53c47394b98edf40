"""English word formation for the words of the microworld: plural, past participle, comparative, -ly, -ness."""

VOWELS = "aeiou"
IRREGULAR_PLURALS = {
    "knife": "knives",
    "loaf": "loaves",
    "leaf": "leaves",
    "scarf": "scarves",
    "shelf": "shelves",
    "fish": "fish",
    "tooth": "teeth",
}


def plural(noun):
    """Lamp -> lamps, box -> boxes, berry -> berries, knife -> knives."""
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in VOWELS:
        return noun[:-1] + "ies"
    return noun + "s"


def comparative(adjective):
    """Small -> smaller, large -> larger, heavy -> heavier, big -> bigger."""
    if adjective.endswith("e"):
        return adjective + "r"
    if adjective.endswith("y"):
        return adjective[:-1] + "ier"
    if adjective[-1] not in VOWELS and adjective[-2] in VOWELS and adjective[-3] not in VOWELS and len(adjective) == 3:
        return adjective + adjective[-1] + "er"
    return adjective + "er"


def adverb(adjective):
    """Glad -> gladly, happy -> happily."""
    return (adjective[:-1] + "i" if adjective.endswith("y") else adjective) + "ly"


def quality(adjective):
    """Glad -> gladness, happy -> happiness."""
    return (adjective[:-1] + "i" if adjective.endswith("y") else adjective) + "ness"


def article(word):
    """A or an: an oar, a lamp."""
    return "an" if word[0] in VOWELS else "a"
