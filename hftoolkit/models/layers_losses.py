"""Losses that never hold the logits of a whole batch, and those of heads whose logits are small.

The output layer and the cross-entropy are computed together, a few rows at a time; the gradient of a row's logits is
known as soon as its softmax is, so forward needs each logit once and backward none. The loss and the gradients are
those of the full computation.

Paper: the closed form of the gradient, softmax(z) - onehot(y), is Bridle 1990; label smoothing is Szegedy et al. 2016,
https://arxiv.org/abs/1512.00567, Section 7; the z-loss is Chowdhery et al. 2022, "PaLM",
https://arxiv.org/abs/2204.02311, Section 5.
Shapes: N = positions, D = hidden size, V = vocabulary.
"""

import re

import torch
from torch import nn

IGNORE_INDEX = -100  # as torch.nn.functional.cross_entropy
CHUNK_LOGITS = 2**22  # logits computed at a time: 16 MiB in float32, which stays in or near the cache


def next_token_targets(labels):
    """Targets of a causal model from labels equal to its inputs: position t predicts label t + 1; both (B, T)."""
    return nn.functional.pad(labels[..., 1:], (0, 1), value=IGNORE_INDEX)


def mean_or_share(total, targets, num_items_in_batch=None):
    """Divide a summed loss by the number of labelled positions, or of those of all accumulated batches.

    A batch without any label has loss 0 (and gradient 0), not 0/0.
    """
    count = (targets != IGNORE_INDEX).sum() if num_items_in_batch is None else num_items_in_batch
    count = torch.as_tensor(count, device=total.device)
    return total / count.clamp(min=1)


def _zeros(hidden, weight, bias, compute, needs):
    """Where the results are summed up: the loss, and the gradients of hidden, weight and bias or an empty tensor."""
    total = hidden.new_zeros((), dtype=torch.promote_types(compute, torch.float32))
    d_hidden = torch.zeros_like(hidden, dtype=compute) if needs[0] else hidden.new_empty(0)
    d_weight = torch.zeros_like(weight) if needs[1] else hidden.new_empty(0)
    d_bias = torch.zeros_like(bias) if needs[2] else hidden.new_empty(0)
    return [total, d_hidden, d_weight, d_bias]


def _total_and_gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    shares: torch.Tensor | None,
    label_smoothing: float,
    z_loss: float,
    compute: torch.dtype,
    needs: list[bool],
) -> list[torch.Tensor]:
    """Summed loss of the labelled rows and its gradients, a few rows at a time; hidden (N, D), targets, shares (N,)."""
    total, d_hidden, d_weight, d_bias = _zeros(hidden, weight, bias, compute, needs)
    with torch.autocast(hidden.device.type, enabled=False):
        matrix, offset = weight.to(compute), None if bias is None else bias.to(compute)
        labelled = (targets != IGNORE_INDEX).nonzero().squeeze(1)  # positions nobody predicts cost nothing
        for index in labelled.split(max(1, CHUNK_LOGITS // len(weight))):
            rows = hidden[index].to(compute)  # (n, D)
            logits = nn.functional.linear(rows, matrix, offset).to(total.dtype)  # (n, V)
            share = None if shares is None else shares[index].to(total.dtype)
            loss, gradient = _rows(logits, targets[index], share, label_smoothing, z_loss, any(needs))
            total += loss
            if needs[2]:
                d_bias += gradient.sum(0)
            gradient = gradient.to(compute) if any(needs) else None
            if needs[0]:
                d_hidden[index] = gradient @ matrix
            if needs[1] and d_weight.dtype == compute:
                d_weight.addmm_(gradient.T, rows)
            elif needs[1]:
                d_weight += gradient.T @ rows
    return [total, d_hidden, d_weight, d_bias]


# torch.compile sees one operator: how many rows are labelled depends on the data, which would break its graph. The
# module's name is in the operator's because a copy of this file, loaded from the Hub, registers its own.
_one_operator = torch.library.custom_op(
    f"hftoolkit::total_and_gradients_{re.sub(r'[^0-9a-zA-Z]', '_', __name__)}", _total_and_gradients, mutates_args=()
)


@_one_operator.register_fake
def _(hidden, weight, bias, targets, shares, label_smoothing, z_loss, compute, needs):
    return _zeros(hidden, weight, bias, compute, needs)


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of the losses of all rows; the gradients are computed in forward and only scaled in backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, shares, label_smoothing, z_loss):
        device = hidden.device.type
        compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        needs = list(ctx.needs_input_grad[:3])
        work = _one_operator if torch.compiler.is_compiling() else _total_and_gradients
        total, *gradients = work(hidden, weight, bias, targets, shares, label_smoothing, z_loss, compute, needs)
        ctx.save_for_backward(*gradients)
        ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx, d_total):
        needed = zip(ctx.saved_tensors, ctx.needs_input_grad[:3], strict=True)
        scaled = [d * d_total.to(d.dtype) if need else None for d, need in needed]
        if scaled[0] is not None:
            scaled[0] = scaled[0].to(ctx.hidden_dtype)
        return (*scaled, None, None, None, None)


