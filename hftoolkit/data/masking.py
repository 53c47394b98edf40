"""Which tokens a masked language model has to predict: tokens, whole words or spans; pure functions on arrays.

Papers: Devlin et al. 2018, "BERT", https://arxiv.org/abs/1810.04805, Section 3.1 (Task #1). Whole words:
google-research/bert, create_pretraining_data.py, `create_masked_lm_predictions`. Spans: Joshi et al. 2019,
"SpanBERT", https://arxiv.org/abs/1907.10529, Section 3.1, and facebookresearch/SpanBERT, `PairWithSpanMaskingScheme`.
All random numbers of a row come from its key, so they do not depend on the other rows of its batch.
Shapes: B = rows, T = tokens, N = tokens masked in all rows, W = words in all rows.
"""

from functools import lru_cache

import numpy as np

NARROW = (1 << 12) - 1  # tokens in a row, up to which 32 bits per token are enough
_CHANCES = 0.2 * 0.8 ** np.arange(10)  # SpanBERT, Section 3.1: geometric with p = 0.2, cut at 10; mean 3.8
SPAN_LENGTHS = np.cumsum(_CHANCES / _CHANCES.sum())[:-1]  # chance of at most 1, 2, ... 9
_CHOICE, _ACTION, _SPAN = 0, 1 << 40, 2 << 40  # where a row's streams of random numbers begin, from its key
# 0-d arrays: as an operand they cost half as much as numpy's scalars, which counts where arrays are small
_GAMMA, _FIRST, _SECOND, _SHIFT_1, _SHIFT_2, _SHIFT_3 = (
    np.array(number, dtype=np.uint64)
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 30, 27, 31)
)


def random_bits(places):
    """The numbers at these places of SplitMix64's sequence, uint64; `places` is overwritten.

    Source: Steele et al. 2014, https://doi.org/10.1145/2660193.2660195, Figure 16. A generator that is a function of
    the place needs no loop over rows, and no state that workers or a resumed run would have to restore.
    """
    places *= _GAMMA
    shifted = np.right_shift(places, _SHIFT_1)
    places ^= shifted
    places *= _FIRST
    places ^= np.right_shift(places, _SHIFT_2, out=shifted)
    places *= _SECOND
    places ^= np.right_shift(places, _SHIFT_3, out=shifted)
    return places


def row_keys(seed, epochs, indices):
    """The keys of rows, (B,) uint64, from the run's seed, the epoch and the rows' numbers."""
    keys = random_bits(np.full(len(indices), seed, dtype=np.uint64))
    for numbers in (epochs, indices):
        keys = random_bits(keys + np.asarray(numbers).astype(np.uint64))
    return keys


@lru_cache(maxsize=256)
def _numbers(longest, probability, max_predictions):
    """Tokens to mask in a row of each length up to the longest, (longest + 1,)."""
    number = np.maximum(np.rint(np.arange(longest + 1) * probability), 1).astype(np.int64)
    return number if max_predictions is None else np.minimum(number, max_predictions)


def number_to_mask(lengths, longest, probability=0.15, max_predictions=None):
    """Tokens to mask in rows of these lengths, (B,): max(1, round(probability * length)).

    Args:
        longest: no length is above it.
    """
    return _numbers(longest, probability, max_predictions)[lengths]


