"""What each kind of tokenizer is made of, shared by trained and by published vocabularies.

A tokenizer is a model (its vocabulary, and its merges or scores) between a normaliser, a splitter into words, a
decoder and a template of special tokens. Only the model is learnt; the rest stands here.

Papers: Sennrich et al. 2016, https://aclanthology.org/P16-1162 (BPE); Radford et al. 2018, "GPT", and 2019, "GPT-2",
    Section 2.2 (byte-level BPE); Schuster and Nakajima 2012 (WordPiece); Kudo 2018,
    https://aclanthology.org/P18-1007 (Unigram).
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hftoolkit.errors import DataError

KINDS = ("byte_bpe", "gpt1_bpe", "wordpiece", "unigram", "word", "character", "byte")
INVERTIBLE_KINDS = ("byte_bpe", "character", "byte")
LOWERCASED_KINDS = ("gpt1_bpe", "wordpiece", "word")  # unless told otherwise

_END = "<|endoftext|>"
SPECIAL_TOKENS = {  # in the order of their ids; every kind can start, end and pad a text
    "byte_bpe": {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|pad|>"},
    "gpt1_bpe": {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": _END, "eos_token": _END},
    "wordpiece": {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
        "bos_token": "[CLS]",
        "eos_token": "[SEP]",
    },
    "unigram": {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "</s>"},
    "word": {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": _END, "eos_token": _END},
    "character": {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": _END, "eos_token": _END},
    "byte": {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|pad|>"},
}
END_OF_WORD = "</w>"  # GPT-1: the last symbol of a word carries it
CONTINUATION = "##"  # WordPiece: every symbol of a word but the first carries it


def check_kind(kind: str) -> None:
    """Refuse a kind that does not exist.

    Raises:
        ValueError: it is none of KINDS.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of tokenizer {kind!r}; the kinds are {', '.join(KINDS)}")


def is_invertible(kind: str) -> bool:
    """Whether decode(encode(text)) == text for every text.

    The rule, for the kinds where it holds: any text made of Unicode scalar values (Python text without lone
    surrogates) comes back unchanged, character for character, where special tokens are not skipped in decoding. For
    "character" the text must consist of characters that the training text contained; others become the unknown token.
    The text of a special token inside a text becomes that token, and comes back as the same text; with
    `split_special_tokens=True` it is encoded as ordinary text, and comes back too. The other kinds drop information
    (case, accents, or the exact white space).

    Raises:
        ValueError: the kind is unknown.
    """
    check_kind(kind)
    return kind in INVERTIBLE_KINDS


def kind_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """The kind that a tokenizer is by its parts; of one made otherwise, the name of its model in small letters."""
    backend = tokenizer.backend_tokenizer
    splitter = backend.pre_tokenizer
    model, decoder = (type(part).__name__ for part in (backend.model, backend.decoder))
    if model != "BPE":
        return {"WordLevel": "word"}.get(model, model.lower())
    if decoder == "ByteLevel":
        is_byte = isinstance(splitter, pre_tokenizers.ByteLevel) and not splitter.use_regex
        return "byte" if is_byte else "byte_bpe"
    if decoder == "Fuse" and splitter is None:
        return "character"
    return "gpt1_bpe" if decoder == "BPEDecoder" else "bpe"


def sentinel_tokens(number: int) -> list[str]:
    """T5's sentinels in the order of their ids: the last token of the vocabulary is <extra_id_0>."""
    return [f"<extra_id_{i}>" for i in reversed(range(number))]


def make_normalizer(kind: str, lowercase: bool, charsmap: bytes | None = None):
    """The first step, text to text; None where the text stays as it is.

    Args:
        charsmap: the table of a published SentencePiece model; without it "unigram" applies NFKC.

    Raises:
        ValueError: an invertible kind was to be lower-cased.
    """
    if lowercase and kind in INVERTIBLE_KINDS:
        raise ValueError(f"lowercase=True was given, but {kind} keeps every character; use word or wordpiece")
    if kind in ("gpt1_bpe", "wordpiece"):  # drops control characters, and accents where it lower-cases
        return normalizers.BertNormalizer(lowercase=lowercase)
    steps = []
    if kind == "unigram":
        steps.append(normalizers.NFKC() if charsmap is None else normalizers.Precompiled(charsmap))
    if lowercase:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps) if len(steps) > 1 else (steps or [None])[0]


def make_pre_tokenizer(kind: str):
    """The second step, text to words, across which no token reaches; None where the text is one piece."""
    if kind == "byte_bpe":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind == "byte":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if kind in ("gpt1_bpe", "wordpiece"):
        return pre_tokenizers.BertPreTokenizer()
    if kind == "unigram":
        metaspace = pre_tokenizers.Metaspace(prepend_scheme="always")
        return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    return pre_tokenizers.Whitespace() if kind == "word" else None


