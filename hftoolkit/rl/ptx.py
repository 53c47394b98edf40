"""PPO-ptx: pretraining text whose language-model loss is mixed into the updates.

Paper: Ouyang et al. 2022, "InstructGPT", https://arxiv.org/abs/2203.02155, Section 3.5, equation 2, and Appendix C.4:
eight pretraining examples for every response, and a coefficient of 27.8.
Shapes: T = tokens of a row.
"""

import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset

from hftoolkit.errors import DataError


def require_ptx(coefficient, dataset):
    """Refuse a coefficient without pretraining text, and text that no coefficient weighs.

    Raises:
        DataError: one of ptx_coef and ptx_dataset is given without the other.
    """
    if coefficient and dataset is None:
        raise DataError(f"ptx_coef is {coefficient}, but there is no ptx_dataset: give one, or leave it 0")
    if dataset is not None and not coefficient:
        raise DataError(
            "there is a ptx_dataset, but ptx_coef is 0, so that nothing would be learned from it: give a ptx_coef above 0 "
            "(27.8: InstructGPT), or leave ptx_dataset out"
        )


def context_length(config):
    """Tokens that a model with this config reads at once; None where it has no limit."""
    return getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)


def require_ptx_rows(dataset, config):
    """Refuse pretraining text that an update could not read, before anything is sampled; None is no text.

    Args:
        config: of the policy.

    Raises:
        DataError: no data set with a column of token ids, no row, rows of different lengths, of one token or of more than
            the policy reads, or ids outside of its vocabulary.
    """
    if dataset is None:
        return
    schema = dataset.features.arrow_schema if isinstance(dataset, Dataset) else ()
    columns = {field.name: field.type for field in schema}
    if not _holds_integers(columns.get("input_ids")):
        given = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
        raise DataError(
            "ptx_dataset has to be a datasets.Dataset with token ids in the column input_ids, got "
            + (f"one with the columns {given}" if given else type(dataset).__name__)
        )
    if not len(dataset):
        raise DataError("ptx_dataset has no rows: give some, or leave ptx_coef 0")
    lengths, smallest, largest = set(), 0, 0
    for part in dataset.select_columns("input_ids").with_format("arrow").iter(10_000):
        rows = part["input_ids"]
        lengths |= {length or 0 for length in pc.unique(pc.list_value_length(rows)).to_pylist()}
        found = pc.min_max(pc.list_flatten(rows)).as_py()
        smallest, largest = min(smallest, found["min"] or 0), max(largest, found["max"] or 0)
    lengths, context = sorted(lengths), context_length(config)
    if len(lengths) > 1:
        raise DataError(
            f"rows of ptx_dataset have {lengths[0]} and {lengths[-1]} tokens: join the texts and cut them into rows of "
            "equal length"
        )
    if lengths[0] < 2 or context is not None and lengths[0] > context:
        words = "2 or more" if context is None else f"2 to {context}, which is what the policy reads"
        raise DataError(f"rows of ptx_dataset have {lengths[0]} tokens; it must be {words}: set ptx_max_length so")
    vocabulary = config.get_text_config(decoder=True).vocab_size
    if smallest < 0 or largest >= vocabulary:
        raise DataError(
            f"ptx_dataset has the token id {smallest if smallest < 0 else largest}, and the policy's are 0 to "
            f"{vocabulary - 1}: take the policy's tokenizer"
        )


def _holds_integers(kind):
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return kind is not None and any(is_list(kind) for is_list in lists) and pa.types.is_integer(kind.value_type)


def ptx_rows(dataset, args, step, part):
    """Token ids of the pretraining text of one micro-batch, (ptx_batch_size x per_device_train_batch_size, T).

    Args:
        dataset: rows of `input_ids`, of equal length (see require_ptx_rows), drawn with replacement.
        args: PPOConfig.
        step: number of the update; what is drawn for it does not depend on how many processes share it.
        part: number of the micro-batch in the update, of all processes.
    """
    generator = torch.Generator().manual_seed(args.seed + 7_919 * step)
    rows = torch.randint(len(dataset), (args.ptx_batch_size * args.minibatch_size,), generator=generator)
    size = args.ptx_batch_size * args.per_device_train_batch_size
    return torch.as_tensor(dataset[rows[part * size :][:size].tolist()]["input_ids"])
