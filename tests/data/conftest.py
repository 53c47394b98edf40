"""Write small files; load them."""

import datasets
import pytest

from hftoolkit.arguments import DataArguments
from hftoolkit.data.text import load_documents

datasets.disable_progress_bars()


@pytest.fixture
def write(tmp_path):
    """A function that makes files, {"a.txt": text or bytes}, and returns their folder."""

    def write_files(files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write_files


@pytest.fixture
def load():
    """A function that loads a source and returns its texts by split."""

    def load_texts(source, **options):
        splits = load_documents(DataArguments(dataset=str(source), **options))
        return {name: [row["text"] for row in split] for name, split in splits.items()}

    return load_texts
