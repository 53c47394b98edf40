"""HftTransformer against the paper's equations written out below, and against torch.nn.Transformer where it coincides."""

import copy
import math

import pytest
import torch
from small_models import PAD, assert_gradients_close, batch, layers, randomise, written

from hftoolkit.models.layers_positions import sinusoids
from hftoolkit.models.modeling_transformer import (
    HftTransformerConfig,
    HftTransformerForConditionalGeneration,
    HftTransformerModel,
)

TOLERANCE = dict(rtol=1e-4, atol=1e-4)  # noise floor at these sizes, float32 against float64: 2e-5
GRADIENT_TOLERANCE = 1e-4  # of the largest number in a gradient; noise floor 1e-5
SIZES = dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_decoder_layers=3, num_attention_heads=4)
SIZES |= dict(intermediate_size=40, pad_token_id=PAD, hidden_dropout_prob=0.0, layer_norm_eps=1e-4)
KINDS = [
    dict(norm_position="post"),
    dict(norm_position="pre"),
    dict(norm_position="post", position_layout="halves", lm_head_bias=True),
    dict(norm_position="pre", tie_word_embeddings=False),
]
LENGTHS = (12, 8, 2, 8, 12)


# The paper, written out: one sentence pair at a time, loops over heads and positions, no code of the package.


