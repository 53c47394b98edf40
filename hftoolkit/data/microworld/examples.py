"""Collect labelled examples from the beginnings of stories: distinct, balanced, and of one split."""

from dataclasses import replace
from itertools import count
from random import Random
from zlib import crc32

from .choices import Draw
from .lexicon import ACTION_WEIGHTS, LEXICON, NARRATION_WEIGHTS
from .stories import SPLITS, begin, check_arguments, document_random

FIRST_BEGINNING = 1 << 39  # beginnings have random numbers that no document has
# the same language, told with more of the rare events: for tasks that need a single sentence of each kind
EVENTFUL = replace(
    LEXICON,
    narration_weights=NARRATION_WEIGHTS | {"describe": 5.0, "compare": 5.0, "recall": 0.6, "act": 12.0, "ask": 1.0},
    action_weights=ACTION_WEIGHTS
    | {"go": 0.1, "visit": 3.0, "take": 5.0, "give": 12.0, "steal": 2.0, "carry": 2.0, "paint": 2.0}
    | {"feel": 60.0, "show": 2.0, "fade": 1.5, "reflect": 0.3},
)
PATIENCE = 20_000  # candidates in a row that are no use before giving up


def iterate_beginnings(seed, split, shortest, longest, lexicon=LEXICON):
    """Yield the first `shortest` to `longest` sentences of stories, the opening among them, and a source of floats."""
    for index in count(FIRST_BEGINNING):
        random = document_random(seed, split, index)
        num_sentences = shortest + int(random() * (longest - shortest + 1))
        yield begin(Draw(random), split, num_sentences, lexicon), random


def collect(candidates, num_examples, seed, split, labels=(None,)):
    """Return `num_examples` examples, as many of each label (the counts differ by one at most), in random order.

    A text belongs to the split that its CRC-32 modulo 3 names, so no text is in two splits.

    Args:
        candidates: an iterator of (text, label, example). Of candidates with the same text only one is taken.
        labels: all labels.

    Raises:
        ValueError: an argument is wrong, or the candidates give no new example any more.
    """
    check_arguments(split, num_examples=num_examples, seed=seed)
    quota = {label: (num_examples + i) // len(labels) for i, label in enumerate(reversed(labels))}
    residue, seen, examples, idle = SPLITS.index(split), set(), [], 0
    while len(examples) < num_examples:
        text, label, example = next(candidates)
        idle += 1
        if quota[label] and text not in seen and crc32(text.encode()) % len(SPLITS) == residue:
            seen.add(text)
            quota[label] -= 1
            examples.append(example)
            idle = 0
        if idle > PATIENCE:
            raise ValueError(f"only {len(examples)} different examples found, {num_examples} were asked for")
    random = Random(seed).random
    keys = [random() for _ in examples]
    return [examples[index] for index in sorted(range(num_examples), key=keys.__getitem__)]


def pick(random, options):
    """One of the options, by a function that gives floats in [0, 1)."""
    return options[int(random() * len(options))]
