"""Where a token stands: positions from an attention mask, and the documents inside packed rows.

Shapes: B = rows, T = tokens of a row, N = B * T.
"""

import torch


def positions_from_mask(attention_mask):
    """Position of every real token among the real tokens of its row; 0 for padding. (B, T) to (B, T).

    Left-padded batches come without position_ids (generation, policy optimisation): a learned position must not
    depend on how much padding stands before it.

    Example:
        attention_mask  0 0 1 1 1
        positions       0 0 0 1 2
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def sinusoids(positions, size, in_halves=False):
    """Vaswani et al. 2017, Section 3.5: sine and cosine of the position at wavelengths from 2 pi to 10000 * 2 pi.

    Computed wherever it is wanted, in double precision where the device has it: right at every position, and nothing that
    a checkpoint could lack.

    Args:
        positions: whole numbers, (...).
        size: how many numbers say where a token stands; even.
        in_halves: whether all sines come before all cosines, and not each beside its own.

    Returns:
        (..., size), float32.

    Example (size 4):
        positions  0             1
        result     0 1 0 1       0.8415 0.5403 0.0100 0.9999
        in halves  0 0 1 1       0.8415 0.0100 0.5403 0.9999
    """
    precise = torch.float32 if positions.device.type == "mps" else torch.float64
    exponents = torch.arange(0, size, 2, device=positions.device, dtype=precise) / size
    angles = positions.unsqueeze(-1) * 10000.0**-exponents  # (..., size / 2)
    parts = [angles.sin().float(), angles.cos().float()]
    return torch.cat(parts, dim=-1) if in_halves else torch.stack(parts, dim=-1).flatten(-2)


def document_lengths(position_ids):
    """Lengths of the documents packed into rows, in reading order.

    A document begins where a row begins and wherever the position is not one more than its left neighbour's.

    Args:
        position_ids: (B, T).

    Returns:
        Lengths that sum to B * T, (number of documents,), on the CPU.

    Example:
        position_ids  [[0 1 2 0 1], [3 4 5 0 0]]
        lengths       [3, 2, 3, 1, 1]
    """
    starts = torch.ones_like(position_ids, dtype=torch.bool)
    starts[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    starts = starts.flatten().nonzero().squeeze(1).cpu()  # (documents,)
    return torch.diff(starts, append=torch.tensor([position_ids.numel()]))


def by_length(lengths):
    """Order the tokens so that documents of equal length stand together.

    Args:
        lengths: of the documents, in the order in which their tokens lie in a flat row, (documents,).

    Returns:
        (order, groups): order (N,) lists the old place of each token, or is None when nothing moves; groups is a list
        of (number of documents, their length).

    Example:
        lengths  [3, 2, 3]
        order    [0 1 2, 5 6 7, 3 4]
        groups   [(2, 3), (1, 2)]
    """
    sorted_lengths, ranks = torch.sort(lengths, descending=True, stable=True)
    sizes, counts = torch.unique_consecutive(sorted_lengths, return_counts=True)
    groups = list(zip(counts.tolist(), sizes.tolist(), strict=True))
    if torch.equal(sorted_lengths, lengths):
        return None, groups
    starts = (lengths.cumsum(0) - lengths)[ranks]  # old start of each document, in the new order
    new_starts = sorted_lengths.cumsum(0) - sorted_lengths
    order = torch.arange(int(lengths.sum())) + (starts - new_starts).repeat_interleave(sorted_lengths)
    return order, groups


def document_numbers(position_ids):
    """For every token the number of its document inside its row, from positions that restart; (B, T) to (B, T)."""
    restarts = position_ids[:, 1:] != position_ids[:, :-1] + 1
    return torch.nn.functional.pad(restarts, (1, 0)).long().cumsum(-1)


def require_single_texts(attention_mask, position_ids):
    """Refuse packed rows where a model would carry one text into the next.

    Raises:
        ValueError: position_ids (B, T) without a mask that begin anew inside a row.
    """
    if position_ids is None or attention_mask is not None or torch.compiler.is_compiling():
        return
    anew = (position_ids[..., 1:] <= position_ids[..., :-1]).nonzero()
    if len(anew):
        row, place = anew[0, 0].item(), anew[0, -1].item() + 1
        raise ValueError(
            f"position_ids begin anew at place {place} of row {row}: this model reads one text per row, and packed texts "
            "would run into each other; give each its own row (packing=False)"
        )


def flat_layout(shape, attention_mask=None, position_ids=None, device=None):
    """How to lay the real tokens of a batch into one flat row in which sequences of equal length stand together.

    Args:
        shape: (B, T).
        attention_mask: not 0 at real tokens, (B, T); each row is one sequence, and its padding is left out.
        position_ids: of packed rows, (B, T), whose documents are the sequences. With neither, whole rows are.
        device: where index is wanted.

    Returns:
        (index, groups): index (N,) lists the old place of each token, or is None when nothing moves; groups is a list
        of (number of sequences, their length).

    Example:
        attention_mask  [[1 1 0], [0 0 1], [0 1 1]]
        index           [0 1, 7 8, 5]
        groups          [(2, 2), (1, 1)]
    """
    B, T = shape
    if attention_mask is None:
        lengths, places = torch.full((B,), T) if position_ids is None else document_lengths(position_ids), None
    else:
        real = attention_mask.ne(0)
        lengths, places = real.sum(1).cpu(), real.flatten().nonzero().squeeze(1)
    order, groups = by_length(lengths[lengths > 0])
    order = None if order is None else order.to(device)
    if places is None or len(places) == B * T:
        return order, groups
    return places if order is None else places[order], groups


def flatten(values, index):
    """Rows (B, T, ...) to one flat row (1, N, ...) of the tokens listed in index; None is all, in order."""
    flat = values.flatten(0, 1)
    return (flat if index is None else flat.index_select(0, index)).unsqueeze(0)


def unflatten(values, index, shape):
    """One flat row (1, N, D) back to rows (B, T, D); 0 where no token was taken from."""
    rows = values.squeeze(0)
    if index is not None:
        rows = rows.new_zeros(shape[0] * shape[1], rows.shape[-1]).index_copy(0, index, rows)
    return rows.view(*shape, -1)


def first_real(hidden, attention_mask=None):
    """The hidden state of each row's first real token; (B, T, D) to (B, D)."""
    if attention_mask is None or attention_mask.dim() != 2:
        return hidden[:, 0]
    first = attention_mask.ne(0).long().argmax(-1)
    return hidden[torch.arange(len(hidden), device=hidden.device), first]


