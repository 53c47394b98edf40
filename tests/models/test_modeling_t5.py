"""HftT5 against transformers' T5: same weights in, same numbers out; and the prefix LM, which has no stock class."""

import copy
import math

import pytest
import torch
import transformers
from small_models import assert_gradients_close, batch, gradients, layers, randomise, scalar, written
from transformers import T5Config

from hftoolkit.convert import from_stock, to_stock
from hftoolkit.errors import CheckpointError
from hftoolkit.models.layers_groups import cross_groups
from hftoolkit.models.layers_t5 import relative_buckets
from hftoolkit.models.modeling_t5 import (
    HftT5Config,
    HftT5EncoderModel,
    HftT5ForConditionalGeneration,
    HftT5ForPrefixLM,
)

TOLERANCE = dict(rtol=1e-4, atol=1e-4)  # noise floor at these sizes, stock float32 against float64: 4e-5
GRADIENT_TOLERANCE = 1e-4  # of the largest number in a gradient; noise floor 2e-5
SIZES = dict(vocab_size=99, d_model=32, d_kv=6, d_ff=40, num_layers=2, num_decoder_layers=3, num_heads=4)
SIZES |= dict(relative_attention_num_buckets=8, relative_attention_max_distance=9, num_labels=3)
SIZES |= dict(decoder_start_token_id=0, attn_implementation="eager")
VERSIONS = {"1.0": dict(feed_forward_proj="relu"), "1.1": dict(feed_forward_proj="gated-gelu")}
TASKS = ["Model", "EncoderModel", "ForConditionalGeneration", "ForSequenceClassification"]
LENGTHS = (12, 8, 2, 8, 12)
ANSWERS = ("last_hidden_state", "logits", "encoder_last_hidden_state")
INSIDE = ("hidden_states", "decoder_hidden_states", "encoder_hidden_states")
WEIGHTS = ("attentions", "decoder_attentions", "encoder_attentions", "cross_attentions")


def stock(task, version="1.1", **changes):
    """Every parameter is moved by N(0, 0.3): at the default init, wrong models pass. 1.1 is untied."""
    torch.manual_seed(0)
    tied = dict(tie_word_embeddings=version == "1.0")
    theirs = getattr(transformers, f"T5{task}")(
        T5Config(**SIZES | dict(dropout_rate=0.0) | tied | VERSIONS[version] | changes)
    )
    if version == "1.1" and task == "ForConditionalGeneration":
        theirs.lm_head.weight = torch.nn.Parameter(torch.randn(99, 32) * 0.3)
    return randomise(theirs)


def our_model(theirs, implementation="sdpa"):
    ours = from_stock(theirs)
    ours.set_attn_implementation(implementation)
    return ours


@pytest.fixture(params=[(task, version) for task in TASKS for version in VERSIONS], ids="-".join)
def models(request):
    theirs = stock(*request.param)
    return our_model(theirs), theirs


@pytest.fixture(params=VERSIONS)
def writers(request):
    theirs = stock("ForConditionalGeneration", request.param)
    return our_model(theirs), theirs


def inputs_for(model, lengths=LENGTHS, side="right"):
    """A padded batch, and what its head needs beside it: labels, or what the decoder reads."""
    inputs = batch(lengths, side)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    words, name = written(ids, mask), type(model).__name__
    if name.endswith("ForSequenceClassification"):  # the stock class reads the state at the end token
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        ids[torch.arange(len(ids)), last] = 1
        return inputs | dict(labels=ids[:, 0] % 3)
    if name.endswith("ForConditionalGeneration"):
        return inputs | dict(labels=words)
    if name.endswith("EncoderModel"):
        return inputs
    return inputs | dict(decoder_input_ids=words.clamp(min=0), decoder_attention_mask=(words != -100).long())


