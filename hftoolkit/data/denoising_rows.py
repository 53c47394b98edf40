"""Rows of text to damage: documents cut into rows, before any noise.

Paper: Raffel et al. 2020, "T5", https://arxiv.org/abs/1910.10683, Section 3.1.4: documents are laid end to end and cut
into rows of one length. Differs from it: documents come in another order in every epoch.
"""

from dataclasses import dataclass

import numpy as np

from hftoolkit.errors import DataError

from .denoising import Mixture
from .denoising_bart import permute_sentences
from .epochs import DrawnRows
from .full_sentences import cut_at_sentences
from .token_store import tokenize_sentences

LAYOUTS = ("across", "document")


@dataclass
class FlatDocuments:
    """Tokens in memory in the form of a SentenceStore, each document one sentence; see language_modeling.flatten.

    Attributes:
        tokens: (N,).
        sentence_offsets: where each document begins, and the end, (D + 1,).
    """

    tokens: np.ndarray
    sentence_offsets: np.ndarray

    @property
    def document_offsets(self):
        """Where each document begins in the sentences, and the end, (D + 1,)."""
        return np.arange(len(self.sentence_offsets))

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        return {"documents": len(self.sentence_offsets) - 1, "tokens": len(self.tokens)}


class DenoisingRows(DrawnRows):
    """Rows of undamaged tokens without special ones; their collator is Denoising.

    Args:
        store: a SentenceStore or FlatDocuments.
        row_length: tokens of a row at the most; Objective.row_length tells how many fill the inputs.
        layout: "across" (documents in random order, drawn afresh in every epoch from (seed, epoch), laid end to end and
            cut into rows of exactly `row_length`; what does not fill a last row is left out, other tokens every time)
            or "document" (a row is the longest run of whole sentences of one document; rows have different lengths).
        sentences: give `sentence_starts` with each row, for BART's objectives.
        redraw: False keeps the rows, and with them the noise, of epoch 0, for evaluation.

    Raises:
        ValueError: a row_length below 2 or an unknown layout.
        DataError: no row has two tokens.

    Example (row_length 4):
        documents  [a b c] [d e] [f g h i]
        across     [f g h i] [a b c d]             (in the order 3, 1, 2; e is left out)
        document   [a b c] [d e] [f g h i]
    """

    def __init__(self, store, row_length, *, seed, layout="across", sentences=False, redraw=True):
        super().__init__(redraw)
        if row_length < 2:
            raise ValueError(f"row_length must be at least 2 tokens, got {row_length}")
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        self.store, self.row_length, self.seed = store, row_length, seed
        self.layout, self.sentences = layout, sentences
        offsets = store.sentence_offsets[store.document_offsets]
        if layout == "across":
            self._pieces = np.stack([offsets[:-1], offsets[1:]], axis=1)[np.diff(offsets) > 0]
            self._tokens = int(offsets[-1] - offsets[0])
            self._length = max(self._tokens // row_length, int(self._tokens >= 2))
        else:
            pieces = cut_at_sentences(store.sentence_offsets, store.document_offsets, row_length)
            self._pieces = pieces[np.diff(pieces, axis=1)[:, 0] >= 2]
            self._tokens, self._length = int(np.diff(self._pieces, axis=1).sum()), len(self._pieces)
        if not self._length:
            raise DataError(f"{len(offsets) - 1} documents, but none has the two tokens that a row needs")
        self.set_epoch(0)

    def draw(self, epoch):
        """What `rows` needs for the rows of an epoch: pieces of the token array, and where each ends in the epoch."""
        if self.layout == "document":
            return self._pieces, None
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self._pieces))
        pieces = self._pieces[order]
        return pieces, np.cumsum(pieces[:, 1] - pieces[:, 0])

    def rows(self, plan, indices, epoch):
        """The rows of an epoch at these places, dictionaries."""
        pieces, ends = plan
        rows = []
        for index in indices:
            parts = [pieces[index].tolist()] if ends is None else self._parts(pieces, ends, index)
            tokens = [self.store.tokens[begin:end] for begin, end in parts]
            row = {"input_ids": tokens[0] if len(tokens) == 1 else np.concatenate(tokens)}
            if self.sentences:
                row["sentence_starts"] = self._starts(parts)
            rows.append(row | {"index": index, "epoch": epoch})
        return rows

    def _parts(self, pieces, ends, index):
        """(begin, end) in the token array of the documents' parts that make up row `index`."""
        begin = index * self.row_length
        end = min(begin + self.row_length, self._tokens)
        first, last = np.searchsorted(ends, [begin, end - 1], side="right").tolist()
        parts = pieces[first : last + 1].tolist()
        parts[-1][1] -= int(ends[last]) - end
        parts[0][0] += begin - (int(ends[first - 1]) if first else 0)
        return parts

    def _starts(self, parts):
        starts, offsets = [], self.store.sentence_offsets
        for begin, end in parts:
            part = np.zeros(end - begin, dtype=bool)
            part[offsets[slice(*np.searchsorted(offsets, [begin, end]))] - begin] = True
            part[0] = True
            starts.append(part)
        return np.concatenate(starts)

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        tokens = self._tokens if self.layout == "document" else min(self._tokens, len(self) * self.row_length)
        return {
            **self.store.summary(),
            "rows": len(self),
            "tokens": tokens,
            "row_length": self.row_length,
            "layout": self.layout,
        }


def rows_of_documents(documents, tokenizer, objective, row_length, *, seed, layout="across", num_workers=None):
    """Rows of the splits train and validation, from documents tokenised once into stores on disk.

    Documents are cut into sentences only where the objective asks where they begin; elsewhere every character counts.

    Args:
        documents: data sets by split, with a column `text`.
        num_workers: processes that tokenise.

    Returns:
        {split: DenoisingRows}; those of the validation data, where there are some, are the same at every pass.
    """
    parts = objective.objectives if isinstance(objective, Mixture) else (objective,)
    sentences = any(part.reorder is permute_sentences for part in parts)
    rows = {}
    for split in ("train", "validation"):
        if split in documents:
            splitter = "rules" if sentences else "none"
            store = tokenize_sentences(documents[split], tokenizer, splitter=splitter, num_workers=num_workers)
            options = dict(seed=seed, layout=layout, sentences=sentences, redraw=split == "train")
            rows[split] = DenoisingRows(store, row_length, **options)
    return rows
