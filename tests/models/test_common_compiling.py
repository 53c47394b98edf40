"""torch.compile takes every head whole, without a break in its graph, and computes the same."""

import copy

import pytest
import torch
from small_models import GENERATING, HEADS, RECURRENT, UNSCALED, assert_gradients_close, batch, scalar
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from hftoolkit.models import ARCHITECTURES

WORDS = [head for head in HEADS if head.auto.endswith("LM")]
BY_ARCHITECTURE = [[head for head in WORDS if head.architecture == name] for name in ARCHITECTURES]


def assert_compiled_is_eager(head, backend, inputs, training, autocast=False):
    torch._dynamo.reset()
    model = head.model(num_hidden_layers=1).train(training)
    if (
        autocast and head.architecture in UNSCALED
    ):  # what T5's initialisation does to the queries in place of a scaling
        for name, weight in model.named_parameters():
            weight.data.mul_(model.config.head_dim**-0.5 if "q_proj" in name else 1.0)
    expected, compiled = (
        copy.deepcopy(model),
        torch.compile(model, fullgraph=head.architecture not in RECURRENT, backend=backend),
    )
    losses = []
    for run in (compiled, expected):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            losses.append(scalar(run(**inputs)))
        losses[-1].backward()
    unscaled = head.architecture in UNSCALED  # the two round in another order, which such scores blow up: 6e-5
    rounded = autocast and unscaled
    torch.testing.assert_close(*losses, **dict.fromkeys(("rtol", "atol"), 0.1 if rounded else 1e-5))
    theirs = {name: parameter.grad for name, parameter in expected.named_parameters()}
    bound = 0.5 if rounded else 1e-4 if unscaled else 5e-5
    if autocast and head.architecture in RECURRENT:  # a compiled part rounds to 8 bits in other places: 6e-3
        bound = 0.02
    ours = {name: p.grad for name, p in model.named_parameters()}
    assert_gradients_close(ours, theirs, bound)


def packed_batch():
    ids = batch((12, 12))["input_ids"]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4], [0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0]])
    return dict(input_ids=ids, position_ids=positions, labels=ids.masked_fill(positions == 0, -100))


@pytest.mark.parametrize(
    "head", [found[0] for found in BY_ARCHITECTURE if found and found[0].architecture not in RECURRENT], ids=str
)
def test_trains_in_one_compiled_graph(head):
    """One head of each architecture here, for the time it takes; the rest and the default compiler in the slow tests."""
    assert_compiled_is_eager(head, "aot_eager", head.labelled(batch()), training=True)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_every_head_compiles(head, backend, training):
    assert_compiled_is_eager(head, backend, head.labelled(batch()), training)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("head", [head for head in WORDS if not head.writes], ids=str)
def test_packed_rows_compile_into_one_graph(head, backend, training):
    assert_compiled_is_eager(head, backend, packed_batch(), training)


@pytest.mark.slow
@pytest.mark.parametrize("head", WORDS, ids=str)
def test_bfloat16_training_compiles_into_one_graph(head):
    assert_compiled_is_eager(head, "aot_eager", head.labelled(batch()), training=True, autocast=True)


@pytest.mark.slow
@pytest.mark.parametrize("head", [head for head in GENERATING if head.architecture not in RECURRENT], ids=str)
@torch.no_grad()
def test_decoding_with_a_static_cache_compiles_into_one_graph(head):
    torch._dynamo.reset()
    model, ids = head.model(), batch((9, 9))["input_ids"]
    cache = StaticCache(config=model.config.get_text_config(decoder=True), max_cache_len=16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    steps, name, read = [ids[:, :4], *ids[:, 4:].split(1, dim=1)], "input_ids", {}
    if head.writes:
        text = batch((7, 5), seed=5)
        read = dict(encoder_outputs=model.get_encoder()(**text), attention_mask=text["attention_mask"])
        cache, name = EncoderDecoderCache(cache, DynamicCache()), "decoder_input_ids"
    logits = [compiled(**{name: step}, **read, past_key_values=cache, use_cache=True).logits for step in steps]
    expected = model(**{name: ids}, **read).logits
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, rtol=1e-4, atol=1e-4)
