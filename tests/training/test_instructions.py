"""What stands between TRL's trainer and a run: kept reports, and what is read of TRL and PEFT."""

import inspect
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from hftoolkit.errors import CheckpointError
from hftoolkit.models.modeling_rnn import HftRnnConfig, HftRnnForCausalLM
from hftoolkit.training.instructions import AnswerEvaluation, _require_kept_apart
from hftoolkit.training.trl_trainers import ReportedMeans


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


def model_of(kind):
    torch.manual_seed(0)
    if kind == "rnn":
        return HftRnnForCausalLM(HftRnnConfig(vocab_size=20, embedding_size=8, hidden_size=8, bidirectional=False))
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=32))
    sizes = dict(hidden_size=8, word_embed_proj_dim=8, ffn_dim=16, num_hidden_layers=2, num_attention_heads=2)
    return OPTForCausalLM(OPTConfig(vocab_size=20, max_position_embeddings=32, **sizes))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gpt2", None),
        ("opt", "OPTForCausalLM does not keep packed examples apart: .* set packing to false"),
        ("rnn", r"HftRnnForCausalLM cannot read packed examples \(position_ids begin anew"),
    ],
)
@pytest.mark.parametrize("ids", [[3, 4, 5], [0, 1, 0, 7]])
def test_packing_needs_a_model_that_keeps_examples_apart(kind, message, ids):
    model = model_of(kind)
    for weight in model.parameters():  # at the first weights little moves
        torch.nn.init.normal_(weight, std=0.5)
    accelerator = SimpleNamespace(unwrap_model=lambda model: model)
    trainer = SimpleNamespace(
        model=model.train(), accelerator=accelerator, is_fsdp_enabled=False, is_deepspeed_enabled=False
    )
    if message is None:
        _require_kept_apart(trainer, ids)
    else:
        with pytest.raises(CheckpointError, match=message):
            _require_kept_apart(trainer, ids)
    assert model.training
