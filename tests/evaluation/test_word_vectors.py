"""Neighbours, analogies, judged pairs and categories of word vectors."""

import numpy as np
import pytest

from hftoolkit.data.embedding_files import write_word2vec
from hftoolkit.errors import DataError
from hftoolkit.evaluation.analogies import read_questions, score_analogies
from hftoolkit.evaluation.nearest_words import WordVectors, asked_words
from hftoolkit.evaluation.word_report import WordTests, draw_words, same_category
from hftoolkit.evaluation.word_similarity import rank_correlation, read_pairs

WORDS = ["king", "queen", "man", "woman", "apple", "Paris"]
MATRIX = [[0.126, -0.132, 0.64], [0.105, -0.536, 0.362], [1.304, 0.947, -0.704], [-1.265, -0.623, 0.041],
          [-2.325, -0.219, -1.246], [-0.732, -0.544, -0.316]]  # fmt: skip
VECTORS = WordVectors(WORDS, MATRIX)
# gensim 4.4.0, KeyedVectors of these vectors: most_similar and most_similar_cosmul
SUM = [("queen", 0.6442505717), ("Paris", 0.5615016222), ("apple", 0.3071865737)]
PRODUCT = [("Paris", 2.3641324043), ("queen", 2.3257062435), ("apple", 0.7303535342)]


def assert_answers(found, expected):
    assert [word for word, _ in found] == [word for word, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], atol=1e-6)


def test_answers_are_those_of_gensim():
    question = dict(positive=["king", "woman"], negative=["man"], count=3)
    assert_answers(VECTORS.most_similar(**question), SUM)
    assert_answers(VECTORS.most_similar("apple", count=2), [("Paris", 0.8669065833), ("woman", 0.8105291128)])
    with pytest.raises(AssertionError):  # vectors that are not brought to one length first
        raw = np.array(MATRIX, np.float32)
        target = raw[0] + raw[3] - raw[2]
        cosines = raw @ target / np.linalg.norm(raw, axis=1) / np.linalg.norm(target)
        assert_answers([(WORDS[i], cosines[i]) for i in (1, 5, 4)], SUM)


def test_products_of_similarities():
    """Those of gensim; and by the definition, with every similarity moved to 0..1."""
    question = dict(positive=["king", "woman"], negative="man", count=3)
    assert_answers(VECTORS.most_similar(**question, method="3CosMul"), PRODUCT)
    unit = np.array(MATRIX) / np.linalg.norm(MATRIX, axis=1, keepdims=True)
    near = (unit @ unit.T + 1) / 2
    expected = near[0] * near[3] / (near[2] + 1e-6)
    assert expected[5] == pytest.approx(PRODUCT[0][1], abs=1e-5)
    with pytest.raises(ValueError, match="3CosAdd or 3CosMul, got 'cosine'"):
        VECTORS.most_similar("king", method="cosine")


def test_the_words_asked_for_are_no_answer():
    assert {word for word, _ in VECTORS.most_similar(["king", "queen"], count=50)} == {
        "man",
        "woman",
        "apple",
        "Paris",
    }
    assert [word for word, _ in VECTORS.most_similar("apple", count=9, most_frequent=2)] == ["queen", "king"]
    with pytest.raises(ValueError, match="at least one word"):
        VECTORS.most_similar([])


def test_a_missing_word_is_named_with_the_nearest_spellings():
    with pytest.raises(DataError, match="'quen' is not among the 6 words; did you mean 'queen'"):
        VECTORS.most_similar(["quen"])
    assert VECTORS.find("KING") == 0 and "xyz" not in VECTORS and VECTORS.similarity("man", "man") == pytest.approx(1)


def test_words_are_asked_for_one_by_one_or_with_commas():
    assert asked_words(["lamp", "red, happy", "lamp", ","]) == ["lamp", "red", "happy", ","]
    assert asked_words([]) == []


def test_a_vector_of_zeros_is_like_nothing():
    vectors = WordVectors(["a", "b"], [[0.0, 0.0], [1.0, 0.0]])
    assert vectors.similarity("a", "b") == 0.0


