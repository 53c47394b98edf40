"""Documents of the microworld: write them, score them, and read the state of the world back out of them.

The language is a probability distribution over texts, written once in narration.py and actions.py; `tell` draws from
it and `retell` walks the same functions along a given text, so the log probability of a text is exact and can be
recomputed from the text alone.

Splits. The last word of every document is an hour, one to twelve. It is a check digit: the CRC-32 of everything
before it, plus the hour, modulo 3, names the split (0 train, 1 validation, 2 test). A split is therefore a property
of the text, and no document can be in two. Given all that stands before it, 4 of the 12 hours are possible in each
split, so the restriction is worth exactly log 3 nats per document, the same in every split. No model can learn a
checksum: a perfect reader pays log 12 for the last word, which makes its loss `CHECK_NATS` = log 3 = 1.0986 nats per
document above the true entropy, less than one per cent of it.

Held-out combinations. One in seven (thing, colour) pairs and one in nine (common name, place) pairs are reserved: in
train and validation no thing ever has a reserved colour and nobody is at a place reserved against the name. Validation
has the distribution of train: its entropy is the target of a model trained on train. The test split draws from the
full grammar, where about two documents in five hold a reserved combination. Each log probability is that of the
split's own distribution.
"""

import math
from collections.abc import Iterator
from itertools import islice

from .stories import SPLITS, check_arguments, iterate_stories, retell

GENERATOR_VERSION = 1  # changes whenever the same seed no longer gives the same text
CHECK_NATS = math.log(len(SPLITS))


def score_document(text: str) -> float:
    """Log probability of a text in nats, under the distribution of its split, recomputed from the text alone.

    Raises:
        ValueError: the text is not in the language.
    """
    return retell(text).log_probability


def iterate_documents(seed: int = 0, split: str = "train", start: int = 0) -> Iterator[dict]:
    """Yield {"text", "log_probability", "topic"} without end: the streaming form of `make_documents`."""
    for story in iterate_stories(seed, split, start):
        yield {"text": story.text, "log_probability": story.log_probability, "topic": story.world.topic.word}


def make_documents(num_documents: int, seed: int = 0, split: str = "train") -> list[dict]:
    """Return the first documents of a split.

    Args:
        num_documents: how many. More documents begin with the same ones.
        seed: another seed gives other documents; one seed gives the same bytes on every Python.
        split: "train", "validation" or "test".

    Returns:
        dicts of `text`, `log_probability` (nats, exact, in the split's own distribution) and `topic`.

    Raises:
        ValueError: a negative number, or an unknown split.
    """
    check_arguments(split, num_documents=num_documents, seed=seed)
    return list(islice(iterate_documents(seed, split), num_documents))


def entropy_report(documents: list[dict]) -> dict:
    """Return the true entropy of documents from `make_documents`, in nats: the loss that no model can beat.

    It is the mean of -log_probability, over the documents at hand. `reachable_nats` adds CHECK_NATS per document:
    the loss of a perfect reader who cannot compute the checksum in the last word (see the head of this file). A word
    is what stands between spaces. Divide `nats` by a number of tokens for the entropy per token.

    Raises:
        ValueError: there are no documents.
    """
    if not documents:
        raise ValueError("entropy_report needs at least one document, got none")
    nats = -math.fsum(document["log_probability"] for document in documents)
    num_words = sum(len(document["text"].split()) for document in documents)
    num_characters = sum(len(document["text"]) for document in documents)
    return {
        "num_documents": len(documents),
        "num_words": num_words,
        "num_characters": num_characters,
        "nats": nats,
        "reachable_nats": nats + CHECK_NATS * len(documents),
        "nats_per_document": nats / len(documents),
        "nats_per_word": nats / num_words,
        "nats_per_character": nats / num_characters,
    }
