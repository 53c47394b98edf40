"""Which token ranges make a pair for next sentence prediction; pure functions on offsets, no token is touched.

Paper: Devlin et al. 2018, "BERT", https://arxiv.org/abs/1810.04805, Section 3.1 (Task #2) and Appendix A.2.
Source: google-research/bert, create_pretraining_data.py, `create_instances_from_document`: the same distribution, but
for all documents at once. A sentence from which a chunk may start has its chunk, split and label drawn whether it is
reached or not; which ones are reached is then a walk along "the next chunk starts at". Nothing is done per token.
Differs from it: "another document" is always another one (the reference gives up after ten attempts).
Shapes: S = sentences, D = documents that have any, P = pairs.
"""

from dataclasses import dataclass, fields

import numpy as np

BLOCK = 1 << 19  # sentences handled at a time, which bounds the memory


@dataclass
class Pairs:
    """Token ranges of A and B, and whether B is a stranger; all (P,)."""

    first_begin: np.ndarray
    first_end: np.ndarray
    second_begin: np.ndarray
    second_end: np.ndarray
    is_random: np.ndarray

    def __len__(self):
        return len(self.is_random)

    def select(self, index):
        """The pairs at these places."""
        return Pairs(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def join(parts):
        """One after the other."""
        return Pairs(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Pairs)))


def walk(following, begin):
    """The places reached from `begin` by going from each to following[place - begin], until past the last.

    Example (begin 10):
        following  [12 12 13]
        reached    [10 12]
    """
    steps, here, end, reached = following.tolist(), begin, begin + len(following), []
    while here < end:
        reached.append(here)
        here = steps[here - begin]
    return np.array(reached, dtype=np.int64)


def truncate_pairs(first_length, second_length, room, rng):
    """Shorten pairs to `room` tokens, one token at a time off the longer, at its front or back with equal chance.

    The outcome of the reference's loop in closed form: the longer loses the difference, then both lose in turn,
    beginning with B; of the tokens lost, a binomial number is lost at the front.

    Args:
        first_length, second_length: at least 1, (P,).
        room: at least 2.

    Returns:
        Tokens lost at (front of A, back of A, front of B, back of B), each (P,).
    """
    excess = np.maximum(first_length + second_length - room, 0)
    difference = np.minimum(excess, np.abs(first_length - second_length))
    first_is_longer = first_length > second_length
    first_lost = (excess - difference) // 2 + np.where(first_is_longer, difference, 0)
    second_lost = excess - first_lost
    lost = []
    for number in (first_lost, second_lost):
        front = np.zeros_like(number)
        some = np.flatnonzero(number)
        front[some] = rng.binomial(number[some], 0.5)
        lost += [front, number - front]
    return lost


def draw_pairs(sentence_offsets, document_offsets, room, rng, *, short_sequence_probability, random_next_probability):
    """Pairs of all documents, in their order.

    Args:
        sentence_offsets: first token of each sentence, and the end, (S + 1,); no sentence is empty.
        document_offsets: first sentence of each document, and the end, (D + 1,); no document is empty, D >= 2.
        room: tokens of A and B together at the most.
        rng: numpy Generator, the source of all randomness.

    Returns:
        Pairs.
    """
    sizes = np.diff(document_offsets)
    D = len(sizes)
    short = rng.random(D) < short_sequence_probability
    targets = np.where(short, rng.integers(2, room + 1, D), room)
    edges = np.searchsorted(document_offsets, np.arange(0, document_offsets[-1], BLOCK))
    edges = np.unique(np.append(edges, D))
    if edges[0] != 0:
        edges = np.append(0, edges)
    parts = [
        _block_of_pairs(sentence_offsets, document_offsets, targets, range(a, b), room, rng, random_next_probability)
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
    return Pairs.join(parts)


def _block_of_pairs(tokens_at, document_offsets, targets, documents, room, rng, random_next_probability):
    begins, ends = document_offsets[:-1], document_offsets[1:]
    block = slice(documents.start, documents.stop)
    base, stop = document_offsets[documents.start], document_offsets[documents.stop]
    sentence = np.arange(base, stop)
    document = np.repeat(np.arange(documents.start, documents.stop), ends[block] - begins[block])
    chunk_end = np.searchsorted(tokens_at, tokens_at[base:stop] + targets[document])
    chunk_end = np.minimum(chunk_end, ends[document])
    alone = chunk_end - sentence == 1
    middle = sentence + 1 + (rng.random(len(sentence)) * (chunk_end - sentence - 1)).astype(np.int64)
    is_random = alone | (rng.random(len(sentence)) < random_next_probability)
    # A stranger leaves the chunk's rest unused: the next chunk begins with it.
    reached = walk(np.where(is_random, middle, chunk_end), base) - base

    document, is_random, middle = document[reached], is_random[reached], middle[reached]
    first_begin, first_end = tokens_at[reached + base], tokens_at[middle]
    other = rng.integers(0, len(begins) - 1, len(reached))
    other += other >= document
    start = begins[other] + (rng.random(len(reached)) * (ends[other] - begins[other])).astype(np.int64)
    wanted = np.maximum(targets[document] - (first_end - first_begin), 1)
    end = np.minimum(np.searchsorted(tokens_at, tokens_at[start] + wanted), ends[other])
    second_begin = tokens_at[np.where(is_random, start, middle)]
    second_end = tokens_at[np.where(is_random, end, chunk_end[reached])]
    lost = truncate_pairs(first_end - first_begin, second_end - second_begin, room, rng)
    return Pairs(first_begin + lost[0], first_end - lost[1], second_begin + lost[2], second_end - lost[3], is_random)
