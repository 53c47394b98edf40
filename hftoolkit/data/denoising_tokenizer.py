"""The special tokens that an objective needs: sentinels that number its spans, and the names of UL2's modes."""

import math

import numpy as np

from hftoolkit.errors import DataError

from .denoising import Mixture
from .spans import iid_noise, span_numbers
from .spans_tokens import noise_span_to_unique_sentinel, nonnoise_span_to_unique_sentinel

UNIQUE = (noise_span_to_unique_sentinel, nonnoise_span_to_unique_sentinel)
DEVIATIONS = 6  # above the mean: of a normal law, one row in a billion has more


def parts_of(objective):
    """The objectives of a mixture, or the one, as a tuple."""
    return objective.objectives if isinstance(objective, Mixture) else (objective,)


def sentinels_needed(objective, row_length):
    """Sentinels that rows of at most `row_length` tokens can need.

    Where every token is noise by itself the number of spans is random: its mean and six standard deviations.

    Example:
        sentinels_needed(span_corruption(), 568)  ->  28
    """
    return max(_needed(part, row_length) for part in parts_of(objective))


def _needed(objective, row_length):
    if objective.inputs not in UNIQUE and objective.targets not in UNIQUE:
        return 1
    if objective.mask is iid_noise:
        chance = objective.noise["density"] * (1 - objective.noise["density"])  # that a span ends at a place
        spread = math.sqrt(max(row_length * chance * (1 - 3 * chance), 0))
        return min(math.ceil(row_length * chance + DEVIATIONS * spread) + 1, row_length // 2 + 1)
    return int(span_numbers(np.arange(2, row_length + 1), **objective.noise)[1].max())


def prepare_tokenizer(tokenizer, objective, row_length, *, is_new):
    """Give a tokenizer the tokens that an objective needs; changed in place.

    Args:
        is_new: whether it was just trained, and lacking sentinels are added; a given one must have them. The names of
            modes are added to either.

    Raises:
        DataError: a given tokenizer has too few sentinels, or a new model could not tell where a text ends.
    """
    ids, needed = tokenizer.get_vocab(), sentinels_needed(objective, row_length)
    has = next(number for number in range(len(ids) + 1) if f"<extra_id_{number}>" not in ids)
    if needed == 1 and tokenizer.mask_token_id is not None:
        needed = 0
    if has < needed and not is_new:
        raise DataError(
            f"the tokenizer has {has} sentinels, but rows of {row_length} tokens need {needed} (<extra_id_0> to "
            f"<extra_id_{needed - 1}>): train it with --num_sentinels {needed}, name a kind of --tokenizer, which is "
            "then trained with as many as are needed, or make rows shorter (--max_length)"
        )
    missing = [f"<extra_id_{number}>" for number in range(has, needed)]
    modes = [part.prefix for part in parts_of(objective) if part.prefix is not None and part.prefix not in ids]
    if missing or modes:
        tokenizer.add_tokens([*missing, *dict.fromkeys(modes)], special_tokens=True)