@lru_cache(maxsize=256)
def _constants(length, extra):
    """What shuffled_places needs for rows of a length, made once: small calls cost as much as the work on a batch."""
    kind, low_bits, per_number = (np.uint32, 12, 2) if length <= NARROW else (np.uint64, 32, 1)
    choice = np.arange(-(-length // per_number), dtype=np.uint64) + np.uint64(_CHOICE)
    action = np.arange(-(-extra // 2), dtype=np.uint64) + np.uint64(_ACTION)
    low, top = (np.array(number, dtype=kind) for number in ((1 << low_bits) - 1, np.iinfo(kind).max))
    return np.concatenate([choice, action]), len(choice), np.arange(length, dtype=kind), low, ~low, top


def shuffled_places(eligible, keys, first=None, extra=0):
    """The eligible places of each row in random order.

    Random numbers whose low bits are the place are sorted, which is faster than argsort; equal ones (one row of 128
    in a hundred has a pair) come in the order of their places. Up to 4096 tokens the order does not depend on how
    wide the batch is.

    Returns:
        (the `first` places of the order (B, first), `extra` random numbers beside (B, extra) uint32); behind a row's
        last eligible place follow numbers of T or more.
    """
    T = eligible.shape[1]
    counters, end, places, low, high, top = _constants(T, extra)
    numbers = random_bits(keys[:, None] + counters)
    order = numbers[:, :end].view(places.dtype)[:, :T] & high
    order |= places
    np.copyto(order, top, where=~eligible)
    order.sort(axis=1)
    return order[:, :first] & low, numbers[:, end:].view(np.uint32)[:, :extra]


@lru_cache(maxsize=256)
def _column(rows, row_length):
    return np.arange(0, rows * row_length, row_length, dtype=np.uint32)[:, None], np.arange(row_length)


def choose_tokens(maskable, number, keys):
    """Flat places of `number` (B,) random tokens of each row, or of all, row after row, and a random number for each.

    Returns:
        (places (N,), random numbers (N,) uint32).
    """
    B, T = maskable.shape
    K = int(np.maximum.reduce(number))
    offsets, ranks = _column(B, T)
    order, draws = shuffled_places(maskable, keys, K, K)
    taken = ranks[: order.shape[1]] < number[:, None]
    taken &= order < T
    order += offsets
    return order[taken].astype(np.int64), draws[:, : order.shape[1]][taken]


def draws_at(places, keys, row_length):
    """A random number for each flat place, (N,) uint32."""
    rows = places // row_length
    streams = keys[rows] - (rows * row_length).astype(np.uint64) + np.uint64(_ACTION)
    return (random_bits(streams + places.astype(np.uint64)) >> np.uint64(32)).astype(np.uint32)


def words_of(starts, maskable):
    """(begins (W,), sizes (W,)): flat places of the words of all rows, and their tokens.

    Args:
        starts: True where a word begins, (B, T); a word ends before the next one, and where nothing is maskable.
    """
    edge = starts | ~maskable
    edge[:, 0] = True
    edges = np.flatnonzero(edge)
    sizes = np.diff(edges, append=edge.size)
    word = starts.reshape(-1)[edges]
    return edges[word], sizes[word]


def choose_words(maskable, starts, number, keys):
    """Flat places of the tokens of random whole words, at most `number` (B,) in a row; (N,).

    As in the reference, words are gone through in random order, and one that would exceed the number is skipped. Where
    not a single word fits, the first one's first `number` tokens are taken.
    """
    B, T = maskable.shape
    begins, lengths = words_of(starts, maskable)
    size_at = np.zeros(B * T + 1, dtype=np.int64)  # at the end: the size of no word, which fits nowhere
    size_at[begins], size_at[-1] = lengths, B * T + 1
    per_row = np.count_nonzero(starts, axis=1)
    number = np.minimum(number, np.count_nonzero(maskable, axis=1))
    width = int(number.max(initial=0)) + 8  # words looked at: as many as may be taken, and some that are skipped
    while True:
        order = shuffled_places(starts, keys, width)[0] + np.arange(0, B * T, T)[:, None]
        order[np.arange(order.shape[1]) >= per_row[:, None]] = B * T
        sizes, room = size_at[order], number.copy()
        taken = np.zeros(order.shape, dtype=bool)
        alive = sizes <= room[:, None]
        while alive.any():  # each time up to the first word that exceeds the room, which is out for good
            fits = alive & (np.cumsum(sizes * alive, axis=1) <= room[:, None])
            taken |= fits
            room -= (sizes * fits).sum(axis=1)
            alive &= ~fits & (sizes <= room[:, None])
        if not ((room > 0) & (per_row > width)).any():
            break
        width = T
    bare = (room == number) & (number > 0) & (per_row > 0)
    taken[bare, 0], sizes[bare, 0] = True, number[bare]
    sizes = sizes[taken]
    return np.repeat(order[taken] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())


def choose_spans(maskable, starts, number, keys):
    """Flat places of the tokens of random spans of words, `number` (B,) in a row or all, and their spans' places.

    As in SpanBERT: a random token that is not masked yet, its word from the beginning, and the words after it, 1 to 10
    in all; the last span is cut at the number. A span ends where nothing is maskable.

    Returns:
        (places (N,), the first place of the span of each (N,)).
    """
    B, T = maskable.shape
    order, _ = shuffled_places(maskable, keys)
    begins, sizes = words_of(starts, maskable)
    ends = begins + sizes
    word_at = np.cumsum(starts.ravel()) - 1
    breaks = np.flatnonzero((np.append(begins[1:], -1) != ends) | (np.append(begins[1:], 0) % T == 0))
    last_of_run = np.repeat(breaks, np.diff(breaks, prepend=-1))
    span_at = np.full(B * T, -1)
    room = np.minimum(number, np.count_nonzero(maskable, axis=1))
    rows = np.flatnonzero(room)
    for column in range(T):
        if not len(rows):
            break
        anchor = order[rows, column].astype(np.int64) + rows * T
        free = span_at[anchor] < 0
        anchor, here = anchor[free], rows[free]
        draws = random_bits(keys[here] + (anchor % T).astype(np.uint64) + np.uint64(_SPAN)) / 2.0**64
        word = word_at[anchor]
        last = np.minimum(word + np.searchsorted(SPAN_LENGTHS, draws, side="right"), last_of_run[word])
        begin, end = begins[word], ends[last]
        places = begin[:, None] + np.arange((end - begin).max(initial=0))
        inside = places < end[:, None]
        inside &= span_at[np.minimum(places, B * T - 1)] < 0
        inside &= np.cumsum(inside, axis=1) <= room[here, None]
        span_at[places[inside]] = np.broadcast_to(begin[:, None], places.shape)[inside]
        room[here] -= inside.sum(axis=1)
        rows = rows[room[rows] > 0]
    chosen = np.flatnonzero(span_at >= 0)
    return chosen, span_at[chosen]
