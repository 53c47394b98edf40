"""Reversing and copying: attention learns the alignment that is known, and without it long texts are not learnt."""

import pytest
import torch

from hftoolkit.models.modeling_seq2seq import HftSeq2SeqConfig, HftSeq2SeqForConditionalGeneration

PAD, END, FIRST = 0, 1, 2
SIZES = dict(hidden_size=64, embedding_dropout_prob=0.0, hidden_dropout_prob=0.0, pad_token_id=PAD, eos_token_id=END)


def examples(number, symbols, longest, reverse, generator):
    """Random texts that end with END, and the same turned round or not; (number, longest + 1), padded on the right."""
    lengths = torch.randint(1, longest + 1, (number, 1), generator=generator)
    places = torch.arange(longest + 1)
    words = torch.randint(FIRST, FIRST + symbols, (number, longest + 1), generator=generator)
    source = torch.where(places == lengths, END, words).masked_fill(places > lengths, PAD)
    wanted = (lengths - 1 - places).clamp(min=0) if reverse else places.expand(number, -1)
    labels = torch.where(places < lengths, source.gather(1, wanted), END).masked_fill(places > lengths, -100)
    return dict(input_ids=source, attention_mask=(places <= lengths).long(), labels=labels), wanted


def train(symbols, longest, steps, reverse=True, learning_rate=5e-3, **changes):
    """A model after so many batches of 64 fresh texts; the rate rises for 30 steps and falls to 0."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = HftSeq2SeqForConditionalGeneration(HftSeq2SeqConfig(vocab_size=FIRST + symbols, **SIZES | changes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    share = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 30) * (1 - step / steps))
    for _ in range(steps):
        model.train()(**examples(64, symbols, longest, reverse, generator)[0]).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        share.step()
    return model.eval()


@torch.no_grad()
def results(model, symbols, longest, reverse=True):
    """(share of words whose largest attention weight is at the word that they copy, share of texts written exactly)."""
    texts, wanted = examples(400, symbols, longest, reverse, torch.Generator().manual_seed(1))
    read = {name: texts[name] for name in ("input_ids", "attention_mask")}
    real, aligned = texts["labels"] >= FIRST, None
    weights = model(**texts, output_attentions=True).cross_attentions
    if weights is not None:
        aligned = float((weights[0][:, 0].argmax(-1) == wanted)[real].float().mean())
    text = model.generate(**read, max_new_tokens=longest + 1, do_sample=False)[:, 1:]
    text = torch.nn.functional.pad(text, (0, longest + 1 - text.shape[1]), value=PAD)
    return aligned, float((text == texts["labels"].clamp(min=PAD)).all(1).float().mean())


@pytest.mark.parametrize("reverse", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["reversed", "copied"])
def test_attention_follows_the_alignment(reverse):
    task = dict(symbols=10, longest=8, reverse=reverse)
    aligned, exact = results(train(steps=150, **task), **task)
    assert aligned >= 0.99
    assert exact >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "least"),
    [
        (dict(attention_type="general"), 0.99),
        (dict(attention_type="dot", cell_type="gru", steps=1000), 0.99),
        (dict(attention_type="concat", cell_type="gru"), 0.99),
        (dict(attention_type="general", input_feeding=True), 0.99),
        # From the state before the word it may look beside it, where a bidirectional encoder knows the neighbour too.
        (dict(attention_type="additive", cell_type="gru", bridge="dense"), 0.9),
    ],
    ids=str,
)
def test_every_attention_follows_the_alignment_of_long_texts(changes, least):
    """50 symbols, up to 25 of them, as JoeyNMT's task; 25 to 65 CPU seconds each."""
    aligned, exact = results(train(50, 25, **dict(steps=700) | changes), 50, 25)
    assert aligned >= least
    assert exact >= 0.9


@pytest.mark.slow
def test_without_attention_long_texts_are_not_learnt():
    aligned, exact = results(train(50, 25, 700, attention_type="none"), 50, 25)
    assert aligned is None
    assert exact < 0.2  # texts of a few symbols
