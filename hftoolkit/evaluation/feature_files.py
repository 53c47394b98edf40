"""Files of features: Parquet, a row for each text, or safetensors, one matrix.

a.parquet      columns text, pieces (tokens or words; not for whole texts), vectors
a.safetensors  vectors (all pieces of all texts, D) and first_rows (texts + 1): the pieces of text i are
               vectors[first_rows[i] : first_rows[i + 1]]; beside it a.jsonl with text and pieces of each text

A file has its name only when it is whole.
"""

import json
import os
from pathlib import Path

import numpy as np

from hftoolkit.errors import DataError, MachineError

SUFFIXES = (".parquet", ".safetensors")
ROWS_AT_ONCE = 200


def write_features(path, features, *, unit, half=False, metadata=None):
    """Write what features gives.

    Args:
        path: ends with one of SUFFIXES.
        features: iterable of (text, pieces, vectors (N, D)); N is 1 where unit is "sentence".
        half: float16 instead of float32.
        metadata: {name: text} for the file.

    Returns:
        Counts: texts, vectors, size of a vector, and the pieces without a vector (all zeros), where there are.

    Raises:
        DataError: another suffix, or not a single text.
        MachineError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: features are written to {' or '.join(SUFFIXES)}")
    write = _write_parquet if path.suffix == ".parquet" else _write_safetensors
    counts, temporary = {"texts": 0, "vectors": 0, "size": 0, "zero_vectors": 0}, path.with_name(f".tmp-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary, path, _counted(features, counts, half), unit, metadata or {})
        os.replace(temporary, path)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error}") from error
    finally:
        for left in (temporary, temporary.with_suffix(".jsonl")):
            if left.exists():
                left.unlink()
    return {name: number for name, number in counts.items() if number or name != "zero_vectors"}


def _counted(features, counts, half):
    for text, pieces, vectors in features:
        counts["texts"] += 1
        counts["vectors"] += len(vectors)
        counts["size"] = vectors.shape[1]
        counts["zero_vectors"] += int((~vectors.any(axis=1)).sum())
        yield text, pieces, vectors.astype(np.float16 if half else np.float32)
    if not counts["texts"]:
        raise DataError("there is not a single text")


def _write_parquet(temporary, path, features, unit, metadata):
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer, rows = None, []
    try:
        for row in features:
            rows.append(row)
            if len(rows) == ROWS_AT_ONCE:
                writer = _write_rows(pa, pq, writer, temporary, rows, unit, metadata)
                rows = []
        if rows:
            writer = _write_rows(pa, pq, writer, temporary, rows, unit, metadata)
    finally:
        if writer is not None:
            writer.close()


def _write_rows(pa, pq, writer, temporary, rows, unit, metadata):
    texts, pieces, vectors = zip(*rows, strict=True)
    size, flat = vectors[0].shape[1], pa.array(np.concatenate(vectors).ravel())
    matrix = pa.FixedSizeListArray.from_arrays(flat, size)
    columns = {"text": pa.array(texts)}
    if unit == "sentence":
        columns["vectors"] = matrix
    else:
        first_rows = pa.array(np.cumsum([0, *map(len, vectors)]), pa.int32())
        columns |= {"pieces": pa.array(pieces, pa.list_(pa.string()))}
        columns["vectors"] = pa.ListArray.from_arrays(first_rows, matrix)
    table = pa.table(columns).replace_schema_metadata(metadata)
    writer = pq.ParquetWriter(temporary, table.schema) if writer is None else writer
    writer.write_table(table)
    return writer


def _write_safetensors(temporary, path, features, unit, metadata):
    from safetensors.numpy import save_file

    matrices, listed = [], path.with_suffix(".jsonl")
    with temporary.with_suffix(".jsonl").open("w", encoding="utf-8", newline="\n") as lines:
        for text, pieces, vectors in features:
            matrices.append(vectors)
            row = {"text": text} | ({} if unit == "sentence" else {"pieces": pieces})
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    first_rows = np.cumsum([0, *map(len, matrices)], dtype=np.int64)
    save_file({"vectors": np.concatenate(matrices), "first_rows": first_rows}, temporary, metadata)
    os.replace(temporary.with_suffix(".jsonl"), listed)
