"""PPO-ptx: pretraining text whose language-model loss is mixed into the updates.

Paper: Ouyang et al. 2022, "InstructGPT", https://arxiv.org/abs/2203.02155, Section 3.5, equation 2, and Appendix C.4:
eight pretraining examples for every response, and a coefficient of 27.8.
Shapes: T = tokens of a row.
"""

import torch

from hftoolkit.errors import DataError


def ptx_rows(dataset, args, step, part):
    """Token ids of the pretraining text of one micro-batch, (ptx_batch_size x per_device_train_batch_size, T).

    Args:
        dataset: rows of `input_ids`, of equal length, drawn with replacement.
        args: PPOConfig.
        step: number of the update; what is drawn for it does not depend on how many processes share it.
        part: number of the micro-batch in the update, of all processes.

    Raises:
        DataError: rows of different lengths.
    """
    generator = torch.Generator().manual_seed(args.seed + 7_919 * step)
    rows = torch.randint(len(dataset), (args.ptx_batch_size * args.minibatch_size,), generator=generator)
    size = args.ptx_batch_size * args.per_device_train_batch_size
    ids = dataset[rows[part * size :][:size].tolist()]["input_ids"]
    if len(lengths := sorted({len(row) for row in ids})) > 1:
        raise DataError(
            f"rows of ptx_dataset have {lengths[0]} and {lengths[-1]} tokens: join the texts and cut them into rows of "
            "equal length"
        )
    return torch.as_tensor(ids)