def _rows(logits, targets, shares, label_smoothing, z_loss, with_gradient):
    """Summed loss of some rows and its gradient; both overwrite the logits (n, V). targets, shares (n,)."""
    index, V = targets.unsqueeze(1), logits.shape[1]  # (n, 1)
    largest = logits.amax(dim=1, keepdim=True)
    logits.sub_(largest)  # what is taken from all of a row takes nothing from its loss
    loss = -(1 - label_smoothing) * logits.gather(1, index).squeeze(1)
    if label_smoothing:
        loss = loss - label_smoothing * logits.mean(dim=1)
    sums = logits.exp_().sum(dim=1)  # (n,)
    loss = loss + sums.log()
    if z_loss:
        log_z = sums.log() + largest.squeeze(1)
        loss = loss + z_loss * log_z.square()
    loss = loss if shares is None else loss * shares
    if not with_gradient:
        return loss.sum(), None
    scale = (1 + 2 * z_loss * log_z) / sums if z_loss else 1 / sums
    gradient = logits.mul_(scale.unsqueeze(1))  # softmax
    if label_smoothing:
        gradient.sub_(label_smoothing / V)
    gradient.scatter_add_(1, index, torch.full_like(index, -(1 - label_smoothing), dtype=gradient.dtype))
    return loss.sum(), gradient if shares is None else gradient.mul_(shares.unsqueeze(1))


def linear_cross_entropy(
    hidden, weight, targets, *, bias=None, shares=None, num_items_in_batch=None, label_smoothing=0.0, z_loss=0.0
):
    """Cross-entropy of `hidden @ weight.T + bias` against `targets`, without the logits in memory.

    Args:
        hidden: (..., D).
        weight: output matrix, (V, D).
        targets: the class of every position, (...), or IGNORE_INDEX where there is none. Not shifted here.
        shares: what the loss of each position is multiplied by before they are summed, (...); None is 1.
        num_items_in_batch: what the sum is divided by; None is the number of targets present.
        label_smoothing: share of the target's probability spread evenly over all classes, in [0, 1).
        z_loss: weight of log(Z)^2, which keeps the normaliser Z near 1.

    Returns:
        The loss in nats, a scalar of at least float32.

    Raises:
        ValueError: hidden and targets disagree in shape; a target outside of the classes (on the CPU).
    """
    if hidden.shape[:-1] != targets.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} and targets {tuple(targets.shape)} must agree but for D")
    rows, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(hidden.device)
    check_classes(flat, len(weight))
    shares = None if shares is None else shares.reshape(-1)
    total = _LinearCrossEntropy.apply(rows, weight, bias, flat, shares, label_smoothing, z_loss)
    return mean_or_share(total, flat, num_items_in_batch)


def check_classes(targets, classes):
    """Refuse labels that a head of so many classes cannot give; on the CPU only, elsewhere it would stop the device.

    Raises:
        ValueError: a label that is neither IGNORE_INDEX nor in [0, classes).
    """
    if torch.compiler.is_compiling() or targets.device.type != "cpu":
        return
    wrong = targets[((targets < 0) | (targets >= classes)) & (targets != IGNORE_INDEX)]
    if len(wrong):
        raise ValueError(
            f"label {int(wrong[0])} is outside of the head's {classes} classes, 0 to {classes - 1}: set num_labels to "
            f"the number of classes of the data, or label what has none with {IGNORE_INDEX}"
        )


