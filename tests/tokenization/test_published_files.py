"""Small vocabularies in the published formats, written by hand; damaged ones are named."""

import json

import pytest

from hftoolkit.errors import DataError
from hftoolkit.tokenization import load_published
from hftoolkit.tokenization.published import read_sentencepiece


def field(number, data):
    """A length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2, len(data)]) + data


def sentencepiece_file(pieces, table=b""):
    import struct

    body = b"".join(field(1, field(1, p.encode()) + b"\x15" + struct.pack("<f", s) + b"\x18\x01") for p, s in pieces)
    return body + field(2, b"\x08\x01") + field(3, field(2, table) if table else b"")


def test_reads_sentencepiece_by_hand(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(sentencepiece_file([("<unk>", 0.0), ("\u2581a", -1.5)], b"table"))
    assert read_sentencepiece(path) == ([("<unk>", 0.0), ("\u2581a", -1.5)], b"table")
    path.write_bytes(sentencepiece_file([("a", 0.0)]))
    assert read_sentencepiece(path) == ([("a", 0.0)], None)


def test_a_small_vocabulary_of_every_kind(tmp_path):
    write(
        tmp_path,
        {"vocab.json": json.dumps({"<|endoftext|>": 2, "a": 0, "aa": 1}), "merges.txt": "#version: 0.2\na a\n"},
    )
    assert load_published("byte_bpe", tmp_path).tokenize("aaa") == ["aa", "a"]
    write(tmp_path, {"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nab\n##c\n"})
    assert load_published("wordpiece", tmp_path)("ABC ab").input_ids == [2, 5, 6, 5, 3]
    assert load_published("wordpiece", tmp_path, lowercase=False)("ABC ab").input_ids == [2, 1, 5, 3]


def write(folder, files):
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


GOOD = {"vocab.json": '{"<|endoftext|>": 0, "a": 1, "aa": 2}', "merges.txt": "#version: 0.2\na a\n"}


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        ("byte_bpe", {}, r"vocab.json or encoder.json is missing; the folder holds nothing"),
        ("byte_bpe", GOOD | {"vocab.json": '{"a": 1,\n "b" 2}'}, r"vocab.json:2:6: broken JSON"),
        ("byte_bpe", GOOD | {"vocab.json": "[1]"}, "expected a JSON object from token to id"),
        ("byte_bpe", GOOD | {"vocab.json": '{"a": 1}'}, r"special token <\|endoftext\|> is missing"),
        ("byte_bpe", GOOD | {"vocab.json": b'{"a\xff": 1}'}, "byte 3 is not UTF-8"),
        ("byte_bpe", GOOD | {"merges.txt": "#version: 0.2\na a a\n"}, r"merges.txt:2: expected two symbols"),
        ("byte_bpe", GOOD | {"merges.txt": "a z\n"}, "do not belong together"),
        ("wordpiece", {"vocab.txt": "a\nb\n"}, r"special token \[PAD\] is missing"),
        ("unigram", {"spiece.model": b"\x0a\x05ab"}, "not a whole SentencePiece model"),
        ("unigram", {"spiece.model": b""}, "no pieces were found"),
        ("unigram", {"spiece.model": sentencepiece_file([("a", 0.0)])}, "special token <pad> is missing"),
    ],
)
def test_damaged_files_are_named(kind, files, message, tmp_path):
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        load_published(kind, tmp_path)


def test_impossible_calls(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        load_published("wordpiece", tmp_path / "absent")
    with pytest.raises(ValueError, match="no vocabulary of kind 'word' was published"):
        load_published("word", tmp_path)
    with pytest.raises(ValueError, match="unknown kind"):
        load_published("gpt3", tmp_path)
