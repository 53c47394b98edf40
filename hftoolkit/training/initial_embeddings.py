"""Word vectors from a file as the first embeddings of a model: trained further, or frozen.

Papers: Kim 2014, https://arxiv.org/abs/1408.5882, Section 3.1 (static and non-static); Iyyer et al. 2015,
https://aclanthology.org/P15-1162, Section 4 (random and GloVe).
"""

import torch

from hftoolkit.data.embeddings import read_embeddings
from hftoolkit.errors import DataError
from hftoolkit.training.progress import say


class InitialEmbeddings:
    """The vectors of a tokenizer's words.

    Args:
        path: a file of word2vec or GloVe, or the folder of a word2vec run; None: there are none, and nothing happens.
        tokenizer: a word that the file lacks starts at random.

    Raises:
        DataError: a damaged file, or one that has none of the words.
    """

    def __init__(self, path, tokenizer):
        self.path, self.matrix, self.coverage, self.facts, self.config_fields = path, None, None, {}, {}
        if path is None:
            return
        vocabulary = {
            word: id for word, id in tokenizer.get_vocab().items() if word not in tokenizer.all_special_tokens
        }
        matrix, self.coverage = read_embeddings(path, vocabulary)
        say(f"embeddings: {path}: {self.coverage}")
        self.matrix = torch.from_numpy(matrix)
        self.facts = {"embeddings": f"{int(self.coverage.found.sum())} of {len(vocabulary)} words from {path}"}
        self.config_fields = {"embedding_size": matrix.shape[1]}

    def given_to(self, model, freeze=False):
        """Write the vectors into a model's input embeddings, in place; special tokens and further rows keep theirs.

        Returns:
            The same InitialEmbeddings.

        Raises:
            DataError: the model's vectors are of another size, are those of characters (ELMo), or it has none (a bag of
                words).
        """
        if self.matrix is None:
            if freeze:
                raise DataError(
                    "freeze_embeddings is set, but there are no --embeddings: random vectors would stay random"
                )
            return self
        if model.config.model_type == "hft_elmo":  # whose input embeddings are those of bytes
            raise DataError(
                f"{self.path}: the words of {type(model).__name__} are made of characters: leave out embeddings"
            )
        weight = model.get_input_embeddings().weight
        named = [name for name in ("embedding_size", "hidden_size") if hasattr(model.config, name)]
        if not named:
            raise DataError(
                f"{self.path}: {type(model).__name__} has weights of words, no vectors: leave out embeddings"
            )
        if weight.shape[1] != self.matrix.shape[1]:
            raise DataError(
                f"{self.path} has vectors of {self.matrix.shape[1]} numbers, but the model's have {weight.shape[1]}: set "
                f"--model_config.{named[0]} {self.matrix.shape[1]}"
            )
        rows = self.matrix.abs().sum(1) > 0  # those of special tokens, which have no vector, are 0
        with torch.no_grad():
            weight[: len(rows)][rows] = self.matrix[rows].to(weight)
        weight.requires_grad_(not freeze)
        return self
