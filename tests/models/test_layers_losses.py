"""The loss without full logits against the plain formula with full logits."""

import pytest
import torch
import torch._dynamo.testing
from torch.nn import functional

from hftoolkit.models import layers_losses
from hftoolkit.models.layers_losses import (
    IGNORE_INDEX,
    cross_entropy,
    linear_cross_entropy,
    next_token_targets,
)

N, D, V = 23, 8, 31  # 23 rows are not a multiple of any chunk used here
OPTIONS = [{}, dict(label_smoothing=0.1), dict(z_loss=0.01), dict(label_smoothing=0.2, z_loss=0.5)]


@pytest.fixture(autouse=True, params=[5, 1, 10**6], ids="rows={}".format)
def rows_per_chunk(request, monkeypatch):
    """Everything here holds whether the rows are cut into several chunks, single rows, or not at all."""
    monkeypatch.setattr(layers_losses, "CHUNK_LOGITS", request.param * V)
    return request.param


def inputs(dtype=torch.float32, ignored=4, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"hidden": (N, D), "weight": (V, D)} | ({"bias": (V,)} if bias else {})
    tensors = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    tensors = {name: tensor.to(dtype).requires_grad_() for name, tensor in tensors.items()}
    targets = torch.randint(V, (N,), generator=generator)
    targets[torch.randperm(N, generator=generator)[:ignored]] = IGNORE_INDEX
    return tensors, targets


def formula(tensors, targets, label_smoothing=0.0, z_loss=0.0, num_items_in_batch=None):
    """From full logits, by autograd; torch's own label smoothing, and z_loss * log(Z)^2."""
    logits = functional.linear(tensors["hidden"], tensors["weight"], tensors.get("bias"))
    keep = targets != IGNORE_INDEX
    total = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    total = total + z_loss * (logits.exp().sum(-1).log()[keep] ** 2).sum()
    return total / (keep.sum() if num_items_in_batch is None else num_items_in_batch)


def loss_and_gradients(compute, tensors, targets, **options):
    loss = compute(tensors, targets, **options)
    return loss.detach(), *torch.autograd.grad(loss, list(tensors.values()))