def assert_same(ours, theirs, inputs):
    """Compare every real position, never only the loss: a mean hides what it averages."""
    names = [name for name in ANSWERS if name in theirs]
    assert names == [name for name in ANSWERS if name in ours]
    for name in names:
        left, right = ours[name], theirs[name]
        if left.dim() == 2:
            real = slice(None)
        elif name.startswith("encoder") or "decoder_input_ids" not in inputs and "labels" not in inputs:
            real = inputs["attention_mask"].bool()
        else:
            real = inputs["labels"] != -100 if "labels" in inputs else inputs["decoder_attention_mask"].bool()
        torch.testing.assert_close(left[real], right[real], **TOLERANCE)
    if theirs.get("loss") is not None:
        torch.testing.assert_close(ours.loss, theirs.loss, **TOLERANCE)


def gradients_in_our_names(theirs):
    """Gradients of a stock model under our names: the conversion is linear, so it converts gradients as well."""
    carrier = copy.deepcopy(theirs)
    for target, source in zip(carrier.parameters(), theirs.parameters(), strict=True):
        target.data = torch.zeros_like(target) if source.grad is None else source.grad
    return {name: parameter.data for name, parameter in from_stock(carrier).named_parameters()}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_matches_stock(models, implementation):
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = inputs_for(theirs)
    assert_same(ours(**inputs), theirs(**inputs), inputs)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padding_on_the_left_is_padding_on_the_right(writers, implementation):
    """Relative positions do not see it; the stock class is asked with padding on the right."""
    ours, theirs = writers
    ours.set_attn_implementation(implementation)
    left, right = (inputs_for(theirs, side=side) for side in ("left", "right"))
    real = [inputs["attention_mask"].bool() for inputs in (left, right)]
    left["input_ids"] = left["input_ids"].masked_scatter(real[0], right["input_ids"][real[1]])
    left["labels"] = right["labels"]
    mine, expected = ours(**left), theirs(**right)
    torch.testing.assert_close(mine.loss, expected.loss, **TOLERANCE)
    words = right["labels"] != -100
    torch.testing.assert_close(mine.logits[words], expected.logits[words], **TOLERANCE)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_hidden_states_and_attentions_match_stock(models, implementation):
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = inputs_for(theirs, (9, 9)) | dict(output_hidden_states=True)
    inputs |= dict(use_cache=False) if "decoder_input_ids" in inputs else {}
    attend = dict(output_attentions=implementation == "eager")
    left, right = ours(**inputs, **attend), theirs(**inputs, output_attentions=True)
    compared = 0
    writes = not type(ours).__name__.endswith("EncoderModel")  # the stock encoder returns an empty tuple of the others
    for name in INSIDE + (WEIGHTS[: 4 if writes else 3] if implementation == "eager" else ()):
        assert (name in left) == (name in right), name
        if name not in right:
            continue
        of_decoder, sizes = name.startswith(("decoder", "cross")), [9, 9]
        if of_decoder and not type(ours).__name__.endswith("Classification"):
            sizes = [6, 6]  # of the nine words two thirds are written
        depth = SIZES["num_decoder_layers" if of_decoder else "num_layers"] + (name in INSIDE)
        assert len(left[name]) == len(right[name]) == depth
        for mine, expected in zip(left[name], right[name], strict=True):
            for row, size in enumerate(sizes):
                parts = (values[row].narrow(-2, 0, size) for values in (mine, expected))
                torch.testing.assert_close(*parts, **TOLERANCE)
                compared += 1
    assert compared
    assert implementation == "eager" or not any(name in left for name in WEIGHTS)