def paper_positions(length, size, layout):
    """Section 3.5."""
    table = torch.zeros(length, size)
    for position in range(length):
        for i in range(size // 2):
            angle = position / 10000 ** (2 * i / size)
            sine, cosine = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, size // 2 + i)
            table[position, sine], table[position, cosine] = math.sin(angle), math.cos(angle)
    return table


def paper_norm(weights, name, x, epsilon):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / (variance + epsilon).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def paper_linear(weights, name, x):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def paper_attention(weights, name, x, y, heads, is_causal):
    """Section 3.2: softmax(Q K' / sqrt(d_k)) V for each head, concatenated, and projected."""
    query, key, value = (
        paper_linear(weights, f"{name}.{part}_proj", rows) for part, rows in (("q", x), ("k", y), ("v", y))
    )
    size, said, seen = x.shape[1] // heads, [], []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        scores = query[:, own] @ key[:, own].T / math.sqrt(size)
        if is_causal:
            scores = scores + torch.full_like(scores, -math.inf).triu(1)
        seen.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
        said.append(seen[-1] @ value[:, own])
    return paper_linear(weights, f"{name}.o_proj", torch.cat(said, dim=1)), torch.stack(seen)


def paper_stack(weights, name, tokens, config, source=None):
    """The encoder, or with a source the decoder: the states of all its layers, and the weights of its attentions."""
    D, epsilon = config.hidden_size, config.layer_norm_eps
    positions = paper_positions(len(tokens), D, config.position_layout)
    x = weights["model.encoder.embed_tokens.weight"][tokens] * math.sqrt(D) + positions
    states, attentions, crossings = [x], [], []
    is_decoder, post = source is not None, config.norm_position == "post"
    for i in range(config.num_decoder_layers if is_decoder else config.num_hidden_layers):
        layer = f"model.{name}.layers.{i}"

        def feed_forward(x, layer=layer):  # Section 3.3
            inner = paper_linear(weights, f"{layer}.mlp.up_proj", x).clamp(min=0)
            return paper_linear(weights, f"{layer}.mlp.down_proj", inner)

        def own(x, layer=layer):
            said, seen = paper_attention(weights, f"{layer}.self_attn", x, x, config.num_attention_heads, is_decoder)
            attentions.append(seen)
            return said

        def cross(x, layer=layer):
            said, seen = paper_attention(
                weights, f"{layer}.cross_attn", x, source, config.num_attention_heads, is_causal=False
            )
            crossings.append(seen)
            return said

        parts = [("attn_norm", own), ("cross_attn_norm", cross), ("mlp_norm", feed_forward)]
        for norm, sublayer in parts if is_decoder else [parts[0], parts[2]]:
            if post:
                x = paper_norm(weights, f"{layer}.{norm}", x + sublayer(x), epsilon)
            else:
                x = x + sublayer(paper_norm(weights, f"{layer}.{norm}", x, epsilon))
        states.append(x)
    if not post:
        states[-1] = paper_norm(weights, f"model.{name}.norm", x, epsilon)
    return states, attentions, crossings


def paper(weights, config, read, words):
    """Logits (T, V) of a decoder that has read nothing but the start token and the words before each."""
    encoded = paper_stack(weights, "encoder", read, config)
    moved = torch.cat([torch.tensor([config.decoder_start_token_id]), words[:-1]])
    decoded = paper_stack(weights, "decoder", moved, config, source=encoded[0][-1])
    matrix = weights["model.encoder.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    logits = decoded[0][-1] @ matrix.T
    return logits + weights["lm_head.bias"] if config.lm_head_bias else logits, encoded, decoded


def paper_loss(weights, config, inputs, label_smoothing):
    """Section 5.4 over a batch: the mean over its words of (1 - e) * -log p(word) + e / V * sum of -log p."""
    total, count, answers = 0.0, 0, []
    for read, mask, labels in zip(inputs["input_ids"], inputs["attention_mask"], inputs["labels"], strict=True):
        words = labels[labels != -100]
        answers.append(paper(weights, config, read[mask.bool()], words)[0])
        log_probabilities = answers[-1].log_softmax(-1)
        right = log_probabilities[torch.arange(len(words)), words]
        smooth = log_probabilities.mean(-1)
        total = total - ((1 - label_smoothing) * right + label_smoothing * smooth).sum()
        count += len(words)
    return total / count, torch.cat(answers)


def our_model(changes=None, **more):
    """Every parameter is moved by N(0, 0.3): at the default init, wrong models pass."""
    torch.manual_seed(0)
    return randomise(HftTransformerForConditionalGeneration(HftTransformerConfig(**SIZES | (changes or {}) | more)))


def leaves(model):
    """A copy of the weights by name, as tensors of their own; tied ones once."""
    return {name: values.detach().clone().requires_grad_() for name, values in model.named_parameters()}


def inputs_for(lengths=LENGTHS, side="right"):
    inputs = batch(lengths, side)
    return inputs | dict(labels=written(inputs["input_ids"], inputs["attention_mask"]))


def assert_same(ours, inputs, expected, weights):
    """Compare every real position, never only the loss: a mean hides what it averages."""
    output = ours(**inputs)
    loss, logits = paper_loss(weights, expected, inputs, 0.0)
    torch.testing.assert_close(output.logits[inputs["labels"] != -100], logits, **TOLERANCE)
    torch.testing.assert_close(output.loss, loss, **TOLERANCE)


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def ours(request):
    return our_model(request.param)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_matches_the_paper(ours, side, implementation):
    ours.set_attn_implementation(implementation)
    assert_same(ours, inputs_for(side=side), ours.config, leaves(ours))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_gradients_match_the_paper(ours, implementation):
    """Of the smoothed loss of training, which never holds all the logits."""
    ours.set_attn_implementation(implementation)
    inputs, weights = inputs_for(), leaves(ours)
    loss = ours.train()(**inputs).loss
    expected, _ = paper_loss(weights, ours.config, inputs, 0.1)
    torch.testing.assert_close(loss, expected, **TOLERANCE)
    loss.backward()
    expected.backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    assert_gradients_close(mine, {name: values.grad for name, values in weights.items()}, GRADIENT_TOLERANCE)


def test_hidden_states_and_attentions_match_the_paper(ours):
    ours.set_attn_implementation("eager")
    inputs = inputs_for((9, 5))
    output = ours(**inputs, output_attentions=True, output_hidden_states=True)
    for row in range(2):
        S, T = int(inputs["attention_mask"][row].sum()), int((inputs["labels"][row] != -100).sum())
        _, encoded, decoded = paper(leaves(ours), ours.config, inputs["input_ids"][row, :S], inputs["labels"][row, :T])
        pairs = [(output.encoder_hidden_states, encoded[0], (S,)), (output.decoder_hidden_states, decoded[0], (T,))]
        pairs += [(output.encoder_attentions, encoded[1], (S, S)), (output.decoder_attentions, decoded[1], (T, T))]
        pairs += [(output.cross_attentions, decoded[2], (T, S))]
        for mine, theirs, sizes in pairs:
            assert len(mine) == len(theirs) >= 2
            for left, right in zip(mine, theirs, strict=True):
                left = left[row, : sizes[0]] if len(sizes) == 1 else left[row, :, : sizes[0], : sizes[1]]
                torch.testing.assert_close(left, right, **TOLERANCE)


def test_sdpa_returns_the_hidden_states_and_no_attentions(ours):
    inputs, wanted = inputs_for((9, 5)), dict(output_attentions=True, output_hidden_states=True)
    output = ours(**inputs, **wanted)
    ours.set_attn_implementation("eager")
    expected = ours(**inputs, **wanted)
    assert "cross_attentions" not in output and "encoder_attentions" not in output
    for name in ("encoder_hidden_states", "decoder_hidden_states"):
        for left, right in zip(output[name], expected[name], strict=True):
            torch.testing.assert_close(left, right, **TOLERANCE)


@torch.no_grad()
def test_cached_steps_are_the_full_forward(ours):
    inputs, ids, cache = batch((9, 5)), batch((12, 12), seed=4)["input_ids"], None
    full = ours(**inputs, decoder_input_ids=ids, use_cache=False).logits
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


@torch.no_grad()
def test_a_left_padded_decoder_text_is_continued_from_the_cache(ours):
    """Positions count the real tokens; the steps hand in the mask of all so far."""
    inputs, text = batch((9, 5)), batch((8, 5), side="left", seed=4)
    ids, mask = text["input_ids"], text["attention_mask"]
    full = ours(**inputs, decoder_input_ids=ids, decoder_attention_mask=mask).logits
    first = ours(**inputs, decoder_input_ids=ids[:, :6], decoder_attention_mask=mask[:, :6])
    rest = ours(
        **inputs, decoder_input_ids=ids[:, 6:], decoder_attention_mask=mask, past_key_values=first.past_key_values
    )
    torch.testing.assert_close(rest.logits, full[:, 6:], **TOLERANCE)
    alone = ours(input_ids=inputs["input_ids"][1:, :5], decoder_input_ids=ids[1:, 3:]).logits
    torch.testing.assert_close(full[1:, 3:], alone, **TOLERANCE)


@pytest.mark.parametrize(
    "options", [{}, dict(num_beams=4, length_penalty=0.6), dict(do_sample=True, top_k=1)], ids=str
)
def test_a_padded_sentence_is_translated_as_it_is_alone(ours, options):
    options = dict(max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=PAD) | options
    options |= dict(no_repeat_ngram_size=1)  # the largest score of random weights is often that of the word just read
    for side in ("left", "right"):
        together = batch((9, 5, 1), side)
        texts = ours.generate(**together, **options)
        assert len(texts.unique()) > 5  # a model that repeats one token would prove nothing
        for ids, mask, text in zip(together["input_ids"], together["attention_mask"], texts, strict=True):
            assert torch.equal(ours.generate(ids[mask.bool()].unsqueeze(0), **options)[0], text)


def test_one_beam_is_greedy(ours):
    options = dict(max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=PAD)
    inputs = batch((9, 5))
    greedy = ours.generate(**inputs, **options)
    assert torch.equal(greedy, ours.generate(**inputs, **options, num_beams=1, length_penalty=0.6))
    best = ours.generate(**inputs, **options, num_beams=4, length_penalty=0.6)
    assert best.shape == greedy.shape


@torch.no_grad()
def test_many_beams_find_the_most_probable_text(ours):
    """As many beams as there are words look at every text of three words."""
    small = HftTransformerConfig(**SIZES | dict(vocab_size=7), norm_position=ours.config.norm_position)
    model, inputs = randomise(HftTransformerForConditionalGeneration(small)), dict(input_ids=torch.tensor([[5, 3, 6]]))
    texts = torch.cartesian_prod(*[torch.arange(7)] * 3)
    logits = model(inputs["input_ids"].expand(len(texts), -1), labels=texts).logits.log_softmax(-1)
    scores = logits.gather(2, texts.unsqueeze(2)).sum((1, 2))
    options = dict(max_new_tokens=3, do_sample=False, eos_token_id=None, pad_token_id=PAD, num_beams=49)
    assert torch.equal(model.generate(**inputs, **options)[0, 1:], texts[scores.argmax()])


# torch.nn.Transformer


def torch_transformer(ours):
    """The encoder-decoder of torch with the weights of our post-norm model, which has no norm after its stacks."""
    config = ours.config
    theirs = torch.nn.Transformer(
        config.hidden_size,
        config.num_attention_heads,
        config.num_hidden_layers,
        config.num_decoder_layers,
        config.intermediate_size,
        dropout=0.0,
        layer_norm_eps=config.layer_norm_eps,
        batch_first=True,
        norm_first=config.norm_position == "pre",
    )
    names = {"self_attn": "self_attn", "cross_attn": "multihead_attn"}
    norms = ["attn_norm", "cross_attn_norm", "mlp_norm"]
    for name in ("encoder", "decoder"):
        mine, stack = getattr(ours.model, name), getattr(theirs, name)
        if config.norm_position == "post":
            stack.norm = None
        else:
            stack.norm.load_state_dict(mine.norm.state_dict())
        for layer, target in zip(mine.layers, stack.layers, strict=True):
            state = {}
            for our_name, stock in list(names.items())[: 1 if name == "encoder" else 2]:
                attention = getattr(layer, our_name)
                parts = [getattr(attention, f"{part}_proj") for part in "qkv"]
                state[f"{stock}.in_proj_weight"] = torch.cat([part.weight for part in parts])
                state[f"{stock}.in_proj_bias"] = torch.cat([part.bias for part in parts])
                state[f"{stock}.out_proj.weight"] = attention.o_proj.weight
                state[f"{stock}.out_proj.bias"] = attention.o_proj.bias
            for stock, part in (("linear1", layer.mlp.up_proj), ("linear2", layer.mlp.down_proj)):
                state |= {f"{stock}.weight": part.weight, f"{stock}.bias": part.bias}
            own = norms if name == "decoder" else [norms[0], norms[2]]
            for i, norm in enumerate(own, start=1):
                part = getattr(layer, norm)
                state |= {f"norm{i}.weight": part.weight, f"norm{i}.bias": part.bias}
            target.load_state_dict(state)
    return theirs.eval()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_matches_torch_transformer(norm_position):
    """It has neither embeddings nor positions: it gets the sums that ours begins with."""
    ours, inputs = our_model(norm_position=norm_position), inputs_for()
    theirs, D = torch_transformer(ours), SIZES["hidden_size"]
    ids = ours.prepare_decoder_input_ids_from_labels(inputs["labels"])
    table = paper_positions(12, D, "interleaved")
    source, target = (ours.get_input_embeddings()(rows) * D**0.5 + table for rows in (inputs["input_ids"], ids))
    padding, written_mask = inputs["attention_mask"] == 0, inputs["labels"] != -100
    expected = theirs(
        source,
        target,
        tgt_mask=torch.ones(12, 12, dtype=torch.bool).triu(1),
        src_key_padding_mask=padding,
        memory_key_padding_mask=padding,
        tgt_key_padding_mask=~written_mask,
    )
    mine = ours.model(
        inputs["input_ids"], inputs["attention_mask"], ids, decoder_attention_mask=written_mask
    ).last_hidden_state
    torch.testing.assert_close(mine[written_mask], expected[written_mask], **TOLERANCE)


# Wrong models


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


def with_config(**changes):
    def apply(ours):
        config = copy.deepcopy(ours.config)
        for name, value in changes.items():
            setattr(config, name, value(config) if callable(value) else value)
        wrong = HftTransformerForConditionalGeneration(config).eval()
        wrong.load_state_dict(ours.state_dict(), strict=False)
        return wrong

    return apply


def other(name, *values):
    """The config with the other of two values."""
    return with_config(**{name: lambda config: values[getattr(config, name) == values[0]]})


WRONG = {
    "another epsilon": with_config(layer_norm_eps=1e-2),
    "another activation": with_config(hidden_act="gelu"),
    "the norm on the other side": other("norm_position", "post", "pre"),
    "sines and cosines elsewhere": other("position_layout", "interleaved", "halves"),
    "another start": with_config(decoder_start_token_id=3),
    "query and key swapped": swap("q_proj", "k_proj"),
    "norms of a layer swapped": swap("attn_norm", "mlp_norm"),
    "no scaling of the scores": in_every_layer(lambda layer: setattr(layer.self_attn, "scaling", 1.0)),
    "embeddings not scaled": lambda ours: (
        ours.model.encoder.embed_tokens.register_forward_hook(lambda m, i, out: out / 32**0.5) and ours
    ),
    "an encoder that looks back only": lambda ours: (
        [setattr(layer.self_attn, "is_causal", True) for layer in ours.model.encoder.layers] and ours
    ),
    "a decoder that looks ahead": lambda ours: (
        [setattr(layer.self_attn, "is_causal", False) for layer in ours.model.decoder.layers] and ours
    ),
    "no cross-attention": lambda ours: (
        [setattr(layer, "cross_attn", None) for layer in ours.model.decoder.layers] and ours
    ),
    "a bias of the values dropped": in_every_layer(lambda layer: layer.self_attn.v_proj.bias.data.zero_()),
    "layers in the wrong order": lambda ours: (
        setattr(ours.model.decoder, "layers", ours.model.decoder.layers[::-1]) or ours
    ),
}


@pytest.mark.parametrize("change", WRONG)
def test_parity_notices(ours, change):
    inputs, weights, config = inputs_for(), leaves(ours), copy.deepcopy(ours.config)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(WRONG[change](ours), inputs, config, weights)


def test_parity_notices_padding_that_is_attended_to(ours):
    inputs = inputs_for()
    weights, everything = leaves(ours), torch.ones_like(inputs["attention_mask"])
    wrong = copy.deepcopy(ours)
    wrong.forward = lambda **given: ours(**given | dict(attention_mask=everything))
    with pytest.raises(AssertionError, match="not close"):
        assert_same(wrong, inputs, ours.config, weights)


def test_gradient_parity_notices_a_scaled_gradient(ours):
    inputs, weights = inputs_for(), leaves(ours)
    ours(**inputs).loss.backward()
    paper_loss(weights, ours.config, inputs, 0.0)[0].backward()
    mine = {name: parameter.grad for name, parameter in ours.named_parameters()}
    name = "model.decoder.layers.0.mlp.up_proj.weight"
    mine[name] = mine[name] * 1.001
    with pytest.raises(AssertionError, match="up_proj.weight is not close"):
        assert_gradients_close(mine, {name: values.grad for name, values in weights.items()}, GRADIENT_TOLERANCE)


# Positions, labels, first weights


def test_positions_are_those_of_the_paper():
    """Also far beyond any training text, where single precision would be off in the fourth place."""
    for layout in ("interleaved", "halves"):
        table = sinusoids(torch.arange(50), 16, layout == "halves")
        torch.testing.assert_close(table, paper_positions(50, 16, layout), rtol=0, atol=1e-6)
    assert sinusoids(torch.tensor([[0, 1]]), 4).shape == (1, 2, 4)
    far = sinusoids(torch.tensor(123_456_789), 4)
    expected = [f(123_456_789 / scale) for scale in (1, 100) for f in (math.sin, math.cos)]
    assert far.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_step_further_is_a_rotation():
    """Section 3.5: the positions k later are a linear function of those here, the same everywhere."""
    table = sinusoids(torch.arange(30), 8, in_halves=True)
    turn = 3 / 10000 ** (torch.arange(4) / 4)
    sine, cosine = table.split(4, dim=1)
    later = torch.cat([sine * turn.cos() + cosine * turn.sin(), cosine * turn.cos() - sine * turn.sin()], dim=1)
    torch.testing.assert_close(table[3:], later[:-3], rtol=0, atol=1e-6)


def test_what_the_decoder_reads_for_labels():
    ours = our_model(decoder_start_token_id=7)
    labels = torch.tensor([[11, 12, 2, -100, -100], [13, 2, -100, -100, -100]])
    assert ours.prepare_decoder_input_ids_from_labels(labels).tolist() == [[7, 11, 12, 2, PAD], [7, 13, 2, PAD, PAD]]
    assert HftTransformerConfig(bos_token_id=4).decoder_start_token_id == 4
    assert HftTransformerConfig(pad_token_id=6).decoder_start_token_id == 6


def test_the_ids_that_a_collator_makes_give_the_same_loss_and_are_not_computed_beyond_the_text(ours):
    """DataCollatorForSeq2Seq hands in decoder_input_ids without a mask; in training its padding costs nothing."""
    inputs = inputs_for()
    ids = ours.prepare_decoder_input_ids_from_labels(inputs["labels"])
    rows = []
    for layer in ours.model.decoder.layers:
        layer.mlp.register_forward_pre_hook(lambda module, given: rows.append(given[0].shape[1]))
    for training in (True, False):
        ours.train(training)
        expected = ours(**inputs).loss
        torch.testing.assert_close(ours(**inputs, decoder_input_ids=ids).loss, expected, rtol=1e-6, atol=1e-6)
    assert set(rows[:6]) == {int((inputs["labels"] != -100).sum())}


def test_a_row_without_text_is_no_error(ours):
    """It attends to nothing, and so does not change the others."""
    inputs = inputs_for((9, 4))
    alone = ours(**{name: values[:1] for name, values in inputs.items()}).logits
    inputs["attention_mask"][1] = 0
    together = ours(**inputs).logits
    assert together.isfinite().all()
    torch.testing.assert_close(together[:1], alone, **TOLERANCE)
    assert ours(**inputs_for((4, 4)) | dict(attention_mask=torch.zeros(2, 4))).loss.isfinite()


def test_initial_weights():
    """Xavier, less by sqrt(2) for queries, keys and values; words 1/sqrt(D); the last gain 1/2; biases 0."""
    for norm_position, last in (("post", "model.decoder.layers.1.mlp_norm"), ("pre", "model.decoder.norm")):
        torch.manual_seed(0)
        sizes = dict(vocab_size=500, hidden_size=60, num_hidden_layers=2, num_attention_heads=6, intermediate_size=90)
        config = HftTransformerConfig(
            **sizes, norm_position=norm_position, tie_word_embeddings=False, lm_head_bias=True
        )
        for name, parameter in HftTransformerForConditionalGeneration(config).named_parameters():
            values = parameter.detach()
            if name.endswith("bias"):
                assert (values == 0).all(), name
            elif values.dim() == 1:
                assert (values == (0.5 if name == f"{last}.weight" else 1)).all(), name
            elif name.endswith(("embed_tokens.weight", "lm_head.weight")):
                assert values.std().item() == pytest.approx(60**-0.5, rel=0.05), name
            else:
                bound = math.sqrt(6 / sum(values.shape)) * (0.5**0.5 if name[-13] in "qkv" and "attn" in name else 1)
                assert 0.95 * bound < values.abs().max().item() <= bound, name
                assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_the_first_loss_at_full_width_is_that_of_a_guess(tied, norm_position):
    """With or without label smoothing, which of equal probabilities takes nothing."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=512, vocab_size=16000, num_hidden_layers=2, intermediate_size=64)
    config = HftTransformerConfig(**sizes, norm_position=norm_position, tie_word_embeddings=tied)
    ids = torch.randint(2, 16000, (2, 12))
    model = HftTransformerForConditionalGeneration(config)
    for training in (True, False):
        loss = model.train(training)(ids, labels=ids).loss.detach()
        assert float(loss) == pytest.approx(math.log(16000), rel=0.05)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="hidden_size must be even, for as many sines as cosines, got 33"):
        HftTransformerConfig(hidden_size=33, num_attention_heads=3)


def test_the_default_is_the_base_model_of_the_paper():
    """Table 3: 65 million parameters; with biases in the attention and a vocabulary of 37,000 words, 63.1 million."""
    with torch.device("meta"):
        model = HftTransformerModel(HftTransformerConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(63.1e6, rel=0.001)
