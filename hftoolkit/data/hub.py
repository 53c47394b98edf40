"""Documents from a data set on the Hub."""

import logging

import pyarrow.compute
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from hftoolkit.errors import DataError, HubError

from .formats import check_column
from .splits import SPLIT_NAMES, held_out

logger = logging.getLogger(__name__)

HELD_OUT_OF_A_STREAM = 1000  # documents, where neither a validation split nor a number of documents is known


def load_from_hub(data_args) -> dict[str, Dataset | IterableDataset]:
    """Load the splits of a Hub data set with the one column `text`; blank documents are left out.

    Raises:
        HubError: the Hub cannot be reached, or does not have the data set.
        DataError: a configuration has to be chosen, there is no split train, or texts are missing.
    """
    found = fetch(data_args)
    splits = {}
    for split, names in SPLIT_NAMES.items():
        name = next((name for name in names if name in found), None)
        if name is not None:
            splits[split] = _texts(found[name], f"{data_args.dataset}, split {name}", data_args)
    if "train" not in splits:
        raise DataError(f"{data_args.dataset} has no split train, only {', '.join(found)}")
    if "validation" not in splits and data_args.validation_fraction > 0:
        splits |= _hold_out(splits["train"], data_args)
    return splits


def fetch(data_args):
    """The data set as the Hub has it; its errors become one line each.

    Args:
        data_args: dataset, dataset_config, dataset_revision and streaming are read.

    Raises:
        HubError: the Hub cannot be reached, or does not have the data set.
    """
    name = data_args.dataset
    try:
        return load_dataset(
            name, data_args.dataset_config, revision=data_args.dataset_revision, streaming=data_args.streaming
        )
    except DatasetNotFoundError as error:
        raise HubError(
            f"the data set {name} is not on the Hub (or private: log in with `hf auth login`), and there is no file "
            f"or folder {name} here: {_first_line(error)}"
        ) from error
    except DatasetGenerationError as error:
        raise DataError(f"the data set {name} is damaged: {_first_line(error.__cause__ or error)}") from error
    except OSError as error:
        from huggingface_hub.constants import HF_HUB_OFFLINE

        remedy = "HF_HUB_OFFLINE is set; unset it" if HF_HUB_OFFLINE else "check the connection"
        raise HubError(
            f"the data set {name} could not be fetched from the Hub: {_first_line(error)}. {remedy}, or give a local "
            "file or folder, or --dataset builtin (a data set in the cache is also used with HF_HUB_OFFLINE=1)"
        ) from error
    except (ValueError, RuntimeError) as error:  # a configuration must be chosen; scripts are not run
        raise DataError(
            f"the data set {name} cannot be loaded: {_first_line(error)} (see --dataset_config)"
        ) from error


def _first_line(error) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _texts(split, where: str, data_args):
    """The documents of one split, checked, without blank ones, limited to max_documents."""
    column, longest = data_args.text_column, data_args.max_document_characters
    if split.column_names is not None:
        check_column(split.column_names, column, where)
    if isinstance(split, IterableDataset):
        if data_args.on_bad_row == "skip":
            raise DataError(
                f"{where}: rows of a streamed Hub data set cannot be skipped: leave on_bad_row or streaming"
            )
        split = split.map(
            _text_only,
            input_columns=[column],
            remove_columns=split.column_names,
            fn_kwargs={"where": where, "longest": longest},
        )
    else:
        split = split.select_columns([column])
        split = _without_missing(split, column, where, data_args)
        split = split.rename_column(column, "text") if column != "text" else split
        split = _shortened(split, longest, where)
    workers = {} if isinstance(split, IterableDataset) else {"num_proc": data_args.preprocessing_num_workers}
    split = split.filter(_is_not_blank, input_columns=["text"], **workers)
    if isinstance(split, IterableDataset):
        return split if data_args.max_documents is None else split.take(data_args.max_documents)
    if not len(split):
        raise DataError(f"0 documents in {where}: all texts are blank")
    return split.select(range(min(len(split), data_args.max_documents or len(split))))


def _is_not_blank(text: str) -> bool:
    return bool(text.strip())


def _text_only(value, where: str, longest: int | None) -> dict[str, str]:
    if not isinstance(value, str):
        raise DataError(f"{where}: a document is {'null' if value is None else type(value).__name__}, not text")
    return {"text": value[:longest]}


def _without_missing(split: Dataset, column: str, where: str, data_args) -> Dataset:
    kind = getattr(split.features[column], "dtype", type(split.features[column]).__name__)
    if kind not in ("string", "large_string"):
        raise DataError(f"{where}: the column '{column}' holds {kind}, not text; set --text_column")
    missing = [row for row, text in enumerate(split[column]) if text is None]
    if not missing:
        return split
    shown = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
    message = f"{where}: {len(missing)} of {len(split)} rows have no text in '{column}': rows {shown}"
    if data_args.on_bad_row == "stop":
        raise DataError(message)
    if len(missing) > data_args.max_bad_rows:
        raise DataError(f"{message}; more than {data_args.max_bad_rows}: raise --max_bad_rows")
    logger.warning("%s; they are skipped", message)
    return split.filter(_is_text, input_columns=[column])


def _shortened(split: Dataset, longest: int | None, where: str) -> Dataset:
    if longest is None:
        return split
    lengths = pyarrow.compute.utf8_length(split.with_format("arrow")[:]["text"])
    number = pyarrow.compute.sum(pyarrow.compute.greater(lengths, longest)).as_py()
    if not number:
        return split
    message = "%s: of %d documents only the first %s characters are read (--max_document_characters)"
    logger.warning(message, where, number, f"{longest:,}")
    return split.map(_beginning, input_columns=["text"], fn_kwargs={"longest": longest})


def _beginning(text: str, longest: int) -> dict[str, str]:
    return {"text": text[:longest]}


def _is_text(text) -> bool:
    return text is not None


def _hold_out(train, data_args):
    if isinstance(train, IterableDataset):
        expected = data_args.max_documents
        number = HELD_OUT_OF_A_STREAM if expected is None else held_out(expected, data_args.validation_fraction)
        logger.info("%s has no validation split: its first %d documents are held out", data_args.dataset, number)
        return {"train": train.skip(number), "validation": train.take(number)}
    cut = len(train) - held_out(len(train), data_args.validation_fraction)
    return {"train": train.select(range(cut)), "validation": train.select(range(cut, len(train)))}
