"""A small text with a tail of rare words, the same in every test."""

import random

import pytest


@pytest.fixture(scope="session")
def texts():
    """120 documents; words follow a steep frequency, some carry accents, capitals and punctuation."""
    draw = random.Random(0)
    stems = ["walk", "talk", "lamp", "garden", "green", "small", "river", "house", "wonder", "light", "stone"]
    endings = ["", "s", "ed", "ing", "er", "ful", "less"]
    words = [stem + ending for stem in stems for ending in endings]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    documents = []
    for _ in range(120):
        chosen = draw.choices(words, weights, k=30)
        documents.append(" ".join(chosen).capitalize() + draw.choice([".", "!", " (na\u00efve)?", "\n\nWell, 42..."]))
    return documents