def test_vectors_are_read_without_special_tokens(tmp_path):
    write_word2vec(tmp_path / "v", ["<unk>", "<pad>", "a"], np.eye(3))
    assert WordVectors.read(tmp_path / "v").words == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        "king\tqueen\t9.5\nman\tapple\t1\n",
        "king queen 9.5\nman apple 1\n",
        "Word 1,Word 2,Human (mean)\nking,queen,9.5\nman,apple,1\n",
        "word1\tword2\tPOS\tSimLex999\nking\tqueen\tN\t9.5\nman\tapple\tN\t1\n",
        "king-n queen-n 9.5\nman-n apple-j 1\n",
        "# judged by 20 people, from 0 to 10\n\nking\tqueen\t9.5\nman\tapple\t1\n",
        "\n# a, b\nWord 1,Word 2,Human (mean)\nking,queen,9.5\n,,\nman,apple,1\n",
        "king  queen   9.5\nman apple  1\n",
    ],
)
def test_every_form_of_judged_pairs(tmp_path, content):
    (tmp_path / "pairs").write_text(content)
    assert read_pairs(tmp_path / "pairs") == [("king", "queen", 9.5), ("man", "apple", 1.0)]


@pytest.mark.parametrize("content", ["a\tb\t1\nc\td\n", "a\tb\t1\nc\td\tx\n", "a\tb\t1\n\td\t2\n"])
def test_a_broken_pair_is_named_with_its_line(tmp_path, content):
    (tmp_path / "pairs").write_text(content)
    with pytest.raises(DataError, match="pairs:2: expected two words and a number"):
        read_pairs(tmp_path / "pairs")


def test_correlation_says_what_it_does_not_cover():
    pairs = [("king", "queen", 9.0), ("man", "woman", 8.0), ("apple", "Paris", 2.0), ("apple", "pear", 7.0)]
    found = rank_correlation(VECTORS, pairs)
    cosines = [VECTORS.similarity(*pair[:2]) for pair in pairs[:3]]  # 0.73, -0.98, 0.87: ranks 2, 1, 3 against 3, 2, 1
    assert cosines[2] > cosines[0] > cosines[1] and found["spearman"] == pytest.approx(-0.5)
    assert found["pairs"] == 3 and found["uncovered_pairs"] == 1 and found["uncovered_words"] == ["pear"]
    assert rank_correlation(VECTORS, pairs[3:])["spearman"] is None


def test_analogies_by_section(tmp_path):
    """A world in which a kind is a direction: the answers are known, and 3CosMul finds them too."""
    words = ["cup", "cups", "lamp", "lamps", "box", "boxes", "red"]
    matrix = [[1, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 1, 1], [-1, -1, -1, 0]]
    (tmp_path / "q").write_text(
        ": gram8-plural\ncup cups lamp lamps\ncup cups box lamps\n: capitals\nred cup Oslo Rome\n"
    )
    sections = read_questions(tmp_path / "q")
    assert list(sections) == ["gram8-plural", "capitals"]
    for method in ("3CosAdd", "3CosMul"):
        found = score_analogies(WordVectors(words, matrix), sections, method)
        assert found["accuracy"] == 0.5 and found["questions"] == 2 and found["uncovered_questions"] == 1
        assert found["syntactic"]["accuracy"] == 0.5 and found["semantic"]["accuracy"] is None
        assert found["sections"]["capitals"] == {"accuracy": None, "questions": 0, "uncovered_questions": 1}
    (tmp_path / "q").write_text(": s\na b c\n")
    with pytest.raises(DataError, match="q:2: an analogy has four words, got 'a b c'"):
        read_questions(tmp_path / "q")


def test_categories_and_report(tmp_path):
    vectors = WordVectors(["a", "b", "c", "d", "e"], [[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.05]])
    categories = {"first": ["a", "b"], "second": ["c", "d", "absent"]}
    assert same_category(vectors, categories) == 1.0
    assert same_category(vectors, {"first": ["a", "c"], "second": ["b", "d"]}) == 0.0
    assert same_category(vectors, {"first": ["a"]}) is None
    (tmp_path / "pairs.txt").write_text("a\tb\t9\na\tc\t1\na\tx\t3\n")
    tests = WordTests([tmp_path / "pairs.txt"], None, categories)
    found = tests.report(vectors)
    assert found["spearman_pairs"] == pytest.approx(1) and found["covered_pairs"] == pytest.approx(2 / 3)
    assert tests.baselines(vectors)["random_vectors"].keys() == {"spearman_pairs", "covered_pairs", "same_category"}
    for method in ("pca", "tsne"):
        draw_words(vectors, categories, tmp_path / f"{method}.png", method=method)
        assert (tmp_path / f"{method}.png").read_bytes().startswith(b"\x89PNG")
