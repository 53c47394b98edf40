"""What TRL's trainers need here: dropout that is off, and a package that is there. The rest: tests/recipes/test_dpo.py."""

import pytest
import torch

from hftoolkit.errors import MachineError
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM
from hftoolkit.training import trl_trainers


@pytest.mark.parametrize("ours", [True, False])
def test_dropout_in_attention_is_switched_off_too(ours):
    """TRL alone leaves it on: two passes of a model in training would differ."""
    from trl.trainer.utils import disable_dropout_in_model

    sizes = dict(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = HftGptForCausalLM(HftGptConfig(**sizes, attention_probs_dropout_prob=0.5)).train()
    disable_dropout_in_model(model)
    if ours:
        trl_trainers.switch_off_dropout(model)
    ids = torch.arange(12)[None]
    assert torch.equal(model(ids).logits, model(ids).logits) == ours
    assert model.config.attention_probs_dropout_prob == 0.5  # the model that is saved keeps its own


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(trl_trainers, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match="^something needs the package trl; install it: pip install 'trl"):
        trl_trainers.require_trl("something")
    monkeypatch.undo()
    assert trl_trainers.require_trl("something") is None
