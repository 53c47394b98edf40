"""The collator that damages rows: a batch of inputs and labels from rows of plain tokens.

Shapes: B = rows, T = tokens of the longest row.
"""

from dataclasses import replace

import numpy as np
import torch

from hftoolkit.errors import DataError

from .denoising import Mixture, corrupt, objective_of
from .masking import row_keys
from .mlm import IGNORE_INDEX
from .spans import count_in_rows, real_places
from .spans_tokens import Vocabulary, special_ids


class Denoising:
    """Collator: rows of tokens to a batch of inputs and labels, both with the end of sequence at the end, as T5.

    A row's noise depends on (seed, epoch, index of the row) alone, so that any number of workers and a resumed run see
    the same. Special tokens inside a row are never noise, [UNK] excepted. `attention_mask` is there where the inputs of
    the batch have different lengths; labels are padded with IGNORE_INDEX.

    Args:
        tokenizer: has an eos_token, a pad_token, and sentinels or a mask_token.
        objective: a name of OBJECTIVES, an Objective or a Mixture.
        max_input_length, max_target_length: tokens at the most, the end of sequence included; None is no limit.

    Raises:
        ValueError: an unknown objective.
        DataError: the tokenizer lacks a token that is needed; and when called: a row of fewer than two tokens, one that
            is too long or needs more sentinels than there are, an id outside the vocabulary, rows without index.
    """

    def __init__(self, tokenizer, objective="random_spans", *, seed=0, max_input_length=None, max_target_length=None):
        self.objective = objective_of(objective) if isinstance(objective, str) else objective
        mixed = isinstance(self.objective, Mixture)
        self.parts = self.objective.objectives if mixed else (self.objective,)
        self.reorders = any(part.reorder is not None for part in self.parts)
        self.seed, self.limits = seed, (max_input_length, max_target_length)
        for role in ("eos", "pad"):
            if getattr(tokenizer, f"{role}_token_id") is None:
                raise DataError(f"the tokenizer has no {role}_token, which denoising needs; use a unigram tokenizer")
        self.eos, self.pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        ids = tokenizer.get_vocab()
        self.prefixes = [self._prefix(part.prefix, ids) for part in self.parts]
        vocabulary = Vocabulary.of(tokenizer)
        self.dtype = np.uint16 if max(ids.values()) < 2**16 else np.int32  # a quarter of the memory traffic of int64
        narrow = {name: getattr(vocabulary, name).astype(self.dtype) for name in ("sentinels", "ordinary")}
        self.vocabulary = replace(vocabulary, **narrow)
        self.is_special = np.zeros(max(ids.values()) + 1, dtype=bool)
        self.is_special[special_ids(tokenizer)] = True
        if tokenizer.unk_token_id is not None:
            self.is_special[tokenizer.unk_token_id] = False  # it stands for text
        self.is_special[[self.eos, self.pad, *vocabulary.sentinels]] = True
        edges = np.flatnonzero(np.concatenate([[True], self.is_special, [True]]))
        longest = np.diff(edges).argmax()  # the longest run of ids without a special one: most often all ordinary ones
        self.ordinary_range = edges[longest], edges[longest + 1] - 2

    @staticmethod
    def _prefix(token, ids):
        if token is not None and token not in ids:
            raise DataError(
                f"the tokenizer has no token {token!r}, which names the objective: add it with "
                f"tokenizer.add_tokens([{token!r}, ...], special_tokens=True) and resize the model's embeddings, or leave the names out with mixture_of_denoisers(tokens=(None, None, None))"
            )
        return [] if token is None else [ids[token]]

    def __call__(self, rows):
        """A batch of tensors: input_ids, labels and, where inputs differ in length, attention_mask; int64, (B, ...)."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        if lengths.min() < 2:
            raise DataError(f"a row of {lengths.min()} token: at least 2 are needed, one to damage and one to keep")
        if "index" not in rows[0] or "epoch" not in rows[0]:
            raise DataError(
                "the rows have no index and epoch, from which noise is drawn: make them with DenoisingRows, and set "
                "remove_unused_columns: false, or Trainer takes them away"
            )
        ids = _rectangle([row["input_ids"] for row in rows], lengths)
        smallest, largest = int(ids.min()), int(ids.max())
        if smallest < 0 or largest >= len(self.is_special):
            raise DataError(
                f"token id {smallest if smallest < 0 else largest} is outside the tokenizer's vocabulary of {len(self.is_special)}: the rows were "
                "made with another tokenizer"
            )
        ids = ids.astype(self.dtype, copy=False)
        noisable = None
        if smallest < self.ordinary_range[0] or largest > self.ordinary_range[1]:
            noisable = ~self.is_special.take(ids) & real_places(lengths, ids.shape[1])
        starts = None
        if self.reorders and "sentence_starts" in rows[0]:
            starts = _rectangle([row["sentence_starts"] for row in rows], lengths)
        keys = row_keys(self.seed, [row["epoch"] for row in rows], [row["index"] for row in rows])
        return self._batch(ids, lengths, keys, noisable, starts)

    def _batch(self, ids, lengths, keys, noisable, starts):
        chosen = self.objective.choose(keys) if isinstance(self.objective, Mixture) else None
        sides = [], []
        for number, (part, prefix) in enumerate(zip(self.parts, self.prefixes, strict=True)):
            rows = slice(None) if chosen is None else np.flatnonzero(chosen == number)
            if chosen is not None and not len(rows):
                continue
            results = corrupt(
                part,
                ids[rows],
                lengths[rows],
                keys[rows],
                self.vocabulary,
                noisable=None if noisable is None else noisable[rows],
                sentence_starts=None if starts is None else starts[rows],
            )
            for side, result, before in zip(sides, results, (prefix, []), strict=True):
                side.append((rows, *result, before))
        (inputs, input_lengths), (labels, _) = (
            assemble(side, len(ids), self.eos, padding, limit, name)
            for side, padding, limit, name in zip(
                sides, (self.pad, IGNORE_INDEX), self.limits, ("inputs", "targets"), strict=True
            )
        )
        batch = {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}
        if input_lengths.min() < inputs.shape[1]:
            real = np.arange(inputs.shape[1]) < input_lengths[:, None]
            batch["attention_mask"] = torch.from_numpy(real.astype(np.int64))
        return batch


class DecoderDenoising(Denoising):
    """The same for one stack, a prefix LM: inputs and targets in one row, of which the targets are predicted.

    Paper: Raffel et al. 2020, Section 3.2.3. In the batch are input_ids, prefix_mask (1 = inputs), shift_labels (the next
    token of every input, IGNORE_INDEX where it is none of the targets), labels (the same, because Trainer counts them)
    and, where rows differ in length, attention_mask.

    Example (. = IGNORE_INDEX):
        inputs        a b X </s>, targets X c </s>
        input_ids     a b X </s> X c
        prefix_mask   1 1 1 1 0 0
        shift_labels  . . . X c </s>
    """

    def __call__(self, rows):
        """A batch of tensors, int64, (B, T)."""
        batch = super().__call__(rows)
        inputs, targets = batch["input_ids"].numpy(), batch["labels"].numpy()
        real = batch["attention_mask"].numpy() > 0 if "attention_mask" in batch else np.ones(inputs.shape, dtype=bool)
        starts = real.sum(1)[:, None]  # where the targets begin
        ends = starts + (targets != IGNORE_INDEX).sum(1)[:, None]
        places = np.arange(int(ends.max()))
        tokens, is_target = np.full((len(inputs), len(places)), self.pad), (places >= starts) & (places < ends)
        tokens[places < starts] = inputs[real]
        tokens[is_target] = targets[targets != IGNORE_INDEX]
        found = {"input_ids": tokens[:, :-1], "prefix_mask": (places < starts)[:, :-1]}
        found["labels"] = found["shift_labels"] = np.where(is_target, tokens, IGNORE_INDEX)[:, 1:]
        if ends.min() < len(places):
            found["attention_mask"] = (places < ends)[:, :-1]
        return {name: torch.from_numpy(column.astype(np.int64)) for name, column in found.items()}


def _rectangle(columns, lengths):
    """Columns of different length as one array (B, T), zeros behind their ends."""
    flat = np.concatenate(columns)
    T = int(lengths.max())
    if int(lengths.min()) == T:
        return flat.reshape(len(lengths), T)
    array = np.zeros((len(lengths), T), dtype=flat.dtype)
    array[np.arange(T) < lengths[:, None]] = flat
    return array


def assemble(parts, number, eos, padding, limit, name):
    """One array of the parts' kept tokens, each row with its prefix and the end of sequence; and the rows' lengths.

    Args:
        parts: list of (rows, tokens, keep, prefix ids), the rows disjoint and all `number` of them together.
        padding: stands behind the end of shorter rows.
        limit: tokens at the most, or None; `name` is what the message calls them.
    """
    counts = [count_in_rows(keep) for _, _, keep, _ in parts]
    lengths = np.empty(number, dtype=np.int64)
    for (rows, _, _, prefix), count in zip(parts, counts, strict=True):
        lengths[rows] = len(prefix) + count + 1
    longest = int(lengths.max())
    if limit is not None and longest > limit:
        raise DataError(
            f"the {name} of a row have {longest} tokens, but at most {limit} are allowed: make shorter rows "
            "(Objective.row_length says how long they may be)"
        )
    array = np.empty((number, longest), dtype=np.int64)
    if int(lengths.min()) < longest:
        array.fill(padding)
    for (rows, tokens, keep, prefix), count in zip(parts, counts, strict=True):
        begin, flat = len(prefix), tokens[keep]
        width = int(count.max())
        block = np.full((len(count), longest), padding) if int(count.min()) < width else None
        if block is None:
            block = array if isinstance(rows, slice) else np.full((len(count), longest), padding)
            block[:, begin : begin + width] = flat.reshape(len(count), width)
        else:
            block[:, begin : begin + width][np.arange(width) < count[:, None]] = flat
        block[:, :begin] = prefix
        block[np.arange(len(count)), begin + count] = eos
        if block is not array:
            array[rows] = block
    return array, lengths