def cross_entropy(logits, targets, *, num_items_in_batch=None, label_smoothing=0.0, z_loss=0.0):
    """The same loss from logits (..., V) that exist anyway; targets (...)."""
    flat, labels = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1).to(logits.device)
    check_classes(labels, flat.shape[-1])
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    total = nn.functional.cross_entropy(
        flat, labels, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    if z_loss:
        total = total + z_loss * (torch.logsumexp(flat, -1).square() * (labels != IGNORE_INDEX)).sum()
    return mean_or_share(total, labels, num_items_in_batch)


def classification_loss(logits, labels, config, num_items_in_batch=None):
    """Mean loss of whole-row labels by config.problem_type; where that is not set, num_labels and the labels tell.

    Labels are classes (B,), real numbers (B,) or (B, C), or 0/1 per class (B, C); logits (B, C). num_items_in_batch
    counts every number in the labels, as Trainer does: C for a row of a multi-label task.
    """
    several = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    kind = config.problem_type or ("regression" if config.num_labels == 1 else several)
    if kind == "single_label_classification":
        return cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = labels.to(logits).reshape(logits.shape)
    compare = nn.functional.mse_loss if kind == "regression" else nn.functional.binary_cross_entropy_with_logits
    return mean_or_share(compare(logits, target, reduction="sum"), labels.reshape(-1), num_items_in_batch)


def span_loss(start_logits, end_logits, start_positions, end_positions, num_items_in_batch=None):
    """Mean of the losses of where an answer begins and where it ends.

    Args:
        start_logits: (B, T); end_logits likewise.
        start_positions: index of the first token, (B,); IGNORE_INDEX or beyond the row is not counted.
        num_items_in_batch: number of rows that the sum is divided by; None is those that are counted.
    """
    total = 0.0
    for logits, positions in ((start_logits, start_positions), (end_logits, end_positions)):
        positions = positions.reshape(-1)
        positions = positions.masked_fill(positions >= logits.shape[1], IGNORE_INDEX)
        total = total + cross_entropy(logits, positions, num_items_in_batch=num_items_in_batch)
    return total / 2


def masked_words(model, hidden, labels, num_items_in_batch, logits_to_keep):
    """Loss and logits of a model with `transform` and `lm_head`, computed where somebody reads them.

    Args:
        hidden: (B, T, D).
        labels: (B, T) with -100 where nothing is predicted, or None.
        logits_to_keep: True at the positions whose logits are wanted, (B, T). None is all of them in evaluation and
            none while training with labels.

    Returns:
        (loss or None, logits (B, T, V) or (kept, V) in reading order or None).
    """
    logits = None
    if logits_to_keep is not None:
        if logits_to_keep.shape != hidden.shape[:2] or logits_to_keep.dtype != torch.bool:
            given = f"{logits_to_keep.dtype} of shape {tuple(logits_to_keep.shape)}"
            raise ValueError(f"logits_to_keep must be a bool tensor of shape {tuple(hidden.shape[:2])}, got {given}")
        logits = model.lm_head(model.transform(hidden[logits_to_keep]))
    elif labels is None or not model.training:
        logits = model.lm_head(model.transform(hidden))
    if labels is None:
        return None, logits
    if logits is not None and logits_to_keep is None:
        return cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch), logits
    if not torch.compiler.is_compiling():  # how many are labelled depends on the data, which would break the graph
        chosen = (labels != IGNORE_INDEX).flatten().nonzero().squeeze(1)
        hidden, labels = hidden.flatten(0, 1).index_select(0, chosen), labels.flatten()[chosen]
    head = dict(bias=model.lm_head.bias, num_items_in_batch=num_items_in_batch)
    return linear_cross_entropy(model.transform(hidden), model.lm_head.weight, labels, **head), logits


def next_words(model, hidden, labels, shift_labels, num_items_in_batch, logits_to_keep):
    """Loss and logits of a causal model with `lm_head`, computed where somebody reads them.

    Args:
        model: its config has label_smoothing and z_loss, which only training knows.
        hidden: (B, T, D).
        labels: equal to input_ids or -100, (B, T), or None; shift_labels, taken before them, are next tokens already.
        logits_to_keep: how many of the last positions get logits, or a tensor of positions; 0 is all. None is all in
            evaluation and none while training with labels.

    Returns:
        (loss in nats per token or None, logits (B, kept, V) or None).
    """
    targets = next_token_targets(labels) if shift_labels is None and labels is not None else shift_labels
    loss, logits, head = None, None, model.lm_head
    if targets is None or logits_to_keep is not None or not model.training:
        keep = logits_to_keep or 0 if not torch.is_tensor(logits_to_keep) else logits_to_keep
        logits = head(hidden[:, slice(-keep, None) if isinstance(keep, int) else keep])
    if targets is not None:
        options = dict(num_items_in_batch=num_items_in_batch)
        if model.training:
            options.update(label_smoothing=model.config.label_smoothing, z_loss=model.config.z_loss)
        if logits is not None and logits.shape[1] == hidden.shape[1]:
            loss = cross_entropy(logits, targets, **options)
        else:
            loss = linear_cross_entropy(hidden, head.weight, targets, bias=head.bias, **options)
    return loss, logits
