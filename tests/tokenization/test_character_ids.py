"""The tokenizer of models that read characters."""

import pytest
from transformers import AutoTokenizer

from hftoolkit.tokenization.character_ids import SPECIAL, character_tokenizer, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('Yes, a "U.S." ox.', ["Yes", ",", "a", '"', "U.S", '."', "ox", "."]),
        ("don't stop... (at 3.5)!", ["don't", "stop", "...", "(", "at", "3.5", ")!"]),
        ("  two\n lines\t", ["two", "lines"]),
        ("a , b .", ["a", ",", "b", "."]),
        ("", []),
    ],
)
def test_words_and_the_punctuation_at_their_edges(text, words):
    tokenizer = character_tokenizer()
    assert words_of(tokenizer, text) == words
    ids = [256, *(byte for word in words for byte in [32, *word.encode()]), 257]
    assert tokenizer(text)["input_ids"] == ids
    assert words_of(character_tokenizer(split_punctuation=False), text) == text.split()


def test_every_byte_is_its_own_id_and_the_ends_are_special():
    tokenizer = character_tokenizer()
    assert tokenizer("é\U0001f600")["input_ids"] == [256, 32, *"é\U0001f600".encode(), 257]
    assert tokenizer.convert_ids_to_tokens(range(256, 261)) == list(SPECIAL)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (256, 257, 260)
    assert tokenizer.decode(tokenizer("naïve, no?")["input_ids"], skip_special_tokens=True) == " naïve , no ?"
    assert tokenizer("<S> x")["input_ids"][1] == 256  # a special token in a text stays one


def test_tokens_know_their_words_and_characters():
    encoded = character_tokenizer()(["café, a"], return_offsets_mapping=True)
    assert encoded.word_ids(0) == [None, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, None]
    assert encoded["offset_mapping"][0][5:8] == [(3, 4), (3, 4), (4, 5)]


def test_given_words_stay_whole_but_for_punctuation():
    encoded = character_tokenizer()([["ab", "c."]], is_split_into_words=True)
    assert encoded["input_ids"] == [[256, 32, 97, 98, 32, 99, 32, 46, 257]]
    assert encoded.word_ids(0) == [None, 0, 0, 0, 1, 1, 1, 1, None]


def test_it_is_saved_and_loaded_by_transformers(tmp_path):
    tokenizer = character_tokenizer(model_max_length=99)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded('So, "so".')["input_ids"] == tokenizer('So, "so".')["input_ids"] and loaded.model_max_length == 99
    assert loaded.is_fast and loaded("a", "b")["input_ids"] == [256, 32, 97, 257, 256, 32, 98, 257]
