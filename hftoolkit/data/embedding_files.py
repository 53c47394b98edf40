"""Files of word vectors: word2vec's text and binary format, GloVe's text, and folders of our own models.

word2vec text    "71291 200", then a line per word: the word and its numbers, with blanks or tabs between
word2vec binary  the same first line, then for each word its name, a space, and float32 numbers, little endian
GloVe            the text format without its first line
folder           a HftWord2Vec model with its tokenizer, as save_pretrained writes it

Text may be compressed with gzip. What is written is read by gensim's KeyedVectors.load_word2vec_format, and by
word2vec.c's programs. Source: tmikolov/word2vec at commit 20c129a, word2vec.c, the end of TrainModel.
"""

import contextlib
import gzip
import json
import os
import re
import zlib
from pathlib import Path

import numpy as np

from hftoolkit.errors import CheckpointError, DataError, MachineError

from .opening import opened

INPUT_MATRIX = "model.embed_tokens.weight"  # of a saved HftWord2VecForMaskedLM; of a bare model without "model."
WHITE_SPACE = frozenset(" \t\n\r\v\f")
SEPARATOR = re.compile(r"[ \t]+")  # no other white space: GloVe's files have words with U+00A0 in them
MOST_DIMENSIONS = 100_000


def read_vectors(path):
    """All vectors of a file or folder.

    Returns:
        (words, matrix (N, D) float32), in the order of the file; of a word that comes twice, the first vector.

    Raises:
        DataError, CheckpointError: as iterate_vectors.
    """
    vectors = {}
    for word, vector in iterate_vectors(path):
        vectors.setdefault(word, vector)
    return list(vectors), np.stack(list(vectors.values()))


def iterate_vectors(path):
    """(word, vector (D,) float32) of each word of a file or folder.

    Raises:
        DataError: no such file; a row with too few or too many numbers, or with something that is no finite number (with
            its line); another number of rows than the first line says; a binary file that is cut off.
        CheckpointError: a folder that holds no word vectors.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _folder_rows(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file of word vectors")
    return _binary_rows(path) if _is_binary(path) else _text_rows(path)


def write_word2vec(path, words, matrix, binary=False):
    """Write vectors in word2vec's format, whole or not at all; text numbers come back to the last bit.

    Raises:
        DataError: a word with white space in it, which the format cannot hold, or an empty one; another number of words
            than of rows; nothing to write.
        MachineError: the file cannot be written.
    """
    path, matrix = Path(path).expanduser(), np.ascontiguousarray(matrix, dtype="<f4")
    if len(words) != len(matrix) or not len(words):
        raise DataError(f"{path}: {len(words)} words for {len(matrix)} vectors; both must be equal and at least 1")
    for number, word in enumerate(words):
        if not word or not WHITE_SPACE.isdisjoint(word):
            raise DataError(f"{path}: word {number} is {word!r}, but white space ends a word in word2vec's format: "
                            "replace it, for example by '_'")  # fmt: skip
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(f"{len(words)} {matrix.shape[1]}\n".encode())
            for word, vector in zip(words, matrix, strict=True):
                numbers = vector.tobytes() if binary else " ".join(map(str, vector)).encode()
                file.write(word.encode() + b" " + numbers + b"\n")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise MachineError(f"{path} cannot be written: {error}") from error


def _header(path, line):
    """(rows, numbers in a row) of a first line, or None."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        return None
    rows, size = map(int, parts)
    if size > MOST_DIMENSIONS:
        raise DataError(
            f"{path}:1: the first line says {size:,} numbers for each word, and {MOST_DIMENSIONS:,} is the most"
        )
    return (rows, size) if size > 0 else None


def _is_binary(path):
    """Whether numbers follow the first word as bytes: such a file has a header, and no row of text behind it.

    Words of any script may follow in a text, so that only the row of the first word is looked at.
    """
    with _bytes_of(path) as file:
        header, rest = file.readline(200), file.read(1 << 16)
    found = _header(path, header.decode("latin-1"))
    if found is None:
        return False
    row = rest.lstrip(b"\n").partition(b"\n")[0].decode("latin-1").rstrip("\r \t")
    fields = SEPARATOR.split(row)
    if len(fields) > found[1] and all(map(_is_number, fields[-found[1] :])):
        return False
    if any(byte < 9 or 14 <= byte < 32 or byte > 126 for byte in row.partition(" ")[2].encode("latin-1")):
        return True
    return any(
        byte < 9 or 14 <= byte < 32 for byte in rest
    )  # numbers that begin like text; text has no such characters


