"""HftRnn against torch.nn on unpadded texts; states, directions, pooling, initialisation."""

import pytest
import torch
from small_models import batch, randomise
from torch import nn

from hftoolkit.models.modeling_rnn import (
    HftRnnConfig,
    HftRnnForCausalLM,
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


LANGUAGE_MODELS = [
    dict(cell_type="rnn"),
    dict(cell_type="gru", embedding_size=16, tie_word_embeddings=True),
    dict(cell_type="lstm", projection_size=12, tie_word_embeddings=True),
]


def language_model(**changes):
    return randomise(HftRnnForCausalLM(HftRnnConfig(**SIZES | dict(bidirectional=False) | changes)))


@pytest.mark.parametrize("kind", LANGUAGE_MODELS, ids=lambda kind: kind["cell_type"])
def test_a_language_model_is_torchs_stack_and_a_linear_layer(kind):
    """Logits, loss and the gradient of every weight, also where one matrix is used twice."""
    model, ids = language_model(**kind).train(), batch((12, 12))["input_ids"]
    stack = theirs(model)
    tied = kind.get("tie_word_embeddings", False)
    words, output = (model.state_dict()[name].clone() for name in ("model.embed_tokens.weight", "lm_head.weight"))
    words.requires_grad_(), output.requires_grad_()
    hidden, _ = stack(nn.functional.embedding(ids, words))
    logits = nn.functional.linear(hidden, words if tied else output, model.lm_head.bias.detach())
    loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    ours = model(ids, labels=ids)
    ours.loss.backward()
    torch.testing.assert_close(model.eval()(ids).logits, logits, **TOLERANCE)
    torch.testing.assert_close(ours.loss, loss, **TOLERANCE)
    torch.testing.assert_close(model.model.embed_tokens.weight.grad, words.grad, **TOLERANCE)
    for number, layer in enumerate(model.model.layers):
        for name, parameter in layer.forward_rnn.named_parameters():
            expected = getattr(stack, name.replace("l0", f"l{number}")).grad
            torch.testing.assert_close(parameter.grad, expected, **TOLERANCE)
    assert ours.logits is None and (model.lm_head.weight is model.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("kind", LANGUAGE_MODELS, ids=lambda kind: kind["cell_type"])
@torch.no_grad()
def test_pieces_of_a_text_are_the_whole_text(kind):
    """The state goes from one piece to the next, also past padding; without it the second piece reads otherwise."""
    model, ids = language_model(**kind), batch((12, 12))["input_ids"]
    whole = model(ids).logits
    first = model(ids[:, :5], use_cache=True).past_key_values
    assert first.get_seq_length() == 5
    torch.testing.assert_close(model(ids[:, 5:], past_key_values=first).logits, whole[:, 5:], **TOLERANCE)
    assert (model(ids[:, 5:]).logits - whole[:, 5:]).abs().max() > 0.1
    swapped = model(ids[:, :5], use_cache=True).past_key_values
    swapped.reorder_cache(torch.tensor([1, 0]))
    torch.testing.assert_close(
        model(ids.flip(0)[:, 5:], past_key_values=swapped).logits, whole.flip(0)[:, 5:], **TOLERANCE
    )


@torch.no_grad()
def test_generate_from_padding_on_the_left_with_a_projected_lstm():
    model, prompts = language_model(**LANGUAGE_MODELS[2]), batch((6, 3, 1), side="left")
    options = dict(max_new_tokens=6, num_beams=3, do_sample=False, eos_token_id=None, pad_token_id=0)
    together = model.generate(**prompts, **options)[:, 6:]
    for ids, mask, row in zip(prompts["input_ids"], prompts["attention_mask"].bool(), together, strict=True):
        alone = model.generate(ids[mask].unsqueeze(0), attention_mask=mask[mask].long().unsqueeze(0), **options)
        assert torch.equal(alone[0, int(mask.sum()) :], row)


@pytest.mark.parametrize("where", ["embedding", "hidden", "weight"])
def test_each_dropout_reaches_the_language_model(where):
    model, ids = language_model(num_hidden_layers=1, **{f"{where}_dropout_prob": 0.5}), batch((12,))["input_ids"]
    losses = [model.train()(ids, labels=ids).loss for _ in range(2)]
    assert losses[0] != losses[1]
    assert torch.equal(*(model.eval()(ids, labels=ids).loss for _ in range(2)))


def test_a_language_model_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="bidirectional must be false in a language model"):
        language_model(bidirectional=True)
    with pytest.raises(ValueError, match="embedding_size 12 must be the size of the layers' outputs, 16"):
        language_model(tie_word_embeddings=True)
