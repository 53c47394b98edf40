"""HftBert against transformers' BERT: same weights in, same numbers out."""

import copy

import pytest
import torch
import transformers
from small_models import assert_gradients_close, batch, randomise
from transformers import BertConfig, BertForPreTraining

from hftoolkit.convert import from_stock
from hftoolkit.models.modeling_bert import HftBertConfig, HftBertForPreTraining

TOLERANCE = dict(rtol=1e-4, atol=1e-4)  # noise floor at these sizes, stock float32 against float64: 4e-6
GRADIENT_TOLERANCE = 1e-4  # of the largest number in a gradient; noise floor 1e-5
SIZES = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
SIZES |= dict(max_position_embeddings=24, attn_implementation="eager")
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
TASKS = [
    *("Model", "ForPreTraining", "ForMaskedLM", "ForNextSentencePrediction", "ForSequenceClassification"),
    *("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"),
]
LENGTHS = (12, 8, 1, 8, 12)
ANSWERS = (
    *("last_hidden_state", "pooler_output", "logits", "prediction_logits", "seq_relationship_logits"),
    *("start_logits", "end_logits"),
)


def stock(task, **changes):
    """Every parameter is moved by N(0, 0.3): at the default init, wrong models pass."""
    torch.manual_seed(0)
    options = dict.fromkeys(DROPOUTS, 0.0) | dict(num_labels=2 if task == "ForQuestionAnswering" else 3)
    return randomise(getattr(transformers, f"Bert{task}")(BertConfig(**SIZES | options | changes)))


def our_model(theirs, implementation="sdpa"):
    ours = from_stock(theirs)
    ours.set_attn_implementation(implementation)
    return ours


@pytest.fixture(params=TASKS)
def models(request):
    theirs = stock(request.param)
    return our_model(theirs), theirs


@pytest.fixture
def pretraining():
    theirs = stock("ForPreTraining")
    return our_model(theirs), theirs


