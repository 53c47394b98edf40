"""Learn a Unigram vocabulary: the pieces, with probabilities, under which the words of a text are most likely.

Paper: Kudo 2018, "Subword Regularization", https://aclanthology.org/P18-1007, Section 3.2: start from all frequent
    substrings; estimate their probabilities by EM over every segmentation of every word; remove the pieces whose loss
    costs the likelihood least; repeat until the wanted number is left. Single characters always stay.
As in its program, SentencePiece: probabilities from the digamma function (a sparse Bayesian M-step), pieces expected
    less than half a time are dropped, a quarter of the pieces goes in each round, pieces have at most 16 characters.
Differs from it: the loss of a piece is its expected count times what its best other segmentation costs.

Why not tokenizers.trainers.UnigramTrainer: it sums in the order of a hash map that is different in every process, so
that two runs over one text give different probabilities from the third decimal on. Here the words are sorted.

Shapes: N = nodes (one before each character of each word and one after its last), E = edges (one for each place where
a piece fits), P = pieces.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .substrings import Trie, Words, frequent_substrings

MAX_WORD_LENGTH = 32  # longer "words" (text without spaces) are cut: products of probabilities stay above 1e-300
MAX_SEEDS = 1_000_000  # SentencePiece's seed_sentencepiece_size
KEPT_PER_ROUND = 0.75  # SentencePiece's shrinking_factor
MIN_EXPECTED = 0.5  # SentencePiece, unigram_model_trainer.cc, kExpectedFrequencyThreshold
EM_STEPS = 2  # SentencePiece's num_sub_iterations


@dataclass
class Lattice:
    """Every segmentation of every word, as arrays over edges: `piece` reaches from node `start` to node `end`."""

    words: Words
    start: np.ndarray  # (E,)
    end: np.ndarray  # (E,)
    piece: np.ndarray  # (E,)

    def keep(self, edges: np.ndarray) -> "Lattice":
        """The lattice with only the edges where the mask is True."""
        return Lattice(self.words, self.start[edges], self.end[edges], self.piece[edges])

    @cached_property
    def forward(self):
        return self._sweep(self.end, self.end - self.words.first[self.words.word[self.start]])

    @cached_property
    def backward(self):
        return self._sweep(self.start, self.words.last[self.words.word[self.start]] - self.start)

    def _sweep(self, target, distance):
        """Group the edges so that the source of each is complete before it is used: (edges, nodes, offsets)."""
        order, groups = np.lexsort((target, distance)), []
        for edges in np.split(order, np.flatnonzero(np.diff(distance[order])) + 1):
            offsets = np.flatnonzero(np.diff(target[edges], prepend=-1))  # where the edges to one node begin
            if len(edges):
                groups.append((edges, target[edges[offsets]], offsets))
        return groups


def make_lattice(words: Words, trie: Trie, piece_of: np.ndarray) -> Lattice:
    """Lay out all places where a piece fits; `piece_of` maps an id of the trie to a piece, or to -1."""
    start, end, piece = [], [], []
    for length, nodes, ids in trie.matches(words):
        pieces = piece_of[ids]
        start.append(nodes[pieces >= 0])
        end.append(start[-1] + length)
        piece.append(pieces[pieces >= 0])
    return Lattice(words, *(np.concatenate(parts) for parts in (start, end, piece)))


def expected_counts(lattice: Lattice, probability: np.ndarray, word_counts: np.ndarray) -> np.ndarray:
    """How often each piece is expected in the text, over all segmentations weighted by their probability, (P,)."""
    words = lattice.words
    forward, backward = np.zeros(len(words.word)), np.zeros(len(words.word))  # (N,)
    forward[words.first], backward[words.last] = 1, 1
    weight = probability[lattice.piece]
    for edges, nodes, offsets in lattice.forward:
        forward[nodes] = np.add.reduceat(forward[lattice.start[edges]] * weight[edges], offsets)
    for edges, nodes, offsets in lattice.backward:
        backward[nodes] = np.add.reduceat(backward[lattice.end[edges]] * weight[edges], offsets)
    total = forward[words.last]
    per_word = np.divide(word_counts, total, out=np.zeros_like(total), where=total > 0)
    share = forward[lattice.start] * weight * backward[lattice.end] * per_word[words.word[lattice.start]]
    return np.bincount(lattice.piece, weights=share, minlength=len(probability))


def best_scores(lattice: Lattice, log_probability: np.ndarray) -> np.ndarray:
    """Log probability of the best segmentation of each word; -inf where there is none."""
    score = np.full(len(lattice.words.word), -np.inf)
    score[lattice.words.first] = 0
    for edges, nodes, offsets in lattice.forward:
        arriving = score[lattice.start[edges]] + log_probability[lattice.piece[edges]]
        score[nodes] = np.maximum.reduceat(arriving, offsets)
    return score[lattice.words.last]


def train_unigram(
    word_counts: Mapping[str, int], alphabet: list[str], num_pieces: int, excluded: Collection[str] = ()
) -> list[tuple[str, float]]:
    """Choose pieces and their log probabilities for words with counts.

    Args:
        word_counts: word to number of times, a word being what no piece reaches across.
        alphabet: characters that must be pieces; words with other characters teach nothing.
        num_pieces: how many pieces to choose, the alphabet included; there are fewer where the text has not enough.
        excluded: strings that must not become pieces (the special tokens).

    Returns:
        (piece, log probability), most probable first, rounded to 6 decimals; ties in order of the pieces.
    """
    parts = Counter()
    for word in sorted(word_counts):
        for begin in range(0, len(word), MAX_WORD_LENGTH):
            parts[word[begin : begin + MAX_WORD_LENGTH]] += word_counts[word]
    counts = np.array(list(parts.values()), dtype=float)
    words = Words(list(parts), alphabet)
    trie, seeds, seed_ids = frequent_substrings(words, counts)
    score = np.array([number * len(piece) for piece, number in seeds.items()])
    allowed = np.array([piece not in excluded for piece in seeds], dtype=bool)
    chosen = np.argsort(-np.where(allowed, score, 0), kind="stable")[: min(allowed.sum(), MAX_SEEDS)]
    texts = list(seeds)
    pieces = [*alphabet, *(texts[i] for i in chosen)]
    piece_of = np.full(len(alphabet) + sum(map(len, trie.keys)), -1)  # id of the trie to number of the piece
    piece_of[: len(alphabet)] = np.arange(len(alphabet))
    piece_of[seed_ids[chosen]] = len(alphabet) + np.arange(len(chosen))

    known = words.character >= 0
    letters = np.bincount(words.character[known], weights=counts[words.word[known]], minlength=len(alphabet))
    probability = np.concatenate([letters, score[chosen]])
    probability /= probability.sum()
    lattice = make_lattice(words, trie, piece_of)
    inside = make_lattice(Words(pieces, alphabet), trie, piece_of)
    probability = shrink(lattice, inside, counts, probability, len(alphabet), num_pieces)

    scores = [(p, round(float(np.log(x)), 6)) for p, x in zip(pieces, probability, strict=True) if x > 0]
    return sorted(scores, key=lambda item: (-item[1], item[0]))


def shrink(lattice, inside, counts, probability, num_characters, num_pieces) -> np.ndarray:
    """Alternate EM and pruning until `num_pieces` are left.

    Args:
        lattice: the segmentations of the words, which occur `counts` times.
        inside: the segmentations of the pieces themselves.
        probability: of each piece at the start; the first `num_characters` pieces are never removed.

    Returns:
        The probabilities of all pieces, 0 for those that were removed, (P,).
    """
    words = inside.words
    is_character = np.arange(len(probability)) < num_characters
    whole = (inside.start == words.first[words.word[inside.start]]) & (words.character[inside.end] < 0)
    inside = inside.keep(~whole)
    while True:
        for _ in range(EM_STEPS):
            expected = expected_counts(lattice, probability, counts)
            probability = maximise(expected, is_character)
        alive = probability > 0
        if alive.sum() > num_pieces:
            inside = inside.keep(alive[inside.piece] & alive[words.word[inside.start]])
            with np.errstate(divide="ignore", invalid="ignore"):  # log 0 of removed pieces, and their differences
                log_probability = np.log(probability)
                loss = expected * (log_probability - best_scores(inside, log_probability))
            loss = np.where(is_character, np.inf, np.where(alive, loss, -np.inf))
            kept = max(num_pieces, int(KEPT_PER_ROUND * alive.sum()))
            alive = np.zeros_like(alive)
            alive[np.argsort(-loss, kind="stable")[:kept]] = True
        lattice = lattice.keep(alive[lattice.piece])
        probability = np.where(alive, probability, 0)
        if alive.sum() <= num_pieces:
            break
    for _ in range(EM_STEPS):  # the last pruning changed the segmentations; nothing is dropped any more
        probability = maximise(expected_counts(lattice, probability, counts), alive)
    return probability


def maximise(expected: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Probabilities from expected counts, (P,): 0 below MIN_EXPECTED, except for the pieces that are kept anyway.

    The single characters are: without them a word could lose its last segmentation with one of its pieces.
    """
    expected = np.where(kept, np.maximum(expected, MIN_EXPECTED), expected)
    enough = expected >= MIN_EXPECTED
    probability = np.zeros_like(expected)
    probability[enough] = np.exp(digamma(expected[enough]) - digamma(expected[enough].sum()))
    return probability


def digamma(x):
    """Derivative of log gamma for x > 0, to 1e-9: the recurrence up to x >= 6, then the asymptotic series."""
    x = np.asarray(x, dtype=float)
    shift = np.zeros_like(x)
    for _ in range(6):
        small = x < 6
        shift = shift - np.where(small, 1 / x, 0)
        x = np.where(small, x + 1, x)
    square = 1 / (x * x)
    series = square * (1 / 12 - square * (1 / 120 - square * (1 / 252 - square * (1 / 240 - square / 132))))
    return shift + np.log(x) - 0.5 / x - series
