"""HftNnlm against the paper's equation written with loops; what it reads, and what it does not."""

import pytest
import torch
from small_models import batch, randomise

from hftoolkit.models.modeling_nnlm import HftNnlmConfig, HftNnlmForCausalLM, words_before

SIZES = dict(vocab_size=99, embedding_size=6, hidden_size=10, context_size=3)
TOLERANCE = dict(rtol=1e-5, atol=1e-5)


def make(**changes):
    return randomise(HftNnlmForCausalLM(HftNnlmConfig(**SIZES | changes)))


def paper(model, ids, order=(0, 1, 2)):
    """Equation 1, word by word: y = b + W x + U tanh(d + H x); x has the nearest word first."""
    weights, m = model.state_dict(), SIZES["embedding_size"]
    C, H, d = (weights[f"model.{name}"] for name in ("embed_tokens.weight", "up_proj.weight", "up_proj.bias"))
    output, b = weights["lm_head.weight"], weights["lm_head.bias"]
    U, W = output[:, : len(d)], output[:, len(d) :]
    rows = []
    for t in range(len(ids)):
        near = [C[ids[t - back]] if t >= back else torch.zeros(m) for back in order]
        x = torch.cat(near)
        y = b + U @ torch.tanh(d + H @ x)
        rows.append(y + W @ x if model.config.direct_connections else y)
    return torch.stack(rows)


@pytest.mark.parametrize("direct", [False, True])
@torch.no_grad()
def test_it_is_the_equation_of_the_paper(direct):
    model, ids = make(direct_connections=direct), batch((9,))["input_ids"]
    logits = model(ids).logits[0]
    torch.testing.assert_close(logits, paper(model, ids[0]), **TOLERANCE)
    with pytest.raises(AssertionError, match="not close"):  # the wrong way round
        torch.testing.assert_close(logits, paper(model, ids[0], order=(2, 1, 0)), **TOLERANCE)


@torch.no_grad()
def test_only_the_last_words_matter():
    """One of n - 1 = 3 words further back changes nothing, the third last does: no word too many and none too few."""
    model, ids = make(), batch((9,))["input_ids"]
    last = model(ids).logits[:, -1]
    for place, changes in ((5, False), (6, True), (8, True)):
        other = ids.clone()
        other[:, place] = (other[:, place] + 7) % 99
        assert torch.equal(model(other).logits[:, -1], last) != changes


@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_hidden_states_are_the_vectors_and_the_layer(side):
    """At every real position; 0 at padding. As many as layers, and one: what reads the layers of a model counts on it."""
    model, inputs = make(direct_connections=True), batch((6, 4), side=side)
    output = model(**inputs, output_hidden_states=True)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1 == 2
    real = inputs["attention_mask"].bool()
    vectors, hidden = output.hidden_states
    assert torch.equal(vectors[real], model.get_input_embeddings()(inputs["input_ids"][real]))
    assert torch.equal(model.lm_head(hidden), output.logits) and not vectors[~real].any() and not hidden[~real].any()
    assert torch.equal(model.model(**inputs, output_hidden_states=True).hidden_states[1], hidden)
    assert model(**inputs).hidden_states is None and model.model(**inputs).hidden_states is None


def test_words_before_example():
    a, b, c = torch.eye(3)
    past, embeds = torch.stack([torch.zeros(3), a]).unsqueeze(0), torch.stack([b, c]).unsqueeze(0)
    expected = torch.stack([torch.cat([b, a, torch.zeros(3)]), torch.cat([c, b, a])])
    assert torch.equal(words_before(embeds, past, 3)[0], expected)


def test_a_tied_matrix_must_fit():
    assert make(tie_word_embeddings=True, hidden_size=6).lm_head.weight.shape == (99, 6)
    for changes in (dict(), dict(hidden_size=6, direct_connections=True)):
        with pytest.raises(ValueError, match="tie_word_embeddings needs hidden_size = embedding_size"):
            make(tie_word_embeddings=True, **changes)
