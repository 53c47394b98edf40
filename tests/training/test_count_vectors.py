"""PPMI against published numbers, the decomposition against numpy's."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from hftoolkit.errors import DataError
from hftoolkit.training.count_vectors import factors, pair_matrix, ppmi

# Jurafsky and Martin, Speech and Language Processing, 3rd edition, Figure 6.10: four words by five contexts
WORDS, CONTEXTS = ("cherry", "strawberry", "digital", "information"), ("computer", "data", "result", "pie", "sugar")
COUNTS = csr_array([[2.0, 8, 9, 442, 25], [0, 0, 1, 60, 19], [1670, 1683, 85, 5, 4], [3325, 3982, 378, 5, 13]])
PLAIN = [[0, 0, 0, 4.38, 3.30], [0, 0, 0, 4.10, 5.51], [0.18, 0.01, 0, 0, 0], [0.02, 0.09, 0.28, 0, 0]]  # Figure 6.12
SMOOTHED = {("cherry", "pie"): 3.643, ("cherry", "sugar"): 1.801, ("strawberry", "pie"): 3.365,
            ("strawberry", "sugar"): 4.008, ("digital", "computer"): 0.270, ("digital", "data"): 0.144,
            ("information", "computer"): 0.103, ("information", "data"): 0.226}  # fmt: skip


def bits(**options):
    return ppmi(COUNTS, **options).toarray() / np.log(2)


def test_ppmi_is_the_table_of_the_textbook():
    np.testing.assert_allclose(bits(context_smoothing=1), PLAIN, atol=0.005)
    assert np.abs(bits(context_smoothing=0.9) - PLAIN).max() > 0.05


def test_smoothing_of_contexts():
    """With the exponent 0.75 on the contexts alone: rare ones lose, frequent ones gain."""
    found = bits(context_smoothing=0.75)
    for (word, context), value in SMOOTHED.items():
        assert found[WORDS.index(word), CONTEXTS.index(context)] == pytest.approx(value, abs=6e-4)


def test_shift_takes_its_logarithm_off():
    plain, shifted = ppmi(COUNTS, 1).toarray(), ppmi(COUNTS, 1, shift=5)
    np.testing.assert_allclose(shifted.toarray(), np.maximum(plain - np.log(5), 0))
    assert shifted.nnz == 4  # zeros are not stored


@pytest.mark.parametrize("options", [{"context_smoothing": 0}, {"context_smoothing": 1.5}, {"shift": 0.5}], ids=str)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="context_smoothing must be in"):
        ppmi(COUNTS, **options)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_factors_are_the_best_of_their_rank(exponent):
    dense = np.maximum(np.random.default_rng(0).standard_normal((12, 12)), 0)
    words, contexts = factors(csr_array(dense), 4, exponent)
    left, values, right = np.linalg.svd(dense)
    np.testing.assert_allclose(words @ contexts.T, left[:, :4] * values[:4] @ right[:4], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(words, axis=0), values[:4] ** exponent, rtol=1e-5)
    assert (words[np.abs(words).argmax(axis=0), np.arange(4)] > 0).all()


def test_a_matrix_too_small_is_refused():
    with pytest.raises(DataError, match="hidden_size is 12, but must be below the 12 words"):
        factors(csr_array(np.eye(12)), 12)
    with pytest.raises(DataError, match="no pair of words occurs more often than by chance"):
        factors(csr_array((12, 12)), 2)


def test_pair_matrix_puts_weights_where_their_keys_say():
    matrix = pair_matrix(np.array([1, 5]), np.array([2.0, 3.0]), 3).toarray()
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 3], [0, 0, 0]]
