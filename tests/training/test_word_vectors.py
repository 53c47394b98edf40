"""The updates of skip-gram and CBOW against loops over the papers' formulas, and against what they must converge to."""

import math

import numpy as np
import pytest
import torch

from hftoolkit.data.skipgram import BLOCK, NO_SENTENCE, WindowCollator
from hftoolkit.training.word_vectors import Blocks, Cbow, CbowSoftmax, Objective, SkipGram, SkipGramSoftmax

V, D, W, S, K, RATE = 9, 4, 2, 6, 3, 0.01
TOLERANCE = dict(rtol=1e-8, atol=1e-8)  # float64, divided by the rate: 1e-13
KINDS = {"skipgram": SkipGram, "cbow": Cbow, "skipgram_softmax": SkipGramSoftmax, "cbow_softmax": CbowSoftmax}


def make_batch(seed=0, blocks=2):
    """Words of sentences of five, with windows of 1 or 2; the last four places are filling."""
    generator, N = torch.Generator().manual_seed(seed), blocks * BLOCK
    batch = dict(
        input_ids=torch.randint(1, V, (N,), generator=generator),
        sentences=torch.arange(N) // 5,
        windows=torch.randint(1, W + 1, (N,), generator=generator),
        negatives=torch.randint(1, V, (blocks, S), generator=generator),
    )
    batch["sentences"][-4:] = NO_SENTENCE
    batch["windows"][-4:] = 0
    return batch


def make_vectors(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(V, D, generator=generator, dtype=torch.float64) * 0.5 for _ in range(2)]


def pairs_of(batch, across=False, itself=False):
    """(place, [places around it]) of every word, by the definition."""
    windows, sentences = batch["windows"].tolist(), batch["sentences"].tolist()
    for i, window in enumerate(windows):
        near = range(max(i - window, 0), min(i + window + 1, len(windows)))
        found = [j for j in near if (j != i or itself) and (across or sentences[i] == sentences[j])]
        if window and found:
            yield i, found


