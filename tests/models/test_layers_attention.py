"""The attention function that is written out: equation 1, with a softmax that is always computed in float32."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hftoolkit.models import layers_attention
from hftoolkit.models.layers_attention import eager_attention, fused_attention

SCALING = 8**-0.5
MODULE = SimpleNamespace(training=False)


def inputs(dtype, keys=400):
    """Queries (1, 2, 5, 8), keys and values (1, 2, S, 8) with scores of some size."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 2, 5, 8), (1, 2, keys, 8), (1, 2, keys, 8)]
    return [(2 * torch.randn(shape, generator=generator)).to(dtype) for shape in shapes]


def by_hand(query, key):
    """Weights (1, 2, 5, S) by the definition, in float64, from scores as the dtype holds them."""
    scores = (query @ key.transpose(2, 3) * SCALING).double()
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_weights_by_the_definition(dtype, tolerance):
    query, key, value = inputs(dtype)
    output, weights = eager_attention(MODULE, query, key, value, None, scaling=SCALING)
    expected = by_hand(query, key)
    assert weights.dtype == output.dtype == dtype
    torch.testing.assert_close(weights.double(), expected, rtol=tolerance, atol=1e-9)
    torch.testing.assert_close(output.transpose(1, 2), weights @ value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_softmax_rounds_once(dtype):
    """Each weight is the number of the dtype nearest to the exact one; exponentials or sums in the dtype itself err."""
    query, key, value = inputs(dtype)
    _, weights = eager_attention(MODULE, query, key, value, None, scaling=SCALING)
    nearest = by_hand(query, key).float().to(dtype)
    assert (weights == nearest).float().mean() > 0.99
    scores = query @ key.transpose(2, 3) * SCALING
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    assert (powers / powers.sum(-1, keepdim=True) == nearest).float().mean() < 0.8


class Softmaxes(TorchDispatchMode):
    """The number formats in which softmax was asked for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if "softmax" in func.name():
            self.dtypes = [*getattr(self, "dtypes", []), result.dtype]
        return result


def test_the_softmax_is_asked_for_in_float32():
    """On the CPU torch's bfloat16 softmax computes in float32 by itself, so numbers cannot tell; elsewhere they may."""
    with Softmaxes() as seen:
        eager_attention(MODULE, *inputs(torch.bfloat16), None, scaling=SCALING)
    assert seen.dtypes == [torch.float32]


class Kernels(TorchDispatchMode):
    """The number formats of the queries that a fused kernel was given."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "scaled_dot_product" in func.name() and "backward" not in func.name():
            self.dtypes = [*getattr(self, "dtypes", []), args[0].dtype]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    ("keys", "dtype", "trained", "wanted"),
    [
        (50, torch.bfloat16, True, torch.float32),
        (50, torch.bfloat16, False, torch.bfloat16),  # forward alone is faster as it is
        (layers_attention.SHORT, torch.bfloat16, True, torch.bfloat16),
        (50, torch.float32, True, torch.float32),
    ],
)
def test_short_rows_in_bfloat16_are_trained_in_float32_on_a_cpu(keys, dtype, trained, wanted, autocast):
    parts = [part.requires_grad_(trained) for part in inputs(dtype, keys)]
    with Kernels() as seen, torch.autocast("cpu", torch.bfloat16, enabled=autocast and dtype == torch.bfloat16):
        output = fused_attention(*parts, scale=SCALING)
    assert seen.dtypes == [wanted] and output.dtype == dtype


@pytest.mark.parametrize("mask", [None, "bias", "allowed"])
def test_and_their_gradients_are_those_of_float32_rounded_once(mask):
    query, key, value = (part.requires_grad_() for part in inputs(torch.bfloat16, 50))
    given = torch.linspace(-3, 3, 50).bfloat16().expand(1, 2, 5, 50) if mask == "bias" else None
    given = torch.arange(50).expand(1, 1, 5, 50) < 40 if mask == "allowed" else given
    output = fused_attention(query, key, value, attn_mask=given, scale=SCALING)
    exact = [part.detach().float().requires_grad_() for part in (query, key, value)]
    bias = given.float() if mask == "bias" else given
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, attn_mask=bias, scale=SCALING)
    assert torch.equal(output, expected.bfloat16())
    found = torch.autograd.grad(output, (query, key, value), torch.ones_like(output))
    for mine, right in zip(found, torch.autograd.grad(expected, exact, torch.ones_like(expected)), strict=True):
        assert torch.equal(mine, right.bfloat16())
