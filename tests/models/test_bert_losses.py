"""What HftBert computes for its losses, where it leaves work out: words, padding, documents in one row."""

import copy

import pytest
import torch
from small_models import HEADS, assert_gradients_close, batch
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hftoolkit.models.layers_attention import packed_attention
from hftoolkit.models.modeling_bert import HftBertModel

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
BY_NAME = {head.auto.removeprefix("AutoModel"): head for head in HEADS if head.architecture == "bert"}
WORDS = ["ForMaskedLM", "ForPreTraining"]
LENGTHS = (12, 7, 9, 3, 12, 4, 8, 11)


def examples(lengths=LENGTHS, side="right", every=3):
    """A padded batch in which every third token is a masked word, and pairs."""
    rows = batch(lengths, side)
    ids, mask = rows["input_ids"], rows["attention_mask"]
    labels = ids.masked_fill((mask == 0) | (ids % every != 0), -100)
    types = (mask.cumsum(-1) > 3).long()
    return rows | dict(token_type_ids=types, labels=labels, next_sentence_label=torch.arange(len(lengths)) % 2)


def for_head(name, rows):
    return rows if name == "ForPreTraining" else {k: v for k, v in rows.items() if k != "next_sentence_label"}


def words_of(output):
    return output.logits if hasattr(output, "logits") else output.prediction_logits


def step(model, rows):
    """Loss and gradients."""
    model = copy.deepcopy(model)
    loss = model(**rows).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", WORDS)
def test_the_sparse_head_is_the_full_one(name):
    """Loss and gradients from the labelled positions only, and from all logits through torch's own loss."""
    model, rows = BY_NAME[name].model().train(), for_head(name, examples())
    loss, gradients = step(model, rows)
    inputs = {key: values for key, values in rows.items() if "label" not in key}
    full = copy.deepcopy(model)
    output = full(**inputs)
    assert words_of(output).shape == (8, 12, 99)
    expected = functional.cross_entropy(words_of(output).flatten(0, 1), rows["labels"].flatten())
    if name == "ForPreTraining":
        expected = expected + functional.cross_entropy(output.seq_relationship_logits, rows["next_sentence_label"])
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), **TOLERANCE)
    theirs = {key: parameter.grad for key, parameter in full.named_parameters()}
    assert_gradients_close(gradients, theirs, tolerance=1e-5)


@pytest.mark.parametrize("name", WORDS)
def test_the_transform_sees_the_labelled_positions_only(name):
    model, rows = BY_NAME[name].model().train(), for_head(name, examples())
    seen = []
    model.transform.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    model(**rows)
    assert seen == [(int((rows["labels"] != -100).sum()), 32)]
    with pytest.raises(AssertionError):  # the check can fail: in evaluation all are scored
        seen.clear()
        model.eval()(**rows)
        assert seen == [(int((rows["labels"] != -100).sum()), 32)]


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("training", [True, False])
def test_logits_to_keep_chooses_positions_in_reading_order(name, training):
    model, rows = BY_NAME[name].model().train(training), for_head(name, examples())
    full = words_of(model(**{key: values for key, values in rows.items() if "label" not in key}))
    plain = model(**rows)
    assert (words_of(plain) is None) == training
    for keep in (rows["labels"] != -100, torch.zeros_like(rows["labels"]).bool(), torch.ones(8, 12).bool()):
        output = model(**rows, logits_to_keep=keep)
        torch.testing.assert_close(words_of(output), full[keep], **TOLERANCE)
        torch.testing.assert_close(output.loss, plain.loss, **TOLERANCE)
    for wrong in (torch.ones(8, 12).long(), torch.ones(12).bool(), torch.ones(12, 8).bool()):
        with pytest.raises(ValueError, match=r"logits_to_keep must be a bool tensor of shape \(8, 12\), got"):
            model(**rows, logits_to_keep=wrong)


@pytest.mark.parametrize("name", WORDS)
def test_without_masked_words_the_loss_is_zero_and_finite(name):
    rows = for_head(name, examples())
    rows["labels"] = torch.full_like(rows["labels"], -100)
    if name == "ForPreTraining":
        rows["next_sentence_label"] = torch.full((8,), -100)
    for counts in ({}, dict(num_items_in_batch=7), dict(num_items_in_batch=torch.tensor(0))):
        loss, gradients = step(BY_NAME[name].model().train(), rows | counts)
        assert loss == 0
        assert all(gradient is None or (gradient == 0).all() for gradient in gradients.values())