def loss_by_loops(kind, inputs, outputs, batch, noise_weight=K / S, **wrong):
    """The loss of a whole batch, prediction by prediction, and the number of predictions."""
    ids, total, number = batch["input_ids"].tolist(), 0.0, 0
    for i, around in pairs_of(batch, **wrong):
        if kind.startswith("skipgram"):
            predictions = [(inputs[ids[i]], ids[j]) for j in around]
        else:
            predictions = [(sum(inputs[ids[j]] for j in around) / len(around), ids[i])]
        for vector, target in predictions:
            number += 1
            if kind.endswith("softmax"):
                total = total - torch.log_softmax(outputs @ vector, 0)[target]
                continue
            total = total - torch.nn.functional.logsigmoid(outputs[target] @ vector)
            for noise in batch["negatives"][i // BLOCK].tolist():
                total = total - noise_weight * torch.nn.functional.logsigmoid(-(outputs[noise] @ vector))
    return total, number


def steps_by_loops(kind, **wrong):
    """Loss, and minus the gradient of both matrices, by autograd through the loops."""
    inputs, outputs = (matrix.requires_grad_() for matrix in make_vectors())
    batch = make_batch()
    loss, number = loss_by_loops(kind, inputs, outputs, batch, **wrong)
    loss.backward()
    return loss.item(), number, -inputs.grad, -outputs.grad


def steps_of_ours(kind):
    inputs, outputs = make_vectors()
    before = inputs.clone(), outputs.clone()
    objective = KINDS[kind](inputs, outputs, 0 if kind.endswith("softmax") else K, largest_step=math.inf)
    loss, number = objective.update(Blocks(make_batch(), W, torch.float64), slice(0, 2), RATE)
    return loss.item(), int(number), (inputs - before[0]) / RATE, (outputs - before[1]) / RATE


def assert_same(kind, ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5) and ours[1] == theirs[1]
    torch.testing.assert_close(ours[3], theirs[3], **TOLERANCE)
    if kind.startswith("skipgram"):  # CBOW's input vectors are told apart below
        torch.testing.assert_close(ours[2], theirs[2], **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_the_formulas(kind):
    assert_same(kind, steps_of_ours(kind), steps_by_loops(kind))


@pytest.mark.parametrize("kind", ["cbow", "cbow_softmax"])
def test_cbow_gives_its_whole_error_to_each_word_of_the_context(kind):
    """As word2vec.c does; the gradient would divide it by the number of words."""
    inputs, outputs, batch = *make_vectors(), make_batch()
    expected, ids = torch.zeros(V, D, dtype=torch.float64), batch["input_ids"]
    for i, around in pairs_of(batch):
        mean = inputs[ids[around]].mean(0).requires_grad_()
        if kind == "cbow_softmax":
            loss = -torch.log_softmax(outputs @ mean, 0)[ids[i]]
        else:
            loss = -torch.nn.functional.logsigmoid(outputs[ids[i]] @ mean)
            noise = outputs[batch["negatives"][i // BLOCK]]
            loss = loss - K / S * torch.nn.functional.logsigmoid(-(noise @ mean)).sum()
        (gradient,) = torch.autograd.grad(loss, mean)
        for j in around:
            expected[ids[j]] -= gradient
    torch.testing.assert_close(steps_of_ours(kind)[2], expected, **TOLERANCE)


@pytest.mark.parametrize("wrong", [{"across": True}, {"itself": True}, {"noise_weight": float(K)}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_parity_notices_a_wrong_formula(kind, wrong):
    if kind.endswith("softmax") and "noise_weight" in wrong:
        return
    with pytest.raises(AssertionError):
        assert_same(kind, steps_of_ours(kind), steps_by_loops(kind, **wrong))


def test_parts_of_a_batch_add_up():
    """Two updates of a block each, at a rate so small that the first does not change the second, are one of both."""
    steps = []
    for parts in ([slice(0, 2)], [slice(0, 1), slice(1, 2)]):
        inputs, outputs = make_vectors()
        before, objective = inputs.clone(), SkipGram(inputs, outputs, K, largest_step=math.inf)
        blocks = Blocks(make_batch(), W, torch.float64)
        for part in parts:
            objective.update(blocks, part, 1e-7)
        steps.append((inputs - before) / 1e-7)
    torch.testing.assert_close(*steps, rtol=1e-5, atol=1e-5)


def test_the_optimum_is_pmi_minus_log_k():
    """Levy and Goldberg 2014, https://papers.nips.cc/paper/5477, Section 3.2, with as many dimensions as words."""
    words, k = 5, 2
    ids = torch.from_numpy(np.random.default_rng(0).choice(words, 4 * BLOCK, p=[0.4, 0.25, 0.15, 0.1, 0.1]))
    ids[1::2] = torch.where(torch.arange(len(ids[1::2])) % 3 > 0, ids[::2], ids[1::2])  # words come in pairs
    noise = torch.arange(words).repeat_interleave(torch.tensor([4, 3, 2, 2, 1]))  # every block has all of it
    batch = dict(input_ids=ids, sentences=torch.zeros_like(ids), windows=torch.ones_like(ids),
                 negatives=noise.expand(4, -1))  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    inputs, outputs = (torch.randn(words, words, generator=generator) * 0.3 for _ in range(2))
    objective, blocks = SkipGram(inputs, outputs, k), Blocks(batch, 1)
    for _ in range(2500):
        objective.update(blocks, slice(0, 4), 0.02)
    counts = torch.zeros(words, words)
    for i, around in pairs_of(batch):
        for j in around:
            counts[ids[i], ids[j]] += 1
    chance = torch.bincount(noise) / len(noise)
    shifted = torch.log(counts / (counts.sum(1, keepdim=True) * chance)) - math.log(k)
    seen = counts > 0
    torch.testing.assert_close((inputs @ outputs.T)[seen], shifted[seen], rtol=0, atol=0.02)


def test_the_full_softmax_finds_the_frequencies_of_bigrams():
    batch = make_batch(blocks=3)
    batch["windows"].clamp_(max=1)
    inputs, outputs = (torch.randn(V, V, generator=torch.Generator().manual_seed(i)) * 0.3 for i in (0, 1))
    objective, blocks = SkipGramSoftmax(inputs, outputs), Blocks(batch, W)
    for _ in range(1500):
        loss, number = objective.update(blocks, slice(0, 3), 0.05)
    counts = torch.zeros(V, V)
    for i, around in pairs_of(batch):
        for j in around:
            counts[batch["input_ids"][i], batch["input_ids"][j]] += 1
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    entropy = -(counts * torch.log(shares.clamp(min=1e-9))).sum() / counts.sum()
    assert entropy <= loss / number < entropy + 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limited", [True, False])
def test_a_word_that_fills_the_text_does_not_overshoot(kind, limited):
    """A hundred and more terms at one point: without the limit the vectors run away."""
    ids = torch.where(torch.arange(8 * BLOCK) % 4 == 0, 2, 1)
    batch = dict(input_ids=ids, sentences=torch.zeros_like(ids), windows=torch.full_like(ids, 5),
                 negatives=torch.randint(1, V, (8, 16), generator=torch.Generator().manual_seed(0)))  # fmt: skip
    inputs, outputs = make_vectors()
    options = {} if limited else {"largest_step": math.inf}
    objective = KINDS[kind](inputs, outputs, 0 if kind.endswith("softmax") else 5, **options)
    losses = []
    for _ in range(30):
        loss, number = objective.update(Blocks(batch, 5, torch.float64), slice(0, 8), 0.5)
        losses.append(float(loss / number))
    assert (max(losses[5:]) < losses[0]) == limited


def test_limits_leave_a_rare_word_alone():
    """Word 1 comes three times with a change of 4 each, at rate 0.5: 6 in all, three times what is allowed."""
    objective = Objective(torch.zeros(4, 2), torch.zeros(4, 2))
    ids, changes = torch.tensor([[1, 1], [1, 3]]), torch.tensor([[4.0, 4.0], [4.0, 1.0]])
    for _ in range(2):  # the sums begin anew
        third = 1 / 3
        torch.testing.assert_close(objective.limits(ids, changes, 0.5), torch.tensor([[third, third], [third, 1.0]]))


@pytest.mark.parametrize(("number", "order"), [(6, [0, 3, 1, 4, 2, 5]), (5, [0, 3, 1, 4, 2]), (1, [0])])
def test_blocks_of_an_update_stand_far_apart_with_what_is_around_them(number, order):
    batch = make_batch(blocks=number)
    near, apart = Blocks(batch, W), Blocks(batch, W, together=2)
    everything = slice(0, number)
    for name in ("words", "windows", "sentences", "around", "sentences_around"):
        assert torch.equal(getattr(apart, name), getattr(near, name)[order]), name
    assert torch.equal(apart.pairs(everything), near.pairs(everything)[order])


def test_blocks_end_to_end_with_the_collator():
    """What the collator makes of a row is what the definition says about its words."""
    rows = [dict(index=0, epoch=0, input_ids=np.arange(1, 60) % (V - 1) + 1, sentences=np.arange(59) // 7)]
    collator = WindowCollator(np.full(V, 9), window_size=W, num_negatives=2, subsampling=0)
    batch = collator(rows)
    blocks = Blocks(batch, W)
    found = set()
    pairs = blocks.pairs(slice(0, len(blocks)))
    for block, i, column in pairs.nonzero().tolist():
        found.add((block * BLOCK + i, block * BLOCK + column - W))
    assert found == {(i, j) for i, around in pairs_of(batch) for j in around} and len(found) > 100
