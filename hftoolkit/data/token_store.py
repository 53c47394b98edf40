"""Documents, tokenised once: sentence after sentence in one memory-mapped array on disk.

A store is a folder with three arrays and a description that is written last. It is made under a temporary name and
renamed, so a reader never meets half of one; a store that is damaged all the same (sizes or the description do not
agree) is made anew. Its name says what it holds: the texts' fingerprint, the tokenizer, the rule that splits
sentences; another tokenizer never reads it. Several processes may ask for the same store; one makes it.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import datasets
import numpy as np
from filelock import FileLock

from hftoolkit.errors import DataError, MachineError, UserError

from .language_modeling import AS_TEXT
from .sentences import split_lines, split_sentences
from .text import fingerprint

STORE_VERSION = 1  # part of the name: raise it when the files, or the rules of sentences.py, change
SPLITTERS = {"rules": split_sentences, "lines": split_lines, "none": lambda text: [text]}
BATCH_CHARACTERS = 400_000  # tokenised at a time, which bounds the memory
_FILES = {"tokens": None, "sentence_offsets": "int64", "document_offsets": "int64"}


class SentenceStore:
    """The tokens of a corpus and where its sentences and documents begin.

    Attributes:
        tokens: ids without special tokens, memory-mapped, (N,), uint16 or int32.
        sentence_offsets: where each sentence begins in `tokens`, and the end, (S + 1,).
        document_offsets: where each document begins in the sentences, and the end, (D + 1,); document i is row i of
            the data set, and one without a token has no sentence.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        description = read_description(self.folder)
        if description is None:
            raise DataError(f"{self.folder} is not a whole store of sentences; make it with tokenize_sentences")
        self.description = description
        self.tokens, self.sentence_offsets, self.document_offsets = (
            self._array(name, dtype or description["dtype"]) for name, dtype in _FILES.items()
        )

    def _array(self, name, dtype):
        # A plain view: a slice of np.memmap itself costs ten times as much.
        return np.asarray(np.memmap(self.folder / name, dtype=dtype, mode="r"))

    def __reduce__(self):  # a worker process maps the files itself
        return SentenceStore, (self.folder,)

    def summary(self):
        """What the plan of a run and the model card tell about the data."""
        return {key: self.description[key] for key in ("documents", "sentences", "tokens", "splitter")}


def tokenize_sentences(documents, tokenizer, *, cache_dir=None, num_workers=None, splitter="rules"):
    """Split documents into sentences and tokenise them, or open the store where that was done before.

    Args:
        documents: a datasets.Dataset with a column `text`; a streamed one is read twice.
        cache_dir: where stores are kept; by default the cache folder of datasets.
        num_workers: processes; None is one, in which the tokenizer may use several threads.
        splitter: "rules" (sentences.py), "lines" for text with one sentence per line, or "none": a document is one
            sentence, and every character of it is tokenised.

    Returns:
        The SentenceStore.

    Raises:
        ValueError: an unknown splitter.
        DataError: no document has a token.
        MachineError: the store cannot be written.
    """
    if splitter not in SPLITTERS:
        raise ValueError(f"splitter must be one of {', '.join(SPLITTERS)}, got {splitter!r}")
    root = Path(cache_dir or datasets.config.HF_DATASETS_CACHE) / "sentences"
    texts, kind = fingerprint(documents), tokenizer_fingerprint(tokenizer)
    folder = root / f"{texts}-{kind}-{splitter}-v{STORE_VERSION}"
    if read_description(folder) is None:
        with _explained(root):
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if read_description(folder) is None:  # nobody made it while this process waited
                    _make(folder, documents, tokenizer, splitter, num_workers)
    return SentenceStore(folder)


