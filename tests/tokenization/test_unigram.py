"""The Unigram trainer against its definition, enumerated, and against the trainer of `tokenizers`."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import special
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from hftoolkit.tokenization.substrings import Words, frequent_substrings
from hftoolkit.tokenization.unigram import best_scores, digamma, expected_counts, make_lattice, train_unigram


def segmentations(word, pieces):
    """All ways to write a word as pieces, by the definition."""
    if not word:
        return [[]]
    heads = [piece for piece in pieces if word.startswith(piece)]
    return [[head, *rest] for head in heads for rest in segmentations(word[len(head) :], pieces)]


@pytest.fixture
def example():
    """Two words, their counts, and a probability for each piece."""
    words = {"abab": 3, "aab": 2}
    pieces = {"a": 0.3, "b": 0.2, "ab": 0.4, "aab": 0.06, "bab": 0.04}
    flat = Words(list(words), ["a", "b"])
    trie, seeds, seed_ids = frequent_substrings(flat, np.array(list(words.values()), dtype=float))
    piece_of = np.full(2 + sum(map(len, trie.keys)), -1)
    names = ["a", "b", *seeds]
    piece_of[:2] = [0, 1]
    piece_of[seed_ids] = np.arange(len(seeds)) + 2
    probability = np.array([pieces.get(name, 0.0) for name in names])
    return words, pieces, names, probability, make_lattice(flat, trie, piece_of)


def test_expected_counts_match_enumeration(example):
    words, pieces, names, probability, lattice = example
    theirs = dict.fromkeys(names, 0.0)
    for word, number in words.items():
        ways = segmentations(word, pieces)
        weights = [math.prod(pieces[piece] for piece in way) for way in ways]
        for way, weight in zip(ways, weights, strict=True):
            for piece in way:
                theirs[piece] += number * weight / sum(weights)
    ours = expected_counts(lattice, probability, np.array(list(words.values()), dtype=float))
    np.testing.assert_allclose(ours, [theirs[name] for name in names], rtol=1e-12)


def test_best_scores_match_enumeration(example):
    words, pieces, _, probability, lattice = example
    theirs = [max(sum(math.log(pieces[p]) for p in way) for way in segmentations(word, pieces)) for word in words]
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(best_scores(lattice, np.log(probability)), theirs, rtol=1e-12)


def test_frequent_substrings_match_counting():
    words = {"_table": 5, "_tin": 3, "_tan": 1, "_x": 1}
    flat = Words(list(words), sorted(set("".join(words))))
    _, seeds, _ = frequent_substrings(flat, np.array(list(words.values()), dtype=float))
    counts = {}
    for word, number in words.items():
        for i in range(len(word)):
            for j in range(i + 2, len(word) + 1):
                counts[word[i:j]] = counts.get(word[i:j], 0) + number
    frequent = {piece: number for piece, number in counts.items() if number >= 2}
    inside = {piece[:-1] for piece, number in frequent.items() if frequent.get(piece[:-1]) == number}
    assert seeds == {piece: number for piece, number in frequent.items() if piece not in inside}
    assert "_tab" not in seeds and seeds["_ta"] == 6 and seeds["_t"] == 9


def test_digamma_matches_scipy():
    x = np.concatenate([np.linspace(0.5, 12, 200), [1e3, 1e9]])
    np.testing.assert_allclose(digamma(x), special.digamma(x), rtol=0, atol=1e-9)


def test_probabilities_form_a_distribution_and_keep_the_alphabet():
    words = {"_garden": 40, "_gardens": 30, "_gardener": 20, "_green": 25, "_greener": 5, "_z": 1}
    alphabet = sorted(set("".join(words)))
    pieces = dict(train_unigram(words, alphabet, len(alphabet) + 4))
    assert len(pieces) == len(alphabet) + 4 and set(alphabet) <= set(pieces)
    assert "_garden" in pieces
    assert sum(map(math.exp, pieces.values())) == pytest.approx(1, abs=0.15)  # the digamma step leaves some mass out


def test_frequent_words_stay_whole_and_every_word_can_be_written():
    """Characters that no rare word needs alone must not take the pieces made of them along."""
    rare = {"_" + "".join(letters): 2 for letters in itertools.permutations("abdgk", 4)}
    words = {"_the": 3000, "_was": 1200, "_in": 1000, "_to": 800, "_went": 400, "_then": 300} | rare
    alphabet = sorted(set("".join(words)))
    for num_pieces in (len(alphabet) + 6, len(alphabet) + 12, 60):
        pieces = dict(train_unigram(words, alphabet, num_pieces))
        assert len(pieces) == num_pieces and pieces.keys() >= {*alphabet, "_the", "_was", "_in", "_to"}
        assert all(segmentations(word, pieces) for word in words)
        assert min(pieces, key=pieces.get) not in ("_the", "_was") and all(map(math.isfinite, pieces.values()))


def test_excluded_strings_are_no_pieces():
    words = {"_</s>": 100, "_a</s>": 50}
    pieces = dict(train_unigram(words, sorted(set("_</s>a")), 20, excluded={"</s>"}))
    assert "</s>" not in pieces and "_</s>" in pieces


def test_words_without_spaces_are_cut():
    """Text without spaces: one word of 5,000 characters."""
    pieces = dict(train_unigram({"abcab" * 1000: 1}, ["a", "b", "c"], 10))
    assert all(math.isfinite(score) for score in pieces.values())
    assert any(len(piece) >= 5 for piece in pieces)


def test_writes_held_out_text_in_no_more_tokens_than_the_trainer_of_tokenizers(texts):
    """Same vocabulary size, same inference."""
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    train, held = texts[:80], texts[80:]
    counts = {}
    for text in train:
        for word, _ in split.pre_tokenize_str(text):
            counts[word] = counts.get(word, 0) + 1
    alphabet = sorted(set("".join(counts)))
    theirs = Tokenizer(models.Unigram())
    theirs.pre_tokenizer = split
    theirs.train_from_iterator(
        train,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False),
    )
    theirs = json.loads(theirs.to_str())["model"]["vocab"]
    ours = [("<unk>", 0.0), *train_unigram(counts, alphabet, len(theirs) - 1)]
    assert len(ours) == len(theirs) > len(alphabet) + 30

    def tokens(vocab):
        model = Tokenizer(models.Unigram([tuple(entry) for entry in vocab], unk_id=0))
        model.pre_tokenizer = split
        return sum(len(encoding.ids) for encoding in model.encode_batch(held))

    assert tokens(ours) <= tokens(theirs)
