"""Small recurrent encoder-decoders of every kind, for the tests of what they compute and of how they write."""

import torch
from small_models import PAD, VOCAB, randomise

from hftoolkit.models.modeling_seq2seq import HftSeq2SeqConfig, HftSeq2SeqForConditionalGeneration

SIZES = dict(vocab_size=VOCAB, hidden_size=16, embedding_dropout_prob=0.0, hidden_dropout_prob=0.0, pad_token_id=PAD)
KINDS = {
    "sutskever": dict(attention_type="none", bidirectional=False, reverse_source=True, num_hidden_layers=2),
    "bahdanau": dict(attention_type="additive", cell_type="gru", bridge="dense"),
    "dot": dict(attention_type="dot", bidirectional=False, num_hidden_layers=2),
    "general": dict(attention_type="general", cell_type="gru", num_hidden_layers=2, num_decoder_layers=1),
    "concat": dict(attention_type="concat", cell_type="rnn"),
    "general_feeding": dict(attention_type="general", input_feeding=True, num_hidden_layers=2),
    "untied": dict(attention_type="additive", embedding_size=12, tie_word_embeddings=False, num_hidden_layers=2),
}


def small(kind, seed=0, **changes):
    torch.manual_seed(seed)
    config = HftSeq2SeqConfig(**SIZES | KINDS[kind] | changes)
    return randomise(HftSeq2SeqForConditionalGeneration(config), seed)
