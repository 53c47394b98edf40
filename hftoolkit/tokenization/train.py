"""Train a tokenizer from texts.

The kinds:

byte_bpe: GPT-2's. Pairs of bytes, then of tokens, are merged inside words; a word carries the space before it. Every
    text can be written, and comes back unchanged.
gpt1_bpe: GPT-1's. Lower case; merges inside words and punctuation; "</w>" ends a word.
wordpiece: BERT's. As gpt1_bpe, with "##" before what continues a word; [CLS] text [SEP].
unigram: T5's. The pieces under which the text is most likely; text </s>; sentinels at the end of the vocabulary.
word: the most frequent words and runs of punctuation.
character: every character of the text.
byte: the 256 bytes, byte b having id b; nothing is learnt and the texts are not read.

The same texts give the same vocabulary, in any process and with any number of threads. The trainers of `tokenizers`
number the symbols "x</w>" and "##x" in the order of a hash map, and the numbers decide ties between equally frequent
pairs; here they get both forms of every character up front, sorted (GPT-1's and BERT's vocabularies hold both too).
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hftoolkit.errors import DataError

from .chat import CHAT_TEMPLATE, TURN_START
from .counting import Documents, count_characters, count_words, too_few
from .pipelines import (
    CONTINUATION,
    END_OF_WORD,
    LOWERCASED_KINDS,
    SPECIAL_TOKENS,
    assemble,
    check_kind,
    make_model,
    make_normalizer,
    make_pre_tokenizer,
    sentinel_tokens,
)
from .unigram import train_unigram

logger = logging.getLogger(__name__)

NUM_SENTINELS = 100  # T5: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, Section 3.1.4
MIN_PAIR_FREQUENCY = 2  # a pair seen once is no regularity
_COPIES = 10_000  # of a word, handed over at once


@dataclass(frozen=True)
class _Plan:
    """What to learn. `vocab_size` counts the special tokens, and for unigram the sentinels."""

    kind: str
    vocab_size: int
    special: list[str]
    sentinels: list[str]
    min_frequency: int | None
    lowercase: bool

    def check_room(self, num_symbols: int, symbols: str) -> None:
        """Refuse a vocabulary that cannot even hold the special tokens and the single symbols."""
        num_special = len(self.special) + len(self.sentinels)
        if self.vocab_size < num_special + num_symbols:
            raise DataError(
                f"vocab_size {self.vocab_size} is smaller than the {num_special + num_symbols} tokens that {self.kind}"
                f" needs at least ({num_special} special tokens and {num_symbols} {symbols}); choose a larger one"
                + ("" if self.kind in ("byte_bpe", "byte") else ", or leave out rare characters with min_frequency")
            )

    def frequent(self, counts: Counter, unit: str) -> list[str]:
        """The words or characters that are no special tokens and occur often enough; a minimum must leave two."""
        least = self.min_frequency or 1
        kept = [symbol for symbol, number in counts.items() if number >= least and symbol not in self.special]
        if least > 1 and len(kept) < 2:
            raise DataError(too_few(counts, least, len(kept), unit=unit))
        return kept


def train_tokenizer(
    kind: str,
    texts: Iterable[str],
    vocab_size: int = 8192,
    *,
    min_frequency: int | None = None,
    lowercase: bool | None = None,
    chat_template: bool = False,
    num_sentinels: int | None = None,
    model_max_length: int | None = None,
    progress: bool = True,
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of one kind.

    Args:
        kind: see above.
        texts: documents; gone through once, as a stream.
        vocab_size: tokens in all, special tokens included; an upper bound for character and byte.
        min_frequency: pairs, words and characters seen less often are left out. None is 2 for pairs and 1 for words
            and characters; unigram and character have no pairs, byte_bpe keeps all bytes.
        lowercase: None is the kind's own habit: True for gpt1_bpe, wordpiece and word.
        chat_template: add <|im_start|> and a template for conversations.
        num_sentinels: how many <extra_id_i> unigram has; None is 100.
        model_max_length: in tokens; longer texts are truncated on demand.
        progress: show bars where the output is a terminal.

    Raises:
        ValueError: an unknown kind, or an option that does not apply to it.
        DataError: no text, something that is not text, a `vocab_size` below what special tokens and characters need,
            or a `min_frequency` above 1 that leaves fewer than two words or characters, with one that would not.
    """
    check_kind(kind)
    if num_sentinels is not None and (kind != "unigram" or num_sentinels < 0):
        raise ValueError(f"num_sentinels={num_sentinels} does not apply to {kind}: only unigram has sentinels, >= 0")
    if min_frequency is not None and (kind == "byte" or min_frequency < 1):
        raise ValueError(f"min_frequency={min_frequency} does not apply to {kind}; it is >= 1, and bytes have none")
    chat_tokens = [TURN_START] if chat_template else []
    sentinels = sentinel_tokens(NUM_SENTINELS if num_sentinels is None else num_sentinels) if kind == "unigram" else []
    special = list(dict.fromkeys([*SPECIAL_TOKENS[kind].values(), *chat_tokens]))
    lowercase = kind in LOWERCASED_KINDS if lowercase is None else lowercase
    make_normalizer(kind, lowercase)  # refuses what cannot be, before the texts are read
    plan = _Plan(kind, vocab_size, special, sentinels, min_frequency, lowercase)
    tokenizer = assemble(
        kind,
        _learn_model(plan, texts, progress),
        lowercase=lowercase,
        extra_special_tokens=[*chat_tokens, *sentinels],
        chat_template=CHAT_TEMPLATE if chat_template else None,
        model_max_length=model_max_length,
    )
    if len(tokenizer) < vocab_size and kind not in ("character", "byte"):
        logger.warning(
            "the text gave a vocabulary of %d tokens, not the %d asked for; give more text or a smaller vocab_size",
            len(tokenizer),
            vocab_size,
        )
    return tokenizer