def _text_rows(path):
    """Rows of text, checked; the first line may be a header."""
    with opened(path) as lines:
        size, promised, number, count = None, None, 0, 0
        for number, line in enumerate(lines, start=1):
            line = line.rstrip("\r\n \t")
            if number == 1 and (header := _header(path, line)) is not None:
                promised, size = header
                continue
            if not line and number > 1:
                raise DataError(f"{path}:{number}: an empty line among word vectors")
            fields = line.split(" ") if "\t" not in line and "  " not in line else SEPARATOR.split(line)
            size = len(fields) - 1 if size is None else size
            yield _row(path, number, fields, size)
            count += 1
    if not count:
        raise DataError(f"{path} holds no word vectors")
    if promised not in (None, count):
        raise DataError(f"{path}:1: the first line promises {promised:,} words, but {count:,} rows follow; the file is "
                        "cut off, or its first line is wrong")  # fmt: skip


def _row(path, number, fields, size):
    """Word and vector of a row; a word may have spaces in it (GloVe's ". . .") if that cannot be misread."""
    place = f"{path}:{number}"
    if len(fields) < 2:
        raise DataError(f"{place}: no number follows {fields[0][:30]!r}; blanks or tabs must stand between a word and its "
                        "numbers, and no other mark")  # fmt: skip
    extra = len(fields) - size
    if extra > 1 and any(map(_is_number, fields[1:extra])) or extra < 1:
        raise DataError(f"{place}: {len(fields) - 1} numbers, where {size} are expected; the rows are ragged, or the first "
                        "line is wrong")  # fmt: skip
    try:
        vector = np.array(fields[extra:], dtype=np.float32)
    except ValueError:
        wrong = next(field for field in fields[extra:] if not _is_number(field))
        raise DataError(f"{place}: {wrong[:30]!r} is not a number") from None
    if not np.isfinite(vector).all():
        raise DataError(f"{place}: a number is not finite")
    return " ".join(fields[:extra]), vector


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _binary_rows(path):
    with _bytes_of(path) as file:
        count, size = _header(path, file.readline(200).decode("latin-1"))
        for number in range(1, count + 1):
            word = bytearray()
            while (byte := file.read(1)) not in (b" ", b""):
                if byte != b"\n":
                    word += byte
            data = file.read(4 * size)
            if len(data) < 4 * size:
                raise DataError(f"{path}: the first line promises {count:,} words of {size} numbers, but the file ends in "
                                f"word {number:,}")  # fmt: skip
            vector = np.frombuffer(data, dtype="<f4").astype(np.float32)
            if not np.isfinite(vector).all():
                raise DataError(f"{path}: word {number:,}, {word[:30].decode('utf-8', 'replace')!r}: a number is not finite; "
                                "the numbers of each word in the first line may be wrong")  # fmt: skip
            yield word.decode("utf-8", "replace"), vector
        if file.read(2).strip():
            raise DataError(
                f"{path}: more follows after the {count:,} words of {size} numbers that the first line promises"
            )


@contextlib.contextmanager
def _bytes_of(path):
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the gzip file is damaged or cut off ({error}); get it again") from error
    except PermissionError as error:
        raise MachineError(f"{path}: no permission to read it") from error


def _folder_rows(folder):
    """Input vectors of a saved model, with the words of its tokenizer."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("model_type") != "hft_word2vec":
            raise CheckpointError(f"{folder} holds a model of type {config.get('model_type')!r}, not word vectors")
        weights = load_file(folder / "model.safetensors")
        vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers and safetensors raise exceptions of their own
        raise CheckpointError(
            f"{folder} holds no word vectors that can be read: {str(error).splitlines()[0]}"
        ) from error
    matrix = weights.get(INPUT_MATRIX, weights.get(INPUT_MATRIX.removeprefix("model.")))
    words = sorted((word for word, number in vocabulary.items() if number < len(matrix)), key=vocabulary.get)
    return ((word, matrix[vocabulary[word]].astype(np.float32)) for word in words)
