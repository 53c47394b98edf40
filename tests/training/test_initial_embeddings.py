"""Word vectors from a file as the first embeddings of a model: what they are given to, and what not."""

import pytest
import torch

from hftoolkit.errors import DataError
from hftoolkit.models.modeling_elmo import HftElmoConfig, HftElmoForTokenClassification
from hftoolkit.models.modeling_seq2seq import HftSeq2SeqConfig, HftSeq2SeqForConditionalGeneration
from hftoolkit.tokenization import train_tokenizer
from hftoolkit.tokenization.character_ids import character_tokenizer
from hftoolkit.training.initial_embeddings import InitialEmbeddings

WORDS = ["a", "lamp"]
ELMO = dict(character_size=4, filter_widths=[1], filter_counts=[4], hidden_size=8, projection_size=4)


@pytest.fixture
def vectors(tmp_path):
    (tmp_path / "vectors.txt").write_text("a 1 2 3 4\nlamp 5 6 7 8\n")
    return tmp_path / "vectors.txt"


def test_the_bytes_of_elmo_are_no_words(vectors):
    """A letter is a byte there, and a word in the file: nothing may be overwritten."""
    model = HftElmoForTokenClassification(HftElmoConfig(**ELMO))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match="words of HftElmoForTokenClassification are made of characters: leave out"):
        InitialEmbeddings(vectors, character_tokenizer()).given_to(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("freeze", [False, True])
def test_both_sides_of_an_encoder_decoder_get_them(vectors, freeze):
    """Its encoder and decoder, and with a tied matrix the output layer, have one matrix."""
    tokenizer = train_tokenizer("word", ["a lamp of brass"], 20, progress=False)
    model = HftSeq2SeqForConditionalGeneration(HftSeq2SeqConfig(vocab_size=len(tokenizer), hidden_size=4))
    found = InitialEmbeddings(vectors, tokenizer)
    assert found.given_to(model, freeze) is found and found.facts["embeddings"].startswith("2 of 4 words from")
    ids = tokenizer.convert_tokens_to_ids(WORDS)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight[ids].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert model.lm_head.weight.requires_grad != freeze