def ours(tensors, targets, **options):
    return linear_cross_entropy(tensors["hidden"], tensors["weight"], targets, bias=tensors.get("bias"), **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_loss_and_gradients_are_those_of_full_logits(dtype, bias, options):
    batch = inputs(dtype, bias=bias)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    for left, right in zip(*(loss_and_gradients(f, *batch, **options) for f in (ours, formula)), strict=True):
        assert left.dtype == dtype
        torch.testing.assert_close(left, right, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradcheck(options):
    tensors, targets = inputs(torch.float64)

    def compute(hidden, weight, bias):
        return linear_cross_entropy(hidden, weight, targets, bias=bias, **options)

    assert torch.autograd.gradcheck(compute, tuple(tensors.values()), fast_mode=True)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_loss_from_logits_is_the_same_loss(options):
    tensors, targets = inputs()

    def from_logits(tensors, targets, **options):
        logits = functional.linear(tensors["hidden"], tensors["weight"], tensors["bias"])
        return cross_entropy(logits, targets, **options)

    both = (loss_and_gradients(f, tensors, targets, **options) for f in (from_logits, ours))
    for left, right in zip(*both, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("compute", [ours, lambda t, targets: cross_entropy(t["hidden"] @ t["weight"].T, targets)])
def test_without_any_label_the_loss_and_all_gradients_are_zero(compute):
    tensors, _ = inputs(bias=False)
    for number in loss_and_gradients(compute, tensors, torch.full((N,), IGNORE_INDEX)):
        assert (number == 0).all()


def test_no_rows_at_all():
    tensors, targets = inputs()
    empty = {"hidden": tensors["hidden"][:0].detach().requires_grad_()} | dict(list(tensors.items())[1:])
    for number in loss_and_gradients(ours, empty, targets[:0]):
        assert (number == 0).all()


def test_ignored_rows_get_no_gradient_and_may_hold_anything():
    tensors, targets = inputs()
    expected = loss_and_gradients(ours, tensors, targets)
    spoilt = tensors | {"hidden": tensors["hidden"].detach().clone()}
    spoilt["hidden"][targets == IGNORE_INDEX] = float("nan")
    spoilt["hidden"].requires_grad_()
    got = loss_and_gradients(ours, spoilt, targets)
    assert (got[1][targets == IGNORE_INDEX] == 0).all()
    for left, right in zip(got, expected, strict=True):
        assert torch.equal(left, right)


def test_accumulated_gradients_are_those_of_one_batch():
    """Sums over the pieces, divided by the labels of all pieces; equal shares would weigh short pieces too much."""
    tensors, targets = inputs(torch.float64)
    items = (targets != IGNORE_INDEX).sum()
    whole = loss_and_gradients(ours, tensors, targets)
    total = [torch.zeros_like(number) for number in whole]
    for piece in (slice(0, 3), slice(3, 4), slice(4, N)):
        part = {"hidden": tensors["hidden"][piece]} | {name: tensors[name] for name in ("weight", "bias")}
        loss = ours(part, targets[piece], num_items_in_batch=items)
        gradients = torch.autograd.grad(loss, list(tensors.values()))
        total = [a + b for a, b in zip(total, (loss.detach(), *gradients), strict=True)]
    for left, right in zip(total, whole, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("items", [7, torch.tensor(7), torch.tensor(7.0)], ids=str)
def test_num_items_in_batch_divides_the_sum(items):
    batch = inputs()
    expected = formula(*batch, num_items_in_batch=7)
    torch.testing.assert_close(ours(*batch, num_items_in_batch=items), expected)
    logits = functional.linear(*batch[0].values())
    torch.testing.assert_close(cross_entropy(logits, batch[1], num_items_in_batch=items), expected)


def test_autocast_and_bfloat16_stay_close():
    tensors, targets = inputs()
    exact = loss_and_gradients(formula, tensors, targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = loss_and_gradients(ours, tensors, targets)
    assert [number.dtype for number in autocast] == [torch.float32] * 4
    half = {name: tensor.detach().bfloat16().requires_grad_() for name, tensor in tensors.items()}
    for rounded in (autocast, loss_and_gradients(ours, half, targets)):
        for left, right in zip(rounded, exact, strict=True):
            torch.testing.assert_close(left.float(), right, rtol=0.05, atol=0.02)
            assert not torch.equal(left.float(), right)  # it did compute in bfloat16


def test_only_wanted_gradients_are_computed():
    tensors, targets = inputs()
    expected = loss_and_gradients(formula, tensors, targets)[1:]
    for name, gradient in zip(tensors, expected, strict=True):
        frozen = {key: tensor.detach().requires_grad_(key == name) for key, tensor in tensors.items()}
        ours(frozen, targets).backward()
        torch.testing.assert_close(frozen[name].grad, gradient, rtol=1e-5, atol=1e-6)
        assert sum(tensor.grad is not None for tensor in frozen.values()) == 1
    with torch.no_grad():
        torch.testing.assert_close(ours(tensors, targets), formula(tensors, targets))


def test_no_logits_of_the_whole_batch_exist(rows_per_chunk, monkeypatch):
    """No operator makes a tensor with V columns and more rows than a chunk; unlabelled rows are not even computed."""
    tensors, targets = inputs()
    rows = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, (tuple, list)) else [result]:
                if torch.is_tensor(tensor) and tensor.dim() == 2 and tensor.shape[1] == V:
                    rows.append(len(tensor))
            return result

    with Watch():
        loss_and_gradients(ours, tensors, targets)
    rows = [count for count in rows if count != D]  # the transposed weight, (D, V), is no row of logits
    assert max(rows) == min(rows_per_chunk, N - 4)
    rows.clear()
    with Watch():
        loss_and_gradients(formula, tensors, targets)
    assert max(rows) == N


def test_compiled_without_a_graph_break():
    torch._dynamo.reset()
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend=graphs)
    tensors, targets = inputs()
    for ignored in (4, 0):  # one graph for any number of labels
        targets = inputs(ignored=ignored)[1]
        got = loss_and_gradients(
            lambda t, y: compiled(t["hidden"], t["weight"], y, bias=t["bias"], z_loss=0.1), tensors, targets
        )
        for left, right in zip(got, loss_and_gradients(ours, tensors, targets, z_loss=0.1), strict=True):
            torch.testing.assert_close(left, right)
    assert graphs.frame_count == 1


def test_leading_dimensions_are_free_and_checked():
    tensors, targets = inputs(ignored=0)
    row = tensors["hidden"][:20].view(4, 5, D)
    expected = linear_cross_entropy(tensors["hidden"][:20], tensors["weight"], targets[:20])
    assert torch.equal(linear_cross_entropy(row, tensors["weight"], targets[:20].view(4, 5)), expected)
    with pytest.raises(ValueError, match=r"hidden \(4, 5, 8\) and targets \(20,\)"):
        linear_cross_entropy(row, tensors["weight"], targets[:20])


def test_next_token_targets():
    labels = torch.tensor([[5, 6, -100, 7], [1, -100, -100, 2]])
    expected = torch.tensor([[6, -100, 7, -100], [-100, -100, 2, -100]])
    assert torch.equal(next_token_targets(labels), expected)


def wrong_gradient(change):
    """The same _rows but for a changed gradient."""
    right = layers_losses._rows

    def rows(*args):
        loss, gradient = right(*args)
        return loss, change(gradient, args[1])

    return rows


MUTATIONS = {
    "softmax without the target": lambda g, y: g.scatter_add(1, y.unsqueeze(1), torch.ones(len(y), 1)),
    "target one to the right": lambda g, y: g.roll(1, 1),
    "gradient a percent too large": lambda g, y: g * 1.01,
    "last row of a chunk forgotten": lambda g, y: torch.cat([g[:-1], 0 * g[-1:]]),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_comparison_notices(mutation, monkeypatch):
    monkeypatch.setattr(layers_losses, "_rows", wrong_gradient(MUTATIONS[mutation]))
    with pytest.raises(AssertionError, match="not close"):
        test_loss_and_gradients_are_those_of_full_logits(torch.float32, True, {})
