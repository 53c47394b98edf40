"""HftSeq2Seq against the papers' equations, written out row by row and token by token with torch's cells."""

import pytest
import torch
from seq2seq_kinds import KINDS, small
from small_models import assert_gradients_close, batch, gradients, written

from hftoolkit.models.modeling_seq2seq import HftSeq2SeqConfig

TOLERANCE = dict(rtol=1e-5, atol=1e-5)  # noise floor 2e-6
CELLS = {"lstm": torch.lstm_cell, "gru": torch.gru_cell, "rnn": torch.rnn_tanh_cell}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def rows():
    """Three sources and targets of several lengths, padded on the right."""
    source = batch((7, 4, 1))
    return source | dict(labels=written(source["input_ids"], source["attention_mask"]))


def run_cell(cell, rnn, word, state):
    """One step of torch's own cell; state is (h,) or (h, c)."""
    weights = [getattr(rnn, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    after = CELLS[cell](word[None], tuple(s[None] for s in state) if cell == "lstm" else state[0][None], *weights)
    return tuple(part[0] for part in after) if cell == "lstm" else (after[0],)


def encode(model, words):
    """States of one source, (S, D), and the last ones of each layer."""
    config, last = model.config, []
    for layer in model.model.encoder.layers:
        sides = []
        for number, rnn in enumerate(layer.directions):
            state, states = (torch.zeros(layer.hidden_size),) * (2 if config.cell_type == "lstm" else 1), []
            for word in reversed(words) if number else words:
                state = run_cell(config.cell_type, rnn, word, state)
                states.append(state[0])
            sides.append((states[::-1] if number else states, state))
        words = [torch.cat(parts) for parts in zip(*(states for states, _ in sides), strict=True)]
        last.append(tuple(torch.cat(parts) for parts in zip(*(state for _, state in sides), strict=True)))
    return words, last


def begin(decoder, last, wrong):
    """The decoder's first state: Sutskever's copy, or Bahdanau's tanh(W h) with the cells of an LSTM beside it."""
    if decoder.bridge is None:
        return last
    parts = [torch.cat(part) for part in zip(*last, strict=True)]
    parts = [layer(part) for layer, part in zip(decoder.bridge, parts, strict=True)]
    parts[0] = parts[0] if wrong == "no tanh in the bridge" else torch.tanh(parts[0])
    return list(zip(*(part.split(decoder.config.hidden_size) for part in parts), strict=True))


def attend(attention, s, source):
    """The context and the weights: Bahdanau's Equations 5 and 6, Luong's 7 and 8."""
    scores = []
    for h in source:
        if attention.kind == "dot":
            scores.append(s @ h)
        elif attention.kind == "general":
            scores.append(s @ attention.q_proj.weight.T @ h)
        else:
            both = attention.q_proj.weight @ s + attention.k_proj.weight @ h
            scores.append(attention.energy.weight[0] @ torch.tanh(both))
    weights = torch.stack(scores).softmax(0)
    return sum(a * h for a, h in zip(weights, source, strict=True)), weights


def decode(model, words, source, last, wrong=None):
    """Logits of every step, (T, V), and the attention weights, (T, S)."""
    decoder, config, logits, looked = model.model.decoder, model.config, [], []
    states, fed = begin(decoder, last, wrong), torch.zeros(config.hidden_size)
    additive = (config.attention_type == "additive") != (wrong == "the other state")
    for word in words:
        read = word
        if config.attention_type != "none" and additive:
            context, weights = attend(decoder.attention, states[-1][0], source)
        if config.attention_type == "additive":
            read = torch.cat([word, context if additive else torch.zeros_like(fed)])
        elif config.input_feeding:
            read = torch.cat([word, fed * (wrong != "nothing fed")])
        states = list(states)
        for number, rnn in enumerate(decoder.layers):
            states[number] = run_cell(config.cell_type, rnn, read, states[number])
            read = states[number][0]
        s = out = states[-1][0]
        if config.attention_type != "none":
            if not additive:
                context, weights = attend(decoder.attention, s, source)
            looked.append(weights)
            if config.attention_type == "additive":
                both = decoder.combine(torch.cat([s, word, context]))
                out = torch.maximum(both[0::2], both[1::2])
            else:
                fed = out = decoder.combine.weight @ torch.cat([context, s])
                fed = out = out if wrong == "no tanh" else torch.tanh(out)
        logits.append(model.lm_head.weight @ out)
    return torch.stack(logits), looked


def by_hand(model, rows, wrong=None):
    """Logits at the real positions of all rows, and the weights of each row."""
    found, start = [], torch.tensor([model.config.decoder_start_token_id])
    table = model.model.encoder.embed_tokens.weight
    for ids, mask, labels in zip(*(rows[name] for name in ("input_ids", "attention_mask", "labels")), strict=True):
        ids = ids if wrong == "padding is read" else ids[mask.bool()]
        reversed_source = model.config.reverse_source and wrong != "not reversed"
        words = [table[i] for i in (ids.flip(0) if reversed_source else ids)]
        source, last = encode(model, words)
        source = source[::-1] if reversed_source else source
        labels = labels[labels != -100]
        found.append(decode(model, [table[i] for i in torch.cat([start, labels[:-1]])], source, last, wrong))
    return torch.cat([logits for logits, _ in found]), [looked for _, looked in found]


def test_logits_and_gradients_are_those_of_the_equations(kind, rows):
    model = small(kind)
    ours, real = model(**rows, output_attentions=True), rows["labels"] != -100
    theirs, looked = by_hand(model, rows)
    torch.testing.assert_close(ours.logits[real], theirs, **TOLERANCE)
    loss = torch.nn.functional.cross_entropy(theirs, rows["labels"][real])
    torch.testing.assert_close(ours.loss, loss, **TOLERANCE)
    loss.backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert_gradients_close(gradients(model.train(), **rows), expected, tolerance=1e-4)
    if kind == "sutskever":
        assert ours.cross_attentions is None
        return
    for weights, row in zip(ours.cross_attentions[0], looked, strict=True):
        row = torch.stack(row)
        torch.testing.assert_close(weights[0, : len(row), : row.shape[1]], row, **TOLERANCE)
        assert (weights[0, : len(row), row.shape[1] :] == 0).all()


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("bahdanau", "the other state"),
        ("concat", "the other state"),
        ("bahdanau", "no tanh in the bridge"),
        ("general", "no tanh"),
        ("general_feeding", "nothing fed"),
        ("sutskever", "not reversed"),
        ("general", "padding is read"),
        ("sutskever", "padding is read"),
    ],
)
def test_the_equations_notice(kind, wrong, rows):
    model = small(kind)
    with torch.no_grad():
        ours, theirs = model(**rows).logits[rows["labels"] != -100], by_hand(model, rows, wrong)[0]
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_without_attention_only_the_last_state_is_read():
    model, source = small("sutskever"), batch((6, 3, 1))
    encoded = model.get_encoder()(**source)
    read = dict(decoder_input_ids=batch((4, 4, 4))["input_ids"], attention_mask=source["attention_mask"])
    expected = model(encoder_outputs=encoded, **read).logits
    noise = torch.randn_like(encoded.last_hidden_state)
    as_tuple = (noise, encoded.final_states)
    assert torch.equal(model(encoder_outputs=as_tuple, **read).logits, expected)
    assert (model(encoder_outputs=(noise, encoded.final_states + 1), **read).logits - expected).abs().max() > 0.1


