"""The Transformer and Marian of transformers, the form of the Opus-MT models: same weights, same numbers and texts."""

import pytest
import torch
import transformers
from transformers import MarianConfig, MarianMTModel

from hftoolkit.convert import convert_folder, from_stock, to_stock
from hftoolkit.errors import CheckpointError
from hftoolkit.models.modeling_transformer import HftTransformerConfig, HftTransformerForConditionalGeneration

TOLERANCE = dict(rtol=1e-4, atol=1e-4)  # noise floor 1e-5
PAD = 98  # also what the decoder reads first, as in Opus-MT
SIZES = dict(vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=3, activation_function="swish", dropout=0.0)
SIZES |= dict(scale_embedding=True, pad_token_id=PAD, decoder_start_token_id=PAD, eos_token_id=0)
SIZES |= {
    f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("attention_heads", 4), ("ffn_dim", 40))
}
OURS = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40)
OURS |= dict(position_layout="halves", pad_token_id=PAD, eos_token_id=0)


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    tensors = [parameter for parameter in model.parameters() if parameter.requires_grad]  # not Marian's positions
    tensors += [buffer for name, buffer in model.named_buffers() if name == "final_logits_bias"]
    for tensor in tensors:
        tensor.data.add_(0.3 * torch.randn(tensor.shape, generator=generator))
    return model.eval()


def stock(**changes):
    torch.manual_seed(0)
    return randomise(MarianMTModel(MarianConfig(**SIZES | changes)))


def sentences(lengths=(9, 5, 1)):
    ids = torch.randint(1, 90, (len(lengths), max(lengths)), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)).long()
    return dict(input_ids=ids.masked_fill(mask == 0, PAD), attention_mask=mask)


def test_same_logits_loss_and_gradients():
    theirs = stock()
    ours, inputs = from_stock(theirs), sentences()
    labels = sentences((7, 6, 7))["input_ids"]
    labels = labels.masked_fill(labels == PAD, -100)
    mine, expected = ours.train()(**inputs, labels=labels, logits_to_keep=0), theirs.train()(**inputs, labels=labels)
    real = labels != -100
    torch.testing.assert_close(mine.logits[real], expected.logits[real], **TOLERANCE)
    torch.testing.assert_close(mine.loss, expected.loss, **TOLERANCE)
    for output in (mine, expected):
        output.loss.backward()
    pairs = [
        (ours.model.encoder.layers[0].self_attn.o_proj, theirs.model.encoder.layers[0].self_attn.out_proj),
        (ours.model.decoder.layers[2].cross_attn.k_proj, theirs.model.decoder.layers[2].encoder_attn.k_proj),
        (ours.model.encoder.embed_tokens, theirs.model.shared),
    ]
    for ours_part, theirs_part in pairs:
        left, right = ours_part.weight.grad.clone(), theirs_part.weight.grad.clone()
        left[PAD:], right[PAD:] = 0, 0  # torch keeps the embedding of the padding as it is: padding_idx
        torch.testing.assert_close(left, right, **TOLERANCE)


@pytest.mark.parametrize("options", [{}, dict(num_beams=4, length_penalty=0.6)], ids=["greedy", "beams"])
def test_same_translations(options):
    theirs, inputs = stock(), sentences()
    options = options | dict(max_new_tokens=12, do_sample=False, eos_token_id=None, forced_eos_token_id=None)
    texts = [model.generate(**inputs, **options, no_repeat_ngram_size=1) for model in (from_stock(theirs), theirs)]
    assert torch.equal(*texts)
    assert len(texts[0].unique()) > 8


def test_folders_convert_both_ways(tmp_path):
    theirs, ids = stock(), sentences((8, 8))["input_ids"]
    theirs.save_pretrained(tmp_path / "stock")
    convert_folder(tmp_path / "stock", tmp_path / "ours")
    ours = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    assert type(ours) is HftTransformerForConditionalGeneration
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back")
    assert type(back) is MarianMTModel
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.state_dict().items())
    for model in (ours, back):
        logits = model(ids, decoder_input_ids=ids).logits
        torch.testing.assert_close(logits, theirs(ids, decoder_input_ids=ids).logits, **TOLERANCE)
    assert ours.config.decoder_start_token_id == PAD
    assert ours.generation_config.decoder_start_token_id == PAD


def test_what_was_trained_here_without_a_bias_has_a_bias_of_zero_there():
    ours = randomise(HftTransformerForConditionalGeneration(HftTransformerConfig(**OURS)))
    theirs, ids = to_stock(ours), sentences((8, 8))["input_ids"]
    assert (theirs.final_logits_bias == 0).all()
    assert theirs.config.forced_eos_token_id == 0
    expected = ours(ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(theirs(ids, decoder_input_ids=ids).logits, expected, **TOLERANCE)
    again = from_stock(theirs)
    assert (again.lm_head.bias == 0).all()
    torch.testing.assert_close(again(ids, decoder_input_ids=ids).logits, expected, **TOLERANCE)


def test_longer_texts_than_marian_has_positions_for_go_on_here():
    theirs, ids = stock(max_position_embeddings=8), sentences((12,))["input_ids"]
    with pytest.raises(IndexError):
        theirs(ids, decoder_input_ids=ids)
    ours = from_stock(theirs)
    longer = to_stock(ours)  # with the default of 1024 positions
    expected = longer(ids, decoder_input_ids=ids).logits
    torch.testing.assert_close(ours(ids, decoder_input_ids=ids).logits, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(scale_embedding=False), "scale_embedding=False has no counterpart"),
        (dict(share_encoder_decoder_embeddings=False), "share_encoder_decoder_embeddings=False has no counterpart"),
        (dict(tie_word_embeddings=False), "tie_word_embeddings=False has no counterpart"),
        (dict(encoder_layerdrop=0.1), "encoder_layerdrop=0.1 has no counterpart"),
        (dict(decoder_attention_heads=2), "no encoder_attention_heads=4 beside decoder_attention_heads=2"),
        (dict(decoder_ffn_dim=24), "no encoder_ffn_dim=40 beside decoder_ffn_dim=24"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_ours_cannot_express_is_refused(changes, reason):
    with pytest.raises(CheckpointError, match=reason):
        from_stock(stock(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        *(dict(norm_position="pre"), dict(position_layout="interleaved")),
        *(dict(layer_norm_eps=1e-6), dict(tie_word_embeddings=False)),
    ],
    ids=str,
)
def test_what_marian_cannot_express_is_refused(changes):
    ((name, value),) = changes.items()
    with pytest.raises(CheckpointError, match=rf"Marian of transformers is {name}=.* only, but here it is {value!r}"):
        to_stock(HftTransformerForConditionalGeneration(HftTransformerConfig(**OURS | changes)))
