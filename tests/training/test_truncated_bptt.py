"""Truncated back-propagation through time: streams that lose no token, and the state that Trainer carries."""

import datasets
import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from hftoolkit.errors import DataError
from hftoolkit.models.modeling_nnlm import HftNnlmConfig, HftNnlmForCausalLM
from hftoolkit.models.modeling_rnn import HftRnnConfig, HftRnnForCausalLM
from hftoolkit.training.truncated_bptt import ContiguousStreams, TruncatedBpttTrainer, collate_streams, read_state

TEXT = np.random.default_rng(0).integers(2, 20, 203).tolist()
RNN = dict(vocab_size=20, hidden_size=8, bidirectional=False)


def streams(*documents, number=2, length=2):
    return ContiguousStreams(datasets.Dataset.from_dict({"input_ids": documents}), number, length, end=1)


def trainer(tmp_path, model=None, train=None, validation=None, **options):
    arguments = TrainingArguments(
        tmp_path, per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True, optim="sgd",
        **dict(max_steps=1, learning_rate=0.0, save_strategy="no") | options,
    )  # fmt: skip
    torch.manual_seed(0)
    model = model or HftRnnForCausalLM(HftRnnConfig(**RNN))
    return TruncatedBpttTrainer(model, arguments, train_dataset=train, eval_dataset=validation)


def test_streams_example():
    data = streams([5, 6, 1], [7, 8, 1])
    items = [(inputs.tolist(), targets.tolist(), begins) for inputs, targets, begins in data]
    assert items == [([1, 5], [5, 6], True), ([1, 7], [7, 8], True), ([6], [1], False), ([8], [1], False)]
    assert data.summary() == {"documents": 2, "tokens": 6, "streams": 2, "stretches": 2}


@pytest.mark.parametrize(("number", "length"), [(1, 7), (4, 10), (7, 400)])
def test_every_stream_is_the_text_from_its_place_on(number, length):
    data = streams(TEXT, number=number, length=length)
    share = len(TEXT) // number
    for stream in range(number):
        rows = [data[i] for i in range(stream, len(data), number)]
        start = stream * share
        assert np.concatenate([row[1] for row in rows]).tolist() == TEXT[start : start + share]
        assert np.concatenate([row[0] for row in rows]).tolist() == ([1, *TEXT])[start : start + share]
        assert [row[2] for row in rows] == [True] + [False] * (len(rows) - 1)


def test_too_little_text_is_refused():
    with pytest.raises(DataError, match="the text has 2 tokens, too few for 3 streams"):
        streams([5, 1], number=3)


@pytest.mark.parametrize("length", [3, 50, 400])
@pytest.mark.parametrize("kind", ["rnn", "nnlm"])
def test_evaluation_in_stretches_is_that_of_the_whole_text(tmp_path, kind, length):
    torch.manual_seed(0)
    nnlm = HftNnlmConfig(vocab_size=20, embedding_size=4, hidden_size=5, context_size=5)
    model = HftRnnForCausalLM(HftRnnConfig(**RNN)) if kind == "rnn" else HftNnlmForCausalLM(nnlm)
    ids = torch.tensor([[1, *TEXT]])
    expected = model.eval()(ids, labels=ids).loss.item()
    found = trainer(tmp_path, model, validation=streams(TEXT, number=1, length=length)).evaluate()
    assert found["eval_tokens"] == len(TEXT)
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_state_is_carried_the_gradient_is_not(tmp_path):
    """Over the batches of an epoch the losses are those of the uncut text; the second step's gradient stops at its start."""
    data = streams(TEXT, number=4, length=25)
    one = trainer(tmp_path, train=data)
    batches = [collate_streams([data[i] for i in range(b * 4, b * 4 + 4)]) for b in range(2)]
    model = one.model.train()
    losses = []
    for batch in batches:
        model.zero_grad()
        loss = one.compute_loss(model, dict(batch), num_items_in_batch=100)
        loss.backward()
        losses.append(loss.item())
    second = model.model.embed_tokens.weight.grad.clone()
    ids, targets = (torch.cat([batch[name] for batch in batches], 1) for name in ("input_ids", "labels"))
    whole = model(ids, shift_labels=targets).loss.item()
    assert sum(losses) / 2 == pytest.approx(whole, rel=1e-5)
    model.zero_grad()
    state = model(batches[0]["input_ids"], use_cache=True).past_key_values
    state.change(torch.Tensor.detach)
    model(batches[1]["input_ids"], past_key_values=state, shift_labels=batches[1]["labels"]).loss.backward()
    torch.testing.assert_close(second, model.model.embed_tokens.weight.grad)
    model.zero_grad()
    model(batches[1]["input_ids"], shift_labels=batches[1]["labels"]).loss.backward()
    assert not torch.allclose(second, model.model.embed_tokens.weight.grad)  # the state was not forgotten
    one.compute_loss(model, dict(batches[0]))
    assert one.carried.length == 25  # a new pass begins with nothing


@pytest.mark.parametrize("accumulation", [1, 3])
def test_trainer_reads_the_streams_in_order(tmp_path, accumulation):
    """Also where batches are accumulated, each goes on where the last one ended; a second pass begins anew."""
    data, seen = streams(TEXT, number=4, length=10), []
    one = trainer(tmp_path, train=data, max_steps=-1, num_train_epochs=2, gradient_accumulation_steps=accumulation)
    one.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"], kwargs["past_key_values"] is None)),
        with_kwargs=True,
    )
    one.train()
    text = torch.tensor([1, *TEXT])
    expected = torch.stack([text[s * 50 : s * 50 + 50] for s in range(4)])
    assert torch.equal(torch.cat([ids for ids, _ in seen], 1), expected.repeat(1, 2))
    assert [new for _, new in seen] == ([True] + [False] * 4) * 2


def test_a_checkpoint_holds_the_state_and_goes_on_with_it(tmp_path):
    data = streams(TEXT, number=4, length=10)
    options = dict(max_steps=4, learning_rate=0.5, save_strategy="steps", save_steps=2)
    whole = trainer(tmp_path / "a", train=data, **options)
    whole.train()
    cache = read_state(tmp_path / "a/checkpoint-2/carried_state.safetensors")
    assert cache.dim == 1 and [part.shape for part in cache.state] == [(1, 4, 8)] * 2
    again = trainer(tmp_path / "b", train=data, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
    for ours, theirs in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    (tmp_path / "a/checkpoint-2/carried_state.safetensors").unlink()
    forgetful = trainer(tmp_path / "c", train=data, **options)
    forgetful.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-2"))
    assert not torch.equal(forgetful.model.lm_head.weight, whole.model.lm_head.weight)


def test_several_devices_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    with pytest.raises(DataError, match="needs one process and one device"):
        trainer(tmp_path, train=streams(TEXT, number=4))