def pretraining_output(counts=None, **changes):
    rows = examples() | changes
    return BY_NAME["ForPreTraining"].model().train()(**rows, **counts or {})


def test_the_parts_of_the_pretraining_loss_add_up():
    both = pretraining_output()
    torch.testing.assert_close(both.mlm_loss + both.nsp_loss, both.loss.detach())
    assert not both.mlm_loss.requires_grad and not both.nsp_loss.requires_grad
    words, pairs = pretraining_output(next_sentence_label=None), pretraining_output(labels=None)
    assert words.nsp_loss is None and pairs.mlm_loss is None
    torch.testing.assert_close(words.loss, both.mlm_loss)
    torch.testing.assert_close(pairs.loss, both.nsp_loss)
    assert pretraining_output(labels=None, next_sentence_label=None).loss is None


def test_each_part_is_divided_by_its_count():
    plain, masked = pretraining_output(), int((examples()["labels"] != -100).sum())
    counted = pretraining_output(dict(num_items_in_batch=2 * masked, num_pairs_in_batch=32))
    torch.testing.assert_close(counted.mlm_loss, plain.mlm_loss / 2)
    torch.testing.assert_close(counted.nsp_loss, plain.nsp_loss / 4)
    words_only = pretraining_output(dict(num_items_in_batch=4 * masked))  # a quarter of the words: a quarter of a mean
    torch.testing.assert_close(words_only.nsp_loss, plain.nsp_loss / 4)
    alone = pretraining_output(dict(num_items_in_batch=3, num_pairs_in_batch=16), labels=None)
    torch.testing.assert_close(alone.loss.detach(), plain.nsp_loss / 2)


def test_one_batch_of_eight_is_eight_of_one():
    """With both counts, exactly, though the rows have very different numbers of masked words."""
    model, rows = BY_NAME["ForPreTraining"].model().train(), examples()
    words = (rows["labels"] != -100).sum()
    assert len(set((rows["labels"] != -100).sum(1).tolist())) > 3
    loss, gradients = step(model, rows)
    for counts, equal in (
        (dict(num_items_in_batch=words, num_pairs_in_batch=8), True),
        (dict(num_items_in_batch=words), False),  # pairs then weigh by their words, which is another mean
        (dict(num_pairs_in_batch=8), False),
    ):
        parts = copy.deepcopy(model)
        total = 0.0
        for row in range(8):
            part = parts(**{name: values[row : row + 1] for name, values in rows.items()}, **counts).loss
            part.backward()
            total += float(part.detach())
        mine = {name: parameter.grad for name, parameter in parts.named_parameters()}
        assert (total == pytest.approx(float(loss), rel=1e-5)) == equal
        if equal:
            assert_gradients_close(mine, gradients, tolerance=2e-5)


def test_a_label_outside_of_the_classes_is_refused():
    rows = examples((5, 5))
    rows.pop("next_sentence_label")
    model = BY_NAME["ForTokenClassification"].model()
    with pytest.raises(ValueError, match="label 12 is outside of the head's 3 classes"):
        model(**rows | dict(labels=torch.tensor([[0, 1, 2, -100, 12], [0, 0, 0, 0, 0]])))


def pack():
    """One row of three documents and one of two: input_ids, position_ids; and where the documents stand."""
    layout = [[3, 5, 4], [9, 3]]
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in layout])
    ids = torch.randint(5, 99, (2, 12), generator=torch.Generator().manual_seed(2))
    places = [(0, slice(0, 3)), (0, slice(3, 8)), (0, slice(8, 12)), (1, slice(0, 9)), (1, slice(9, 12))]
    return dict(input_ids=ids, position_ids=positions), places


PATHS = {"flat": "sdpa", "masked": "sdpa", "eager": "eager"}


