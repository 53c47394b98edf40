"""Rows of full sentences without sentence pairs, for masked language modelling alone.

Paper: Liu et al. 2019, "RoBERTa", https://arxiv.org/abs/1907.11692, Section 4.2 (FULL-SENTENCES).
Differs from it: a document does not see its neighbour in a row (positions restart at each, and packed attention keeps
them apart), so no separator tells them apart; and rows are filled by first-fit decreasing instead of in order.
"""

import numpy as np

from hftoolkit.errors import DataError

from .epochs import DrawnRows, edge_tokens
from .packing import first_fit_decreasing
from .sentence_pairs import walk


def cut_at_sentences(sentence_offsets, document_offsets, room):
    """Cut documents into the longest runs of whole sentences with at most `room` tokens.

    Args:
        sentence_offsets: first token of each sentence, and the end, (S + 1,); no sentence is empty.
        document_offsets: first sentence of each document, and the end, (D + 1,).

    Returns:
        (begin, end) of the pieces in the token array, (pieces, 2); a sentence longer than `room` is cut itself.

    Example (room 10):
        sentences  [0 4 9 12] [12 37]
        pieces     [0 9] [9 12] [12 22] [22 32] [32 37]
    """
    lengths = np.diff(sentence_offsets)
    parts = -(-lengths // room)  # of each sentence
    first = np.repeat(np.cumsum(parts) - parts, parts)
    begins = np.repeat(sentence_offsets[:-1], parts) + (np.arange(parts.sum()) - first) * room
    offsets = np.append(begins, sentence_offsets[-1])
    document_edges = np.append(0, np.cumsum(parts))[document_offsets]
    following = np.searchsorted(offsets, offsets[:-1] + room, side="right") - 1
    document_end = np.repeat(document_edges[1:], np.diff(document_edges))
    following = np.minimum(following, document_end)
    reached = walk(following, 0)
    return np.stack([offsets[reached], offsets[following[reached]]], axis=1)


class FullSentences(DrawnRows):
    """Packed rows of [CLS] sentences [SEP], with position_ids that restart at each piece of a document.

    Which pieces share a row is drawn afresh in every epoch from (seed, epoch); their number of rows stays the same.

    Args:
        store: a SentenceStore.
        max_length: tokens of a row at the most, special ones included.
        redraw: False keeps the rows of epoch 0, for evaluation.

    Raises:
        ValueError: max_length below 3.
        DataError: a tokenizer without [CLS] or [SEP].
    """

    def __init__(self, store, tokenizer, max_length, *, seed, redraw=True):
        super().__init__(redraw)
        if max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS] a [SEP]), got {max_length}")
        self.cls, self.sep = edge_tokens(tokenizer)
        self.store, self.max_length, self.seed = store, max_length, seed
        self.pieces = cut_at_sentences(store.sentence_offsets, store.document_offsets, max_length - 2)
        if not len(self.pieces):
            raise DataError("no document has a token")
        self.set_epoch(0)
        self._length = len(self._plan[1]) - 1

    def draw(self, epoch):
        """What `rows` needs for the rows of an epoch."""
        pieces = self.pieces[np.random.default_rng((self.seed, epoch)).permutation(len(self.pieces))]
        rows = first_fit_decreasing(pieces[:, 1] - pieces[:, 0] + 2, self.max_length)
        return pieces[np.argsort(rows, kind="stable")], np.append(0, np.cumsum(np.bincount(rows)))

    def rows(self, plan, indices, epoch):
        """The rows of an epoch at these places, dictionaries."""
        pieces, edges = plan
        tokens = self.store.tokens
        cls, sep = (np.array([token], dtype=tokens.dtype) for token in (self.cls, self.sep))
        rows = []
        for index in indices:
            parts, positions = [], []
            for begin, end in pieces[edges[index] : edges[index + 1]].tolist():
                parts += (cls, tokens[begin:end], sep)
                positions.append(np.arange(end - begin + 2))
            ids = np.concatenate(parts).astype(np.int64)
            row = {"input_ids": ids, "position_ids": np.concatenate(positions)}
            rows.append(row | {"index": index, "epoch": epoch})
        return rows

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        tokens = int((self.pieces[:, 1] - self.pieces[:, 0] + 2).sum())
        return {
            **self.store.summary(),
            "rows": len(self),
            "tokens": tokens,
            "packing_efficiency": round(tokens / (len(self) * self.max_length), 4),
            "max_length": self.max_length,
        }
