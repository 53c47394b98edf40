"""Masked language modelling: batch rows, choose tokens, and corrupt them.

Papers: Devlin et al. 2018, "BERT", https://arxiv.org/abs/1810.04805, Section 3.1 (Task #1); whole words:
google-research/bert, create_pretraining_data.py; spans: Joshi et al. 2019, "SpanBERT",
https://arxiv.org/abs/1907.10529, Section 3.1.
As in the reference a row has a fixed number of masked tokens, max(1, round(15% of its length, special tokens counted)),
and not a random one. Differs from it: masks are drawn afresh for every batch (RoBERTa, Liu et al. 2019, Section 4.1),
and no special token, [UNK] included, is predicted or drawn as a replacement.
Shapes: B = rows, T = tokens, N = tokens masked in all rows.
"""

from functools import lru_cache

import numpy as np
import torch

from hftoolkit.errors import DataError

from .masking import choose_spans, choose_tokens, choose_words, draws_at, number_to_mask, random_bits, row_keys
from .word_starts import WordStarts

UNITS = ("token", "whole_word", "span", "token_span")
IGNORE_INDEX = -100  # torch.nn.functional.cross_entropy skips these targets
_ODD = np.array(0x9E3779B9, dtype=np.uint32)  # spreads numbers of an interval over all 32 bits


@lru_cache(maxsize=16)
def _thresholds(mask_share, random_share):
    return tuple(
        np.array(min(round(share * 2**32), 2**32 - 1), dtype=np.uint32) for share in (mask_share, random_share)
    )


def corrupt(ids, chosen, action, draws, *, mask_token_id, replacements, mask_share=0.8, random_share=0.1):
    """What the model sees: chosen tokens become [MASK], a random token, or stay as they are.

    Args:
        ids: (B, T). Not changed in place.
        chosen: flat places, (N,).
        action: random numbers, (N,) uint32, that decide which of the three happens.
        draws: random numbers, (N,) uint32, that decide which token stands in; may be `action` itself.
        replacements: ids of the tokens that may stand in, (V,).

    Returns:
        (inputs, labels), (B, T).
    """
    inputs, labels = ids.copy(), np.empty_like(ids)
    labels.fill(IGNORE_INDEX)
    seen = ids.reshape(-1)[chosen]
    labels.reshape(-1)[chosen] = seen
    to_mask, to_change = _thresholds(mask_share, random_share)
    seen[action < to_mask] = mask_token_id
    swapped = (action - to_mask < to_change).nonzero()[0]  # below zero the difference wraps around
    seen[swapped] = replacements[((draws[swapped] * _ODD) * (len(replacements) / 2**32)).astype(np.int64)]
    inputs.reshape(-1)[chosen] = seen
    return inputs, labels


def mask_tokens(
    ids,
    maskable,
    keys,
    *,
    mask_token_id,
    replacements,
    unit="token",
    starts=None,
    lengths=None,
    probability=0.15,
    mask_share=0.8,
    random_share=0.1,
    max_predictions=None,
):
    """Corrupt a batch for masked language modelling.

    Of the chosen tokens 80% become [MASK], 10% a random token, and 10% stay as they are: decided token by token, also
    inside a whole word (as in the reference), but for spans once per span (as in SpanBERT).

    Args:
        ids: (B, T). Not changed in place.
        maskable: True where a token may be chosen, (B, T); a row without one gets no label.
        keys: what all random numbers of a row are made from, (B,) uint64; see row_keys.
        replacements: ids of the tokens that may stand in for another, (V,).
        unit: "token", "whole_word", "span" (of whole words) or "token_span".
        starts: True where a word begins, (B, T), a subset of maskable; needed for "whole_word" and "span".
        lengths: tokens of each row of which `probability` is the share, (B,); T by default.
        max_predictions: masked tokens of a row at the most (BERT: 20 where T is 128, 77 where it is 512).

    Returns:
        (inputs, labels), (B, T); labels are IGNORE_INDEX where nothing was chosen.

    Example (M = [MASK], r = a random token, . = IGNORE_INDEX):
        ids     [CLS] the cat sat [SEP]
        inputs  [CLS] the  M   r  [SEP]
        labels    .    .  cat sat   .
    """
    if unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
    lengths = np.full(len(ids), ids.shape[1]) if lengths is None else lengths
    number = number_to_mask(lengths, ids.shape[1], probability, max_predictions)
    if unit == "token":
        chosen, action = choose_tokens(maskable, number, keys)
        draws = action
    elif unit == "whole_word":
        chosen = choose_words(maskable, starts, number, keys)
        action = draws = draws_at(chosen, keys, ids.shape[1])
    else:
        chosen, deciding = choose_spans(maskable, maskable if unit == "token_span" else starts, number, keys)
        action, draws = (draws_at(places, keys, ids.shape[1]) for places in (deciding, chosen))
    shares = dict(mask_share=mask_share, random_share=random_share)
    return corrupt(ids, chosen, action, draws, mask_token_id=mask_token_id, replacements=replacements, **shares)


