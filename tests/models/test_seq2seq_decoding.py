"""HftSeq2Seq writes: step by step as all at once, beside padding, with its cache and in beams."""

import copy

import pytest
import torch
from seq2seq_kinds import KINDS, small
from small_models import assert_gradients_close, batch

from hftoolkit.models.modeling_seq2seq import HftSeq2SeqCache

TOLERANCE = dict(rtol=1e-5, atol=1e-5)  # noise floor 2e-6


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@torch.no_grad()
def test_teacher_forcing_is_step_by_step_decoding(kind):
    """In steps of one and of several tokens, of rows that are padded on either side."""
    model, source, words = small(kind), batch((6, 3, 1), side="left"), batch((7, 4, 2))
    ids, mask = words["input_ids"], words["attention_mask"]
    expected = model(**source, decoder_input_ids=ids, decoder_attention_mask=mask, use_cache=False).logits
    read = dict(encoder_outputs=model.get_encoder()(**source), attention_mask=source["attention_mask"])
    for parts in ([1] * 7, [3, 4], [2, 1, 4]):
        cache, logits = None, []
        for step, seen in zip(ids.split(parts, 1), torch.tensor(parts).cumsum(0), strict=True):
            output = model(
                **read,
                decoder_input_ids=step,
                decoder_attention_mask=mask[:, :seen],
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            logits.append(output.logits)
        assert cache.get_seq_length() == 7
        torch.testing.assert_close(torch.cat(logits, 1)[mask.bool()], expected[mask.bool()], **TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_of_both_texts_changes_nothing(kind, side):
    model = small(kind)
    source, words = batch((6, 3, 1), side=side), batch((5, 2, 4), side=side, seed=2)
    read = dict(decoder_input_ids=words["input_ids"], decoder_attention_mask=words["attention_mask"])
    together = model(**source, **read).logits
    for row in range(3):
        alone = {
            name: values[row][mask[row].bool()].unsqueeze(0)
            for name, values, mask in (
                ("input_ids", source["input_ids"], source["attention_mask"]),
                ("decoder_input_ids", words["input_ids"], words["attention_mask"]),
            )
        }
        real = words["attention_mask"][row].bool()
        torch.testing.assert_close(together[row][real], model(**alone).logits[0], **TOLERANCE)


def test_steps_have_the_gradients_of_the_kernels():
    """With padding and a cache the layers run step by step, otherwise in torch's kernels."""
    for kind in ("dot", "general", "concat"):
        model, rows = small(kind), batch((6, 6))
        words = batch((5, 3))
        read = rows | dict(decoder_input_ids=words["input_ids"])
        real = words["attention_mask"].bool()
        losses = []
        for options in (dict(use_cache=False), dict(use_cache=True, decoder_attention_mask=words["attention_mask"])):
            model.zero_grad()
            logits = model(**read, **options).logits[real]
            losses.append(logits.square().mean())
            losses[-1].backward()
            losses.append({name: p.grad.clone() for name, p in model.named_parameters()})
        torch.testing.assert_close(losses[0], losses[2], **TOLERANCE)
        assert_gradients_close(losses[1], losses[3], tolerance=1e-4)


@pytest.mark.parametrize("search", [dict(num_beams=3, num_return_sequences=2), dict(do_sample=True, top_k=5)], ids=str)
def test_generate_with_the_cache_is_generate_without(kind, search):
    model, source = small(kind), batch((6, 3, 1), side="left")
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        options = dict(do_sample=False) | search | dict(eos_token_id=7, max_new_tokens=9, use_cache=use_cache)
        texts.append(model.generate(**source, **options))
    assert torch.equal(*texts)


def test_one_beam_is_greedy_and_takes_the_likeliest_word(kind):
    model, source = small(kind), batch((6, 3, 1))
    options = dict(eos_token_id=None, max_new_tokens=6, do_sample=False)
    greedy = model.generate(**source, **options)
    assert torch.equal(greedy, model.generate(**source, num_beams=1, **options))
    ids = greedy[:, :1]
    for _ in range(6):
        ids = torch.cat([ids, model(**source, decoder_input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(greedy, ids)


@torch.no_grad()
def test_the_cache_goes_with_its_rows():
    """Reordered, repeated, chosen: what follows is what follows those rows."""
    model, source = small("general_feeding"), batch((6, 3, 4))
    words = batch((5, 5, 5), seed=3)["input_ids"]
    encoded, mask = model.get_encoder()(**source), source["attention_mask"]
    expected = model(**source, decoder_input_ids=words).logits[:, -1]
    changes = {
        "reorder_cache": torch.tensor([2, 0, 0]),
        "batch_select_indices": torch.tensor([1, 2]),
        "batch_repeat_interleave": 2,
    }
    for name, argument in changes.items():
        read = dict(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=words[:, :4], use_cache=True)
        cache = model(**read).past_key_values
        getattr(cache, name)(argument)
        chosen = torch.arange(3).repeat_interleave(2) if isinstance(argument, int) else argument
        moved = copy.copy(encoded)
        moved["last_hidden_state"] = encoded.last_hidden_state[chosen]
        read = dict(encoder_outputs=moved, attention_mask=mask[chosen], decoder_input_ids=words[chosen, 4:])
        after = model(**read, past_key_values=cache).logits[:, -1]
        torch.testing.assert_close(after, expected[chosen], **TOLERANCE)
    cache.reset()
    assert vars(cache) == vars(HftSeq2SeqCache())
