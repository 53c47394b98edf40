"""Perplexity per token and per word, of a model and of counted ones, over the same tokens."""

import math

from .ngram import kneser_ney_loss, ngram_losses


def perplexities(nats, tokens, documents):
    """Loss and perplexities of a text that costs so many nats.

    Args:
        tokens: that were predicted; documents: with the column `text`, whose words are parted by white space.

    Returns:
        {"eval_loss": nats per token, "eval_perplexity": per token, "eval_word_perplexity": per word, where the ends of
        documents are paid for but not counted}.
    """
    words = sum(len(text.split()) for text in documents["text"])
    return {
        "eval_loss": nats / tokens,
        "eval_perplexity": math.exp(min(nats / tokens, 700.0)),
        "eval_word_perplexity": math.exp(min(nats / max(words, 1), 700.0)),
    }


def counted_models(train, held_out, documents, vocab_size, order=5):
    """Unigram, bigram and Kneser-Ney n-gram model, and for built-in text what no model can go below.

    Args:
        train, held_out: data sets with `tokens` and `offsets`.
        documents: those held out, with `text` and, where it is known, `log_probability` in nats.

    Returns:
        {name: as perplexities gives it}.
    """
    seen, text = ((part.tokens, part.offsets) for part in (train, held_out))
    losses = ngram_losses(seen, text, vocab_size)
    losses = {"unigram": losses[1], "bigram": losses[2]}
    losses[f"kneser_ney_{order}_gram"] = kneser_ney_loss(seen, text, vocab_size, order)
    tokens = len(held_out.tokens) - 1
    found = {name: perplexities(loss * tokens, tokens, documents) for name, loss in losses.items()}
    if "log_probability" in documents.column_names:
        found["true_entropy"] = perplexities(-sum(documents["log_probability"]), tokens, documents)
    return found
