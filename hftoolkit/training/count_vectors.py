"""Word vectors from counts: positive pointwise mutual information, and its singular value decomposition.

Paper: Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity with Lessons Learned from Word Embeddings",
https://aclanthology.org/Q15-1016, Sections 2.1, 3.2 (shift, context smoothing) and 3.3 (eigenvalue weights, w + c).
Shapes: V = vocabulary, D = numbers in a vector.
"""

import math

import numpy as np
import torch
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from hftoolkit.data.cooccurrence import count_pairs
from hftoolkit.data.skipgram import keep_probabilities
from hftoolkit.errors import DataError


def pair_matrix(keys, weights, vocab_size):
    """Counts as a scipy.sparse CSR matrix (V, V), from count_pairs."""
    from scipy.sparse import csr_array

    return csr_array((weights, (keys // vocab_size, keys % vocab_size)), shape=(vocab_size, vocab_size))


def ppmi(counts, context_smoothing=0.75, shift=1.0):
    """Positive PMI of a matrix of counts, rows words, columns contexts; natural logarithm.

    max(0, log(p(w, c) / (p(w) p_a(c))) - log k), where p_a(c) is in proportion to count(c) ** a.

    Args:
        counts: scipy.sparse, not changed in place.
        context_smoothing: a; 1 is none.
        shift: k, the number of negatives of the skip-gram that has the same optimum; 1 is none.

    Returns:
        scipy.sparse CSR array; zeros are not stored.

    Raises:
        ValueError: a context_smoothing outside (0, 1] or a shift below 1.
    """
    from scipy.sparse import csr_array

    if not 0 < context_smoothing <= 1 or not 1 <= shift < math.inf:
        raise ValueError(f"context_smoothing must be in (0, 1], shift at least 1, got {context_smoothing} and {shift}")
    matrix = counts.tocoo()
    rows, columns = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    smooth = columns**context_smoothing
    smooth = smooth / smooth.sum()
    row, column = matrix.coords
    values = np.log(matrix.data) - np.log(rows[row]) - np.log(smooth[column]) - math.log(shift)
    positive = values > 0
    return csr_array((values[positive], (row[positive], column[positive])), shape=matrix.shape)


def factors(matrix, size, exponent=0.0, seed=0):
    """Word and context vectors whose products approximate a matrix best: U s^p and V s^(1 - p).

    Args:
        size: D, less than either side of the matrix.
        exponent: p, the weight of the singular values in the word vectors: 0 and 0.5 are better than 1 (Section 3.3).
        seed: of the first vector of the iteration.

    Returns:
        (words (V, D), contexts (V, D)), float32; the sign of each dimension is such that the largest number of the word
        vectors in it is positive.

    Raises:
        DataError: the matrix is too small for so many dimensions, or has not a single positive entry.
    """
    from scipy.sparse.linalg import svds

    if not matrix.nnz:
        raise DataError("no pair of words occurs more often than by chance: give more text, or a smaller shift")
    if size >= min(matrix.shape):
        raise DataError(f"hidden_size is {size}, but must be below the {min(matrix.shape)} words of the vocabulary")
    first = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    left, values, right = svds(matrix.astype(np.float64), k=size, v0=first)
    order = np.argsort(-values)
    left, values, right = left[:, order], values[order], right[order].T
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(size)])
    words, contexts = left * signs * values**exponent, right * signs * values ** (1 - exponent)
    return words.astype(np.float32), contexts.astype(np.float32)


class CountVectorTrainer(Trainer):
    """Fills HftWord2VecForMaskedLM by counting and decomposing, as one step of a run.

    Args:
        train_dataset: WordRows, for its store.
        counts: of words, 0 for what is none, (V,).
        subsampling: threshold of keep_probabilities; 0 keeps every word.
        weighting, context_smoothing, shift, svd_exponent: see count_pairs, ppmi, factors.
        add_contexts: the word vectors are the sums of both factors ("w + c").

    Raises:
        DataError: as many numbers in a vector as words that are counted, or more.
    """

    def __init__(
        self, model, args, train_dataset, *, counts, subsampling=0.0, weighting="linear", context_smoothing=0.75,
        shift=1.0, svd_exponent=0.0, add_contexts=False, **options,
    ):  # fmt: skip
        size, known = model.config.hidden_size, np.count_nonzero(counts)
        if size >= known:
            raise DataError(
                f"hidden_size is {size}, but must be below the {known:,} words that are counted: set "
                "--model_config.hidden_size"
            )
        options |= {"optimizers": (torch.optim.SGD(model.parameters(), lr=args.learning_rate), None)}  # of no effect
        super().__init__(model, args, train_dataset=train_dataset, **options)
        self.counts, self.weighting, self.add_contexts = counts, weighting, add_contexts
        self.keep = keep_probabilities(counts, subsampling) if subsampling else None
        self.context_smoothing, self.shift, self.svd_exponent = context_smoothing, shift, svd_exponent

    def train(self, resume_from_checkpoint=None, **kwargs):
        """Count, weigh, decompose; the loss reported is the share of the matrix's squares that D dimensions leave out."""
        args, state, config = self.args, self.state, self.model.config
        state.max_steps, state.num_train_epochs, state.epoch = 1, 1, 0.0
        self.control = self.callback_handler.on_train_begin(args, state, self.control)
        keys, weights = count_pairs(
            self.train_dataset.store, self.counts > 0, window_size=config.window_size, weighting=self.weighting,
            keep=self.keep, seed=args.seed,
        )  # fmt: skip
        if not len(keys):
            raise DataError("no two words stand near each other: every sentence has one word")
        matrix = ppmi(pair_matrix(keys, weights, config.vocab_size), self.context_smoothing, self.shift)
        words, contexts = factors(matrix, config.hidden_size, self.svd_exponent, args.seed)
        total = float((matrix.data**2).sum())
        kept = float(((words.astype(np.float64) ** 2).sum(0) * (contexts.astype(np.float64) ** 2).sum(0)).sum())
        if self.add_contexts:
            words = words + contexts
        with torch.no_grad():
            self.model.model.embed_tokens.weight.copy_(torch.from_numpy(words))
            self.model.lm_head.weight.copy_(torch.from_numpy(contexts))
        state.global_step, state.epoch = 1, 1.0
        loss = max(1.0 - kept / total, 0.0)
        self.log({"loss": loss, "pairs": len(keys), "ppmi_entries": matrix.nnz})
        self.control = self.callback_handler.on_train_end(args, state, self.control)
        return TrainOutput(1, loss, {})
