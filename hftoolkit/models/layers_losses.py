"""Losses that never hold the logits of a whole batch.

The output layer and the cross-entropy are computed together, a few rows at a time; the gradient of a row's logits is
known as soon as its softmax is, so forward needs each logit once and backward none. The loss and the gradients are
those of the full computation.

Paper: the closed form of the gradient, softmax(z) - onehot(y), is Bridle 1990; label smoothing is Szegedy et al. 2016,
https://arxiv.org/abs/1512.00567, Section 7; the z-loss is Chowdhery et al. 2022, "PaLM",
https://arxiv.org/abs/2204.02311, Section 5.
Shapes: N = positions, D = hidden size, V = vocabulary.
"""

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


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of the losses of all rows; the gradients are computed in forward and only scaled in backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, label_smoothing, z_loss):
        compute = torch.get_autocast_dtype(hidden.device.type)
        compute = compute if torch.is_autocast_enabled(hidden.device.type) else hidden.dtype
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        V = weight.shape[0]
        with torch.autocast(hidden.device.type, enabled=False):
            rows, matrix = hidden.to(compute), weight.to(compute)
            d_hidden = torch.empty_like(rows) if needs_hidden else None
            d_weight = torch.zeros_like(weight) if needs_weight else None
            d_bias = torch.zeros_like(bias) if needs_bias else None
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for piece in torch.arange(len(rows)).split(max(1, CHUNK_LOGITS // V)):
                chunk = slice(int(piece[0]), int(piece[-1]) + 1)
                logits = nn.functional.linear(rows[chunk], matrix, None if bias is None else bias.to(compute)).float()
                loss, gradient = _rows(logits, targets[chunk], label_smoothing, z_loss, any(ctx.needs_input_grad))
                total += loss
                if gradient is None:
                    continue
                if needs_bias:
                    d_bias += gradient.sum(0)
                gradient = gradient.to(compute)
                if needs_hidden:
                    torch.mm(gradient, matrix, out=d_hidden[chunk])
                if needs_weight and d_weight.dtype == compute:
                    d_weight.addmm_(gradient.T, rows[chunk])
                elif needs_weight:
                    d_weight += gradient.T @ rows[chunk]
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.hidden_dtype = hidden.dtype
        return total

    @staticmethod
    def backward(ctx, d_total):
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        scaled = [None if d is None else d * d_total.to(d.dtype) for d in (d_hidden, d_weight, d_bias)]
        if scaled[0] is not None:
            scaled[0] = scaled[0].to(ctx.hidden_dtype)
        return (*scaled, None, None, None)


def _rows(logits, targets, label_smoothing, z_loss, with_gradient):
    """Summed loss of some rows and its gradient, which overwrites the logits (n, V); targets (n,)."""
    keep = targets != IGNORE_INDEX
    index = torch.where(keep, targets, 0).unsqueeze(1)  # (n, 1)
    V = logits.shape[1]
    log_z = torch.logsumexp(logits, dim=1)  # (n,)
    loss = log_z - (1 - label_smoothing) * logits.gather(1, index).squeeze(1)
    if label_smoothing:
        loss = loss - label_smoothing * logits.mean(dim=1)
    if z_loss:
        loss = loss + z_loss * log_z.square()
    loss = (loss * keep).sum()
    if not with_gradient:
        return loss, None
    gradient = logits.sub_(log_z.unsqueeze(1)).exp_()  # softmax
    if z_loss:
        gradient.mul_((1 + 2 * z_loss * log_z).unsqueeze(1))
    if label_smoothing:
        gradient.sub_(label_smoothing / V)
    gradient.scatter_add_(1, index, torch.full_like(index, -(1 - label_smoothing), dtype=gradient.dtype))
    return loss, gradient.mul_(keep.unsqueeze(1))


def linear_cross_entropy(
    hidden, weight, targets, *, bias=None, num_items_in_batch=None, label_smoothing=0.0, z_loss=0.0
):
    """Cross-entropy of `hidden @ weight.T + bias` against `targets`, without the logits in memory.

    Args:
        hidden: (..., D).
        weight: output matrix, (V, D).
        targets: the class of every position, (...), or IGNORE_INDEX where there is none. Not shifted here.
        num_items_in_batch: what the sum is divided by; None is the number of targets present.
        label_smoothing: share of the target's probability spread evenly over all classes, in [0, 1).
        z_loss: weight of log(Z)^2, which keeps the normaliser Z near 1.

    Returns:
        The loss in nats, a float32 scalar.

    Raises:
        ValueError: hidden and targets disagree in shape.
    """
    if hidden.shape[:-1] != targets.shape:
        raise ValueError(f"hidden {tuple(hidden.shape)} and targets {tuple(targets.shape)} must agree but for D")
    rows, flat = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).to(hidden.device)
    labelled = flat != IGNORE_INDEX
    if not labelled.all():  # positions nobody predicts cost nothing
        rows, flat = rows[labelled], flat[labelled]
    total = _LinearCrossEntropy.apply(rows, weight, bias, flat, label_smoothing, z_loss)
    return mean_or_share(total, flat, num_items_in_batch)


def cross_entropy(logits, targets, *, num_items_in_batch=None, label_smoothing=0.0, z_loss=0.0):
    """The same loss from logits (..., V) that exist anyway; targets (...)."""
    flat, labels = logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1).to(logits.device)
    total = nn.functional.cross_entropy(
        flat, labels, ignore_index=IGNORE_INDEX, reduction="sum", label_smoothing=label_smoothing
    )
    if z_loss:
        total = total + z_loss * (torch.logsumexp(flat, -1).square() * (labels != IGNORE_INDEX)).sum()
    return mean_or_share(total, labels, num_items_in_batch)


def classification_loss(logits, labels, config, num_items_in_batch=None):
    """Mean loss of whole-row labels by config.problem_type, which is told from num_labels when it is not set."""
    kind = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    if kind == "single_label_classification":
        return cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
    if kind == "regression":
        losses = nn.functional.mse_loss(logits.squeeze(-1).float(), labels.float(), reduction="none")
    else:
        losses = nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    per_row = losses.reshape(len(losses), -1).mean(-1)
    return mean_or_share(per_row.sum(), torch.zeros(len(labels)), num_items_in_batch)