@pytest.fixture(params=PATHS)
def masked_lm(request, monkeypatch):
    """A model on one of the paths that packed rows can take; the second is otherwise that of compiled graphs."""
    model = BY_NAME["ForMaskedLM"].model()
    model.set_attn_implementation(PATHS[request.param])
    if request.param == "masked":
        monkeypatch.setattr(HftBertModel, "_leaves_padding_out", lambda self, mask: False)
    return model


def test_packed_documents_are_trained_as_if_alone(masked_lm):
    """Hidden states, loss and gradients: the sum over all documents, together and one at a time."""
    rows, places = pack()
    labels = rows["input_ids"].masked_fill(rows["input_ids"] % 2 == 0, -100)
    masked_lm.train()
    together = masked_lm(**rows, labels=labels, num_items_in_batch=1, output_hidden_states=True)
    loss, packed = step(masked_lm, rows | dict(labels=labels, num_items_in_batch=1))
    total, alone = 0.0, copy.deepcopy(masked_lm)
    for row, span in places:
        inputs = dict(input_ids=rows["input_ids"][row : row + 1, span], labels=labels[row : row + 1, span])
        output = alone(**inputs, num_items_in_batch=1, output_hidden_states=True)
        for left, right in zip(together.hidden_states, output.hidden_states, strict=True):
            torch.testing.assert_close(left[row : row + 1, span], right, **TOLERANCE)
        output.loss.backward()
        total += output.loss.item()
    assert float(loss) == pytest.approx(total, rel=1e-6)
    gradients = {name: p.grad for name, p in alone.named_parameters()}
    assert_gradients_close(packed, gradients, tolerance=5e-5)


def leak(model, rows, row, span):
    """The largest number by which a changed document moves the logits of the others."""
    other = rows | dict(input_ids=rows["input_ids"].clone())
    other["input_ids"][row, span] = 5 + (other["input_ids"][row, span] + 7) % 94
    with torch.no_grad():
        moved = (model(**rows).logits - model(**other).logits).abs()
    moved[row, span] = 0
    return float(moved.max())


def test_nothing_leaks_into_the_neighbours(masked_lm):
    rows, places = pack()
    for row, span in places:
        assert leak(masked_lm, rows, row, span) == 0
    rows["position_ids"] = torch.arange(12).expand(2, 12)  # without a restart it is one document, and the test sees it
    assert leak(masked_lm, rows, 0, slice(3, 8)) > 1e-3


@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_kernels_for_flat_rows_get_the_lengths(rows, monkeypatch):
    """As transformers hands them to flash attention; here a kernel of the same interface on the CPU."""
    calls = []

    def flat_kernel(module, query, key, value, attention_mask, *, scaling, cu_seq_lens_q, max_length_q, **kwargs):
        lengths = torch.diff(cu_seq_lens_q).tolist()
        assert attention_mask is None and max(lengths) == max_length_q and not module.is_causal
        calls.append(lengths)
        groups = [(1, length) for length in lengths]
        return packed_attention(query, key, value, groups, scaling=scaling, is_causal=False), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_on_cpu", flat_kernel)
    model = BY_NAME["ForMaskedLM"].model()
    inputs = pack()[0] if rows == "packed" else batch((12, 5, 7), side="left")
    expected = model(**inputs).logits
    model.config._attn_implementation = "flash_on_cpu"
    torch.testing.assert_close(model(**inputs).logits, expected, **TOLERANCE)
    lengths = [9, 5, 4, 3, 3] if rows == "packed" else [12, 7, 5]
    assert calls == [lengths] * 2


def test_too_many_positions_are_refused_with_the_remedy():
    model = BY_NAME[""].model()
    with pytest.raises(ValueError, match="position 32 is beyond max_position_embeddings=32: shorten the input to 32"):
        model(torch.ones(1, 33).long())


def test_a_row_of_padding_only_is_empty():
    """It may stand in the last batch of an uneven split: its hidden states read 0, the others' do not change."""
    model, rows = BY_NAME[""].model(), batch((6, 4))
    wide = {name: torch.cat([values, torch.zeros(1, 6).long()]) for name, values in rows.items()}
    output, expected = model(**wide), model(**rows)
    assert (output.last_hidden_state[2] == 0).all()
    torch.testing.assert_close(output.last_hidden_state[:2], expected.last_hidden_state, **TOLERANCE)
