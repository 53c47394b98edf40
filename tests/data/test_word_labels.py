"""Labels at first sub-words: every word has one, wherever its sentence is split."""

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hftoolkit.arguments import ExampleArguments
from hftoolkit.data.tagging import load_tagged
from hftoolkit.data.word_labels import (
    NO_LABEL,
    describe_rows,
    first_subwords,
    label_first_subwords,
    label_names,
    split_words,
)
from hftoolkit.errors import DataError
from hftoolkit.tokenization import train_tokenizer

KINDS = ("wordpiece", "unigram", "byte_bpe", "byte")


@pytest.fixture(scope="module")
def sentences():
    return load_tagged(ExampleArguments(builtin_examples=60))["train"]


@pytest.fixture(scope="module")
def tokenizers(sentences):
    texts = [" ".join(words) for words in sentences["tokens"]]
    return {kind: train_tokenizer(kind, texts, vocab_size=300) for kind in KINDS}


@pytest.mark.parametrize("max_length", [9, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_every_word_has_its_label_once(sentences, tokenizers, kind, max_length):
    """Also where 9 tokens force sentences apart; the label is that of the word."""
    labels = label_names(sentences, "ner")
    rows = label_first_subwords(sentences, tokenizers[kind], labels, max_length=max_length)
    assert max(map(len, rows["input_ids"])) <= max_length
    seen = [[] for _ in range(len(sentences))]
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) == len(row["words"]) == len(row["attention_mask"])
        for label, word in zip(row["labels"], row["words"], strict=True):
            assert (label == NO_LABEL) == (word < 0)
            if word >= 0:
                assert labels[label] == sentences[row["sentence"]]["tags"][word]
                seen[row["sentence"]].append(word)
    assert seen == [list(range(len(words))) for words in sentences["tokens"]]
    assert list(rows["sentence"]) == sorted(rows["sentence"])
    if max_length == 9:
        assert describe_rows(sentences, rows, labels)["sentences_split"] == len(rows) - len(sentences) > 20


def test_the_label_stands_at_the_first_subword():
    tokenizer = train_tokenizer("wordpiece", ["a b c d e"], vocab_size=60)
    one = Dataset.from_list([{"tokens": ["abc", "d"], "tags": ["B-X", "O"], "converted": 0}])
    rows = label_first_subwords(one, tokenizer, ["O", "B-X", "I-X"])
    assert tokenizer.convert_ids_to_tokens(rows[0]["input_ids"]) == ["[CLS]", "a", "##b", "##c", "d", "[SEP]"]
    assert rows[0]["labels"] == [-100, 1, -100, -100, 0, -100]
    assert first_subwords([(0, 0), (0, 1), (1, 3), (3, 5), (0, 0)], ["abc", "d"]).tolist() == [-1, 0, -1, 1, -1]


def test_words_without_token_and_unknown_tags_are_counted(tokenizers):
    odd = ["\x07", "Anna", "\u200b", "\ufffd", "\u0301"]
    one = Dataset.from_list([{"tokens": odd, "tags": ["O", "B-PER", "B-XX", "O", "O"], "converted": 0}])
    rows = label_first_subwords(one, tokenizers["wordpiece"], ["O", "B-PER", "I-PER"])
    counts = describe_rows(one, rows, ["O", "B-PER", "I-PER"])
    assert counts["words_without_token"] == 5 - sum(word >= 0 for word in rows[0]["words"]) >= 2
    assert counts["words_with_unknown_tag"] == 1
    assert 1 in rows[0]["labels"] and 1 in rows[0]["words"]


def test_a_word_longer_than_a_row_keeps_its_label(tokenizers):
    one = Dataset.from_list([{"tokens": ["a", "x" * 50, "b"], "tags": ["O", "B-PER", "O"], "converted": 0}])
    rows = label_first_subwords(one, tokenizers["byte"], ["O", "B-PER"], max_length=12)
    assert [[word for word in words if word >= 0] for words in rows["words"]] == [[0], [1], [2]]
    assert describe_rows(one, rows, ["O", "B-PER"])["words_shortened"] == 1


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.integers(1, 12))
def test_splits_hold_all_words_in_order_and_fit(sizes, room):
    stretches = split_words(sizes, room)
    assert [place for start, stop in stretches for place in range(start, stop)] == list(range(len(sizes)))
    for (start, stop), following in zip(stretches, [*stretches[1:], None], strict=True):
        assert sum(sizes[start:stop]) <= room or stop == start + 1
        if following is not None:  # no stretch ends before it must
            assert sum(sizes[start : stop + 1]) > room


def test_settings_that_leave_no_room(sentences, tokenizers):
    with pytest.raises(DataError, match="max_length 2 leaves no room"):
        label_first_subwords(sentences, tokenizers["wordpiece"], ["O"], max_length=2)


def test_label_names():
    rows = Dataset.from_list([{"tags": ["O", "I-PER", "B-LOC"]}, {"tags": []}])
    assert label_names(rows, "ner") == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    assert label_names(Dataset.from_list([{"tags": ["V", "N", "V"]}]), "pos") == ["N", "V"]
    assert np.unique(label_names(rows, "ner")).size == 5
