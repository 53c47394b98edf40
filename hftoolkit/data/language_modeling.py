"""Documents to batches for next-token prediction: tokenise once, pack, and batch without padding.

Differs from transformers' run_clm: a document never sees its neighbour in a row (positions restart), nothing is
dropped at the end, and a batch holds the next token of every input (`shift_labels`), so that rows need no overlap.
Shapes: B = rows of a batch, T = inputs of a row, N = inputs of a batch.
"""

import datasets
import numpy as np
import torch

from hftoolkit.data import packing
from hftoolkit.errors import DataError

# "<|endoftext|>" inside a document is text, not the end of the document
AS_TEXT = {"add_special_tokens": False, "split_special_tokens": True}
PACKINGS = {"whole": packing.pack_whole, "stream": packing.pack_stream, "across": packing.pack_across}


def tokenize_documents(documents, tokenizer, *, across=False, num_workers=None):
    """Token ids of each document, ended by eos and, unless packed across, begun by bos.

    Args:
        documents: a datasets.Dataset (or IterableDataset) with a column `text`.
        across: documents will be laid end to end and attended across; then no bos is needed.
        num_workers: processes of Dataset.map.

    Returns:
        The data set with the one column `input_ids`.

    Raises:
        DataError: the tokenizer has no eos_token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError(
            "the tokenizer has no eos_token, which ends a document; train it with recipes/train_tokenizer.py"
        )
    bos = [] if across else [eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id]

    def encode(texts):
        ids = tokenizer(texts, return_attention_mask=False, verbose=False, **AS_TEXT)["input_ids"]
        return {"input_ids": [[*bos, *document, eos] for document in ids]}

    options = dict(batched=True, input_columns="text", remove_columns=documents.column_names)
    if isinstance(documents, torch.utils.data.IterableDataset) or not hasattr(documents, "num_rows"):
        return documents.map(encode, **options)
    return documents.map(encode, num_proc=num_workers, desc="tokenise", **options)


def flatten(documents):
    """One array of all token ids and the offsets of the documents in it, (tokens,) and (documents + 1,)."""
    column = documents.with_format("arrow")[:]["input_ids"].combine_chunks()
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    tokens = column.flatten().to_numpy(zero_copy_only=False)
    largest = int(tokens.max()) if len(tokens) else 0
    return tokens.astype(np.uint16 if largest < 2**16 else np.int32), np.concatenate([[0], np.cumsum(lengths)])


def lay_out(tokens, stretches, row_offsets, block=4096):
    """Write the rows one after the other, so that a row is a slice and a batch a few copies.

    Args:
        stretches, row_offsets: as hftoolkit.data.packing returns them.
        block: rows handled at a time, which bounds the memory beside the result.

    Returns:
        (inputs, targets, positions, edges): the first three (N,), row r being the slice edges[r] : edges[r + 1].
    """
    lengths = stretches[:, 1] - stretches[:, 0] - 1
    ends = np.concatenate([[0], lengths.cumsum()])
    edges = ends[row_offsets]
    inputs, targets = (np.empty(int(edges[-1]), dtype=tokens.dtype) for _ in range(2))
    positions = np.empty(int(edges[-1]), dtype=np.int32)
    for row in range(0, len(row_offsets) - 1, block):
        first, last = row_offsets[row], row_offsets[min(row + block, len(row_offsets) - 1)]
        place, counts = slice(ends[first], ends[last]), lengths[first:last]
        positions[place] = np.arange(ends[first], ends[last]) - np.repeat(ends[first:last], counts)
        index = np.repeat(stretches[first:last, 0], counts) + positions[place]
        inputs[place], targets[place] = tokens[index], tokens[index + 1]
    return inputs, targets, positions, edges


class PackedDocuments(torch.utils.data.Dataset):
    """Rows of packed documents; an item is the row's (inputs, targets, positions) and costs no copy.

    Args:
        documents: with the column `input_ids`.
        row_length: inputs of a row at the most.
        packing: "whole" (documents uncut where they fit, first-fit decreasing), "stream" (every row full, documents
            cut at its end) or "across" (as stream, and attention ignores the boundaries).

    Raises:
        DataError: no document has a token to predict, or an id is outside the model's vocabulary.
    """

    def __init__(self, documents, row_length, packing="whole", vocab_size=None):
        if packing not in PACKINGS:
            raise ValueError(f"packing must be one of {', '.join(PACKINGS)}, got {packing!r}")
        self.tokens, self.offsets = flatten(documents)
        self.row_length, self.packing = row_length, packing
        if vocab_size is not None and len(self.tokens) and int(self.tokens.max()) >= vocab_size:
            position = int(self.tokens.argmax())
            raise DataError(
                f"document {int(np.searchsorted(self.offsets, position, side='right')) - 1} holds the token id "
                f"{int(self.tokens[position])}, but the model's vocab_size is {vocab_size}: use the tokenizer the "
                "model was made with, or call model.resize_token_embeddings(len(tokenizer))"
            )
        self.stretches, self.row_offsets = PACKINGS[packing](self.offsets, row_length)
        if not len(self):
            raise DataError(f"{len(documents)} documents, but none has a token to predict")
        *self.columns, self.edges = lay_out(self.tokens, self.stretches, self.row_offsets)

    def __len__(self):
        return len(self.row_offsets) - 1

    def __getitem__(self, row):
        return tuple(column[self.edges[row] : self.edges[row + 1]] for column in self.columns)

    @property
    def tokens_per_row(self):
        """Mean number of inputs in a row."""
        return self.summary()["tokens"] / len(self)

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        inputs = np.diff(self.offsets)
        return {
            "documents": len(inputs),
            "tokens": int(np.maximum(inputs - 1, 0).sum()),
            "rows": len(self),
            "packing": self.packing,
            "packing_efficiency": round(packing.efficiency(self.stretches, self.row_offsets, self.row_length), 4),
            "cut_documents": int((inputs - 1 > self.row_length).sum()),
        }


def collate_packed(rows):
    """Batch packed rows: one flat row, or a rectangle when all are equally long.

    Returns:
        input_ids, position_ids (restarting at each document), shift_labels (the next token) and labels (the same,
        because Trainer counts them), all (1, N) or (B, T).

    Example (two rows; the first holds two documents):
        tokens        [a b c][d e], [f g h]
        input_ids     a b d f g
        shift_labels  b c e g h
        position_ids  0 1 0 0 1
    """
    in_row = {len(inputs) for inputs, _, _ in rows}
    shape = (len(rows), -1) if len(in_row) == 1 else (1, -1)
    columns = [np.concatenate(column, dtype=np.int64) for column in zip(*rows, strict=True)]
    names = ("input_ids", "shift_labels", "position_ids")
    batch = {name: torch.from_numpy(column).view(shape) for name, column in zip(names, columns, strict=True)}
    return batch | {"labels": batch["shift_labels"]}


class StreamedDocuments(torch.utils.data.IterableDataset):
    """Packed rows of a stream of documents that does not fit memory.

    Documents are packed a window at a time, so memory is bounded by the window. Several worker processes give the
    order of one: each reads the stream and keeps the batches that fall to it.

    Args:
        documents: an iterable data set with the column `input_ids`; read anew in every epoch.
        batch_size: rows of a batch, which decides which worker keeps a row.
        window: documents packed together.

    Raises:
        DataError: the source fails; the message says after how many documents.
    """

    def __init__(self, documents, row_length, packing="whole", *, batch_size, window=2000):
        self.documents, self.row_length = documents, row_length
        self.pack, self.batch_size, self.window = PACKINGS[packing], batch_size, window

    def summary(self):
        """What is known before the stream is read."""
        return {"streamed": True, "window": self.window}

    def beginning(self, max_tokens):
        """Tokens and offsets of the first documents, as `flatten` gives them, and whether these are all.

        The document in which the limit is reached is the last.
        """
        ids, total, documents = [], 0, iter(self.documents)
        for document in documents:
            ids.append(document["input_ids"])
            total += len(ids[-1])
            if total >= max_tokens:
                break
        tokens = np.fromiter((token for document in ids for token in document), dtype=np.int32, count=total)
        return tokens, np.cumsum([0, *map(len, ids)]), next(documents, None) is None

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        index, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number, row in enumerate(self._rows()):
            if number // self.batch_size % count == index:
                yield row

    def _rows(self):
        for window in self._windows():
            offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in window])])
            tokens = np.fromiter((token for ids in window for token in ids), dtype=np.int32, count=offsets[-1])
            stretches, row_offsets = self.pack(offsets, self.row_length)
            *columns, edges = lay_out(tokens, stretches, row_offsets)
            for first, last in zip(edges[:-1], edges[1:], strict=True):
                yield tuple(column[first:last] for column in columns)

    def _windows(self):
        window, read = [], 0
        try:
            for document in self.documents:
                window.append(document["input_ids"])
                read += 1
                if len(window) == self.window:
                    yield window
                    window = []
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"the stream of documents failed after {read} documents: {error}; the same command resumes from the "
                "last checkpoint"
            ) from error
        if window:
            yield window


def pack_documents(documents, row_length, packing, vocab_size, *, streamed_batch_size=None):
    """Packed rows of tokenised documents.

    Args:
        documents: with the column `input_ids`; a stream is read into memory unless streamed_batch_size is given.
        streamed_batch_size: rows of a batch, for a stream that does not fit memory.

    Returns:
        PackedDocuments, or StreamedDocuments where streamed_batch_size is given.
    """
    if streamed_batch_size is not None:
        return StreamedDocuments(documents, row_length, packing, batch_size=streamed_batch_size)
    if not isinstance(documents, datasets.Dataset):
        documents = datasets.Dataset.from_list(list(documents))
    return PackedDocuments(documents, row_length, packing, vocab_size)