def tokenizer_fingerprint(tokenizer):
    """First 16 hex digits of the SHA-256 of all that decides the ids: pipeline, vocabulary, special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        parts = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())]
    else:  # truncation and padding are the state of the last call
        parts = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
    text = json.dumps([parts, sorted(tokenizer.all_special_ids)], ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_description(folder):
    """The description of a whole store, or None where there is none or where it is damaged."""
    try:
        description = json.loads((folder / "store.json").read_text(encoding="utf-8"))
        checksum = description.pop("checksum")
        if checksum != _checksum(description):
            return None
        sizes = {name: (folder / name).stat().st_size for name in _FILES}
        return description if sizes == description["bytes"] else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _checksum(description):
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _explained(root):
    try:
        yield
    except UserError:
        raise
    except BrokenProcessPool as error:
        raise MachineError("a process that tokenises was killed, perhaps for memory: use fewer workers") from error
    except OSError as error:
        raise MachineError(
            f"the store of sentences in {root} cannot be written: {error}; free some space, or set HF_HOME elsewhere"
        ) from error


def _make(folder, documents, tokenizer, splitter, num_workers):
    for left in folder.parent.glob(f"{folder.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        description = _write(temporary, documents, tokenizer, splitter, num_workers)
        content = json.dumps(description | {"checksum": _checksum(description)}, indent=2) + "\n"
        with open(temporary / "store.json", "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one; who has it open keeps what it has open
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder, documents, tokenizer, splitter, num_workers):
    largest = max(tokenizer.get_vocab().values(), default=0)
    dtype = "uint16" if largest < 2**16 else "int32"
    counts, totals = [0, 0], [len(documents)] if hasattr(documents, "num_rows") else [None]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / name, "wb")) for name in _FILES]
        for file in files[1:]:
            file.write(bytes(8))  # the offset 0
        progress = stack.enter_context(datasets.utils.tqdm(total=totals[0], desc="tokenise", unit=" documents"))
        for ids, lengths, sentences in _encoded(documents, tokenizer, splitter, num_workers):
            files[0].write(ids.astype(dtype).tobytes())
            for file, number, sizes in zip(files[1:], counts, (lengths, sentences), strict=True):
                file.write((number + np.cumsum(sizes, dtype=np.int64)).tobytes())
            counts = [counts[0] + len(ids), counts[1] + len(lengths)]
            progress.update(len(sentences))
        for file in files:
            file.flush()
            os.fsync(file.fileno())
        sizes = {name: file.tell() for name, file in zip(_FILES, files, strict=True)}
        number = sizes["document_offsets"] // 8 - 1
    if not counts[0]:
        raise DataError(f"{number} documents with 0 tokens: the tokenizer made nothing of the text")
    return {
        "documents": number,
        "sentences": counts[1],
        "tokens": counts[0],
        "splitter": splitter,
        "dtype": dtype,
        "bytes": sizes,
    }


def _encoded(documents, tokenizer, splitter, num_workers):
    """(ids, length of each sentence, sentences of each document) of one batch of documents after the other."""
    batches = _batches(documents)
    if not num_workers or num_workers < 2:
        yield from (_encode(texts, tokenizer, splitter) for texts in batches)
        return
    method = "fork" if "fork" in get_all_start_methods() else "spawn"  # as DataLoader and datasets; starts at once
    options = dict(initializer=_begin_worker, initargs=(tokenizer, splitter))
    with ProcessPoolExecutor(num_workers, get_context(method), **options) as pool:
        waiting = deque()
        for texts in batches:
            waiting.append(pool.submit(_encode_in_worker, texts))
            if len(waiting) > 2 * num_workers:
                yield waiting.popleft().result()
        yield from (future.result() for future in waiting)


def _batches(documents):
    texts, characters = [], 0
    for rows in documents.select_columns(["text"]).iter(batch_size=100):
        for text in rows["text"]:
            texts.append(text)
            characters += len(text)
            if characters >= BATCH_CHARACTERS:
                yield texts
                texts, characters = [], 0
    if texts:
        yield texts


def _begin_worker(tokenizer, splitter):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    globals()["_worker"] = (tokenizer, splitter)


def _encode_in_worker(texts):
    return _encode(texts, *globals()["_worker"])


def _encode(texts, tokenizer, splitter):
    sentences = [SPLITTERS[splitter](text) for text in texts]
    flat = list(chain.from_iterable(sentences))
    ids = tokenizer(flat, return_attention_mask=False, verbose=False, **AS_TEXT)["input_ids"] if flat else []
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(flat))
    flat_ids = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(lengths.sum()))
    document = np.repeat(np.arange(len(texts)), [len(each) for each in sentences])
    kept = lengths > 0  # white space and control characters give no token
    return flat_ids, lengths[kept], np.bincount(document[kept], minlength=len(texts))
