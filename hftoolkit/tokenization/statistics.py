"""Measure what a tokenizer does to texts: how long they get, and how much of them it does not know."""

from collections.abc import Iterable, Iterator
from itertools import islice

from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

_BATCH = 1000


def tokenizer_statistics(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> dict[str, int | float]:
    """Count documents, words, characters, bytes and tokens, and their ratios.

    A word is what white space separates. The tokens that a template puts around each text are not counted.

    Returns:
        documents, words, characters, bytes, tokens; tokens_per_word, characters_per_token, bytes_per_token;
        unknown_share, of the tokens (0 where no text can be unknown); vocabulary, and the used_share of it.
    """
    counts = dict.fromkeys(("documents", "words", "characters", "bytes", "tokens"), 0)
    unknown, used = 0, set()
    can_be_unknown = tokenizer.unk_token_id is not None and tokenizer.unk_token != tokenizer.eos_token
    texts = iter(texts)
    for batch in _batches(texts):
        counts["documents"] += len(batch)
        counts["words"] += sum(len(text.split()) for text in batch)
        counts["characters"] += sum(map(len, batch))
        counts["bytes"] += sum(len(text.encode()) for text in batch)
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            counts["tokens"] += len(ids)
            used.update(ids)
            unknown += ids.count(tokenizer.unk_token_id) if can_be_unknown else 0
    tokens, words = max(counts["tokens"], 1), max(counts["words"], 1)
    return counts | {
        "tokens_per_word": counts["tokens"] / words,
        "characters_per_token": counts["characters"] / tokens,
        "bytes_per_token": counts["bytes"] / tokens,
        "unknown_share": unknown / tokens,
        "vocabulary": len(tokenizer),
        "used_share": len(used) / len(tokenizer),
    }


def visible_pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """The tokens of a text, to look at; those of bytes as the text they stand for, half a character as \ufffd.

    Example:
        byte_bpe gives ["the", " gar", "den"], wordpiece ["the", "gar", "##den"].
    """
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if isinstance(tokenizer.backend_tokenizer.decoder, ByteLevel):
        return tokenizer.batch_decode([[number] for number in ids])
    return tokenizer.convert_ids_to_tokens(ids)


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, _BATCH)):
        yield batch