class MaskedLanguageModeling:
    """Collator: pad rows to the longest of the batch and mask them afresh.

    Rows are those of NextSentencePairs, of FullSentences (with position_ids: packed, no padding and no
    attention_mask), or any with `input_ids`. All randomness comes from (seed, the row's epoch, the row's index), so
    neither the number of workers or processes nor the size of a batch, nor resuming in the middle of an epoch changes
    a mask. A row without index and epoch is told from others by its tokens and has the same mask every time.

    Args:
        tokenizer: has a mask_token and a pad_token; for words, a fast one.
        probability: share of a row's tokens that is masked.
        unit: "token", "whole_word", "span" (1 to 10 whole words, 3.8 on average) or "token_span" (of tokens).
        mask_share, random_share: of the chosen tokens, those that become [MASK] and those that become a random token.
        max_predictions: masked tokens of a row at the most (BERT: 20 for 128 tokens, 77 for 512); None is no limit.

    Raises:
        ValueError: an unknown unit, or a share out of its range.
        DataError: the tokenizer lacks what is needed.
    """

    def __init__(
        self,
        tokenizer,
        *,
        probability=0.15,
        unit="token",
        mask_share=0.8,
        random_share=0.1,
        max_predictions=None,
        seed=0,
    ):
        if unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {unit!r}")
        if not 0 < probability < 1:
            raise ValueError(f"probability must be above 0 and below 1, got {probability}")
        if mask_share < 0 or random_share < 0 or mask_share + random_share > 1 + 1e-9:
            raise ValueError(f"mask_share and random_share must be shares of 1, got {mask_share} and {random_share}")
        if max_predictions is not None and max_predictions < 1:
            raise ValueError(f"max_predictions must be at least 1, got {max_predictions}")
        for role in ("mask", "pad"):
            if getattr(tokenizer, f"{role}_token_id") is None:
                raise DataError(f"the tokenizer has no {role}_token, which masking needs; use a wordpiece tokenizer")
        self.pad_token_id, self.seed = tokenizer.pad_token_id, seed
        ids = np.array(sorted(tokenizer.get_vocab().values()))
        ordinary = np.setdiff1d(ids, tokenizer.all_special_ids)
        if not len(ordinary):
            raise DataError(f"all {len(ids)} tokens of the tokenizer are special: there is nothing to predict")
        self.is_ordinary = np.zeros(ids.max() + 1, dtype=bool)
        self.is_ordinary[ordinary] = True
        self.words = WordStarts(tokenizer) if unit in ("whole_word", "span") else None
        self.options = dict(
            mask_token_id=tokenizer.mask_token_id,
            replacements=ordinary,
            unit=unit,
            probability=probability,
            mask_share=mask_share,
            random_share=random_share,
            max_predictions=max_predictions,
        )

    def __call__(self, rows):
        """A batch of tensors: input_ids, labels, attention_mask or position_ids, and what else the rows have."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        layout = Layout(lengths)
        ids = layout.fill([row["input_ids"] for row in rows], self.pad_token_id)
        largest = int(ids.max(initial=0))
        if largest >= len(self.is_ordinary):
            raise DataError(
                f"token id {largest} is outside the tokenizer's vocabulary of {len(self.is_ordinary)}: the rows were "
                "made with another tokenizer"
            )
        maskable = self.is_ordinary[ids]
        starts = None if self.words is None else self.words(ids, maskable)
        keys = self._keys(rows, ids, lengths)
        inputs, labels = mask_tokens(ids, maskable, keys, starts=starts, lengths=lengths, **self.options)
        batch = {"input_ids": inputs, "labels": labels}
        if "position_ids" in rows[0]:
            batch["position_ids"] = layout.fill([row["position_ids"] for row in rows], 0)
            batch = {name: layout.unpad(column) for name, column in batch.items()}
        else:
            batch["attention_mask"] = layout.real.astype(np.int64)
            if "token_type_ids" in rows[0]:
                batch["token_type_ids"] = layout.fill([row["token_type_ids"] for row in rows], 0)
        if "next_sentence_label" in rows[0]:
            batch["next_sentence_label"] = np.array([row["next_sentence_label"] for row in rows], dtype=np.int64)
        return {name: torch.from_numpy(column) for name, column in batch.items()}

    def _keys(self, rows, ids, lengths):
        if "index" in rows[0]:
            return row_keys(self.seed, [row["epoch"] for row in rows], [row["index"] for row in rows])
        if "next_sentence_label" in rows[0] or "position_ids" in rows[0]:
            raise DataError(
                "the rows have no index and epoch, from which masks are drawn: Trainer took them away; set "
                "remove_unused_columns: false"
            )
        places = np.arange(ids.shape[1], dtype=np.uint64)
        hashed = random_bits((ids.astype(np.uint64) << np.uint64(32)) + places)
        hashed[places >= lengths[:, None].astype(np.uint64)] = 0
        return row_keys(self.seed, lengths, np.bitwise_xor.reduce(hashed, axis=1))


class Layout:
    """Where the rows of a batch stand in a rectangle as wide as the longest, padded at the right."""

    def __init__(self, lengths):
        self.shape = (len(lengths), int(lengths.max()))
        self.is_full = int(lengths.min()) == self.shape[1]
        self.real = np.arange(self.shape[1]) < lengths[:, None]

    def fill(self, columns, padding):
        """The rows' columns as one array (B, T)."""
        flat = np.concatenate(columns).astype(np.int64, copy=False)
        if self.is_full:
            return flat.reshape(self.shape)
        padded = np.full(self.shape, padding, dtype=np.int64)
        padded[self.real] = flat
        return padded

    def unpad(self, column):
        """Without padding: the rectangle where it is full, else one row (1, N)."""
        return column if self.is_full else column[self.real][None]
