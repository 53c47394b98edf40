"""Read the files of a split through once, before training: how many documents, and what was left out.

What was found is remembered beside the cache of data sets until a file, an option or the reader changes.
"""

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

import datasets

from .readers import Tally, read_documents

logger = logging.getLogger(__name__)

READER_VERSION = 2  # part of every cache key: raise it when a file is read differently


def source_version(options: dict) -> tuple:
    """What changes when a file or the reader does, for a key of a cache."""
    states = [Path(file).stat() for file in options["files"]]
    return READER_VERSION, *((state.st_size, state.st_mtime_ns) for state in states)


def survey(options: dict) -> Tally:
    """Count what `read_documents(**options)` gives and leaves out; from memory where nothing has changed.

    Raises:
        DataError: a file is damaged, or rows cannot be read.
    """
    key = hashlib.sha256(json.dumps([options, source_version(options)]).encode()).hexdigest()
    memory = Path(datasets.config.HF_DATASETS_CACHE) / "hftoolkit" / f"survey-{key}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Tally(**json.loads(memory.read_text(encoding="utf-8")))
    tally = Tally()
    for _ in read_documents(**options, tally=tally):
        pass
    with contextlib.suppress(OSError):  # it is read again then
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(asdict(tally)), encoding="utf-8")
        temporary.replace(memory)
    return tally


def warn_of_losses(split: str, tally: Tally) -> None:
    """One line for the rows that were skipped."""
    if tally.skipped:
        more = ", ..." if tally.skipped > len(tally.skipped_at) else ""
        logger.warning(
            "%s: %d rows that cannot be read are skipped: %s%s",
            split,
            tally.skipped,
            ", ".join(tally.skipped_at),
            more,
        )
