"""Train and load tokenizers: byte-level BPE, GPT-1's BPE, WordPiece, Unigram, word level, characters, bytes."""
