"""Loading: new models get every field checked, saved ones are checked before they are believed."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from hftoolkit.arguments import ModelArguments
from hftoolkit.errors import CheckpointError, DataError, HubError
from hftoolkit.loading import load_model, load_tokenizer
from hftoolkit.tokenization import train_tokenizer

SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=12)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("byte", None)


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """A model folder with its tokenizer."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    load_model(AutoModelForCausalLM, new(), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def new(**config):
    return ModelArguments(architecture="gpt", model_config=SIZES | config)


def old(folder, **changes):
    return ModelArguments(model_name_or_path=str(folder), **changes)


def copy_of(folder, destination):
    for file in folder.iterdir():
        (destination / file.name).write_bytes(file.read_bytes())
    return destination


def test_a_new_model_takes_its_vocabulary_from_the_tokenizer(tokenizer):
    model = load_model(AutoModelForCausalLM, new(norm_order="post"), tokenizer)
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert type(model.model.layers[0]).__name__ == "PostNormBlock"
    assert model.dtype == torch.float32


def test_fields_of_the_recipe_give_way_to_the_users(tokenizer):
    model = load_model(AutoModelForCausalLM, new(), tokenizer, max_position_embeddings=99)
    assert model.config.max_position_embeddings == 12


def test_a_misspelt_size_is_refused(tokenizer):
    with pytest.raises(CheckpointError, match=r"hft_gpt has no config key \['hiden_size'\]"):
        load_model(AutoModelForCausalLM, new(hiden_size=8), tokenizer)


def test_an_impossible_size_is_one_line(tokenizer):
    with pytest.raises(CheckpointError, match="model_config of hft_gpt: hidden_size 10 must be a multiple"):
        load_model(AutoModelForCausalLM, new(hidden_size=10, num_attention_heads=3), tokenizer)


def test_unknown_architecture():
    with pytest.raises(CheckpointError, match="no architecture 'gtp'; known: gpt"):
        load_model(AutoModelForCausalLM, ModelArguments(architecture="gtp"))


def test_a_saved_model_loads_with_any_head(saved, tokenizer):
    theirs = load_model(AutoModelForCausalLM, old(saved), tokenizer)
    ours = load_model(AutoModelForSequenceClassification, old(saved), tokenizer)
    assert torch.equal(theirs.model.embed_tokens.weight, ours.model.embed_tokens.weight)
    assert load_tokenizer(old(saved))("ab")["input_ids"] == tokenizer("ab")["input_ids"]


def test_f18_a_tokenizer_larger_than_the_model(saved):
    larger = train_tokenizer("byte", None)
    larger.add_tokens(["<one>", "<two>"])
    with pytest.raises(DataError, match=r"the tokenizer has \d+ tokens, but the model's vocab_size is \d+: .*resize"):
        load_model(AutoModelForCausalLM, old(saved), larger)


def test_a_truncated_checkpoint_is_refused(saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_model(AutoModelForCausalLM, old(folder))


def test_f32_weights_that_are_not_finite_are_refused(saved, tmp_path):
    model = load_model(AutoModelForCausalLM, old(saved))
    model.model.norm.weight.data[3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="model.norm.weight"):
        load_model(AutoModelForCausalLM, old(tmp_path))


def test_a_head_the_architecture_does_not_have(saved):
    from transformers import AutoModelForMaskedLM

    with pytest.raises(CheckpointError, match="cannot be loaded as AutoModelForMaskedLM"):
        load_model(AutoModelForMaskedLM, old(saved))


def test_f60_a_foreign_architecture_needs_the_flag(saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "somebody_elses"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="trust_remote_code"):
        load_model(AutoModelForCausalLM, old(folder))


def test_the_kinds_of_tokenizer_and_their_errors(tmp_path):
    arguments = new()
    with pytest.raises(DataError, match="name a --tokenizer"):
        load_tokenizer(arguments)
    arguments.tokenizer, arguments.tokenizer_vocab_size = "byte_bpe", 300
    with pytest.raises(DataError, match="no training texts"):
        load_tokenizer(arguments)
    trained = load_tokenizer(arguments, ["low lower lowest"] * 20, max_length=77)
    assert trained.model_max_length == 77
    arguments.tokenizer = str(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be loaded as AutoTokenizer"):
        load_tokenizer(arguments)


@pytest.mark.parametrize(("source", "why"), [("byte", "bytes are all kept"), ("folder", "it has its vocabulary")])
def test_a_min_count_that_says_nothing_is_refused(tmp_path, source, why):
    arguments = new()
    arguments.tokenizer = source if source == "byte" else str(tmp_path)
    with pytest.raises(DataError, match=f"min_count 2 does not apply to the tokenizer .*{why}: set min_count to 1"):
        load_tokenizer(arguments, ["low lower"] * 3, min_count=2)


def test_a_min_count_that_leaves_no_words_is_refused_by_its_name():
    arguments = new()
    arguments.tokenizer = "word"
    with pytest.raises(
        DataError, match="^min_count 9 leaves none of the 2 .* 6 times, and min_count 3 would keep 2 words"
    ):
        load_tokenizer(arguments, ["low low lower"] * 3, min_count=9)


def test_f56_offline_is_said_in_one_line():
    with pytest.raises(HubError, match="could not load nobody/nothing from the Hub: HF_HUB_OFFLINE=1"):
        load_model(AutoModelForCausalLM, old("nobody/nothing"))
