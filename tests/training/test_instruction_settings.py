"""Templates of conversations, settings that follow from the data, and models that have another place."""

import json
from types import SimpleNamespace

import pytest

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.tokenization import train_tokenizer
from hftoolkit.tokenization.chat import CHAT_TEMPLATE, TURN_START
from hftoolkit.training.instruction_settings import check_settings, prepare_for_chat, require_decoder


@pytest.fixture
def tokenizer():
    return train_tokenizer("byte_bpe", ["Anna took the lamp."] * 5, 270)


def test_a_tokenizer_gets_the_template_once(tokenizer):
    size = len(tokenizer)
    assert prepare_for_chat(tokenizer) == [size] == [tokenizer.convert_tokens_to_ids(TURN_START)]
    assert tokenizer.chat_template == CHAT_TEMPLATE and len(tokenizer) == size + 1
    assert tokenizer(TURN_START)["input_ids"] == [size]
    assert prepare_for_chat(tokenizer) == [] and len(tokenizer) == size + 1


def test_a_template_of_its_own_stays(tokenizer):
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    size = len(tokenizer)
    assert prepare_for_chat(tokenizer) == [] and len(tokenizer) == size
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"


def test_other_special_tokens_stay(tokenizer):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<tool>"]})
    prepare_for_chat(tokenizer)
    assert {"<tool>", TURN_START} <= set(tokenizer.all_special_tokens)


def arguments(**given):
    values = {"eos_token": None, "assistant_only_loss": False, "chat_template_path": None} | given
    return SimpleNamespace(**values, given_arguments=given)


def test_what_is_scored_follows_from_the_data(tokenizer):
    for given, conversational, expected in (
        ({}, True, True),
        ({}, False, False),
        ({"assistant_only_loss": False}, True, False),
    ):
        settings = arguments(**given)
        check_settings(settings, tokenizer, conversational)
        assert settings.assistant_only_loss is expected
    with pytest.raises(DataError, match="needs conversations"):
        check_settings(arguments(assistant_only_loss=True), tokenizer, False)


def test_a_template_from_a_file(tokenizer, tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}")
    check_settings(arguments(chat_template_path=str(file)), tokenizer, True)
    assert tokenizer.chat_template == file.read_text() and prepare_for_chat(tokenizer) == []
    file.write_text("{% for m in messages %}")
    with pytest.raises(DataError, match="mine.jinja: the chat template is wrong"):
        check_settings(arguments(chat_template_path=str(file)), tokenizer, True)
    for absent in (tmp_path / "absent.jinja", tmp_path):
        with pytest.raises(DataError, match="there is no file .* with the suffix .jinja"):
            check_settings(arguments(chat_template_path=str(absent)), tokenizer, True)


def test_an_end_is_needed(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="the tokenizer has no eos_token"):
        check_settings(arguments(), tokenizer, False)
    check_settings(arguments(eos_token="!"), tokenizer, False)


@pytest.mark.parametrize("config", [{"model_type": "bart", "is_encoder_decoder": True}, {"model_type": "hft_t5"}])
def test_encoder_decoders_are_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"'{config['model_type']}'.*finetune_t5"):
        require_decoder(SimpleNamespace(model_name_or_path=str(tmp_path), revision=None))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    require_decoder(SimpleNamespace(model_name_or_path=str(tmp_path), revision=None))
    require_decoder(SimpleNamespace(model_name_or_path=None, architecture="gpt"))
    require_decoder(SimpleNamespace(model_name_or_path=str(tmp_path / "absent"), revision=None))  # load_model says it
