"""Train and load tokenizers: byte-level BPE, GPT-1's BPE, WordPiece, Unigram, word level, characters, bytes."""

from .gpt1_text import text_standardize
from .pipelines import KINDS, end_texts, is_invertible
from .published import load_published
from .statistics import tokenizer_statistics, visible_pieces
from .train import train_tokenizer

__all__ = [
    "KINDS",
    "end_texts",
    "is_invertible",
    "load_published",
    "text_standardize",
    "tokenizer_statistics",
    "train_tokenizer",
    "visible_pieces",
]
