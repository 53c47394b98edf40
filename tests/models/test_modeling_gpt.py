"""HftGpt against transformers' GPT2 and OpenAIGPT: same weights in, same numbers out."""

import copy

import pytest
import torch
import transformers
from small_models import answer, assert_gradients_close, batch, randomise, scalar
from transformers import GPT2Config, OpenAIGPTConfig

from hftoolkit.convert import from_stock
from hftoolkit.models.modeling_gpt import HftGptConfig, HftGptForCausalLM

TOLERANCE = dict(rtol=1e-4, atol=1e-4)  # noise floor at these sizes, stock float32 against float64: 4e-6
GRADIENT_TOLERANCE = 1e-4  # of the largest number in a gradient; noise floor 1e-5
SIZES = dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=24, num_labels=3, pad_token_id=0)
SIZES |= dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop", "classifier_dropout"), 0.0)
DROPOUT = dict(embd_pdrop=0.1, resid_pdrop=0.2, attn_pdrop=0.3, classifier_dropout=0.4)
CONFIGS = {
    "gpt2": lambda: GPT2Config(**SIZES, attn_implementation="eager"),
    "gpt1": lambda: OpenAIGPTConfig(**SIZES, attn_implementation="eager"),
}
HEADS = [
    ("gpt2", "GPT2Model"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt2", "GPT2ForSequenceClassification"),
    ("gpt2", "GPT2ForTokenClassification"),
    ("gpt1", "OpenAIGPTModel"),
    ("gpt1", "OpenAIGPTLMHeadModel"),
    ("gpt1", "OpenAIGPTForSequenceClassification"),
]
CAUSAL = [head for head in HEADS if "LMHead" in head[1]]


def stock(generation, head, **changes):
    """Every parameter is moved by N(0, 0.3): at the default init, wrong models pass."""
    torch.manual_seed(0)
    config = CONFIGS[generation]()
    for name, value in changes.items():
        setattr(config, name, value)
    return randomise(getattr(transformers, head)(config))


def our_model(theirs, implementation="eager"):
    ours = from_stock(theirs)
    ours.set_attn_implementation(implementation)
    return ours


@pytest.fixture(params=HEADS, ids=lambda head: head[1])
def models(request):
    theirs = stock(*request.param)
    return our_model(theirs), theirs


@pytest.fixture(params=CAUSAL, ids=lambda head: head[0])
def causal_models(request):
    theirs = stock(*request.param)
    return our_model(theirs), theirs


def labels_for(model, inputs):
    """Labels in the form that this head takes, none for a model without a head."""
    ids, ignored = inputs["input_ids"], inputs["attention_mask"] == 0
    forms = {
        "ForCausalLM": ids.masked_fill(ignored, -100),
        "ForSequenceClassification": ids[:, 0] % 3,
        "ForTokenClassification": (ids % 3).masked_fill(ignored, -100),
    }
    fitting = [labels for form, labels in forms.items() if type(model).__name__.endswith(form)]
    return {"labels": fitting[0]} if fitting else {}


def assert_same(ours, theirs, real):
    """Compare every real position, never only the loss: a mean hides what it averages."""
    left, right = answer(ours), answer(theirs)
    rows = real if left.dim() == 3 else slice(None)
    torch.testing.assert_close(left[rows], right[rows], **TOLERANCE)
    if theirs.get("loss") is not None:
        torch.testing.assert_close(ours.loss, theirs.loss, **TOLERANCE)


def assert_same_inside(ours, theirs, real):
    """Hidden states of every layer at every real position, and attention weights of every real query."""
    assert len(ours.hidden_states) == len(theirs.hidden_states) == SIZES["n_layer"] + 1
    assert len(ours.attentions) == len(theirs.attentions) == SIZES["n_layer"]
    for left, right in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(left[real], right[real], **TOLERANCE)
    for left, right in zip(ours.attentions, theirs.attentions, strict=True):
        torch.testing.assert_close(left.transpose(1, 2)[real], right.transpose(1, 2)[real], **TOLERANCE)


def gradients_in_our_names(theirs):
    """Gradients of a stock model under our names: the conversion is linear, so it converts gradients as well."""
    carrier = copy.deepcopy(theirs)
    for target, source in zip(carrier.parameters(), theirs.parameters(), strict=True):
        target.data = source.grad
    return {name: parameter.data for name, parameter in from_stock(carrier).named_parameters()}


def test_matches_stock(models):
    ours, theirs = models
    inputs = batch()
    both = [model(**inputs, **labels_for(ours, inputs)) for model in models]
    assert_same(*both, real=inputs["attention_mask"].bool())


def test_matches_stock_with_padding_on_the_left(models):
    """The stock classes get the positions that ours derives from the mask."""
    ours, theirs = models
    inputs = batch(side="left")
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    assert_same(ours(**inputs), theirs(**inputs, position_ids=positions), real=inputs["attention_mask"].bool())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_hidden_states_and_attentions_match_stock(models, implementation):
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = batch() | dict(output_hidden_states=True)
    attend = dict(output_attentions=implementation == "eager")
    left, right = ours(**inputs, **attend), theirs(**inputs, output_attentions=True)
    if implementation == "sdpa":
        left["attentions"] = right.attentions  # the fused kernel has no weights to show
    assert_same_inside(left, right, inputs["attention_mask"].bool())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gradients_match_stock(models, implementation):
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = batch((12, 12, 12)) if "labels" not in labels_for(ours, batch()) else batch()
    for model in models:
        scalar(model.train()(**inputs, **labels_for(ours, inputs))).backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert_gradients_close(mine, gradients_in_our_names(theirs), GRADIENT_TOLERANCE)


def test_dropout_falls_on_the_same_numbers_as_in_stock(models):
    """All dropouts of the papers, drawn in the same order; the mask is left out, as nothing else is compared."""
    ids = batch((12, 12))["input_ids"]
    theirs = stock(*next(head for head in HEADS if head[1] == type(models[1]).__name__), **DROPOUT)
    outputs = []
    for model in (our_model(theirs), theirs):
        torch.manual_seed(0)
        outputs.append(model.train()(ids))
    assert_same(*outputs, real=torch.ones_like(ids).bool())
    assert not torch.allclose(answer(theirs.eval()(ids)), answer(outputs[1]), atol=0.1)


def test_initial_weights_are_those_of_the_papers():
    """N(0, 0.02); GPT-2 divides that of what is added to the residual stream by the square root of its 2N additions."""
    for norm_order, shrunk in (("pre", 0.02 / 8**0.5), ("post", 0.02)):
        torch.manual_seed(0)
        config = HftGptConfig(vocab_size=500, hidden_size=60, num_hidden_layers=4, norm_order=norm_order)
        for name, parameter in HftGptForCausalLM(config).named_parameters():
            values = parameter.detach()
            if parameter.dim() == 1:
                assert (values == (1.0 if name.endswith("norm.weight") else 0.0)).all(), name
            else:
                std = shrunk if "o_proj" in name or "down_proj" in name else 0.02
                assert values.std().item() == pytest.approx(std, rel=0.05), name
                assert abs(values.mean().item()) < 1e-3, name


def test_regression_and_multi_label_match_stock():
    inputs = batch()
    for changes, labels in (
        (dict(num_labels=1), torch.tensor([0.5, -1.0, 2.0])),
        (dict(problem_type="multi_label_classification"), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0]])),
    ):
        theirs = stock("gpt2", "GPT2ForSequenceClassification", **changes)
        both = [model(**inputs, labels=labels) for model in (our_model(theirs), theirs)]
        assert_same(*both, real=inputs["attention_mask"].bool())


