"""HftRnn against torch.nn on unpadded texts; states, directions, pooling, initialisation."""

import pytest
import torch
from small_models import batch, randomise
from torch import nn

from hftoolkit.models.modeling_rnn import (
    HftRnnConfig,
    HftRnnForSequenceClassification,
    HftRnnForTokenClassification,
    HftRnnModel,
)

SIZES = dict(vocab_size=99, embedding_size=12, hidden_size=16, num_hidden_layers=2, num_labels=3)
TOLERANCE = dict(rtol=1e-5, atol=1e-6)
KINDS = [
    dict(cell_type="rnn", bidirectional=False, pooling="last"),
    dict(cell_type="gru", pooling="mean"),
    dict(cell_type="lstm", pooling="last"),
    dict(cell_type="lstm", projection_size=5, bidirectional=False, pooling="max"),
]


def theirs(model):
    """Torch's stack with the same weights."""
    config = model.config
    size = dict(proj_size=config.projection_size) if config.projection_size else {}
    kind = getattr(nn, config.cell_type.upper())
    stack = kind(
        config.embedding_size, config.hidden_size, 2, batch_first=True, bidirectional=config.bidirectional, **size
    )
    for number, layer in enumerate(model.base_model.layers):
        for rnn, suffix in ((layer.forward_rnn, ""), (layer.backward_rnn, "_reverse")):
            for name, parameter in rnn.named_parameters() if rnn is not None else ():
                getattr(stack, name.replace("l0", f"l{number}{suffix}")).data.copy_(parameter.data)
    return stack


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["cell_type"])
@torch.no_grad()
def test_classifiers_are_torchs_on_each_text(kind, side):
    model = randomise(HftRnnForSequenceClassification(HftRnnConfig(**SIZES, **kind)))
    tagger = HftRnnForTokenClassification(model.config).eval()
    tagger.model.load_state_dict(model.model.state_dict())
    tagger.score.load_state_dict(model.score.state_dict())
    inputs, stack = batch(side=side), theirs(model)
    logits, tags = model(**inputs).logits, tagger(**inputs).logits
    for row, (ids, mask) in enumerate(zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)):
        output, state = stack(model.model.embed_tokens(ids[mask]).unsqueeze(0))
        h = state[0] if kind["cell_type"] == "lstm" else state
        pooled = {
            "last": torch.cat(list(h[-2:, 0]) if model.config.bidirectional else [h[-1, 0]]),
            "mean": output[0].mean(0),
            "max": output[0].amax(0),
        }[kind["pooling"]]
        torch.testing.assert_close(logits[row], model.score(pooled), **TOLERANCE)
        torch.testing.assert_close(tags[row][mask], model.score(output[0]), **TOLERANCE)


@torch.no_grad()
def test_states_are_torchs_and_carry_a_text_on():
    model = randomise(HftRnnModel(HftRnnConfig(**SIZES, bidirectional=False)))
    ids = batch((12, 12))["input_ids"]
    whole = model(ids, output_states=True)
    output, state = theirs(model)(model.embed_tokens(ids))
    torch.testing.assert_close(whole.last_hidden_state, output, **TOLERANCE)
    torch.testing.assert_close(whole.states, state, **TOLERANCE)
    first = model(ids[:, :5], output_states=True)
    second = model(ids[:, 5:], states=first.states, output_states=True)
    torch.testing.assert_close(second.last_hidden_state, output[:, 5:], **TOLERANCE)
    torch.testing.assert_close(second.states, state, **TOLERANCE)
    assert model(ids).states is None


@torch.no_grad()
def test_one_direction_sees_nothing_later_and_two_do():
    ids = batch((12,))["input_ids"]
    other = ids.clone()
    other[:, 7:] = 98
    for bidirectional in (False, True):
        model = randomise(HftRnnModel(HftRnnConfig(**SIZES, bidirectional=bidirectional)))
        before, after = (model(rows).last_hidden_state[:, :7] for rows in (ids, other))
        assert torch.equal(before, after) == (not bidirectional)
        assert (before[..., :16] == after[..., :16]).all() or bidirectional


@torch.no_grad()
def test_hidden_states_are_those_of_every_layer():
    model, inputs = randomise(HftRnnModel(HftRnnConfig(**SIZES))), batch()
    output = model(**inputs, output_hidden_states=True)
    assert [state.shape[-1] for state in output.hidden_states] == [12, 32, 32]
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    for state in output.hidden_states:
        assert (state[inputs["attention_mask"] == 0] == 0).all()


def test_initialisation():
    torch.manual_seed(0)
    model = HftRnnForSequenceClassification(HftRnnConfig(vocab_size=2000, hidden_size=64, pooling="attention"))
    rnn = model.model.layers[0].backward_rnn
    assert model.model.embed_tokens.weight.std().item() == pytest.approx(0.1, rel=0.02)
    assert rnn.bias_ih_l0.view(4, 64)[1].eq(1).all() and rnn.bias_hh_l0.eq(0).all()
    assert rnn.weight_hh_l0.abs().max().item() == pytest.approx(0.125, rel=0.01)
    assert model.score.bias.eq(0).all() and model.pooling.project.bias.eq(0).all()


def test_weight_dropout_comes_from_the_config():
    model, inputs = HftRnnModel(HftRnnConfig(**SIZES, weight_dropout_prob=0.5)), batch()
    assert not torch.equal(*(model.train()(**inputs).last_hidden_state for _ in range(2)))
    assert torch.equal(*(model.eval()(**inputs).last_hidden_state for _ in range(2)))
