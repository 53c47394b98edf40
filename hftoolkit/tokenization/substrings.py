"""Find all frequent substrings of words, with numpy, in a trie.

Shapes: N = nodes: one before each character of each word and one after its last.
"""

from dataclasses import dataclass

import numpy as np

MAX_PIECE_LENGTH = 16  # characters; SentencePiece's max_sentencepiece_length


class Words:
    """Words as one flat array of characters: number in the alphabet, -1 where unknown and after each word."""

    def __init__(self, words: list[str], alphabet: list[str]):
        number = {character: i for i, character in enumerate(alphabet)}
        self.text = "\n".join(words) + "\n"
        self.alphabet_size = len(alphabet)
        self.character = np.array([number.get(c, -1) for c in self.text])  # (N,)
        lengths = np.array([len(word) + 1 for word in words])
        self.last = np.cumsum(lengths) - 1  # the node after each word
        self.first = self.last - lengths + 1
        self.character[self.last] = -1
        self.word = np.repeat(np.arange(len(words)), lengths)  # (N,)


@dataclass
class Trie:
    """The frequent substrings. Ids 0..A-1 are the characters; `keys[k]` are the sorted keys of length k + 2."""

    alphabet_size: int
    keys: list[np.ndarray]

    def extend(self, ids: np.ndarray, characters: np.ndarray) -> np.ndarray:
        return ids * self.alphabet_size + characters

    def matches(self, words: Words):
        """Find every substring of the words that is in the trie.

        Yields:
            (length, nodes, ids) for the lengths 1, 2, ...: where such a substring begins, and which it is.
        """
        nodes = np.flatnonzero(words.character >= 0)
        ids, base = words.character[nodes], self.alphabet_size
        yield 1, nodes, ids
        for length, keys in enumerate(self.keys, start=2):
            following = words.character[nodes + length - 1]
            key = np.where(following >= 0, self.extend(ids, following), -1)
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            found = keys[place] == key
            nodes, ids = nodes[found], base + place[found]
            base += len(keys)
            yield length, nodes, ids


def frequent_substrings(words: Words, counts: np.ndarray) -> tuple[Trie, dict[str, float], np.ndarray]:
    """Substrings of 2-16 characters seen at least twice, without those that always go on in the same way.

    Args:
        counts: how often each word occurs.

    Returns:
        (trie, seeds, seed_ids): the trie of all frequent substrings; seed to frequency; the id of each seed.

    Example:
        {"▁table": 5, "▁tin": 3} gives "▁t", "▁table" and "▁tin", but not "▁tab": it always goes on as "▁table".
    """
    trie = Trie(words.alphabet_size, [])
    nodes = np.flatnonzero(words.character >= 0)
    ids = words.character[nodes]
    frequency = np.bincount(ids, weights=counts[words.word[nodes]], minlength=words.alphabet_size)
    seeds, base = {}, words.alphabet_size
    previous = {}  # id to text, one character shorter
    for length in range(2, MAX_PIECE_LENGTH + 1):
        following = words.character[nodes + length - 1]
        nodes, ids, following = nodes[following >= 0], ids[following >= 0], following[following >= 0]
        keys, inverse = np.unique(trie.extend(ids, following), return_inverse=True)
        number = np.bincount(inverse, weights=counts[words.word[nodes]], minlength=len(keys))
        kept = number >= 2
        if not kept.any():
            break
        trie.keys.append(keys[kept])
        renumbered = np.cumsum(kept) - 1
        selected = kept[inverse]
        nodes, inverse = nodes[selected], renumbered[inverse[selected]]
        number, parents = number[kept], keys[kept] // words.alphabet_size
        example = np.zeros(len(number), dtype=np.int64)
        example[inverse] = nodes
        for parent in parents[frequency[parents] == number]:
            seeds.pop(previous.get(int(parent)), None)
        previous = {base + i: words.text[node : node + length] for i, node in enumerate(example)}
        seeds.update({text: (identity, float(number[identity - base])) for identity, text in previous.items()})
        frequency = np.concatenate([frequency, number])
        ids, base = base + inverse, base + len(number)
    seed_ids = np.array([identity for identity, _ in seeds.values()], dtype=np.int64)
    return trie, {text: number for text, (_, number) in seeds.items()}, seed_ids
