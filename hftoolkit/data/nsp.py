"""Next sentence prediction: pairs of segments, half of them neighbours, half of them strangers.

Paper: Devlin et al. 2018, "BERT", https://arxiv.org/abs/1810.04805, Section 3.1 (Task #2) and Appendix A.2.
Differs from google-research/bert, create_pretraining_data.py, in that pairs are drawn afresh in every epoch, and not
ten times beforehand; how a pair is drawn stands in sentence_pairs.py.
"""

from dataclasses import fields

import numpy as np

from hftoolkit.errors import DataError

from .epochs import DrawnRows, edge_tokens
from .full_sentences import FullSentences
from .sentence_pairs import Pairs, draw_pairs

__all__ = ["FullSentences", "NextSentencePairs"]  # the two kinds of rows that BERT is pretrained on
NUM_SPECIAL = 3  # [CLS] A [SEP] B [SEP]


class NextSentencePairs(DrawnRows):
    """Sentence pairs [CLS] A [SEP] B [SEP], drawn afresh in every epoch from (seed, epoch).

    The number of pairs is that of epoch 0 and never changes: where a later epoch draws more, a random choice of them
    is left out; where it draws fewer, a random choice from a second draw of that epoch is added. A chunk of a single
    sentence has no neighbour and gets a stranger, as in the reference, so strangers are more than
    `random_next_probability` where sentences are long or documents short.

    Args:
        store: a SentenceStore.
        max_length: tokens of a pair at the most, special ones included.
        short_sequence_probability: share of the documents that are cut into shorter pairs (uniform in 2..max_length
            - 3), so that the model also meets short inputs.
        random_next_probability: share of the pairs of several sentences whose B is a stranger.
        redraw: False keeps the pairs of epoch 0, for evaluation.

    Raises:
        ValueError: max_length below 5, or a share outside 0..1.
        DataError: fewer than two documents, or a tokenizer without [CLS] or [SEP].
    """

    def __init__(
        self,
        store,
        tokenizer,
        max_length,
        *,
        seed,
        short_sequence_probability=0.1,
        random_next_probability=0.5,
        redraw=True,
    ):
        super().__init__(redraw)
        if max_length < NUM_SPECIAL + 2:
            raise ValueError(f"max_length must be at least 5 ([CLS] a [SEP] b [SEP]), got {max_length}")
        for name in ("short_sequence_probability", "random_next_probability"):
            if not 0 <= locals()[name] <= 1:
                raise ValueError(f"{name} must be in 0..1, got {locals()[name]}")
        self.cls, self.sep = edge_tokens(tokenizer)
        self.store, self.max_length, self.seed = store, max_length, seed
        self.shares = dict(
            short_sequence_probability=short_sequence_probability, random_next_probability=random_next_probability
        )
        offsets = store.document_offsets
        self.documents = np.append(offsets[:-1][np.diff(offsets) > 0], offsets[-1])  # those with a sentence
        if len(self.documents) < 3:
            raise DataError(
                f"{len(self.documents) - 1} document: next sentence prediction takes strangers from other documents; "
                "separate the documents (--document_separator, or one file each), or pretrain without it"
            )
        self._length = None
        self.set_epoch(0)

    def draw(self, epoch):
        """What `rows` needs for the rows of an epoch."""

        def pairs(part):
            rng = np.random.default_rng((self.seed, epoch, part))
            room = self.max_length - NUM_SPECIAL
            return draw_pairs(self.store.sentence_offsets, self.documents, room, rng, **self.shares)

        drawn, choose = pairs(0), np.random.default_rng((self.seed, epoch, 2**31))
        if self._length is None:
            self._length = len(drawn)
        part = 1
        while len(drawn) < self._length:
            more, missing = pairs(part), self._length - len(drawn)
            drawn = Pairs.join([drawn, more.select(choose.permutation(len(more))[:missing])])
            part += 1
        if len(drawn) > self._length:
            drawn = drawn.select(np.sort(choose.permutation(len(drawn))[: self._length]))
        return drawn

    def rows(self, pairs, indices, epoch):
        """The rows of an epoch at these places, dictionaries."""
        part = pairs.select(np.asarray(indices))
        columns = [getattr(part, field.name).tolist() for field in fields(Pairs)]
        tokens, pieces = self.store.tokens, []
        cls, sep = (np.array([token], dtype=tokens.dtype) for token in (self.cls, self.sep))
        for a, b, c, d in zip(*columns[:4], strict=True):
            pieces += (cls, tokens[a:b], sep, tokens[c:d], sep)
        ids = np.concatenate(pieces).astype(np.int64)  # faster than casting each piece
        sizes = np.stack([part.first_end - part.first_begin + 2, part.second_end - part.second_begin + 1], axis=1)
        types = np.repeat(np.tile([0, 1], len(part)), sizes.ravel())
        rows, begin = [], 0
        for index, size, label in zip(indices, sizes.sum(axis=1).tolist(), columns[4], strict=True):
            place = slice(begin, begin + size)
            begin += size
            row = {"input_ids": ids[place], "token_type_ids": types[place], "next_sentence_label": int(label)}
            rows.append(row | {"index": index, "epoch": epoch})
        return rows

    def summary(self):
        """What the plan of a run and the model card tell about the data, as of the present epoch."""
        pairs = self._current()
        first, second = pairs.first_end - pairs.first_begin, pairs.second_end - pairs.second_begin
        return {
            **self.store.summary(),
            "pairs": len(pairs),
            "tokens": int((first + second).sum()) + NUM_SPECIAL * len(pairs),
            "random_next": round(float(pairs.is_random.mean()), 4),
            "max_length": self.max_length,
        }
