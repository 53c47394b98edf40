"""Words in context: the occurrences of other words whose vectors are nearest, and what they have in common.

Paper: Peters et al. 2018, https://arxiv.org/abs/1802.05365, Section 5.3 and Table 4: near "play" as a word lie "playing",
"game", "plays"; near one "play" in a sentence lie those occurrences that mean the same.
Shapes: N = occurrences, D = size of a layer.
"""

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hftoolkit.errors import DataError

MAX_SENTENCES = 2000  # searched
BATCH = 64


@dataclass
class Occurrences:
    """Vectors of every word of some sentences.

    Args:
        sentences: lists of words.
        places: (sentence, place in it) of each vector, (N, 2).
        vectors: of one layer, of length 1, (N, D).
    """

    sentences: list
    places: np.ndarray
    vectors: np.ndarray

    def find(self, word):
        """Numbers of the occurrences of a word."""
        return [number for number, (sentence, place) in enumerate(self.places) if self.word((sentence, place)) == word]

    def word(self, where):
        """The word at (sentence, place)."""
        return self.sentences[where[0]][where[1]]

    def nearest(self, number, count=5):
        """The most similar occurrences in other sentences: [(similarity, number), ...], best first."""
        scores = self.vectors @ self.vectors[number]
        scores[self.places[:, 0] == self.places[number, 0]] = -np.inf
        best = np.argsort(-scores, kind="stable")[:count]
        return [(float(scores[other]), int(other)) for other in best if np.isfinite(scores[other])]


def embed_occurrences(model, tokenizer, sentences, layer=-1):
    """Vectors of all words of sentences in one layer of a model.

    Args:
        model: any that gives hidden_states of tokens; a word has the vector of its first token.
        tokenizer: its own, a fast one; it has to leave the words whole or part them further.
        sentences: lists of words.
        layer: of hidden_states; 0 knows nothing of the context.
    """
    places, vectors, was_training = [], [], model.training
    model.eval()
    for begin in range(0, len(sentences), BATCH):
        part = sentences[begin : begin + BATCH]
        encoded = tokenizer(
            part, is_split_into_words=True, return_tensors="pt", padding=True, return_token_type_ids=False
        )
        with torch.no_grad():
            inputs = {name: values.to(model.device) for name, values in encoded.items()}
            hidden = model(**inputs, output_hidden_states=True).hidden_states[layer].float().cpu()
        for row in range(len(part)):
            first = {}
            for token, word in enumerate(encoded.word_ids(row)):
                if word is not None:
                    first.setdefault(word, token)
            places += [(begin + row, word) for word in first]
            vectors.append(hidden[row, list(first.values())])
    model.train(was_training)
    vectors = torch.nn.functional.normalize(torch.cat(vectors), dim=-1).numpy()
    return Occurrences(sentences, np.array(places), vectors)


def same_sense_share(occurrences, senses, count=1):
    """How often the nearest occurrences of ambiguous words have the same sense.

    Args:
        senses: {number of an occurrence: its sense}; neighbours without a sense are not looked at.

    Returns:
        (share, chance): of the `count` nearest, and of all others.
    """
    numbers = np.array(sorted(senses))
    labels = np.array([senses[number] for number in numbers])
    hits, chances = [], []
    for place, number in enumerate(numbers):
        other = occurrences.places[numbers, 0] != occurrences.places[number, 0]
        scores = np.where(other, occurrences.vectors[numbers] @ occurrences.vectors[number], -np.inf)
        best = np.argsort(-scores, kind="stable")[: min(count, int(other.sum()))]
        hits.append((labels[best] == labels[place]).mean())
        chances.append((labels[other] == labels[place]).mean())
    return float(np.mean(hits)), float(np.mean(chances))


def require_occurrences(words, sentences):
    """Refuse words that would have no occurrence to show.

    Args:
        sentences: lists of words, of which MAX_SENTENCES are searched; None: there are no validation data.

    Raises:
        DataError: a word does not occur, with the nearest spellings; words, but no sentences.
    """
    if words and sentences is None:
        raise DataError(
            f"neighbours of {', '.join(words)} are looked up in the validation data, and there are none: hold some out "
            "(--validation_fraction 0.05), or leave out neighbours"
        )
    searched = (sentences or [])[:MAX_SENTENCES]
    known = {word for sentence in searched for word in sentence}
    for word in words:
        if word not in known:
            near = ", ".join(map(repr, difflib.get_close_matches(word, sorted(known))))
            hint = f"; did you mean {near}?" if near else ""
            raise DataError(f"{word!r} does not occur in the {len(searched)} sentences that are searched{hint}")


def contextual_neighbours(model, tokenizer, sentences, words, shown=2, count=3):
    """The nearest occurrences of words in context, and the nearest words without it.

    Args:
        sentences: lists of words; of more than MAX_SENTENCES those are searched that come first.
        words: to look up.
        shown: occurrences of each word, count: neighbours of each.

    Returns:
        [{"word", "without_context": [words], "in_context": [{"sentence", "nearest": [{"similarity", "word",
        "sentence"}]}]}]; the word looked at is marked [so].

    Raises:
        DataError: a word does not occur; with the nearest spellings.
    """
    require_occurrences(words, sentences)
    sentences = sentences[:MAX_SENTENCES]
    top, bottom = (embed_occurrences(model, tokenizer, sentences, layer) for layer in (-1, 0))
    found = []
    for word in words:
        numbers = top.find(word)
        contexts = [
            {
                "sentence": _marked(top, number),
                "nearest": [
                    {
                        "similarity": round(score, 4),
                        "word": top.word(top.places[other]),
                        "sentence": _marked(top, other),
                    }
                    for score, other in top.nearest(number, count)
                ],
            }
            for number in numbers[:: max(1, len(numbers) // shown)][:shown]
        ]
        found.append({"word": word, "without_context": _types(bottom, numbers[0], count), "in_context": contexts})
    return found


def _types(occurrences, number, count):
    """The words nearest to one, itself left out, each once."""
    scores = occurrences.vectors @ occurrences.vectors[number]
    words = (occurrences.word(occurrences.places[other]) for other in np.argsort(-scores, kind="stable"))
    own, nearest = occurrences.word(occurrences.places[number]), []
    for word in words:
        if word != own and word not in nearest:
            nearest.append(word)
        if len(nearest) == count:
            break
    return nearest


def _marked(occurrences, number):
    """The sentence of an occurrence, with the word in brackets."""
    sentence, place = occurrences.places[number]
    words = list(occurrences.sentences[sentence])
    words[place] = f"[{words[place]}]"
    return " ".join(words)


def write_neighbours(path, model, tokenizer, sentences, words):
    """contextual_neighbours as JSON."""
    found = contextual_neighbours(model, tokenizer, sentences, words)
    Path(path).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