@torch.no_grad()
def test_reversing_the_source_is_reading_it_from_its_end():
    """Without padding the same as a model that gets the words the other way round; the weights follow the words."""
    model, rows = small("dot"), batch((6, 6))
    words = dict(decoder_input_ids=batch((4, 4), seed=2)["input_ids"], output_attentions=True)
    plain = model(input_ids=rows["input_ids"].flip(1), **words)
    model.config.reverse_source = True
    turned = model(input_ids=rows["input_ids"], **words)
    torch.testing.assert_close(turned.logits, plain.logits, **TOLERANCE)
    torch.testing.assert_close(turned.cross_attentions[0], plain.cross_attentions[0].flip(-1), **TOLERANCE)


@torch.no_grad()
def test_a_source_of_padding_alone_gives_finite_scores(kind):
    model, rows = small(kind), batch((5, 5))
    rows["attention_mask"][1] = 0
    output = model(**rows, decoder_input_ids=rows["input_ids"], output_attentions=True)
    assert output.logits.isfinite().all()
    if output.cross_attentions is not None:
        assert (output.cross_attentions[0][1] == 0).all()
        torch.testing.assert_close(output.cross_attentions[0][0].sum(-1), torch.ones(1, 5))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(attention_type="additive", input_feeding=True), "input_feeding .*'additive'"),
        (dict(attention_type="none", input_feeding=True), "input_feeding .*'none'"),
        (
            dict(bridge="copy", num_hidden_layers=2, num_decoder_layers=1),
            "num_hidden_layers 2 and num_decoder_layers 1",
        ),
        (dict(hidden_size=33), "hidden_size must be even.*33"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HftSeq2SeqConfig(**changes)
    assert HftSeq2SeqConfig(hidden_size=33, bidirectional=False).hidden_size == 33


def test_bfloat16_training_steps_near_float32(kind, rows):
    model = small(kind).train()
    exact = gradients(model, **rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gradients(model, **rows)
    error = sum(float((rounded[name] - exact[name]).square().sum()) for name in exact)
    scale = sum(float(gradient.square().sum()) for gradient in exact.values())
    assert 1e-8 < error / scale < 0.02  # rounding to 8 bits through two layers and seven steps
