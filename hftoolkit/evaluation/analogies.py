"""Analogies: a is to b as c is to which word? By section, 3CosAdd or 3CosMul.

Paper: Mikolov et al. 2013a, https://arxiv.org/abs/1301.3781, Section 4.1; file format: questions-words.txt of
tmikolov/word2vec, lines ": section", then lines of four words.
"""

from pathlib import Path

import numpy as np

from hftoolkit.data.opening import opened
from hftoolkit.errors import DataError

AT_ONCE = 256  # questions scored together


def read_questions(path):
    """{section: [(a, b, c, d)]}.

    Raises:
        DataError: a line that is neither a section nor four words (with its number), or no question at all.
    """
    path, sections, section = Path(path), {}, "questions"
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of analogies")
    with opened(path) as text:
        for number, line in enumerate(text, start=1):
            words = line.split()
            if line.startswith(":"):
                section = " ".join(words)[1:].strip() or f"section {number}"
            elif words:
                if len(words) != 4:
                    raise DataError(f"{path}:{number}: an analogy has four words, got {line.strip()[:60]!r}")
                sections.setdefault(section, []).append(tuple(words))
    if not sections:
        raise DataError(f"{path} holds no analogy")
    return sections


def solve(vectors, questions, method="3CosAdd", most_frequent=300_000):
    """The answers to (a, b, c): the word most like b and c and least like a, none of the three.

    Args:
        vectors: nearest_words.WordVectors.
        questions: numbers of the words, (Q, 3).
        most_frequent: answers come from the first so many words.

    Returns:
        Numbers of words, (Q,).
    """
    questions, answers = np.asarray(questions, dtype=np.int64).reshape(-1, 3), []
    for begin in range(0, len(questions), AT_ONCE):
        part = questions[begin : begin + AT_ONCE]
        scores = vectors.scores(part[:, 1:], part[:, :1], method)[:, :most_frequent]
        for column in part.T:
            known = column < scores.shape[1]
            scores[np.flatnonzero(known), column[known]] = -np.inf
        answers.append(scores.argmax(axis=1))
    return np.concatenate(answers) if answers else np.empty(0, np.int64)


def score_analogies(vectors, sections, method="3CosAdd", most_frequent=300_000):
    """Share of right answers, in all and by section, over the questions whose four words have vectors.

    Returns:
        accuracy (None where no question is covered), questions, uncovered_questions, and sections: {name: the same
        three}; those whose name begins with "gram" are summed up under syntactic, the others under semantic.
    """
    found, groups = {}, {"semantic": [0, 0, 0], "syntactic": [0, 0, 0]}
    for name, questions in sections.items():
        numbers = [[vectors.find(word) for word in question] for question in questions]
        covered = np.array([row for row in numbers if None not in row], dtype=np.int64).reshape(-1, 4)
        right = int((solve(vectors, covered[:, :3], method, most_frequent) == covered[:, 3]).sum())
        counts = [right, len(covered), len(questions)]
        found[name] = _report(counts)
        group = groups["syntactic" if name.startswith("gram") else "semantic"]
        group[:] = [old + new for old, new in zip(group, counts, strict=True)]
    total = [sum(counts) for counts in zip(*groups.values(), strict=True)]
    return _report(total) | {name: _report(counts) for name, counts in groups.items()} | {"sections": found}


def _report(counts):
    right, covered, questions = counts
    accuracy = right / covered if covered else None
    return {"accuracy": accuracy, "questions": covered, "uncovered_questions": questions - covered}