@pytest.fixture
def everything_in_float64(monkeypatch):
    """Both classes compute norms and softmax in float32 whatever the model is; scores that nothing divides magnify that."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_gradients_match_stock(models, implementation, everything_in_float64):
    """In float32 one machine's noise is 2e-5 and another's 1.4e-4 of the largest number; in float64 3e-13."""
    ours, theirs = (model.double() for model in models)
    ours.set_attn_implementation(implementation)
    inputs = inputs_for(theirs, LENGTHS if "labels" in inputs_for(theirs) else (9, 9, 9))
    inputs.pop("decoder_attention_mask", None)
    for model in models:
        scalar(model.train()(**inputs)).backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert all(gradient.dtype == torch.float64 for gradient in mine.values())
    assert_gradients_close(mine, gradients_in_our_names(theirs), 1e-10)


def test_dropout_falls_on_the_same_numbers_as_in_stock(models):
    """All dropouts, drawn in the same order; no padding, for which the stock class draws too."""
    name = type(models[1]).__name__.removeprefix("T5")
    theirs = stock(name, "1.1" if models[0].config.is_gated else "1.0", dropout_rate=0.3, classifier_dropout=0.3)
    inputs, outputs = inputs_for(theirs, (9, 9)), []
    inputs = {key: values for key, values in inputs.items() if "mask" not in key}
    if "labels" in inputs and inputs["labels"].dim() == 2:
        inputs["labels"] = inputs["input_ids"]
    for model in (our_model(theirs, "eager"), theirs):
        torch.manual_seed(0)
        outputs.append(model.train()(**inputs))
    if outputs[0].get("logits") is None and "loss" in outputs[0]:
        torch.testing.assert_close(outputs[0].loss, outputs[1].loss, **TOLERANCE)
    else:
        key = next(key for key in ANSWERS if key in outputs[1])
        torch.testing.assert_close(outputs[0][key], outputs[1][key], **TOLERANCE)
    key = next(key for key in ANSWERS if key in outputs[1])
    assert not torch.allclose(theirs.eval()(**inputs)[key], outputs[1][key], atol=0.1)


@torch.no_grad()
def test_cached_steps_match_stock_and_the_full_forward(writers):
    ours, theirs = writers
    inputs, ids, cache = batch((9, 5)), batch((12, 12), seed=4)["input_ids"], None
    full = theirs(**inputs, decoder_input_ids=ids).logits
    torch.testing.assert_close(ours(**inputs, decoder_input_ids=ids, use_cache=False).logits, full, **TOLERANCE)
    read = ours.get_encoder()(**inputs)
    for start, stop in ((0, 5), (5, 6), (6, 7), (7, 10), (10, 12)):
        step = ours(
            encoder_outputs=read,
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=ids[:, start:stop],
            past_key_values=cache,
            use_cache=True,
        )
        cache = step.past_key_values
        torch.testing.assert_close(step.logits, full[:, start:stop], **TOLERANCE)
    assert cache.get_seq_length() == 12
    assert cache.cross_attention_cache.get_seq_length() == 9


@pytest.mark.parametrize(
    "options", [{}, dict(num_beams=3, length_penalty=0.6), dict(cache_implementation="static")], ids=str
)
def test_what_is_written_is_what_the_stock_class_writes(writers, options):
    """With two layers on both sides, because the stock class cannot size a cache for a deeper decoder."""
    theirs = stock("ForConditionalGeneration", "1.1" if writers[0].config.is_gated else "1.0", num_decoder_layers=2)
    inputs = batch((9, 5, 1))
    options = dict(max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0) | options
    texts = [model.generate(**inputs, **options) for model in (our_model(theirs), theirs)]
    assert torch.equal(*texts)
    assert len(texts[0].unique()) > 5  # a model that repeats one token would prove nothing


def test_a_padded_prompt_is_continued_as_it_is_alone(writers):
    ours, options = writers[0], dict(max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    for side in ("left", "right"):
        together = batch((9, 5, 1), side)
        texts = ours.generate(**together, **options)
        for ids, mask, text in zip(together["input_ids"], together["attention_mask"], texts, strict=True):
            assert torch.equal(ours.generate(ids[mask.bool()].unsqueeze(0), **options)[0], text)


def in_every_layer(change):
    def apply(ours):
        for layer in layers(ours):
            change(layer)
        return ours

    return apply


def swap(first, second):
    def apply(layer):
        owner = layer.self_attn if first.endswith("proj") else layer
        left, right = getattr(owner, first), getattr(owner, second)
        setattr(owner, first, right)
        setattr(owner, second, left)

    return in_every_layer(apply)


def changed(part, name, value):
    """The model with an attribute of one of its parts changed."""

    def apply(ours):
        setattr(ours.get_submodule(part), name, value)
        return ours

    return apply


def scaled(ours):
    """Attention with the 1/sqrt(d) that T5 does not have."""
    for layer in layers(ours):
        layer.self_attn.q_proj.weight.data.mul_(6**-0.5)
    return ours


def with_config(name, value):
    def apply(ours):
        config = copy.deepcopy(ours.config)
        setattr(config, name, value)
        wrong = HftT5ForConditionalGeneration(config).eval()
        wrong.load_state_dict(ours.state_dict())
        return wrong

    return apply


WRONG = {
    "another epsilon": in_every_layer(lambda layer: setattr(layer.mlp_norm, "eps", 1e-2)),
    "norms of a layer swapped": swap("attn_norm", "mlp_norm"),
    "query and key swapped": swap("q_proj", "k_proj"),
    "a scaled attention": scaled,
    "the decoder's buckets tell both directions": changed("model.decoder.relative_bias", "is_bidirectional", True),
    "the encoder's buckets tell one direction": changed("model.encoder.relative_bias", "is_bidirectional", False),
    "another distance": changed("model.encoder.relative_bias", "max_distance", 7),
    "layers in the wrong order": lambda ours: (
        setattr(ours.model.decoder, "layers", ours.model.decoder.layers[::-1]) or ours
    ),
    "no last norm": changed("model.encoder", "norm", torch.nn.Identity()),
    "no cross-attention": lambda ours: (
        [setattr(layer, "cross_attn", None) for layer in ours.model.decoder.layers] and ours
    ),
    "another activation": in_every_layer(lambda layer: setattr(layer.mlp, "activation", torch.nn.SiLU())),
    "the wrong scale of the logits": lambda ours: (
        setattr(ours.lm_head, "weight", torch.nn.Parameter(ours.lm_head.weight * 32**0.5)) or ours
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_parity_notices(writers, change):
    ours, theirs = writers
    inputs = inputs_for(theirs)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(WRONG[change](ours)(**inputs), theirs(**inputs), inputs)


def test_parity_notices_padding_that_is_attended_to(writers):
    ours, theirs = writers
    inputs = inputs_for(theirs)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(ours(inputs["input_ids"], labels=inputs["labels"]), theirs(**inputs), inputs)


def test_gradient_parity_notices_a_scaled_gradient(writers):
    ours, theirs = writers
    for model in writers:
        model(**inputs_for(theirs)).loss.backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    name = "model.decoder.layers.0.mlp.up_proj.weight"
    mine[name] = mine[name] * 1.001
    with pytest.raises(AssertionError, match="up_proj.weight is not close"):
        assert_gradients_close(mine, gradients_in_our_names(theirs), GRADIENT_TOLERANCE)


def test_tanh_gelu_is_the_gelu_of_version_1_1():
    theirs = stock("ForConditionalGeneration")
    wrong, inputs = our_model(theirs), inputs_for(theirs)
    for layer in layers(wrong):
        layer.mlp.activation = torch.nn.GELU()
    with pytest.raises(AssertionError, match="not close"):
        assert_same(wrong(**inputs), theirs(**inputs), inputs)


def test_the_buckets_are_those_of_the_stock_class():
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-700, 700)
    for both in (True, False):
        for buckets, longest in ((32, 128), (8, 9), (32, 1000)):
            expected = T5Attention._relative_position_bucket(distance, both, buckets, longest)
            assert torch.equal(relative_buckets(distance, both, buckets, longest), expected)
    example = torch.tensor([-200, -20, -3, 0, 3, 20, 200])
    assert relative_buckets(example, True, 32, 128).tolist() == [15, 10, 3, 0, 19, 26, 31]
    assert relative_buckets(example, False, 32, 128).tolist() == [31, 17, 3, 0, 0, 0, 0]


def test_groups_of_pairs():
    result = cross_groups(torch.tensor([2, 2, 1]), torch.tensor([4, 4, 3]))
    assert result == ([4, 1], [8, 3], [(2, 2, 4, 0, None), (1, 1, 3, 1, None)])
    query_sizes, key_sizes, calls = cross_groups(torch.tensor([1, 3, 0, 3]), torch.tensor([5, 2, 7, 5]))
    assert (query_sizes, key_sizes) == ([3, 3, 1], [7, 5, 5, 2])  # rows 1, 3, 0 read; rows 2, 0, 3, 1 are read
    assert calls == [(1, 3, 2, 3, None), (1, 3, 5, 2, None), (1, 1, 5, 1, None)]


def test_a_row_without_text_is_no_error(writers):
    """It attends to nothing, and so does not change the others."""
    ours = writers[0]
    inputs = inputs_for(writers[1], (9, 4))
    alone = ours(**{name: values[:1] for name, values in inputs.items()}).logits
    inputs["attention_mask"][1] = 0
    together = ours(**inputs).logits
    assert together.isfinite().all()
    torch.testing.assert_close(together[:1], alone, **TOLERANCE)


def test_initial_weights():
    """1/sqrt(inputs), queries less by sqrt(head_dim); untied output weights half of it, tied embeddings 1/sqrt(D)."""
    sizes = dict(vocab_size=500, hidden_size=60, num_hidden_layers=2, num_attention_heads=6, head_dim=16)
    for tied in (True, False):
        torch.manual_seed(0)
        model = HftT5ForConditionalGeneration(HftT5Config(**sizes, intermediate_size=90, tie_word_embeddings=tied))
        for name, parameter in model.named_parameters():
            values = parameter.detach()
            expected = values.shape[-1] ** -0.5
            if name.endswith("norm.weight"):
                assert (values == 1).all(), name
                continue
            if name.endswith("relative_bias.weight"):
                expected = 60**-0.5
            elif name.endswith("embed_tokens.weight"):
                expected = 60**-0.5 if tied else 1.0
            elif name == "lm_head.weight":
                expected = 0.5 * 60**-0.5
            elif name.endswith("q_proj.weight"):
                expected *= 16**-0.5
            assert values.std().item() == pytest.approx(expected, rel=0.2 if values.numel() < 999 else 0.05), name


@pytest.mark.parametrize("tied", [True, False])
def test_the_first_loss_at_full_width_is_that_of_a_guess(tied):
    """At width 768 and the real vocabulary the stock 1.1 starts at 488 nats, 1.0 at 15."""
    torch.manual_seed(0)
    config = HftT5Config(num_hidden_layers=1, intermediate_size=64, tie_word_embeddings=tied)
    ids = torch.randint(2, 32128, (2, 12))
    loss = HftT5ForConditionalGeneration(config).train()(ids, labels=ids).loss.detach()
    assert float(loss) == pytest.approx(math.log(32128), rel=0.05)


def test_what_t5_of_transformers_cannot_express_is_refused():
    sizes = dict(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, head_dim=4)
    with pytest.raises(CheckpointError, match="one dropout, but here hidden_dropout_prob=0.1 and .*=0.2"):
        to_stock(HftT5EncoderModel(HftT5Config(**sizes, attention_probs_dropout_prob=0.2)))
    with pytest.raises(CheckpointError, match="no counterpart of HftT5ForPrefixLM"):
        to_stock(HftT5ForPrefixLM(HftT5Config(**sizes)))
    theirs = stock("ForConditionalGeneration", "1.1")
    theirs.config.scale_decoder_outputs = True
    with pytest.raises(CheckpointError, match="lm_head.weight differs from"):
        from_stock(theirs)


def test_an_untied_output_layer_stays_apart(tmp_path):
    theirs = stock("ForConditionalGeneration", "1.1")
    back = to_stock(from_stock(theirs))
    assert torch.equal(back.lm_head.weight, theirs.lm_head.weight)
    assert torch.equal(back.shared.weight, theirs.shared.weight)
    back.save_pretrained(tmp_path)
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
    inputs = inputs_for(theirs)
    torch.testing.assert_close(again(**inputs).logits, theirs(**inputs).logits, **TOLERANCE)


# The prefix LM


@pytest.fixture(params=VERSIONS)
def prefix_lm(request):
    """The prefix LM with the weights of a stock encoder, and that encoder."""
    theirs = stock("EncoderModel", request.param)
    encoder = from_stock(theirs)
    model = HftT5ForPrefixLM(encoder.config)
    model.model.load_state_dict(encoder.state_dict())
    return model.eval(), theirs


def body(model, ids, **arguments):
    """The states of the stack before the output layer."""
    output = model(ids, output_hidden_states=True, use_cache=False, **arguments)
    return output.hidden_states[-1]


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_with_all_of_it_prefix_it_is_the_stock_encoder(prefix_lm, implementation):
    ours, theirs = prefix_lm
    ours.set_attn_implementation(implementation)
    inputs = batch(LENGTHS)
    real = inputs["attention_mask"].bool()
    mine = body(ours, **dict(ids=inputs["input_ids"]), attention_mask=inputs["attention_mask"], prefix_mask=real)
    torch.testing.assert_close(mine[real], theirs(**inputs).last_hidden_state[real], **TOLERANCE)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_who_sees_whom(prefix_lm, implementation):
    """Change one token: what changes is the prefix, if the token is in it, and all that comes after it."""
    ours, ids = prefix_lm[0], batch((9, 9))["input_ids"]
    ours.set_attn_implementation(implementation)
    prefix = torch.arange(9) < torch.tensor([[4], [2]])
    before = body(ours, ids, prefix_mask=prefix)
    for place in range(9):
        other = ids.clone()
        other[:, place] = 5 + (ids[:, place] + 3) % 90
        moved = (body(ours, other, prefix_mask=prefix) - before).abs().amax(-1) > 1e-5
        for row, length in enumerate((4, 2)):
            first = 0 if place < length else place
            assert moved[row].tolist() == [False] * first + [True] * (9 - first)


@torch.no_grad()
def test_a_cache_continues_a_prefix(prefix_lm):
    ours, ids = prefix_lm[0], batch((9, 9))["input_ids"]
    prefix = (torch.arange(9) < 4).expand(2, 9)
    full, logits, cache = ours(ids, prefix_mask=prefix, use_cache=False).logits, [], None
    for start, stop in ((0, 6), (6, 7), (7, 9)):
        step = ours(ids[:, start:stop], prefix_mask=prefix[:, :4], past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        logits.append(step.logits)
    torch.testing.assert_close(torch.cat(logits, 1), full, **TOLERANCE)


def test_packed_prefixes_are_as_alone(prefix_lm):
    ours, ids = prefix_lm[0], batch((9,))["input_ids"]
    positions, prefix = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]]), torch.tensor([[1, 1, 1, 0, 0, 1, 1, 0, 0]])
    for implementation in ("sdpa", "eager"):
        ours.set_attn_implementation(implementation)
        together = body(ours, ids, position_ids=positions, prefix_mask=prefix)
        for part in (slice(0, 5), slice(5, 9)):
            alone = body(ours, ids[:, part], prefix_mask=prefix[:, part])
            torch.testing.assert_close(together[:, part], alone, **TOLERANCE)


def test_both_ways_of_attention_have_the_same_gradients(prefix_lm):
    ours, ids = prefix_lm[0], batch((9, 9))["input_ids"]
    prefix = torch.arange(9) < torch.tensor([[4], [2]])
    labels = ids.masked_fill(prefix, -100)
    both = []
    for implementation in ("eager", "sdpa"):
        ours.set_attn_implementation(implementation)
        both.append(gradients(ours.train(), input_ids=ids, prefix_mask=prefix, labels=labels))
    assert_gradients_close(both[1], both[0], GRADIENT_TOLERANCE)
