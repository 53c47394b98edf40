"""Laws that hold for every head of every architecture: what a saved model gives back, and ties between weights."""

import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_models import HEADS, VOCAB, answer, batch, real_answers

TIED = [head for head in HEADS if getattr(head.model_class, "_tied_weights_keys", None)]


@pytest.fixture(params=HEADS, ids=str)
def head(request):
    return request.param


def same(head, ours, theirs):
    """Exactly; a product with a matrix of one row may round otherwise where the weights lie elsewhere in memory."""
    bound = 1e-6 if "MultipleChoice" in head.auto else 0
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


@pytest.mark.parametrize("head", TIED, ids=str)
def test_tied_weights_share_storage_after_init_and_after_load(head, tmp_path):
    model = head.model(tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    for tied in (model, head.model_class.from_pretrained(tmp_path)):
        ours, embeddings = tied.get_output_embeddings().weight, tied.get_input_embeddings().weight
        assert ours.data_ptr() == embeddings.data_ptr()
    untied = head.model(tie_word_embeddings=False)
    assert untied.get_output_embeddings().weight.data_ptr() != untied.get_input_embeddings().weight.data_ptr()
    untied.save_pretrained(tmp_path / "untied")
    again = head.model_class.from_pretrained(tmp_path / "untied")
    assert torch.equal(again.get_output_embeddings().weight, untied.get_output_embeddings().weight)
    assert torch.equal(again.get_input_embeddings().weight, untied.get_input_embeddings().weight)


@pytest.mark.parametrize("head", TIED, ids=str)
def test_resizing_the_embeddings_keeps_the_tie(head, tmp_path):
    model, inputs = head.model(tie_word_embeddings=True), head.inputs(batch((6, 6)))
    with torch.no_grad():
        before = answer(model(**inputs))
    model.resize_token_embeddings(VOCAB + 5, mean_resizing=False)
    assert model.config.vocab_size == VOCAB + 5
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    torch.testing.assert_close(answer(model(**inputs))[..., :VOCAB], before[..., :VOCAB])
    ids = batch((6, 6))["input_ids"] + 9
    model.train()(**head.labelled(dict(input_ids=ids, attention_mask=torch.ones_like(ids)))).loss.backward()
    assert model.get_input_embeddings().weight.grad.shape == (VOCAB + 5, 32)
    model.save_pretrained(tmp_path)
    again = head.model_class.from_pretrained(tmp_path)
    same(head, answer(again(**inputs)), answer(model.eval()(**inputs)))


def test_save_and_load_is_exact(head, tmp_path):
    model, inputs = head.model(), head.inputs(batch())
    model.save_pretrained(tmp_path)
    again = getattr(transformers, head.auto).from_pretrained(tmp_path)
    assert type(again) is head.model_class
    assert again.config.to_diff_dict() == model.config.to_diff_dict()
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    buffers = dict(again.named_buffers())
    assert all(torch.equal(tensor, buffers[name]) for name, tensor in model.named_buffers())
    same(head, real_answers(again, inputs), real_answers(model, inputs))


def test_a_tensor_missing_in_the_file_gets_its_own_initialisation(head, tmp_path):
    """And nothing else is touched: from_pretrained builds without memory, so garbage and overwriting are near."""
    small = dict(num_hidden_layers=1)
    head.model(**small).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    torch.manual_seed(0)
    fresh = head.model_class(head.config(**small)).state_dict()
    body = head.auto == "AutoModel"  # whose tensors all the other heads have too
    for missing in [name for name in saved if body or not name.startswith("model.")]:
        rest = {name: tensor for name, tensor in saved.items() if name != missing}
        save_file(rest, tmp_path / "model.safetensors", metadata={"format": "pt"})
        state = head.model_class.from_pretrained(tmp_path).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in rest.items()), missing
        spread, expected = (tensors[missing].std(correction=0) for tensors in (state, fresh))
        torch.testing.assert_close(spread, expected, rtol=0.3, atol=0, msg=f"{missing}: {spread} v {expected}")
        noise = 5 * float(expected) / math.sqrt(fresh[missing].numel())  # of a mean of so many numbers
        torch.testing.assert_close(state[missing].mean(), fresh[missing].mean(), rtol=0.01, atol=max(0.01, noise))


def test_every_head_loads_from_any_checkpoint(head, tmp_path):
    """config.json lists them all, but for those that refuse such a config; the body is the saved one."""
    model = head.model()
    model.save_pretrained(tmp_path)
    ours = [other.auto for other in HEADS if (other.architecture, other.variant) == (head.architecture, head.variant)]
    offered = {auto: path for auto, path in head.module.AUTO_MAP.items() if auto in ("AutoConfig", *ours)}
    assert json.loads((tmp_path / "config.json").read_text())["auto_map"] == offered
    body = model.base_model.state_dict()
    for other in HEADS:
        if (other.architecture, other.variant) == (head.architecture, head.variant):
            loaded = getattr(transformers, other.auto).from_pretrained(tmp_path)
            assert type(loaded) is other.model_class
            state = loaded.base_model.state_dict()
            own = ("pooler.", "decoder.")  # what not every body of an architecture has
            assert {name for name in body.keys() ^ state.keys() if not name.startswith(own)} == set()
            assert all(torch.equal(tensor, state[name]) for name, tensor in body.items() if name in state)
