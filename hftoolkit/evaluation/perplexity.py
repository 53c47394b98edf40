"""Loss of any causal language model on text: per token, per word and per byte, with a sliding window.

Perplexities per token cannot be compared between tokenizers; bits per byte can.
Shapes: B = windows of a batch, T = their length, V = vocabulary.
"""

import math

import torch

from hftoolkit.data.language_modeling import AS_TEXT
from hftoolkit.errors import DataError

RECURRENT_WINDOW = 1024  # of a model that could read for ever


def windows(length, window, stride):
    """Stretches of a document that a model reads, and from where on their targets count.

    Args:
        length: tokens of the document, the first of which is given.
        window: inputs the model reads at once; stride: new targets per window, at most `window`.

    Returns:
        List of (start, end, first): tokens[start:end] is read and the targets tokens[first:end] are scored. Every
        token but the first is scored exactly once, with at least window - stride tokens before it where there are.

    Example (length 10, window 4, stride 2):
        (0, 5, 1) (2, 7, 5) (4, 9, 7) (5, 10, 9)
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be in 1..window={window}, got {stride}")
    result, scored = [], 1
    while scored < length:
        end = min(length, scored + (window if scored == 1 else stride))
        result.append((max(0, end - window - 1), end, scored))
        scored = end
    return result


def token_ids(tokenizer, text):
    """Ids of a text as a document: begun by bos (or eos, where there is none) and ended by eos."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError("the tokenizer has no eos_token, which ends a document")
    bos = eos if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return [bos, *tokenizer(text, verbose=False, **AS_TEXT)["input_ids"], eos]


@torch.no_grad()
def log_probabilities(model, sequences, batch_size=16):
    """Log-probability of each scored token.

    Args:
        sequences: list of (ids, first): ids[first:] are scored given everything before them.

    Returns:
        List of float64 tensors, (len(ids) - first,), in nats.
    """
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
    result, device = [None] * len(sequences), model.device
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size]
        T = max(len(sequences[i][0]) for i in chosen) - 1
        ids, mask = torch.zeros(len(chosen), T, dtype=torch.long), torch.zeros(len(chosen), T, dtype=torch.long)
        for row, i in enumerate(chosen):
            inputs = sequences[i][0][:-1]
            ids[row, : len(inputs)], mask[row, : len(inputs)] = torch.tensor(inputs), 1
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits.float()
        for row, i in enumerate(chosen):
            tokens, first = sequences[i]
            scores = logits[row, first - 1 : len(tokens) - 1].log_softmax(-1)  # (scored, V)
            targets = torch.tensor(tokens[first:], device=device)
            result[i] = scores.gather(1, targets[:, None])[:, 0].double().cpu()
    return result


def evaluate_text(model, tokenizer, texts, *, window=None, stride=None, batch_size=16):
    """Loss of a model on documents.

    Args:
        window: tokens read at once; None is the model's max_position_embeddings, or 1,024 where it has no such limit.
        stride: None is half the window.

    Returns:
        loss (nats per token), perplexity (per token), word_perplexity (per whitespace-separated word),
        bits_per_byte (of the UTF-8 text), tokens, words, bytes, documents.

    Raises:
        DataError: no text.
    """
    limit = getattr(model.config, "max_position_embeddings", RECURRENT_WINDOW)
    window = limit if window is None else min(window, limit)
    stride = max(1, window // 2) if stride is None else stride
    was_training = model.training
    model.eval()
    nats = tokens = words = size = documents = 0
    for text in texts:
        ids = token_ids(tokenizer, text)
        sequences = [(ids[start:end], first - start) for start, end, first in windows(len(ids), window, stride)]
        nats -= sum(float(scores.sum()) for scores in log_probabilities(model, sequences, batch_size))
        tokens, documents = tokens + len(ids) - 1, documents + 1
        words, size = words + len(text.split()), size + len(text.encode())
    model.train(was_training)
    if not tokens:
        raise DataError("there is no text to evaluate on")
    return {
        "loss": nats / tokens,
        "perplexity": math.exp(min(nats / tokens, 700.0)),
        "word_perplexity": math.exp(min(nats / max(words, 1), 700.0)),
        "bits_per_byte": nats / math.log(2) / max(size, 1),
        "tokens": tokens,
        "words": words,
        "bytes": size,
        "documents": documents,
        "window": window,
        "stride": stride,
    }
