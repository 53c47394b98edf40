"""What stands between TRL's trainer and a run: templates, settings that follow from the data, kept reports."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.tokenization import train_tokenizer
from hftoolkit.tokenization.chat import CHAT_TEMPLATE, TURN_START
from hftoolkit.training.instructions import (
    AnswerEvaluation,
    ReportedMeans,
    check_settings,
    prepare_for_chat,
    require_decoder,
)


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
    values = {"eos_token": None, "assistant_only_loss": False} | given
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


def test_an_end_is_needed(tokenizer):
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="the tokenizer has no eos_token"):
        check_settings(arguments(), tokenizer, False)
    check_settings(arguments(eos_token="!"), tokenizer, False)


@pytest.mark.parametrize("config", [{"model_type": "bart", "is_encoder_decoder": True}, {"model_type": "hft_t5"}])
def test_encoder_decoders_are_refused(tmp_path, config):
    import json

    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"'{config['model_type']}'.*finetune_t5"):
        require_decoder(SimpleNamespace(model_name_or_path=str(tmp_path), revision=None))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    require_decoder(SimpleNamespace(model_name_or_path=str(tmp_path), revision=None))
    require_decoder(SimpleNamespace(model_name_or_path=None, architecture="gpt"))
    require_decoder(SimpleNamespace(model_name_or_path=str(tmp_path / "absent"), revision=None))  # load_model says it


class Base:
    """What AnswerEvaluation reads of an SFTTrainer."""

    def __init__(self, rows=None):
        self.callback_handler = SimpleNamespace(callbacks=[])
        self._metrics, self._total_train_tokens = {"train": {}}, 0

    def add_callback(self, callback):
        self.callback_handler.callbacks.append(callback)

    def training_step(self, number):
        self._total_train_tokens += 10
        self._metrics["train"].setdefault("entropy", []).append(float(number))
        return number


class Trainer(AnswerEvaluation, Base):
    pass


def test_reports_are_kept_and_taken_from_a_checkpoint():
    """A run that is broken off between two reports reports the mean of all its steps, and counts on."""
    trainer = Trainer()
    trainer.training_step(1)
    trainer.training_step(2)
    kept = ReportedMeans.of(trainer).state()
    assert kept == {"args": {}, "attributes": {"means": {"entropy": [1.0, 2.0]}, "tokens": 20}}
    trainer._metrics["train"].clear()  # as TRL does when it reports
    assert ReportedMeans.of(trainer).state()["attributes"]["means"] == {}
    resumed = Trainer()
    restored = ReportedMeans(**kept["args"])
    for name, value in kept["attributes"].items():
        setattr(restored, name, value)
    resumed.callback_handler.callbacks = [restored]
    resumed.training_step(3)
    assert resumed._metrics["train"] == {"entropy": [1.0, 2.0, 3.0]} and resumed._total_train_tokens == 30
    resumed.training_step(4)
    assert resumed._metrics["train"] == {"entropy": [1.0, 2.0, 3.0, 4.0]}


def test_what_trl_must_still_have():
    """The private names that are used here, and that a new TRL may have renamed."""
    from trl import SFTTrainer

    source = inspect.getsource(SFTTrainer)
    for name in ("_total_train_tokens", '_metrics = {"train"', "fused_lm_head=True", "add_fused_lm_head("):
        assert name in source, name
    assert callable(SFTTrainer._send_telemetry) and callable(SFTTrainer.create_model_card)


def test_a_wrapped_output_layer_shows_its_bias():
    """PEFT's wrapper of tied embeddings has none to show, and TRL asks."""
    from peft import LoraConfig, get_peft_model

    from hftoolkit.training.instructions import _show_bias

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.middle, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False)

        def forward(self, ids):
            return self.head(self.middle(self.embed(ids)))

    config = LoraConfig(target_modules=["middle"], trainable_token_indices={"head": [5], "embed": [5]})
    head = get_peft_model(Model(), config).base_model.model.head
    with pytest.raises(AttributeError):
        _ = head.bias
    before = list(head.state_dict())
    _show_bias(head)
    assert head.bias is None and list(head.state_dict()) == before
    plain = nn.Linear(2, 2)
    _show_bias(plain)
    assert torch.is_tensor(plain.bias)
