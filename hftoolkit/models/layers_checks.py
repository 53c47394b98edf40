"""Checks of config values: what a model cannot be built with is refused by name, with the range.

Each takes values by keyword and returns them in a dict.
"""

import math

from transformers.activations import ACT2FN


def check_counts(**values):
    """Whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return values


def check_sizes(**values):
    """Whole numbers of at least 0."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")
    return values


def check_shares(**values):
    """Probabilities in [0, 1); 1 would drop everything."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    return values


def check_amounts(**values):
    """Finite numbers of at least 0."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
    return values


def check_heads(hidden_size, num_attention_heads):
    """Every head gets an equal part of the hidden size."""
    if hidden_size % num_attention_heads:
        raise ValueError(f"hidden_size {hidden_size} must be a multiple of num_attention_heads {num_attention_heads}")


def check_activation(name):
    """A name that transformers knows."""
    if name not in ACT2FN:
        raise ValueError(f"hidden_act must be one of {', '.join(sorted(ACT2FN))}, got {name!r}")
    return name