def _learn_model(plan: _Plan, texts: Iterable[str], progress: bool):
    """Choose the vocabulary: the only step that looks at the texts."""
    if plan.kind == "byte":
        plan.check_room(256, "bytes")
        return make_model("byte", _numbered([*byte_symbols(), *plan.special]))
    documents = Documents(texts, progress)
    if plan.kind == "byte_bpe":
        return make_model("byte_bpe", *_merge_bytes(plan, documents))
    normalizer, pre_tokenizer = make_normalizer(plan.kind, plan.lowercase), make_pre_tokenizer(plan.kind)
    counts = count_words(documents, normalizer, pre_tokenizer)
    if not counts:
        raise DataError("the texts have no words: only white space or control characters")
    if plan.kind == "word":
        plan.check_room(1, "word")
        return make_model("word", _numbered([*plan.special, *_frequent_words(plan, counts)]))
    alphabet = sorted(plan.frequent(count_characters(counts), "character"))
    if plan.kind == "character":
        plan.check_room(len(alphabet), "characters")
        return make_model("character", _numbered([*plan.special, *alphabet]))
    if plan.kind == "unigram":
        plan.check_room(len(alphabet), "characters")
        num_pieces = plan.vocab_size - len(plan.special) - len(plan.sentinels)
        pieces = train_unigram(counts, alphabet, num_pieces, excluded={*plan.special, *plan.sentinels})
        return make_model("unigram", [*((token, 0.0) for token in plan.special), *pieces])
    return make_model(plan.kind, *_merge_characters(plan, counts, alphabet))


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte 0..255 in byte-level vocabularies (GPT-2's table)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + others.index(byte)) for byte in range(256)]


def _frequent_words(plan: _Plan, counts: Counter) -> list[str]:
    words = plan.frequent(counts, "word")
    return sorted(words, key=lambda word: (-counts[word], word))[: plan.vocab_size - len(plan.special)]


def _merge_bytes(plan: _Plan, documents: Documents):
    plan.check_room(256, "bytes")
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocab_size,
        min_frequency=plan.min_frequency or MIN_PAIR_FREQUENCY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=plan.special,
        show_progress=documents.visible,
    )
    return _train_merges(trainer, documents, make_pre_tokenizer("byte_bpe"))


def _merge_characters(plan: _Plan, counts: Counter, alphabet: list[str]):
    """Merges inside words for gpt1_bpe and wordpiece."""
    ends_words = plan.kind == "gpt1_bpe"
    symbols = [*alphabet, *(c + END_OF_WORD if ends_words else CONTINUATION + c for c in alphabet)]
    plan.check_room(len(symbols), "forms of characters")
    options = {
        "vocab_size": plan.vocab_size,
        "min_frequency": plan.min_frequency or MIN_PAIR_FREQUENCY,
        "special_tokens": [*plan.special, *symbols],  # numbered in this order
        "show_progress": False,
    }
    if ends_words:
        trainer = trainers.BpeTrainer(end_of_word_suffix=END_OF_WORD, **options)
    else:
        trainer = trainers.WordPieceTrainer(continuing_subword_prefix=CONTINUATION, **options)
    return _train_merges(trainer, _repeated_words(counts, set(alphabet)))


def _repeated_words(counts: Counter, alphabet: set[str]) -> Iterator[list[str]]:
    """Each word as often as it occurs, without the words that contain a character left out of the vocabulary."""
    for word, number in counts.items():
        if alphabet.issuperset(word):
            for begin in range(0, number, _COPIES):
                yield [word] * min(_COPIES, number - begin)


def _train_merges(trainer, texts, pre_tokenizer=None):
    """Run a trainer; return (token to id, merges). WordPiece has no merges."""
    wordpiece = isinstance(trainer, trainers.WordPieceTrainer)
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]") if wordpiece else models.BPE())
    if pre_tokenizer is not None:
        learner.pre_tokenizer = pre_tokenizer
    learner.train_from_iterator(iter(texts), trainer)
    learnt = json.loads(learner.to_str())["model"]
    return learnt["vocab"], [tuple(merge) for merge in learnt.get("merges", ())]


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}
