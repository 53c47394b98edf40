"""Data sets made once and kept, memory-mapped, in the cache of data sets."""

from datasets import Dataset, Features
from datasets.exceptions import DatasetGenerationError

from hftoolkit.errors import MachineError, UserError


def cached_dataset(generate, features: Features, arguments: dict, num_workers: int | None = None) -> Dataset:
    """Rows of `generate(**arguments)`; from the cache where the arguments are the same.

    Args:
        generate: a generator function of rows. The arguments must hold all that its rows depend on.
        arguments: lists among them are divided among the workers; everything else goes to each.

    Raises:
        MachineError: the cache cannot be written.
    """
    try:
        return Dataset.from_generator(generate, features=features, gen_kwargs=arguments, num_proc=num_workers)
    except DatasetGenerationError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, UserError):
            raise MachineError(f"the cache of data sets cannot be written: {cause}; set HF_HOME elsewhere") from error
        raise cause or error from None
