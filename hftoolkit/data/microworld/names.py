"""Names of people: a list of common ones, and a syllable grammar for a long tail of coined ones.

A coined name is one or two syllables and an ending that tells the gender: Ta-mi-nna, Bro-ndor. An ending begins
with two consonants that never begin a syllable, so a coined name can be read in one way only.
"""

from .choices import Table, zipf
from .words import words

ONSETS = words("m t l r k s d n b j v g f h p br tr kr th sh dr w gr z")
SECOND_ONSETS = zipf(ONSETS)
VOWELS = zipf("aeiou")
FEMALE_ENDINGS = zipf(words("nna lla ssa rla nda rtha lda"))
MALE_ENDINGS = zipf(words("ndor rt lf ldo rrick stan nko"))


def name_person(lexicon, source, taken):
    """Choose a name.

    Args:
        taken: the names of the document so far; no two begin with the same letter.

    Returns:
        (name, True if female, position in the lists of common names or None for a coined one)
    """
    female = source.chance(0.5)
    initials = "".join(sorted(name[0] for name in taken))
    if lexicon.coined_share and source.chance(lexicon.coined_share):
        return coin_name(lexicon, source, female, initials), female, None
    table = lexicon.cache.get((female, initials))
    if table is None:
        names = lexicon.female_names if female else lexicon.male_names
        table = zipf([name for name in names if name[0] not in initials])
        lexicon.cache[female, initials] = table
    name = source.draw(table)
    if female:
        return name, female, lexicon.female_names.index(name)
    return name, female, len(lexicon.female_names) + lexicon.male_names.index(name)


def coin_name(lexicon, source, female, initials):
    """Put a new name together from syllables. Its first letter is none of `initials`."""
    onsets = lexicon.cache.get(initials)
    if onsets is None:
        free = [i for i, onset in enumerate(ONSETS) if onset[0].upper() not in initials]
        onsets = Table([ONSETS[i].title() for i in free], [1.0 / (i + 2) for i in free])
        lexicon.cache[initials] = onsets
    name = source.draw(onsets)
    name += source.draw(VOWELS, prefix=name)
    if source.chance(0.5):
        name += source.draw(SECOND_ONSETS, prefix=name)
        name += source.draw(VOWELS, prefix=name)
    return name + source.draw(FEMALE_ENDINGS if female else MALE_ENDINGS, prefix=name)
