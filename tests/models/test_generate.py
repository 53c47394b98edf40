"""generate() of every generating head: each way of decoding against what it means, with and without the cache."""

import inspect

import pytest
import torch
from small_models import GENERATING, PAD, RECURRENT, batch

NEW = 8
NO_END = dict(eos_token_id=None, pad_token_id=PAD, max_new_tokens=NEW)
GREEDY = NO_END | dict(do_sample=False)


@pytest.fixture(params=GENERATING, ids=str)
def head(request):
    return request.param


@pytest.fixture
def model(head):
    return head.model()


@pytest.fixture
def prompts():
    return batch((6, 6, 6))


def new_tokens(model, prompts, seed=0, **options):
    """What is generated, without the prompt, or without the start token of a decoder."""
    torch.manual_seed(seed)
    before = 1 if model.config.is_encoder_decoder else prompts["input_ids"].shape[1]
    return model.generate(**prompts, **options)[:, before:]


@torch.no_grad()
def logits_of(model, prompts, new):
    """The logits of each of the new tokens and of one more, from one pass without a cache; (B, new + 1, V)."""
    ids = prompts["input_ids"]
    if model.config.is_encoder_decoder:
        start = torch.full_like(ids[:, :1], model.config.decoder_start_token_id)
        return model(**prompts, decoder_input_ids=torch.cat([start, new], dim=1), use_cache=False).logits
    options = dict(use_cache=False)
    if "prefix_mask" in inspect.signature(model.forward).parameters:
        options |= dict(prefix_mask=torch.ones_like(ids))
    return model(torch.cat([ids, new], dim=1), **options).logits[:, ids.shape[1] - 1 :]