def pairs(lengths=LENGTHS, side="right"):
    """A padded batch with two segments in each row."""
    inputs = batch(lengths, side)
    place = inputs["attention_mask"].cumsum(-1)
    return inputs | dict(token_type_ids=(place > torch.tensor(lengths).unsqueeze(1) // 2).long())


def labels_for(model, inputs):
    """Labels in the form that this head takes, none for a model without a head."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows, words = ids[..., 0].flatten() % 2, ids.masked_fill((mask == 0) | (ids % 3 != 0), -100)
    forms = {
        "ForPreTraining": dict(labels=words, next_sentence_label=rows),
        "ForMaskedLM": dict(labels=words),
        "ForNextSentencePrediction": dict(labels=rows),
        "ForSequenceClassification": dict(labels=ids[:, 0] % 3),
        "ForTokenClassification": dict(labels=(ids % 3).masked_fill(mask == 0, -100)),
        "ForQuestionAnswering": dict(start_positions=rows, end_positions=rows + 3),
        "ForMultipleChoice": dict(labels=rows[: len(ids)]),
    }
    return next((labels for form, labels in forms.items() if type(model).__name__.endswith(form)), {})


def for_head(model, inputs):
    """Multiple choice reads (B, choices, T): the row, and the row backwards."""
    if not type(model).__name__.endswith("ForMultipleChoice"):
        return inputs
    other = inputs | dict(input_ids=torch.where(inputs["attention_mask"] > 0, 98 - inputs["input_ids"] % 90, 0))
    return {name: torch.stack([values, other[name]], dim=1) for name, values in inputs.items()}


def lengths_for(model):
    """No padding where the stock loss reads it: the span head spreads probability over it."""
    return (12, 12) if type(model).__name__ in ("BertForQuestionAnswering", "BertModel") else LENGTHS


def run(model, inputs, **arguments):
    inputs = for_head(model, inputs)
    return model(**inputs, **labels_for(model, inputs), **arguments)


def loss_of(output):
    """A model without a head: a fixed random projection of everything it returns."""
    if output.get("loss") is not None:
        return output.loss
    values = torch.cat([output.last_hidden_state, output.pooler_output.unsqueeze(1)], dim=1)
    return (values * torch.randn(values.shape, generator=torch.Generator().manual_seed(3))).mean()


def assert_same(ours, theirs, inputs, loss=True):
    """Compare every real position, never only the loss: a mean hides what it averages."""
    names, real = [name for name in ANSWERS if name in theirs], inputs["attention_mask"].bool()
    assert names == [name for name in ANSWERS if name in ours]
    for name in names:
        left, right = ours[name], theirs[name]
        rows = real if left.shape[:2] == real.shape else slice(None)
        torch.testing.assert_close(left[rows], right[rows], **TOLERANCE)
    if loss and theirs.get("loss") is not None:
        torch.testing.assert_close(ours.loss, theirs.loss, **TOLERANCE)


def gradients_in_our_names(theirs):
    """Gradients of a stock model under our names: the conversion is linear, so it converts gradients as well."""
    carrier = copy.deepcopy(theirs)
    for target, source in zip(carrier.parameters(), theirs.parameters(), strict=True):
        target.data = source.grad
    return {name: parameter.data for name, parameter in from_stock(carrier).named_parameters()}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_matches_stock(models, implementation):
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = pairs()
    spans = type(theirs).__name__.endswith("ForQuestionAnswering")
    assert_same(*(run(model, inputs) for model in models), inputs, loss=not spans)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_matches_stock_with_padding_on_the_left(models, implementation):
    """The stock classes, whose first token and positions are those of the padding there, read it on the right."""
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    left, right = pairs(side="left"), pairs(side="right")
    real = [inputs["attention_mask"].bool() for inputs in (left, right)]
    for name in ("input_ids", "token_type_ids"):
        left[name] = left[name].masked_scatter(real[0], right[name][real[1]])
    mine, expected = (model(**for_head(model, inputs)) for model, inputs in zip(models, (left, right), strict=True))
    for name in (name for name in ANSWERS if name in expected):
        both = [mine[name], expected[name]]
        if both[0].shape[:2] == real[0].shape:
            both = [values[mask] for values, mask in zip(both, real, strict=True)]
        torch.testing.assert_close(*both, **TOLERANCE)


def test_the_loss_of_a_span_does_not_depend_on_padding():
    """It is the stock loss of each row alone, averaged."""
    theirs = stock("ForQuestionAnswering")
    ours, inputs = our_model(theirs), pairs((12, 8))
    starts, ends = torch.tensor([3, 1]), torch.tensor([11, 7])
    alone = []
    for row, length in enumerate((12, 8)):
        part = {name: values[row : row + 1, :length] for name, values in inputs.items()}
        alone.append(theirs(**part, start_positions=starts[row : row + 1], end_positions=ends[row : row + 1]).loss)
    loss = ours(**inputs, start_positions=starts, end_positions=ends).loss
    torch.testing.assert_close(loss, sum(alone) / 2, **TOLERANCE)
    outside = ours(**inputs, start_positions=torch.tensor([3, 12]), end_positions=torch.tensor([11, -100])).loss
    torch.testing.assert_close(outside, alone[0], **TOLERANCE)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_hidden_states_and_attentions_match_stock(models, implementation):
    """Every layer at every real position, as (B, T, D) with zeros at padding; the weights of every real query."""
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = pairs()
    asked = dict(output_hidden_states=True, output_attentions=implementation == "eager")
    left, right = run(ours, inputs, **asked), run(theirs, inputs, **asked)
    real = for_head(ours, inputs)["attention_mask"].flatten(0, -2).bool()
    assert len(left.hidden_states) == len(right.hidden_states) == SIZES["num_hidden_layers"] + 1
    for mine, expected in zip(left.hidden_states, right.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], expected[real], **TOLERANCE)
        assert (mine[~real] == 0).all()
    if implementation == "sdpa":
        assert left.attentions is None
        return
    assert len(left.attentions) == SIZES["num_hidden_layers"]
    for mine, expected in zip(left.attentions, right.attentions, strict=True):
        torch.testing.assert_close(mine.transpose(1, 2)[real], expected.transpose(1, 2)[real], **TOLERANCE)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_gradients_match_stock(models, implementation):
    ours, theirs = models
    ours.set_attn_implementation(implementation)
    inputs = pairs(lengths_for(theirs))
    for model in models:
        loss_of(run(model.train(), inputs)).backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert_gradients_close(mine, gradients_in_our_names(theirs), GRADIENT_TOLERANCE)


def test_dropout_falls_on_the_same_numbers_as_in_stock(models):
    """All dropouts of the paper, drawn in the same order; no padding, for which the stock class draws too."""
    theirs = stock(type(models[1]).__name__.removeprefix("Bert"), **dict.fromkeys(DROPOUTS, 0.3))
    inputs, outputs = for_head(theirs, batch((12, 12))), []
    for model in (our_model(theirs, "eager"), theirs):
        torch.manual_seed(0)
        outputs.append(model.train()(inputs["input_ids"]))
    assert_same(*outputs, inputs)
    name = next(name for name in ANSWERS if name in outputs[1])
    assert not torch.allclose(theirs.eval()(inputs["input_ids"])[name], outputs[1][name], atol=0.1)


def test_regression_and_multi_label_match_stock():
    inputs = pairs((12, 8, 1))
    for changes, labels in (
        (dict(num_labels=1), torch.tensor([0.5, -1.0, 2.0])),
        (dict(num_labels=3, problem_type="regression"), torch.arange(9.0).view(3, 3)),
        (dict(problem_type="multi_label_classification"), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 0]])),
    ):
        theirs = stock("ForSequenceClassification", **changes)
        assert_same(*(model(**inputs, labels=labels) for model in (our_model(theirs), theirs)), inputs)


def test_initial_weights_are_those_of_the_reference_program():
    """A normal distribution with deviation 0.02, cut at 0.04, which leaves a deviation of 0.0176; biases are 0."""
    torch.manual_seed(0)
    config = HftBertConfig(vocab_size=500, hidden_size=60, num_hidden_layers=2)
    for name, parameter in HftBertForPreTraining(config).named_parameters():
        values = parameter.detach()
        if parameter.dim() == 1:
            assert (values == (1.0 if name.endswith("norm.weight") else 0.0)).all(), name
        else:
            assert values.abs().max() <= 0.04, name
            assert values.std().item() == pytest.approx(0.0176, rel=0.12 if values.numel() < 200 else 0.05), name


def with_config(ours, **changes):
    """A model of ours with the same weights and a changed config."""
    config = copy.deepcopy(ours.config)
    for name, value in changes.items():
        setattr(config, name, value)
    wrong = HftBertForPreTraining(config).eval()
    wrong.load_state_dict(ours.state_dict())
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


def moved(name, change):
    """The model with one tensor changed."""

    def apply(ours):
        with torch.no_grad():
            parameter = ours.get_parameter(name)
            parameter.copy_(change(parameter.clone()))
        return ours

    return apply


WRONG = {
    "another GELU": lambda ours: with_config(ours, hidden_act="gelu_new"),
    "another epsilon": lambda ours: with_config(ours, layer_norm_eps=1e-3),
    "norms of a layer swapped": swap("attn_norm", "mlp_norm"),
    "query and key swapped": swap("q_proj", "k_proj"),
    "output bias dropped": in_every_layer(lambda layer: layer.self_attn.o_proj.bias.data.zero_()),
    "no 1/sqrt(d)": in_every_layer(lambda layer: setattr(layer.self_attn, "scaling", 1.0)),
    "a causal mask": in_every_layer(lambda layer: setattr(layer.self_attn, "is_causal", True)),
    "segments ignored": moved("model.embed_token_types.weight", lambda weight: weight[:1].expand(2, -1)),
    "positions off by one": moved("model.embed_positions.weight", lambda weight: weight.roll(1, 0)),
    "layers in the wrong order": lambda ours: setattr(ours.model, "layers", ours.model.layers[::-1]) or ours,
    "no norm on the embeddings": lambda ours: setattr(ours.model, "embed_norm", torch.nn.Identity()) or ours,
    "no bias of the vocabulary": moved("lm_head.bias", torch.zeros_like),
    "no pooler": lambda ours: setattr(ours.model, "pooler", torch.nn.Identity()) or ours,
}


@pytest.mark.parametrize("change", WRONG)
def test_parity_notices(pretraining, change):
    ours, theirs = pretraining
    inputs = pairs()
    with pytest.raises(AssertionError, match="not close"):
        assert_same(run(WRONG[change](ours), inputs), run(theirs, inputs), inputs)


def test_parity_notices_padding_that_is_attended_to(pretraining):
    inputs = pairs()
    wrong = pretraining[0](inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
    with pytest.raises(AssertionError, match="not close"):
        assert_same(wrong, pretraining[1](**inputs), inputs)


def test_gradient_parity_notices_a_scaled_gradient(pretraining):
    ours, theirs = pretraining
    for model in pretraining:
        run(model, pairs()).loss.backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    mine["model.layers.0.mlp.up_proj.weight"] = mine["model.layers.0.mlp.up_proj.weight"] * 1.001
    with pytest.raises(AssertionError, match="up_proj.weight is not close"):
        assert_gradients_close(mine, gradients_in_our_names(theirs), GRADIENT_TOLERANCE)


def test_a_converted_model_is_not_the_stock_class(pretraining):
    assert not isinstance(pretraining[0], BertForPreTraining)
