"""Do vectors rank pairs of words as people do? WordSim-353, SimLex-999, MEN and their like, by Spearman's correlation.

Papers: Finkelstein et al. 2002 (WordSim-353); Hill et al. 2015, https://aclanthology.org/J15-4004 (SimLex-999); Bruni et
al. 2014 (MEN).
Formats: two words and a number, with tabs, commas or spaces between, with or without a line of names; SimLex-999's own
table; MEN's lemmas ("sun-n sunlight-n 50").
"""

import re
from pathlib import Path

import numpy as np

from hftoolkit.data.opening import opened
from hftoolkit.errors import DataError

SCORES = ("SimLex999", "Human (mean)", "score")  # columns that hold the judgement, where there are names
PART_OF_SPEECH = re.compile(r"^(.+)-[nvjar]$")
SHOWN = 10  # uncovered words that a report names


def read_pairs(path):
    """[(word, word, score)] of a file.

    Raises:
        DataError: a row without two words and a number (with its line), or no pair at all.
    """
    path, pairs, column = Path(path), [], 2
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of word pairs")
    with opened(path) as text:
        lines = list(text)
    rows = [(number, line.strip("\r\n")) for number, line in enumerate(lines, start=1)]
    rows = [(number, line) for number, line in rows if line.strip(" \t,") and not line.lstrip().startswith("#")]
    delimiter = next((mark for mark in "\t," if rows and mark in rows[0][1]), None)  # None: runs of blanks
    for place, (number, line) in enumerate(rows):
        fields = [field.strip() for field in line.split(delimiter)]
        if place == 0 and (set(SCORES) & set(fields) or len(fields) > 2 and not _is_number(fields[2])):
            column = next((fields.index(name) for name in SCORES if name in fields), 2)
            continue
        if len(fields) <= column or not _is_number(fields[column]) or not fields[0] or not fields[1]:
            raise DataError(f"{path}:{number}: expected two words and a number, got {line.strip()[:60]!r}")
        pairs.append((*map(_lemma, fields[:2]), float(fields[column])))
    if not pairs:
        raise DataError(f"{path} holds no pair of words")
    return pairs


def rank_correlation(vectors, pairs):
    """Spearman's correlation of cosines with the judgements, over the pairs whose words both have vectors.

    Args:
        vectors: nearest_words.WordVectors.
        pairs: of read_pairs.

    Returns:
        spearman (None where fewer than two pairs are covered, or all have one cosine), pairs, uncovered_pairs, and
        uncovered_words, the first of them.
    """
    from scipy.stats import spearmanr

    covered = [(first, second, score) for first, second, score in pairs if first in vectors and second in vectors]
    words = dict.fromkeys(word for pair in pairs for word in pair[:2] if word not in vectors)
    found = {"spearman": None, "pairs": len(covered), "uncovered_pairs": len(pairs) - len(covered)}
    if len(covered) > 1:
        cosines = [vectors.similarity(first, second) for first, second, _ in covered]
        scores = [score for *_, score in covered]
        if np.ptp(cosines) > 0 and np.ptp(scores) > 0:
            found["spearman"] = float(spearmanr(cosines, scores).statistic)
    return found | {"uncovered_words": list(words)[:SHOWN]}


def _is_number(text):
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _lemma(word):
    found = PART_OF_SPEECH.match(word)
    return found[1] if found else word
