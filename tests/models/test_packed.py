"""Packed rows: every document is computed as if it were alone, and no document sees another.

Three paths compute them: without masks, documents of equal length together ("grouped", sdpa); with a block-diagonal
mask under sdpa (taken when hidden states are asked for); and with a mask under eager.
"""

import copy

import pytest
import torch
from small_models import HEADS, VOCAB, WITHOUT_ATTENTION, answer, assert_gradients_close, randomise
from transformers import GPT2Config, GPT2LMHeadModel

TOLERANCE = dict(rtol=1e-5, atol=1e-5)  # noise floor 4e-6
PER_TOKEN = ("AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForTokenClassification")
PER_TOKEN += ("AutoModelForTextEncoding",)
POOLED = ["bert-Model"]  # whose answer holds a vector of the whole row
PACKED = [head for head in HEADS if head.auto in PER_TOKEN and str(head) not in POOLED and not head.writes]
PACKED = [head for head in PACKED if head.architecture not in WITHOUT_ATTENTION]  # these read rows of one text each
ONE_TEXT = [head for head in HEADS if head.architecture in ("rnn", "nnlm") and head.auto in PER_TOKEN]
CAUSAL_LM = [head for head in PACKED if head.auto == "AutoModelForCausalLM"]
PATHS = {
    "grouped": ("sdpa", {}),
    "masked": ("sdpa", dict(output_hidden_states=True)),
    "eager": ("eager", {}),
}
LAYOUTS = {  # rows of document lengths
    "one flat row": [[3, 5, 3, 1, 7, 5]],
    "rows of different documents": [[3, 5, 4], [1, 2, 9], [12]],
    "rows of equal documents": [[4, 4, 4], [4, 4, 4]],
}


def pack(layout, seed=2):
    """input_ids and position_ids, both (B, T), and for each document its (row, slice)."""
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in layout])
    ids = torch.randint(5, VOCAB, positions.shape, generator=torch.Generator().manual_seed(seed))
    places = []
    for row, lengths in enumerate(layout):
        ends = torch.tensor(lengths).cumsum(0).tolist()
        places += [(row, slice(end - length, end)) for end, length in zip(ends, lengths, strict=True)]
    return dict(input_ids=ids, position_ids=positions), places


@pytest.fixture(params=[head for head in PACKED if head not in CAUSAL_LM], ids=str)
def model(request):
    return request.param.model()


@pytest.fixture(params=CAUSAL_LM, ids=str)
def causal_lm(request):
    return request.param.model()


def set_path(model, path):
    """Prepare the model for a path; the arguments that lead there."""
    implementation, arguments = PATHS[path]
    model.set_attn_implementation(implementation)
    return arguments


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PATHS)
def test_a_packed_document_is_computed_as_if_alone(causal_lm, path, layout):
    """In evaluation with use_cache=True, the default, where the stock class attends across (see below)."""
    assert_as_if_alone(causal_lm, path, layout)


@pytest.mark.parametrize("path", PATHS)
def test_the_other_heads_take_packed_rows_too(model, path):
    assert_as_if_alone(model, path, "rows of different documents")
    assert leak(model, PATHS[path][1], LAYOUTS["rows of different documents"]) == 0


@torch.no_grad()
def assert_as_if_alone(model, path, layout):
    arguments = set_path(model, path)
    batch, places = pack(LAYOUTS[layout])
    together = answer(model(**batch, **arguments))
    for row, span in places:
        alone = answer(model(batch["input_ids"][row : row + 1, span]))
        torch.testing.assert_close(together[row : row + 1, span], alone, **TOLERANCE)


@pytest.mark.parametrize("path", PATHS)
def test_hidden_states_agree_with_the_documents_alone(causal_lm, path):
    set_path(causal_lm, path)
    batch, places = pack([[3, 5, 4], [1, 2, 9]])
    together = causal_lm(**batch, output_hidden_states=True)
    assert len(together.hidden_states) == causal_lm.config.num_hidden_layers + 1
    assert together.past_key_values is None
    for row, span in places:
        alone = causal_lm(batch["input_ids"][row : row + 1, span], output_hidden_states=True)
        for left, right in zip(together.hidden_states, alone.hidden_states, strict=True):
            torch.testing.assert_close(left[row : row + 1, span], right, **TOLERANCE)


def test_attentions_of_packed_rows_stay_inside_the_documents(causal_lm):
    causal_lm.set_attn_implementation("eager")
    batch, places = pack([[3, 5, 4]])
    inside = torch.zeros(12, 12, dtype=torch.bool)
    for _, span in places:
        inside[span, span] = True
    for weights in causal_lm(**batch, output_attentions=True).attentions:
        assert (weights[..., ~inside] == 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, 12))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PATHS)
def test_gradients_are_those_of_the_documents_alone(causal_lm, path, layout):
    """The sum over all tokens, packed; and one document at a time, added up."""
    arguments = set_path(causal_lm.train(), path)
    batch, places = pack(LAYOUTS[layout])
    labels = batch["input_ids"].masked_fill(batch["position_ids"] == 0, -100)  # no token predicts the next document
    loss = causal_lm(**batch, labels=labels, num_items_in_batch=1, **arguments).loss
    loss.backward()
    packed = {name: parameter.grad.clone() for name, parameter in causal_lm.named_parameters()}
    causal_lm.zero_grad()
    total = 0.0
    for row, span in places:
        ids = batch["input_ids"][row : row + 1, span]
        alone = causal_lm(ids, labels=ids, num_items_in_batch=1).loss
        alone.backward()
        total += alone.item()
    assert loss.item() == pytest.approx(total, rel=1e-6)
    alone = {name: parameter.grad for name, parameter in causal_lm.named_parameters()}
    assert_gradients_close(packed, alone, tolerance=5e-5)  # noise floor 1e-5, in a gradient that is 0 in theory


