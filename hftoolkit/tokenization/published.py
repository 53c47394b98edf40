"""Load published vocabularies through the same parts that trained ones are made of.

Sources: openai/gpt-2 (vocab.json or encoder.json, merges.txt or vocab.bpe), openai/finetune-transformer-lm
(encoder_bpe_40000.json, vocab_40000.bpe), google-research/bert (vocab.txt),
google-research/text-to-text-transfer-transformer (spiece.model).
"""

import json
import struct
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from hftoolkit.errors import DataError

from .pipelines import SPECIAL_TOKENS, assemble, check_kind, make_model, sentinel_tokens
from .train import NUM_SENTINELS

_END = "<|endoftext|>"
PUBLISHED_FILES = {  # kind to the files it needs, each with its possible names
    "byte_bpe": (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")),
    "gpt1_bpe": (("encoder_bpe_40000.json", "vocab.json"), ("vocab_40000.bpe", "merges.txt")),
    "wordpiece": (("vocab.txt",),),
    "unigram": (("spiece.model",),),
}
PUBLISHED_SPECIAL_TOKENS = {  # only tokens that the published vocabularies have
    "byte_bpe": {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": _END},
    "gpt1_bpe": {"unk_token": "<unk>", "pad_token": "<unk>"},  # the reference pads with id 0
    "wordpiece": SPECIAL_TOKENS["wordpiece"],
    "unigram": SPECIAL_TOKENS["unigram"],
}
PUBLISHED_MAX_LENGTH = {"byte_bpe": 1024, "gpt1_bpe": 512, "wordpiece": 512, "unigram": 512}


def load_published(
    kind: str,
    folder: str | Path,
    *,
    lowercase: bool | None = None,
    add_missing_tokens: bool = False,
    model_max_length: int | None = None,
) -> PreTrainedTokenizerFast:
    """Build a tokenizer from the files of GPT-2 (byte_bpe), GPT-1 (gpt1_bpe), BERT (wordpiece) or T5 (unigram).

    The ids are the published ones. T5 gets its 100 sentinels, which its file does not hold: <extra_id_0> is the last
    id, 32,099.

    Args:
        lowercase: None is True for gpt1_bpe and wordpiece (BERT uncased).
        add_missing_tokens: append the tokens for padding, start and end that the vocabulary lacks (GPT-1: three,
            GPT-2: padding), with ids after its last; the embeddings of a published model must then be resized.
            Without it GPT-2 pads with its end token, GPT-1 pads with <unk> and has no end.
        model_max_length: in tokens; None is the length of the published model.

    Raises:
        ValueError: no vocabulary of this kind was published.
        DataError: a file is missing or damaged.
    """
    check_kind(kind)
    if kind not in PUBLISHED_FILES:
        raise ValueError(f"no vocabulary of kind {kind!r} was published; choose from {', '.join(PUBLISHED_FILES)}")
    paths = [_find(Path(folder), names) for names in PUBLISHED_FILES[kind]]
    charsmap, sentinels, merges = None, [], []
    if kind == "unigram":
        vocab, charsmap = read_sentencepiece(paths[0])
        sentinels = sentinel_tokens(NUM_SENTINELS)
    elif kind == "wordpiece":
        vocab = {token: number for number, token in enumerate(_read_text(paths[0]).rstrip("\n").split("\n"))}
    else:
        vocab, merges = _read_vocabulary(paths[0]), _read_merges(paths[1])
    special = (SPECIAL_TOKENS if add_missing_tokens else PUBLISHED_SPECIAL_TOKENS)[kind]
    for token in PUBLISHED_SPECIAL_TOKENS[kind].values():
        if token not in (dict(vocab) if kind == "unigram" else vocab):
            raise DataError(f"{paths[0]}: the special token {token} is missing; is this the vocabulary of a {kind}?")
    try:
        model = make_model(kind, vocab, merges)
    except Exception as error:  # tokenizers raises bare Exceptions, e.g. for a merge outside the vocabulary
        raise DataError(f"{' and '.join(map(str, paths))} do not belong together: {error}") from error
    return assemble(
        kind,
        model,
        lowercase=kind in ("gpt1_bpe", "wordpiece") if lowercase is None else lowercase,
        charsmap=charsmap,
        special_tokens=special,
        extra_special_tokens=sentinels,
        model_max_length=PUBLISHED_MAX_LENGTH[kind] if model_max_length is None else model_max_length,
    )


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; it should hold {' or '.join(names)}")
    present = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise DataError(f"{folder}: {' or '.join(names)} is missing; the folder holds {present}")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; download the file again") from error


def _read_vocabulary(path: Path) -> dict[str, int]:
    try:
        vocab = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}:{error.colno}: broken JSON, {error.msg}") from error
    if not isinstance(vocab, dict) or not all(isinstance(number, int) for number in vocab.values()):
        raise DataError(f"{path}: expected a JSON object from token to id")
    return vocab


def _read_merges(path: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):  # not splitlines: merges hold U+0085
        if line and not (number == 1 and line.startswith("#version")):
            pair = tuple(line.split(" "))
            if len(pair) != 2:
                raise DataError(f"{path}:{number}: expected two symbols with one space between them, found {line!r}")
            merges.append(pair)
    return merges


def read_sentencepiece(path: str | Path) -> tuple[list[tuple[str, float]], bytes | None]:
    """Read the pieces and the normalisation table of a SentencePiece model, without its library.

    The file is a protocol buffer, sentencepiece_model.proto: field 1 of the message is repeated, a piece with 1 its
    text and 2 its score; field 3 is the normaliser with 2 its table.

    Returns:
        ([(piece, log probability)], table or None).

    Raises:
        DataError: the file is damaged or something else.
    """
    pieces, charsmap = [], None
    try:
        for field, value in _protobuf_fields(Path(path).read_bytes()):
            if field == 1:
                piece = dict(_protobuf_fields(value))
                pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0))
            elif field == 3:
                charsmap = dict(_protobuf_fields(value)).get(2) or None
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise DataError(f"{path}: this is not a whole SentencePiece model ({error}); download it again") from error
    if not pieces:
        raise DataError(f"{path}: no pieces were found; is this a SentencePiece model?")
    return pieces, charsmap


def _protobuf_fields(data: bytes):
    """Yield (field number, value): bytes for lengths and fixed32/64, int for varints."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        wire_type = key & 7
        if wire_type == 0:
            value, position = _varint(data, position)
        else:
            if wire_type not in (1, 2, 5):
                raise ValueError(f"unknown wire type {wire_type} at byte {position}")
            size = {1: 8, 5: 4}.get(wire_type)
            if size is None:
                size, position = _varint(data, position)
            value = data[position : position + size]
            if len(value) < size:
                raise ValueError(f"the file ends inside a field, at byte {len(data)}")
            position += size
        yield key >> 3, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