def test_greedy_takes_the_most_probable_token(model, prompts):
    new = prompts["input_ids"][:, :0]
    for _ in range(NEW):
        new = torch.cat([new, logits_of(model, prompts, new)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(new_tokens(model, prompts, **GREEDY), new)


@pytest.mark.parametrize(
    "options",
    [
        dict(do_sample=False),
        dict(do_sample=True, temperature=0.7),
        dict(do_sample=True, top_k=5),
        dict(do_sample=True, top_p=0.8),
        dict(do_sample=False, num_beams=3, length_penalty=0.5, num_return_sequences=2),
        dict(do_sample=True, num_beams=2),
        dict(do_sample=False, repetition_penalty=1.5, no_repeat_ngram_size=2),
    ],
    ids=str,
)
def test_cache_changes_nothing(model, prompts, options):
    with_cache, without = (new_tokens(model, prompts, **NO_END | options, use_cache=use) for use in (True, False))
    assert torch.equal(with_cache, without)


def test_static_cache_is_the_dynamic_one(model, prompts):
    static = new_tokens(model, prompts, **GREEDY, cache_implementation="static")
    assert torch.equal(static, new_tokens(model, prompts, **GREEDY))


@pytest.mark.parametrize("options", [dict(top_k=1), dict(top_p=1e-6), dict(temperature=1e-4)], ids=str)
def test_sampling_narrowed_to_one_token_is_greedy(model, prompts, options):
    sampled = new_tokens(model, prompts, **NO_END, do_sample=True, **options)
    assert torch.equal(sampled, new_tokens(model, prompts, **GREEDY))


@torch.no_grad()
def test_sampled_tokens_lie_among_those_allowed(head):
    """Top-k: the rank is below k. Top-p: the tokens that are more probable do not reach p by themselves."""
    model, prompts = head.model(), batch((6, 6, 6))
    for parameter in model.parameters():
        parameter.data.mul_(0.3)  # a flatter distribution, so that the filters have something to take away
    for options in (dict(top_k=4), dict(top_p=0.5, top_k=0), dict(top_k=0)):
        rows = {name: values.repeat(4, 1) for name, values in prompts.items()}
        new = new_tokens(model, rows, **NO_END, do_sample=True, **options)
        ranks, before = [], []
        for step in range(NEW):
            probabilities = logits_of(model, rows, new[:, :step])[:, -1].softmax(-1)
            chosen = probabilities.gather(1, new[:, step : step + 1])
            ranks.append((probabilities > chosen).sum(-1))
            before.append((probabilities * (probabilities > chosen)).sum(-1))
        highest, mass = torch.stack(ranks).max(), torch.stack(before).max()
        if options == dict(top_k=0):  # without a filter both bounds are broken: the test can fail
            assert highest >= 4
            assert mass > 0.5
        elif "top_p" in options:
            assert mass < 0.5
        else:
            assert 0 < highest < 4


def test_temperature_divides_the_logits(model, prompts):
    """A model whose logits are twice as large, sampled at temperature 2, is the same sampler."""
    expected = new_tokens(model, prompts, **NO_END, do_sample=True, top_k=0)
    norms = [module for name, module in model.named_modules() if name.endswith("norm") and [*module.parameters()]]
    if norms:
        for parameter in norms[-1].parameters():  # the last one is applied last
            parameter.data.mul_(2)
    else:
        model.lm_head.weight = torch.nn.Parameter(2 * model.lm_head.weight.data)  # no longer that of the embeddings
        if model.lm_head.bias is not None:
            model.lm_head.bias.data.mul_(2)
    assert torch.equal(expected, new_tokens(model, prompts, **NO_END, do_sample=True, top_k=0, temperature=2.0))


def test_samples_differ_and_follow_the_seed(model, prompts):
    options = NO_END | dict(do_sample=True, num_return_sequences=3, temperature=3.0)
    first, same, other = (new_tokens(model, prompts, seed=seed, **options) for seed in (0, 0, 1))
    assert first.shape == (9, NEW)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len({tuple(row.tolist()) for row in first}) == 9


@torch.no_grad()
def test_beams_find_no_worse_a_text_than_greedy_and_come_sorted(head, model, prompts):
    number = 8 if head.architecture in RECURRENT else 4  # a random model's best text falls out of few beams
    beams = new_tokens(model, prompts, **NO_END, do_sample=False, num_beams=number, num_return_sequences=number)
    assert beams.shape == (3 * number, NEW)

    def score(new):
        rows = {name: values.repeat_interleave(len(new) // 3, 0) for name, values in prompts.items()}
        log_probabilities = logits_of(model, rows, new).log_softmax(-1)[:, :-1]
        return log_probabilities.gather(2, new.unsqueeze(2)).sum((1, 2)).view(3, -1)

    scores = score(beams)
    assert (scores[:, 0] >= score(new_tokens(model, prompts, **GREEDY))[:, 0] - 1e-4).all()
    assert torch.equal(scores, scores.sort(descending=True).values)


@pytest.mark.parametrize("options", [{}, dict(cache_implementation="static"), dict(use_cache=False)], ids=str)
def test_a_prompt_padded_on_the_left_continues_as_it_does_alone(model, options):
    prompts = batch((6, 3, 1), side="left")
    together = new_tokens(model, prompts, **GREEDY, **options)
    for ids, mask, row in zip(prompts["input_ids"], prompts["attention_mask"], together, strict=True):
        alone = {"input_ids": ids[mask.bool()].unsqueeze(0)}
        alone["attention_mask"] = torch.ones_like(alone["input_ids"])
        assert torch.equal(new_tokens(model, alone, **GREEDY)[0], row)


@torch.no_grad()
@pytest.mark.parametrize("head", [head for head in GENERATING if head.architecture == "gpt"], ids=str)
def test_left_padded_logits_need_no_position_ids(model):
    prompts = batch((6, 3, 1), side="left")
    positions = (prompts["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    real = prompts["attention_mask"].bool()
    assert torch.equal(model(**prompts).logits[real], model(**prompts, position_ids=positions).logits[real])
    shifted = model(**prompts, position_ids=torch.arange(6).expand(3, 6)).logits[real]
    assert (shifted - model(**prompts).logits[real]).abs().max() > 0.1  # what a model that counts padding would say


@torch.no_grad()
@pytest.mark.parametrize("head", [head for head in GENERATING if not head.writes], ids=str)
def test_left_padded_cache_is_continued_without_position_ids(model):
    prompts = batch((8, 5, 3), side="left")
    full = model(**prompts).logits
    start = model(prompts["input_ids"][:, :-2], attention_mask=prompts["attention_mask"][:, :-2], use_cache=True)
    rest = model(
        prompts["input_ids"][:, -2:],
        attention_mask=prompts["attention_mask"],
        past_key_values=start.past_key_values,
        use_cache=True,
    )
    torch.testing.assert_close(rest.logits, full[:, -2:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_logits_to_keep(head, model, prompts):
    prompts = head.inputs(batch((9, 9, 9)))
    full = model(**prompts).logits
    for keep, expected in ((0, full), (1, full[:, -1:]), (4, full[:, -4:]), (torch.tensor([0, 3]), full[:, [0, 3]])):
        torch.testing.assert_close(model(**prompts, logits_to_keep=keep).logits, expected, rtol=1e-5, atol=1e-5)


def test_generate_computes_one_row_of_logits_per_step(model, prompts):
    rows = []
    model.lm_head.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[1]))
    new_tokens(model, prompts, **GREEDY)
    assert rows == [1] * NEW


@pytest.mark.parametrize("head", [head for head in GENERATING if head.architecture not in RECURRENT], ids=str)
def test_sdpa_generates_as_eager(model):
    prompts = batch((6, 3, 1), side="left")
    expected = new_tokens(model, prompts, **GREEDY)
    model.set_attn_implementation("eager")
    assert torch.equal(expected, new_tokens(model, prompts, **GREEDY))


def test_generates_from_embeddings(model, prompts):
    embeds = model.get_input_embeddings()(prompts["input_ids"]).detach()
    given = dict(inputs_embeds=embeds, attention_mask=prompts["attention_mask"])
    new = model.generate(**given, **GREEDY)[:, -NEW:]  # of a decoder alone nothing else is returned
    assert torch.equal(new, new_tokens(model, prompts, **GREEDY))


def test_generation_stops_at_the_end_token(model, prompts):
    free = new_tokens(model, prompts, **GREEDY)
    end = int(free[0, 2])
    stopped = new_tokens(model, prompts, **GREEDY | dict(eos_token_id=end))
    for row, whole in zip(stopped, free, strict=True):
        length = whole.tolist().index(end) + 1 if end in whole else NEW
        assert torch.equal(row[:length], whole[:length])
        assert (row[length:] == PAD).all()


@pytest.mark.parametrize(
    "head", [head for head in GENERATING if "max_position_embeddings" in head.config().to_dict()], ids=str
)
def test_beyond_the_last_position_is_an_error_that_says_so(model, prompts):
    with pytest.raises(ValueError, match=r"position 32 .*max_position_embeddings=32"):
        new_tokens(model, prompts, **GREEDY | dict(max_new_tokens=28))