def what_the_others_see(model, batch, place, **arguments):
    """Logits outside of a document, and the gradient that reaches it from all logits outside of it."""
    row, span = place
    embeds = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    output = model(inputs_embeds=embeds, position_ids=batch["position_ids"], **arguments)
    others = torch.ones_like(batch["input_ids"], dtype=torch.bool)
    others[row, span] = False
    logits = answer(output)
    logits[others].square().sum().backward()
    return logits[others].detach(), embeds.grad[row, span], embeds.grad[others]


def leak(model, path_arguments, layout, changed=1):
    """The largest number by which a changed document moves the logits and the gradients of the others."""
    batch, places = pack(layout)
    logits, into_document, gradients = what_the_others_see(model, batch, places[changed], **path_arguments)
    row, span = places[changed]
    other = batch | dict(input_ids=batch["input_ids"].clone())
    other["input_ids"][row, span] = 5 + (other["input_ids"][row, span] + 7) % (VOCAB - 5)
    assert not torch.equal(other["input_ids"], batch["input_ids"])
    moved, _, moved_gradients = what_the_others_see(model, other, places[changed], **path_arguments)
    differences = [logits - moved, gradients - moved_gradients, into_document]
    return max(float(difference.abs().max()) for difference in differences)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", PATHS)
def test_nothing_leaks_into_the_neighbours(causal_lm, path, layout):
    """Exactly nothing, on every path: another document has no share in any sum."""
    arguments = set_path(causal_lm, path)
    for training in (False, True) if layout == "one flat row" else (False,):
        assert leak(causal_lm.train(training), arguments, LAYOUTS[layout]) == 0


def test_the_leak_test_notices_the_stock_class():
    """Stock GPT-2 in evaluation makes a cache by default and then attends across the boundaries."""
    config = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    model = randomise(GPT2LMHeadModel(config))
    assert leak(model, {}, LAYOUTS["one flat row"]) > 0.1
    assert leak(model, dict(use_cache=False), LAYOUTS["one flat row"]) == 0


@pytest.mark.parametrize("path", PATHS)
def test_the_leak_test_notices_positions_that_do_not_restart(causal_lm, path):
    arguments = set_path(causal_lm, path)
    batch, places = pack(LAYOUTS["one flat row"])
    batch["position_ids"] = torch.arange(24).unsqueeze(0)
    _, into_document, _ = what_the_others_see(causal_lm, batch, places[1], **arguments)
    assert into_document.abs().max() > 1e-3


def test_positions_of_one_row_serve_all_rows(causal_lm):
    """Transformers lets position_ids be (1, T); the boundaries are then those of every row."""
    batch, _ = pack([[4, 4, 4], [4, 4, 4]])
    shared = causal_lm(batch["input_ids"], position_ids=batch["position_ids"][:1]).logits
    assert torch.equal(shared, causal_lm(**batch).logits)


def test_a_whole_row_is_no_packing(causal_lm):
    """Positions without a restart, from any first position, keep the cache and the plain path."""
    ids = pack([[12], [12]])[0]["input_ids"]
    positions = torch.arange(12).expand(2, 12)
    output = causal_lm(ids, position_ids=positions)
    assert output.past_key_values.get_seq_length() == 12
    assert torch.equal(output.logits, causal_lm(ids).logits)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("head", CAUSAL_LM, ids=str)
@torch.no_grad()
def test_attention_drops_out_in_training_only(head, path):
    model = head.model(attention_probs_dropout_prob=0.5).train()
    arguments, (batch, _) = set_path(model, path), pack(LAYOUTS["one flat row"])
    one, other = (answer(model(**batch, **arguments)) for _ in range(2))
    assert (one - other).abs().max() > 0.1
    model.eval()
    assert torch.equal(answer(model(**batch, **arguments)), answer(model(**batch, **arguments)))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing")
def test_gradient_checkpointing_of_packed_rows(causal_lm):
    batch, _ = pack(LAYOUTS["rows of different documents"])
    results = []
    for checkpointing in (False, True):
        model = copy.deepcopy(causal_lm).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**batch, labels=batch["input_ids"]).loss.backward()
        results.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert_gradients_close(*results, tolerance=1e-6)


@pytest.mark.parametrize("head", ONE_TEXT, ids=str)
@torch.no_grad()
def test_a_model_that_would_run_texts_into_each_other_refuses_packed_rows(head):
    model = head.model()
    batch, _ = pack(LAYOUTS["rows of different documents"])
    with pytest.raises(ValueError, match=r"position_ids begin anew at place 3 of row 0: .*packing=False"):
        model(**batch)
    one = {"input_ids": batch["input_ids"], "position_ids": torch.arange(12).expand(3, 12)}
    assert torch.equal(answer(model(**one)), answer(model(batch["input_ids"])))
    model(**batch, attention_mask=torch.ones_like(batch["input_ids"]))  # positions after padding begin anew, too
