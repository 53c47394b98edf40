"""A loaded model gets the head of its task; what was fine-tuned for something else is refused."""

import logging

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForPreTraining
from transformers import BertForSequenceClassification as Classifier

from hftoolkit.arguments import ModelArguments
from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.loading import load_model

SIZES = dict(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
NAMES = {"id2label": {0: "no", 1: "yes", 2: "open"}, "label2id": {"no": 0, "yes": 1, "open": 2}}


def load(folder, **fields):
    return load_model(AutoModelForSequenceClassification, ModelArguments(model_name_or_path=str(folder)), **fields)


def test_a_pretrained_checkpoint_gets_the_head_of_the_task(tmp_path):
    pretrained = BertForPreTraining(BertConfig(**SIZES))
    pretrained.save_pretrained(tmp_path)
    model = load(tmp_path, num_labels=3, problem_type="single_label_classification", **NAMES)
    assert model.classifier.weight.shape == (3, 8)
    assert model.config.id2label == NAMES["id2label"] and model.config.label2id == NAMES["label2id"]
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert model.state_dict()[query].equal(pretrained.state_dict()[query])


@pytest.mark.parametrize("classes", [11, 2])
def test_a_model_fine_tuned_for_other_classes_is_refused(tmp_path, classes):
    Classifier(BertConfig(**SIZES, num_labels=classes)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"with {classes} classes, but this task has 3: .*AutoModel.from_pretr"):
        load(tmp_path, num_labels=3)


def test_the_same_number_of_classes_keeps_the_head(tmp_path):
    fine_tuned = Classifier(BertConfig(**SIZES, num_labels=3))
    fine_tuned.save_pretrained(tmp_path)
    assert load(tmp_path, num_labels=3).classifier.weight.equal(fine_tuned.classifier.weight)


def altered(folder, name, rows):
    """A pretraining checkpoint in which one tensor has another number of rows."""
    BertForPreTraining(BertConfig(**SIZES)).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights[name] = weights["bert.pooler.dense.weight"][:1].expand(rows, 8).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_a_head_of_another_size_in_a_pretraining_checkpoint_is_made_new(tmp_path, caplog):
    altered(tmp_path, "classifier.weight", 11)
    logging.getLogger("transformers").addHandler(caplog.handler)
    model = load(tmp_path, num_labels=2)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    assert model.classifier.weight.shape == (2, 8) and "classifier.weight" in caplog.text


def test_an_encoder_of_another_size_is_not(tmp_path):
    altered(tmp_path, "bert.embeddings.word_embeddings.weight", 11)
    with pytest.raises(
        CheckpointError, match=r"word_embeddings.weight is \(11, 8\), but its config.json says \(20, 8\)"
    ):
        load(tmp_path, num_labels=2)


def test_a_length_that_a_checkpoint_cannot_read_is_refused(tmp_path):
    Classifier(BertConfig(**SIZES, max_position_embeddings=16)).save_pretrained(tmp_path)
    assert load(tmp_path, max_position_embeddings=16).config.max_position_embeddings == 16
    with pytest.raises(DataError, match="max_length is 17, but .* reads at most 16 tokens"):
        load(tmp_path, max_position_embeddings=17)
