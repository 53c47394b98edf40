"""Where words begin in rows of token ids, for masking whole words: looked up in tables over the vocabulary.

WordPiece marks the pieces inside a word (##ing), GPT-1's BPE the last one (ing</w>), byte-level BPE and SentencePiece
the space before the first one; of the last two, text that follows without a space goes on with the word only where
letters or digits meet, so that punctuation and the next word stand apart.
"""

import json

import numpy as np

from hftoolkit.errors import DataError

SPACES = ("\u0120", "\u2581")  # what byte-level BPE and SentencePiece write for the space before a word


class WordStarts:
    """A function from token ids to the places where words begin.

    Args:
        tokenizer: a fast tokenizer; its kind is read from its pipeline.

    Raises:
        DataError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise DataError(f"whole words need a fast tokenizer, and {type(tokenizer).__name__} is none: mask tokens")
        model = json.loads(backend.to_str())["model"]
        vocabulary = tokenizer.get_vocab()
        size = max(vocabulary.values()) + 1
        self.may_go_on, self.is_open = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        of_token = _rule(model)
        for token, index in vocabulary.items():
            self.may_go_on[index], self.is_open[index] = of_token(token)

    def __call__(self, ids, maskable):
        """True where a word begins, (B, T), always where a maskable token follows one that is not.

        Args:
            ids: (B, T), each in the vocabulary.
            maskable: False for special tokens and padding, (B, T).

        Example (WordPiece):
            ids     [CLS] un ##like ##ly ! [SEP]
            starts    0    1    0     0  1   0
        """
        inside = self.may_go_on[ids]
        inside[:, 1:] &= self.is_open[ids[:, :-1]] & maskable[:, :-1]
        inside[:, 0] = False
        return maskable & ~inside


def _rule(model):
    """A function from a token to (may it go on with a word, may a word go on after it)."""
    prefix, suffix = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    if model["type"] == "WordLevel":
        return lambda token: (False, False)
    if prefix:
        return lambda token: (token.startswith(prefix), True)
    if suffix:
        return lambda token: (True, not token.endswith(suffix))
    return lambda token: (_in_word(token[:1]), token in SPACES or _in_word(token[-1:]))


def _in_word(character):
    # Byte-level BPE writes the bytes of other letters as characters of Latin-1 and after it, signs among them.
    return bool(character) and character not in SPACES and (character.isalnum() or 0xA0 < ord(character) < 0x144)
