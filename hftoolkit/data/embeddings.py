"""Vectors for a given vocabulary, from any file of word vectors: the first embeddings of another model."""

from dataclasses import dataclass

import numpy as np

from hftoolkit.errors import DataError

from .embedding_files import iterate_vectors

SHOWN = 5  # words that a message names


@dataclass
class Coverage:
    """Which words of a vocabulary have a vector in a file.

    Attributes:
        found: by id, (V,) bool.
        words: of the vocabulary.
        missing: the first words without a vector.
        in_file: words that the file has.
    """

    found: np.ndarray
    words: int
    missing: list[str]
    in_file: int

    @property
    def share(self):
        return float(self.found.sum()) / self.words

    def __str__(self):
        without = f"; without, for example: {', '.join(self.missing)}" if self.missing else ""
        return f"{int(self.found.sum()):,} of {self.words:,} words ({self.share:.1%}) have a vector{without}"


def read_embeddings(path, vocabulary, seed=0):
    """The vectors of a vocabulary, as first embeddings of any model.

    A word that the file lacks gets the vector of its lower-case form. Words without any are drawn from U(-a, a) with the
    variance of those found (Kim 2014, https://arxiv.org/abs/1408.5882, Section 3.2). Only what is wanted is kept in
    memory.

    Args:
        vocabulary: {word: id}, such as `tokenizer.get_vocab()`; the row of an id that is left out is 0.

    Returns:
        (matrix (V, D) float32, Coverage).

    Raises:
        DataError: a damaged file, or one that has none of the words.
        CheckpointError: a folder that holds no word vectors.
    """
    folded = {}
    for word in vocabulary:
        folded.setdefault(word.lower(), []).append(word)
    size, exact, in_file, matrix = max(vocabulary.values(), default=-1) + 1, None, 0, None
    for word, vector in iterate_vectors(path):
        in_file += 1
        if matrix is None:
            matrix, exact = np.zeros((size, len(vector)), np.float32), np.zeros(size, np.int8)
        for wanted in {word, *folded.get(word, ())} & vocabulary.keys():
            row, match = vocabulary[wanted], 2 if wanted == word else 1
            if match > exact[row]:
                matrix[row], exact[row] = vector, match
    names = {number: word for word, number in vocabulary.items()}
    if matrix is None or not exact.any():
        some = ", ".join(repr(names[number]) for number in sorted(names)[-SHOWN:])
        raise DataError(f"{path} has {in_file:,} vectors, but of none of the {len(names):,} words, among them {some}")
    found = exact > 0
    bound = float(np.sqrt(3 * matrix[found].var()))
    drawn = np.random.default_rng(seed).uniform(-bound, bound, matrix.shape)
    missing = [number for number in sorted(names) if not found[number]]
    matrix[missing] = drawn[missing]
    return matrix, Coverage(found, len(names), [names[number] for number in missing[:SHOWN]], in_file)
