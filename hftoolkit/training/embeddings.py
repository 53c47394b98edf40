"""Word vectors of a file as the first input embeddings of any model."""

import torch

from hftoolkit.data.embeddings import read_embeddings
from hftoolkit.errors import DataError
from hftoolkit.training.progress import say


def start_from(model, tokenizer, path, frozen=False):
    """Put the vectors of a file into a model's input embeddings, and say how many words have one.

    Args:
        model: any PreTrainedModel; rows beyond the tokenizer's vocabulary stay as they are.
        path: see hftoolkit.data.embedding_files; None changes nothing.
        frozen: the embeddings are not trained.

    Returns:
        The Coverage; None where there is no file.

    Raises:
        DataError: vectors of another size than the model's, or a vocabulary of which the file has no word.
        CheckpointError: a folder that holds no word vectors.
    """
    if path is None:
        return None
    matrix, coverage = read_embeddings(path, tokenizer.get_vocab())
    weight = model.get_input_embeddings().weight
    if matrix.shape[1] != weight.shape[1]:
        raise DataError(
            f"{path} has vectors of {matrix.shape[1]} numbers, but the model's have {weight.shape[1]}: set that size "
            "under model_config"
        )
    with torch.no_grad():
        weight[: len(matrix)] = torch.from_numpy(matrix)
    weight.requires_grad_(not frozen)
    say(f"{path}: {coverage}")
    return coverage
