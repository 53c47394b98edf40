"""N-gram language models as baselines on the very tokens a neural model is scored on.

Interpolated Witten-Bell smoothing: p(w | c) = (n(c, w) + t(c) p(w | c')) / (n(c) + t(c)), where n counts, t(c) is the
number of different words seen after the context c, and c' is c without its oldest word; below the unigram lies the
uniform distribution.
Paper: Witten and Bell 1991; Chen and Goodman 1998, https://dash.harvard.edu/handle/1/25104739, Section 2.4; Section 3 is
modified Kneser-Ney smoothing, interpolated, in which a shorter context counts in how many surroundings a word was seen.
Shapes: N = tokens, V = vocabulary.
"""

import numpy as np

from hftoolkit.data.language_modeling import StreamedDocuments

FEW_COUNTS = (0.5, 1.0, 1.5)  # discounts of data too small to estimate them, as KenLM has them
STREAMED_TOKENS = 2_000_000  # some seconds of tokenising


def contexts(tokens, offsets, order, vocab_size):
    """Number of the `order - 1` tokens before each token; places before a document's start hold the number V.

    Example (order 3, V = 10, one document [7 8 9]):
        contexts  (V V) (V 7) (7 8)
    """
    inside = np.arange(len(tokens)) - np.repeat(offsets[:-1], np.diff(offsets))
    code = np.zeros(len(tokens), dtype=np.int64)
    for back in range(order - 1, 0, -1):
        before = np.full(len(tokens), vocab_size, dtype=np.int64)
        before[back:] = tokens[: len(tokens) - back]
        code = code * (vocab_size + 1) + np.where(inside >= back, before, vocab_size)
    return code


def _lookup(keys, counts, wanted):
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, counts[place], 0)