def make_decoder(kind: str):
    """The way back, tokens to text; None joins them with spaces."""
    if kind in ("byte_bpe", "byte"):
        return decoders.ByteLevel()
    if kind == "gpt1_bpe":
        return decoders.BPEDecoder(suffix=END_OF_WORD)
    if kind == "wordpiece":
        return decoders.WordPiece(prefix=CONTINUATION)
    if kind == "unigram":
        return decoders.Metaspace(prepend_scheme="always")
    return decoders.Fuse() if kind == "character" else None


def make_model(kind: str, vocab, merges: Iterable[tuple[str, str]] = ()):
    """The learnt part: `vocab` maps a token to its id, or for "unigram" is a list of (piece, log probability)."""
    unknown = SPECIAL_TOKENS[kind]["unk_token"]
    if kind == "unigram":
        return models.Unigram(vocab, unk_id=[piece for piece, _ in vocab].index(unknown))
    if kind == "wordpiece":
        return models.WordPiece(vocab, unk_token=unknown)
    if kind == "word":
        return models.WordLevel(vocab, unk_token=unknown)
    if kind == "gpt1_bpe":
        return models.BPE(vocab, list(merges), unk_token=unknown, end_of_word_suffix=END_OF_WORD)
    # BPE without a merge splits into single symbols, several times faster than a regular expression.
    return models.BPE(vocab, list(merges), unk_token=unknown if kind == "character" else None)


def _make_post_processor(kind: str, backend: Tokenizer):
    if kind == "wordpiece":
        pieces = {"single": "[CLS] $A [SEP]", "pair": "[CLS] $A [SEP] $B:1 [SEP]:1"}
        ends = ("[CLS]", "[SEP]")
    elif kind == "unigram":
        pieces, ends = {"single": "$A </s>", "pair": "$A </s> $B </s>"}, ("</s>",)
    else:
        return processors.ByteLevel(trim_offsets=False) if kind in ("byte_bpe", "byte") else None
    return processors.TemplateProcessing(**pieces, special_tokens=[(t, backend.token_to_id(t)) for t in ends])


def end_texts(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Let a tokenizer put its eos_token behind a text, as encoder-decoders expect; changed in place and returned.

    One that ends texts itself stays as it is.

    Raises:
        DataError: it has no eos_token.
    """
    if tokenizer.eos_token is None:
        raise DataError("the tokenizer has no eos_token to end texts with; train one, such as --tokenizer byte_bpe")
    if tokenizer("a")["input_ids"][-1] != tokenizer.eos_token_id:
        backend, token = tokenizer.backend_tokenizer, tokenizer.eos_token
        template = processors.TemplateProcessing(
            single=f"$A {token}", pair=f"$A {token} $B {token}", special_tokens=[(token, tokenizer.eos_token_id)]
        )
        earlier = backend.post_processor
        backend.post_processor = template if earlier is None else processors.Sequence([earlier, template])
    return tokenizer


def assemble(
    kind: str,
    model,
    *,
    lowercase: bool = False,
    charsmap: bytes | None = None,
    special_tokens: dict[str, str] | None = None,
    extra_special_tokens: Iterable[str] = (),
    chat_template: str | None = None,
    model_max_length: int | None = None,
) -> PreTrainedTokenizerFast:
    """Put a model among its other parts; what comes out is saved and loaded by transformers alone.

    Args:
        special_tokens: role to token, SPECIAL_TOKENS[kind] by default; tokens that the model does not have are
            appended to the vocabulary.
        extra_special_tokens: special tokens without a role, appended in this order.
        model_max_length: in tokens; None is no limit.
    """
    special_tokens = SPECIAL_TOKENS[kind] if special_tokens is None else special_tokens
    extra_special_tokens = list(extra_special_tokens)
    backend = Tokenizer(model)
    backend.normalizer = make_normalizer(kind, lowercase, charsmap)
    backend.pre_tokenizer = make_pre_tokenizer(kind)
    backend.decoder = make_decoder(kind)
    every = dict.fromkeys([*special_tokens.values(), *extra_special_tokens])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in every])
    backend.post_processor = _make_post_processor(kind, backend)
    options = dict(special_tokens)
    if extra_special_tokens:
        options["extra_special_tokens"] = extra_special_tokens
    if chat_template is not None:
        options["chat_template"] = chat_template
    if model_max_length is not None:
        options["model_max_length"] = model_max_length
    if kind == "wordpiece":  # the default leaves token_type_ids out
        options["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **options)