@torch.no_grad()
def test_cached_steps_match_stock_and_the_full_forward(causal_models):
    ours, theirs = causal_models
    ids = batch((12, 12))["input_ids"]
    full, cache = theirs(ids).logits, None
    for start, stop in ((0, 5), (5, 6), (6, 7), (7, 10), (10, 12)):
        step = ours(ids[:, start:stop], past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        torch.testing.assert_close(step.logits, full[:, start:stop], **TOLERANCE)
    assert cache.get_seq_length() == 12


def test_greedy_continuation_is_the_stock_one(causal_models):
    ids = batch((6, 6))["input_ids"]
    options = dict(max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
    continuations = [model.generate(ids, attention_mask=torch.ones_like(ids), **options) for model in causal_models]
    assert continuations[0].shape == (2, 22)
    assert len(continuations[0].unique()) > 5  # a model that repeats one token would prove nothing
    assert torch.equal(*continuations)


def with_config(ours, **changes):
    """A model of ours with the same weights, as far as they fit, and a changed config."""
    config = copy.deepcopy(ours.config)
    for name, value in changes.items():
        setattr(config, name, value)
    wrong = HftGptForCausalLM(config).eval()
    wrong.load_state_dict(ours.state_dict(), strict=False)
    return wrong


def in_every_layer(change):
    def apply(ours):
        for layer in ours.model.layers:
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


WRONG = {
    "another GELU": lambda ours: with_config(ours, hidden_act="gelu"),
    "another epsilon": lambda ours: with_config(ours, layer_norm_eps=1e-3),
    "norms on the other side": lambda ours: with_config(
        ours, norm_order={"pre": "post", "post": "pre"}[ours.config.norm_order]
    ),
    "norms of a layer swapped": swap("attn_norm", "mlp_norm"),
    "query and key swapped": swap("q_proj", "k_proj"),
    "output bias dropped": in_every_layer(lambda layer: layer.self_attn.o_proj.bias.data.zero_()),
    "key bias given to the value": in_every_layer(
        lambda layer: layer.self_attn.v_proj.bias.data.copy_(layer.self_attn.k_proj.bias)
    ),
    "no 1/sqrt(d)": in_every_layer(lambda layer: setattr(layer.self_attn, "scaling", 1.0)),
    "positions off by one": lambda ours: (
        setattr(ours.model.embed_positions, "weight", torch.nn.Parameter(ours.model.embed_positions.weight.roll(1, 0)))
        or ours
    ),
    "layers in the wrong order": lambda ours: setattr(ours.model, "layers", ours.model.layers[::-1]) or ours,
}


@pytest.mark.parametrize("change", WRONG)
def test_parity_notices(causal_models, change):
    ours, theirs = causal_models
    inputs = batch()
    wrong, real = WRONG[change](ours)(**inputs, use_cache=False), inputs["attention_mask"].bool()
    with pytest.raises(AssertionError, match="not close"):
        assert_same(wrong, theirs(**inputs), real)


def test_gradient_parity_notices_a_scaled_gradient(causal_models):
    ours, theirs = causal_models
    inputs = batch()
    for model in causal_models:
        scalar(model(**inputs, **labels_for(ours, inputs))).backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    mine["model.layers.0.mlp.up_proj.weight"] = mine["model.layers.0.mlp.up_proj.weight"] * 1.001
    with pytest.raises(AssertionError, match="up_proj.weight is not close"):
        assert_gradients_close(mine, gradients_in_our_names(theirs), GRADIENT_TOLERANCE)
