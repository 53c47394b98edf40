"""Words near a word, or near the sum and difference of words.

Papers: Mikolov et al. 2013c, "Linguistic Regularities in Continuous Space Word Representations",
https://aclanthology.org/N13-1090 (3CosAdd); Levy and Goldberg 2014, "Linguistic Regularities in Sparse and Explicit Word
Representations", https://aclanthology.org/W14-1618, Section 6 (3CosMul).
As in gensim's KeyedVectors, vectors get length 1 before they are added, and the words of the question are no answer.
Shapes: N = words, D = numbers in a vector, Q = questions.
"""

import difflib

import numpy as np

from hftoolkit.data.embedding_files import read_vectors
from hftoolkit.errors import DataError

EPSILON = 1e-6  # in the denominator of 3CosMul
SPELLINGS = 3  # that a message about a missing word names
SPECIAL = ("<unk>", "<pad>", "<|endoftext|>")  # of our word tokenizer: no words


def asked_words(values):
    """The words of an option, each once: several values, or words with commas between them.

    Example:
        ["lamp", "red, happy"] -> ["lamp", "red", "happy"]
    """
    parts = (part for value in values for part in (value.split(",") if value.strip(", ") else [value]))
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def number_among(word, index):
    """The number of a word in {word: number}, or else of its lower-case form.

    Raises:
        DataError: neither is there; with the nearest spellings.
    """
    number = index.get(word, index.get(word.lower()))
    if number is None:
        near = difflib.get_close_matches(word.lower(), index, SPELLINGS)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise DataError(f"{word!r} is not among the {len(index):,} words{hint}")
    return number


class WordVectors:
    """Words with vectors of length 1; a vector of zeros stays zero and has similarity 0 with everything.

    Args:
        words: each once, the most frequent first.
        matrix: (N, D).
    """

    def __init__(self, words, matrix):
        self.words, matrix = list(words), np.asarray(matrix, dtype=np.float32)
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        self.unit = matrix / np.maximum(lengths, np.finfo(np.float32).tiny)
        self.index = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def read(cls, path):
        """From a file of hftoolkit.data.embedding_files, or a folder with a HftWord2Vec model; without special tokens."""
        words, matrix = read_vectors(path)
        kept = [number for number, word in enumerate(words) if word not in SPECIAL]
        return cls([words[number] for number in kept], matrix[kept])

    def __contains__(self, word):
        return self.find(word) is not None

    def find(self, word):
        """The number of a word, or else of its lower-case form; None where neither has a vector."""
        return self.index.get(word, self.index.get(word.lower()))

    def number_of(self, word):
        """The number of a word.

        Raises:
            DataError: it has no vector; with the nearest spellings.
        """
        return number_among(word, self.index)

    def similarity(self, first, second):
        """Cosine of two words.

        Raises:
            DataError: one of them has no vector.
        """
        return float(self.unit[self.number_of(first)] @ self.unit[self.number_of(second)])

    def most_similar(self, positive, negative=(), count=10, method="3CosAdd", most_frequent=None):
        """Words most like the positive ones and least like the negative ones.

        Args:
            positive, negative: a word or several.
            method: "3CosAdd", the cosine with the sum; or "3CosMul", the product of the similarities, (cosine + 1) / 2
                each, divided by those of the negative words.
            most_frequent: answers come from the first so many words; None: all.

        Returns:
            [(word, score)], the best first.

        Raises:
            DataError: a word without a vector.
            ValueError: no word at all, or an unknown method.

        Example:
            most_similar(["king", "woman"], ["man"]) -> [("queen", 0.77), ("princess", 0.71), ...]
        """
        positive, negative = ([words] if isinstance(words, str) else list(words) for words in (positive, negative))
        if not positive and not negative:
            raise ValueError("most_similar needs at least one word")
        ids = [[self.number_of(word) for word in words] for words in (positive, negative)]
        scores = self.scores([ids[0]], [ids[1]], method)[0][:most_frequent]
        asked = [number for number in (*ids[0], *ids[1]) if number < len(scores)]
        scores[asked] = -np.inf
        best = np.argsort(-scores, kind="stable")[: min(count, len(scores) - len(set(asked)))]
        return [(self.words[number], float(scores[number])) for number in best]

    def scores(self, positive, negative, method="3CosAdd"):
        """Scores of all words for several questions with equally many words each, (Q, N).

        Args:
            positive, negative: numbers of words, (Q, any).

        Raises:
            ValueError: an unknown method.
        """
        positive, negative = (
            np.asarray(ids, dtype=np.int64).reshape(len(positive), -1) for ids in (positive, negative)
        )
        if method == "3CosAdd":
            target = self.unit[positive].sum(1) - self.unit[negative].sum(1)
            lengths = np.linalg.norm(target, axis=1, keepdims=True)
            return target / np.maximum(lengths, np.finfo(np.float32).tiny) @ self.unit.T
        if method != "3CosMul":
            raise ValueError(f"method must be 3CosAdd or 3CosMul, got {method!r}")
        found = np.ones((len(positive), len(self.words)), dtype=np.float32)
        for column in positive.T:
            found *= (1 + self.unit[column] @ self.unit.T) / 2
        for column in negative.T:
            found /= (1 + self.unit[column] @ self.unit.T) / 2 + EPSILON
        return found


def nearest_table(vectors, words, count=8):
    """{word: [(neighbour, cosine)]} of those words that have a vector."""
    return {word: vectors.most_similar(word, count=count) for word in words if word in vectors}