def ngram_losses(train, held_out, vocab_size, max_order=2):
    """Cross-entropy of n-gram models on held-out documents.

    Args:
        train: (tokens (N,), offsets (documents + 1,)); held_out likewise. The first token of a document is given,
            every other one is predicted.
        max_order: 1 unigram, 2 bigram, 3 trigram.

    Returns:
        Nats per predicted token of each order, {1: ..., 2: ...}.

    Raises:
        ValueError: max_order above 3, or a vocabulary too large for 64-bit keys.
    """
    if not 1 <= max_order <= 3 or (vocab_size + 1.0) ** max_order > 2**62:
        raise ValueError(f"max_order must be 1, 2 or 3 and V^order below 2^62, got {max_order} with V = {vocab_size}")
    sides = []
    for tokens, offsets in (train, held_out):
        predicted = np.ones(len(tokens), dtype=bool)
        predicted[offsets[:-1][np.diff(offsets) > 0]] = False
        sides.append((tokens.astype(np.int64), offsets, predicted))
    (seen, seen_offsets, seen_mask), (text, text_offsets, text_mask) = sides
    words, wanted = seen[seen_mask], text[text_mask]
    probability, losses = np.full(len(wanted), 1.0 / vocab_size), {}
    for order in range(1, max_order + 1):
        context = contexts(seen, seen_offsets, order, vocab_size)[seen_mask]
        pairs, pair_counts = np.unique(context * (vocab_size + 1) + words, return_counts=True)
        keys, totals = np.unique(context, return_counts=True)
        kinds = np.unique(pairs // (vocab_size + 1), return_counts=True)[1]
        here = contexts(text, text_offsets, order, vocab_size)[text_mask]
        n = _lookup(keys, totals, here)
        t = _lookup(keys, kinds, here)
        joint = _lookup(pairs, pair_counts, here * (vocab_size + 1) + wanted)
        probability = np.where(n > 0, (joint + t * probability) / np.maximum(n + t, 1), probability)
        losses[order] = float(-np.log(probability).mean())
    return losses


def ngram_baselines(train, held_out, vocab_size, max_tokens=STREAMED_TOKENS):
    """Loss of the unigram and the bigram model of `train` on `held_out`.

    Args:
        train, held_out: data sets with `tokens` and `offsets`; train may also be a stream of documents.
        max_tokens: of a stream, only its beginning is counted, up to this.

    Returns:
        {"unigram_loss": nats per token, "bigram_loss": ...}; where a stream goes on, the names say how much of it was
        counted, `unigram_of_the_first_2000123_tokens_loss`: a weaker baseline, the more so where a stream is sorted.
    """
    where = ""
    if isinstance(train, StreamedDocuments):
        *counted, is_all = train.beginning(max_tokens)
        where = "" if is_all else f"_of_the_first_{len(counted[0])}_tokens"
    else:
        counted = train.tokens, train.offsets
    losses = ngram_losses(counted, (held_out.tokens, held_out.offsets), vocab_size)
    return {f"unigram{where}_loss": losses[1], f"bigram{where}_loss": losses[2]}


def discounts(counts):
    """What is taken from n-grams that were counted once, twice, and more often (Chen and Goodman 1998, Equation 26).

    Args:
        counts: of all different n-grams of one order.

    Returns:
        (4,), the first of which is 0; FEW_COUNTS where no n-gram was counted once, twice, three or four times, or where
        the formula takes more than there is.
    """
    one, two, three, four = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if min(one, two, three, four) > 0:
        y = one / (one + 2 * two)
        found = np.array([0.0, 1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three])
        if (found[1:] >= 0).all() and (found[1:] <= (1, 2, 3)).all():
            return found
    return np.array([0.0, *FEW_COUNTS])


def kneser_ney_loss(train, held_out, vocab_size, order=5):
    """Cross-entropy of interpolated modified Kneser-Ney smoothing on held-out documents.

    p(w | h) = (n(h, w) - D(n(h, w))) / n(h) + (the sum of what D took) / n(h) p(w | h'), where h' is h without its oldest
    word. For the longest h, and where h w only occurs at the beginning of documents, n(h, w) counts; for a shorter one it is the number of
    different words that were seen before h w. Below the unigram lies the uniform distribution.

    Args:
        train: (tokens (N,), offsets (documents + 1,)); held_out likewise. The first token of a document is given, every
            other one is predicted.
        order: n of the n-grams.

    Returns:
        Nats per predicted token.

    Raises:
        ValueError: an order below 1.
    """
    if order < 1:
        raise ValueError(f"order must be at least 1, got {order}")
    sides, start = [], 0
    for tokens, offsets in (train, held_out):
        lengths, tokens = np.diff(offsets), tokens[offsets[0] : offsets[-1]].astype(np.int64)
        sides.append((tokens, np.arange(len(tokens)) - np.repeat(offsets[:-1] - offsets[0], lengths)))
        start = len(sides[0][0])
    tokens, inside = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    seen = np.flatnonzero((np.arange(len(tokens)) < start) & (inside > 0))
    wanted = np.flatnonzero((np.arange(len(tokens)) >= start) & (inside > 0))
    grams, histories = _numbered(tokens, inside, vocab_size, order)
    probability = np.full(len(wanted), 1.0 / vocab_size)
    for n in range(order):
        counts = np.bincount(grams[n][seen], minlength=grams[n].max() + 1)
        if n + 1 < order:  # how many different words stood before, but at a document's beginning, where none can stand
            first = np.unique(grams[n + 1][seen], return_index=True)[1]
            surroundings = np.bincount(grams[n][seen][first], minlength=len(counts))
            within = np.bincount(grams[n][seen], inside[seen] > n, len(counts)) > 0
            counts = np.where(within, surroundings, counts)
        kinds, places = np.unique(grams[n][seen], return_index=True)
        taken = discounts(counts[kinds])
        history = histories[n][seen][places]  # of each different n-gram
        size = histories[n].max() + 1
        total = np.bincount(history, counts[kinds], size)[histories[n][wanted]]
        left = np.bincount(history, taken[np.minimum(counts[kinds], 3)], size)[histories[n][wanted]]
        own = counts[grams[n][wanted]]
        own = own - taken[np.minimum(own, 3)]
        probability = np.where(total > 0, (own + left * probability) / np.maximum(total, 1), probability)
    return float(-np.log(probability).mean())


def _numbered(tokens, inside, vocab_size, order):
    """Numbers of the n-gram that ends at each token, and of the n - 1 tokens before it.

    Two lists, by n from 1 to order, of (N,); equal n-grams have equal numbers, below N. A place before a document's
    beginning holds the token V.
    """
    grams, histories = [], [np.zeros(len(tokens), dtype=np.int64)]
    for n in range(order):
        if n:
            before = np.full(len(tokens), vocab_size, dtype=np.int64)
            before[n:] = tokens[: len(tokens) - n]
            before = np.where(inside >= n, before, vocab_size)
            code = histories[-1] * (vocab_size + 1) + before
            histories.append(np.unique(code, return_inverse=True)[1])
        grams.append(np.unique(histories[-1] * (vocab_size + 1) + tokens, return_inverse=True)[1])
    return grams, histories
