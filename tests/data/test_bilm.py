"""Rows of a bidirectional language model: bytes, and each word's neighbours."""

import pytest
import torch
from datasets import Dataset

from hftoolkit.data.bilm import (
    BilmCollator,
    WordBatches,
    bilm_rows,
    describe_rows,
    frequent_words,
    split_words,
    vocabulary_of,
)
from hftoolkit.errors import DataError, HubError

SPECIAL = {"<S>": 256, "</S>": 257}
VOCABULARY = ["an", "ox", "</S>", "<S>", "<UNK>"]


def test_the_example_of_the_docstring():
    (row,) = bilm_rows([["an", "ox"]], VOCABULARY, SPECIAL)
    assert row["input_ids"] == [256, 32, 97, 110, 32, 111, 120, 257]
    assert row["labels"] == [0, 1, -100, -100, 2, -100, -100, -100]
    assert row["backward_labels"] == [-100, 3, -100, -100, 0, -100, -100, 1]
    assert row["words"] == [3, 0, 1, 2] and row["length"] == 4


def test_long_sentences_are_cut_and_nothing_is_predicted_across():
    words = [f"w{number}" for number in range(10)]
    vocabulary = [*words, "<S>", "</S>", "<UNK>"]
    rows = bilm_rows([words, ["w1"]], vocabulary, SPECIAL, max_words=5)
    assert [row["length"] for row in rows] == [5, 5, 2, 3]
    assert sum((row["words"] for row in rows), []) == [10, *range(10), 11, 10, 1, 11]
    for row in rows:
        assert [label for label in row["labels"] if label != -100] == row["words"][1:]
        assert [label for label in row["backward_labels"] if label != -100] == row["words"][:-1]
    assert [row["length"] for row in bilm_rows([words], vocabulary, SPECIAL, max_words=11)] == [
        11
    ]  # </S> alone is none


def test_words_fall_in_frequency_and_the_rest_is_unknown():
    sentences = [["b", "a", "b"], ["b", "c", "d"], ["a"]]
    assert frequent_words(sentences, 5) == ["</S>", "<S>", "b", "<UNK>", "a"]
    whole = frequent_words(sentences, 100)
    assert whole[-1] == "<UNK>" and set(whole) == {"a", "b", "c", "d", "<S>", "</S>", "<UNK>"}
    rows = bilm_rows(sentences, frequent_words(sentences, 5), SPECIAL)
    assert describe_rows(sentences, rows, frequent_words(sentences, 5)) == {
        "sentences": 3, "rows": 3, "words": 7, "unknown_words": 2,
    }  # fmt: skip


@pytest.mark.parametrize("sentences", [[], [["a", "a"]]], ids=str)
def test_a_text_with_nothing_to_predict_is_refused(sentences):
    with pytest.raises(DataError, match="different words"):
        frequent_words(sentences, 9)


def test_no_rows_at_all_are_refused():
    with pytest.raises(DataError, match="no sentence"):
        bilm_rows([], VOCABULARY, SPECIAL)


def test_documents_are_split_into_sentences_of_words():
    documents = Dataset.from_dict({"text": ["An ox. It ran.\n\nOff", "  "]})
    assert split_words(documents, str.split) == [["An", "ox."], ["It", "ran."], ["Off"]]


def test_rows_are_padded_on_the_right():
    rows = [bilm_rows([words], VOCABULARY, SPECIAL)[0] for words in (["an", "ox"], ["ox"])]
    batch = BilmCollator(260)(rows)
    assert batch["input_ids"][1].tolist() == [256, 32, 111, 120, 257, 260, 260, 260]
    assert batch["attention_mask"].sum(1).tolist() == [8, 5]
    assert batch["labels"][1, 5:].tolist() == batch["backward_labels"][1, 5:].tolist() == [-100] * 3
    assert all(values.dtype == torch.int64 for values in batch.values())


def test_batches_hold_sentences_of_like_length():
    sentences = [["ox"] * (1 + number % 7) for number in range(40)]
    rows = bilm_rows(sentences, VOCABULARY, SPECIAL)
    batches = WordBatches(rows, words_per_batch=30)
    found = [[row["length"] for row in batches[number]] for number in range(len(batches))]
    assert sorted(sum(found, [])) == sorted(rows["length"])
    assert all(max(lengths) - min(lengths) <= 2 and 20 < sum(lengths) < 40 for lengths in found[:-1])
    other = WordBatches(rows, words_per_batch=30, seed=1)
    assert [list(batch) for batch in batches.batches] != [list(batch) for batch in other.batches]
    batch = BilmCollator(260)([batches[3]])
    assert len(batch["input_ids"]) == len(found[3])


def test_a_model_keeps_its_vocabulary(tmp_path):
    """Words counted anew would have other numbers; a model without its words is refused."""
    with pytest.raises(DataError, match="has no vocabulary.txt, the words behind the numbers .* must lie beside it"):
        vocabulary_of(tmp_path)
    (tmp_path / "vocabulary.txt").write_text("x\ny")
    assert vocabulary_of(tmp_path) == ["x", "y"]


def test_the_vocabulary_of_a_model_on_the_hub(tmp_path, monkeypatch):
    """Fetched at the revision of the model; a repository without it is told from a Hub that cannot be reached."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    with pytest.raises(HubError, match="could not load nobody/elmo from the Hub: HF_HUB_OFFLINE=1"):
        vocabulary_of("nobody/elmo")
    (tmp_path / "vocabulary.txt").write_text("x\ny\n")
    there = {("alice/elmo", "vocabulary.txt", "v2"): str(tmp_path / "vocabulary.txt")}

    def download(repository, name, revision=None):
        if (repository, name, revision) not in there:
            raise EntryNotFoundError("404")
        return there[repository, name, revision]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert vocabulary_of("alice/elmo", "v2") == ["x", "y"]
    with pytest.raises(DataError, match="alice/elmo has no vocabulary.txt"):
        vocabulary_of("alice/elmo")
