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


def warn_of_losses(split: str, tally: Tally, max_document_characters: int | None) -> None:
    """One line for the rows that are skipped, and one for the documents that are shortened."""
    if tally.skipped:
        places = _shown(tally.skipped_at, tally.skipped)
        logger.warning("%s: %d rows that cannot be read are skipped: %s", split, tally.skipped, places)
    if tally.shortened:
        logger.warning(
            "%s: of %d documents only the first %s characters are read (--max_document_characters): %s",
            split,
            tally.shortened,
            f"{max_document_characters:,}",
            _shown(tally.shortened_at, tally.shortened),
        )


def _shown(places: list[str], number: int) -> str:
    return ", ".join(places) + (", ..." if number > len(places) else "")