def last_real(hidden, attention_mask=None):
    """The hidden state of each row's last real token, whichever side the padding is on; (B, T, D) to (B, D).

    Args:
        attention_mask: (B, S); where tokens before these T are cached, its last T count. None: all are real.
    """
    if attention_mask is None:
        return hidden[:, -1]
    B, T = hidden.shape[:2]
    last = (attention_mask[:, -T:] * torch.arange(T, device=hidden.device)).argmax(-1)
    return hidden[torch.arange(B, device=hidden.device), last]


def learned_positions(inputs, attention_mask, position_ids, limit):
    """Position of every token (B, T) in a table of `limit` positions: as given, from the mask, or counted.

    Args:
        inputs: token ids (B, T) or embeddings (B, T, D), for their shape.

    Raises:
        ValueError: a position beyond the table. On other devices than the CPU, where finding out costs a
            synchronisation, the lookup itself fails.
    """
    if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
        position_ids = positions_from_mask(attention_mask)
    elif position_ids is None:
        position_ids = torch.arange(inputs.shape[1], device=inputs.device).unsqueeze(0)
    if not torch.compiler.is_compiling() and inputs.device.type == "cpu" and int(position_ids.max()) >= limit:
        raise ValueError(
            f"position {int(position_ids.max())} is beyond max_position_embeddings={limit}: shorten the input to "
            f"{limit} tokens or build the model with more positions"
        )
    return position_ids.expand(*inputs.shape[:2])
