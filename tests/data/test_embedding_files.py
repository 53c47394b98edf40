"""Files of word vectors: what is written comes back, others' files are read, damage is named with its place."""

import gzip

import numpy as np
import pytest

from hftoolkit.data.embedding_files import read_vectors, write_word2vec
from hftoolkit.data.embeddings import read_embeddings
from hftoolkit.errors import CheckpointError, DataError

WORDS = ["lamp", "Paris", "naïve", "1999"]
MATRIX = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
# What gensim 4.4.0 writes: KeyedVectors.save_word2vec_format of two vectors (0.126, -0.132) and (0.64, 0.105)
GENSIM_TEXT = b"2 2\nking 0.126 -0.132\nqueen 0.64 0.105\n"
GENSIM_BINARY = b"2 2\nking " + np.array([0.126, -0.132], "<f4").tobytes() + b"queen " + np.array([0.64, 0.105], "<f4").tobytes()  # fmt: skip


@pytest.mark.parametrize("binary", [False, True])
def test_what_is_written_comes_back_to_the_last_bit(tmp_path, binary):
    path = tmp_path / "vectors"
    write_word2vec(path, WORDS, MATRIX, binary=binary)
    words, matrix = read_vectors(path)
    assert words == WORDS and matrix.dtype == np.float32 and np.array_equal(matrix, MATRIX)
    assert path.read_bytes().startswith(b"4 5\nlamp ")
    first = path.read_bytes()
    write_word2vec(path, words, matrix, binary=binary)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "content", [GENSIM_TEXT, GENSIM_BINARY, GENSIM_TEXT.split(b"\n", 1)[1]], ids=["text", "binary", "glove"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_other_programs(tmp_path, content, packed):
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    words, matrix = read_vectors(path)
    assert words == ["king", "queen"]
    np.testing.assert_array_equal(matrix, np.array([[0.126, -0.132], [0.64, 0.105]], np.float32))


def test_a_word_with_spaces_is_read_where_it_cannot_be_misread(tmp_path):
    """GloVe's files of 840 billion words have some."""
    (tmp_path / "a").write_text("the 0.5 1\n. . . 2 3\n")
    assert read_vectors(tmp_path / "a")[0] == ["the", ". . ."]


@pytest.mark.parametrize(
    "content",
    [
        "3 4\na 1 0 0 0\né 0 1 0 0\nb 0 0 1 0\n",
        "3 4\né é 1 0 0 0\né 0 1 0 0\nb 0 0 1 0\n",
        "3 4\na  1 0 0   0\né\t0\t1\t0\t0\nb \t0 0 1 0 \t\n",
        "3\t4\r\na\t1\t0\t0\t0\r\né\t0\t1\t0\t0\r\nb\t0\t0\t1\t0\r\n",
        "a  1 0 0 0\né 0 1 0 0\nb 0 0 1 0\n",
    ],
)
def test_text_of_any_script_and_any_blanks(tmp_path, content):
    """Words of other scripts make no binary file, and several blanks or tabs are one separator."""
    (tmp_path / "a").write_text(content, newline="")
    words, matrix = read_vectors(tmp_path / "a")
    assert words == ["é é" if "é é" in content else "a", "é", "b"]
    assert np.array_equal(matrix, np.eye(4, dtype=np.float32)[:3])


def test_binary_numbers_that_hold_a_line_feed(tmp_path):
    """Text is looked for up to the first line feed, which may be a byte of a number: at its beginning, or behind text."""
    for first in (b"\x0a\x00\x80\x3f", b"1.\x0a\x40"):
        numbers = first + np.array([0.126], "<f4").tobytes()
        (tmp_path / "a").write_bytes(b"2 2\nking " + numbers + b"queen " + np.array([0.64, 0.105], "<f4").tobytes())
        words, matrix = read_vectors(tmp_path / "a")
        assert words == ["king", "queen"] and matrix[0].tobytes() == numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a 1 2 3\nb 1 2\n", ":2: 2 numbers, where 3 are expected; the rows are ragged"),
        (b"a 1 2\nb 1 2 3\n", ":2: 3 numbers, where 2 are expected"),
        (b"2 3\na 1 2\nb 1 2\n", ":2: 2 numbers, where 3 are expected; .* or the first line is wrong"),
        (b"3 2\na 1 2\nb 1 2\n", ":1: the first line promises 3 words, but 2 rows follow"),
        (b"1 2\na 1 2\nb 1 2\n", ":1: the first line promises 1 words, but 2 rows follow"),
        (b"a 1 2\nb 1 x\n", ":2: 'x' is not a number"),
        (b"a 1 2\nb 1 nan\n", ":2: a number is not finite"),
        (b"a 1 2\n\nb 1 2\n", ":2: an empty line"),
        (b"2 3\na 1 x 0\n\xc3\xa9 1 2 3\n", ":2: 'x' is not a number"),
        (b"a,1,2\nb,1,2\n", ":1: no number follows 'a,1,2'; blanks or tabs must stand between"),
        (b"2 100001\na 1 2\nb 1 2\n", ":1: the first line says 100,001 numbers for each word, and 100,000 is the most"),
        ("² ³\na 1\n".encode(), ":1: '³' is not a number"),
        (b"2 2\n", "holds no word vectors"),
        (b"", "holds no word vectors"),
        (GENSIM_BINARY[:-3], "promises 2 words of 2 numbers, but the file ends in word 2"),
        (GENSIM_BINARY + b"more", "more follows after the 2 words"),
        (b"a 1 2\nb\xff 1 2\n", "byte 7 is not UTF-8"),
    ],
)  # fmt: skip
def test_damage_is_named_with_its_place(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_vectors(path)


def test_what_the_format_cannot_hold_is_not_written(tmp_path):
    for words, message in (
        (["a", "New York"], "word 1 is 'New York'"),
        (["", "b"], "word 0 is ''"),
        (["a"], "1 words for 2"),
    ):
        with pytest.raises(DataError, match=message):
            write_word2vec(tmp_path / "a", words, MATRIX[:2])
    assert not list(tmp_path.iterdir())


def test_vectors_of_a_vocabulary(tmp_path):
    write_word2vec(tmp_path / "a", WORDS, MATRIX)
    vocabulary = {"<pad>": 0, "1999": 1, "Lamp": 2, "paris": 3, "zebra": 4, "lamp": 6}
    matrix, coverage = read_embeddings(tmp_path / "a", vocabulary)
    assert matrix.shape == (7, 5) and coverage.found.tolist() == [False, True, True, False, False, False, True]
    np.testing.assert_array_equal(matrix[[1, 2, 6]], MATRIX[[3, 0, 0]])  # Lamp: the small letters stand in
    assert not matrix[5].any() and matrix[4].any()  # no word; a word without a vector
    assert coverage.missing == ["<pad>", "paris", "zebra"] and coverage.in_file == 4
    assert str(coverage).startswith("3 of 6 words (50.0%) have a vector; without, for example: <pad>, paris")
    assert np.array_equal(read_embeddings(tmp_path / "a", vocabulary)[0], matrix)
    with pytest.raises(DataError, match="has 4 vectors, but of none of the 1 words, among them 'zebra'"):
        read_embeddings(tmp_path / "a", {"zebra": 0})


def test_drawn_vectors_have_the_variance_of_the_others(tmp_path):
    write_word2vec(tmp_path / "a", ["a", "b"], np.array([[3.0, -3.0], [1.0, -1.0]]))
    matrix, _ = read_embeddings(tmp_path / "a", {word: i for i, word in enumerate(["a", "b", *map(str, range(5000))])})
    assert matrix[2:].var() == pytest.approx(5, rel=0.05) and abs(matrix[2:]).max() <= 15**0.5


def test_a_missing_file_and_a_folder_without_vectors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_vectors(tmp_path / "none")
    with pytest.raises(CheckpointError, match="holds no word vectors"):
        read_vectors(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="a model of type 'bert'"):
        read_vectors(tmp_path)
