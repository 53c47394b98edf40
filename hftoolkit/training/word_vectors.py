"""Skip-gram and CBOW on plain tensors: each update is written down, nothing goes through autograd.

Papers: Mikolov et al. 2013a, https://arxiv.org/abs/1301.3781; 2013b, https://arxiv.org/abs/1310.4546, Equations 1, 2, 4.
Details of word2vec.c (tmikolov/word2vec at commit 20c129a): the mean of the context is CBOW's input, and its whole error
goes to each word of the context.
Differs from it, so that matrix products do the work: the 16 words of a block share their noise words. A draw then weighs
num_negatives * pairs / S for a word with that many pairs, which leaves the expectation of each update as it was. And
`update_words` words, from blocks far apart, are read before the vectors change. A word that comes up often among them, as
names do in a text about them, would then move by hundreds of terms computed at one point, and overshoot where steps one
after the other do not. So the terms of a vector are scaled down together where they could change its scores by more than
LARGEST_STEP: in units of the rate, by the sum of each term's slope times the squared length of the other vector.
Shapes: K = blocks of an update, L = 16 words of a block, W = window_size, C = L + 2 W words of a block and around it,
S = noise words of a block, D = numbers in a vector, V = vocabulary.
"""

import torch

from hftoolkit.data.skipgram import BLOCK, NO_SENTENCE

LARGEST_STEP = 2.0  # without it, 128 words an update diverged on some seeds (benchmarks/word2vec.md)
PLANNED = 128  # blocks whose pairs are found at once


class Blocks:
    """A batch of the WindowCollator as blocks of 16 words with their surroundings.

    Args:
        dtype: of what is computed.
        together: blocks of an update. They come from places as far apart as the batch has them, because neighbours repeat
            the words of their subject, and what is computed at one point overshoots for those.

    Example (together 2, six blocks):
        order  0 3 1 4 2 5
    """

    def __init__(self, batch, window_size, dtype=torch.float32, together=1):
        self.window_size, self.dtype = window_size, dtype
        width = BLOCK + 2 * window_size
        edge = (window_size, window_size)
        padded = torch.nn.functional.pad(batch["sentences"], edge, value=NO_SENTENCE)
        parts = {name: batch[name].view(-1, BLOCK) for name in ("input_ids", "windows", "sentences")}
        parts["around"] = torch.nn.functional.pad(batch["input_ids"], edge).unfold(0, width, BLOCK)
        parts["sentences_around"] = padded.unfold(0, width, BLOCK)
        if together > 1:
            number = len(parts["windows"])
            order = torch.arange(-(-number // together) * together).view(together, -1).T.flatten()
            order = order[order < number].to(padded.device)
            parts = {name: rows[order] for name, rows in parts.items()}
        self.words, self.windows, self.sentences = parts["input_ids"], parts["windows"], parts["sentences"]
        self.around, self.sentences_around = parts["around"], parts["sentences_around"]
        self.negatives = batch.get("negatives")
        places = torch.arange(width, device=self.words.device)
        distance = (places - window_size - places[:BLOCK, None]).abs()
        self.distance = distance.masked_fill(distance == 0, width)  # a word is not its own context

    def __len__(self):
        return len(self.words)

    def pairs(self, part):
        """1 where a word around is in the window and in the sentence of a word of the block, (K, L, C)."""
        near = self.distance <= self.windows[part].unsqueeze(-1)
        near &= self.sentences[part].unsqueeze(-1) == self.sentences_around[part].unsqueeze(1)
        return near.to(self.dtype)


class Objective:
    """Base of the four updates.

    Args:
        inputs, outputs: the two matrices, (V, D) float32, changed in place.
        num_negatives: noise words per pair.
        largest_step: what an update may change the scores of a vector by.
    """

    def __init__(self, inputs, outputs, num_negatives=0, largest_step=LARGEST_STEP):
        self.inputs, self.outputs, self.num_negatives, self.largest_step = inputs, outputs, num_negatives, largest_step
        self.sums = torch.zeros_like(inputs[:, 0])  # of each word; zeros between two uses
        self.planned = None

    def update(self, blocks, part, rate):
        """Change the vectors by one step on the blocks `part`, a slice.

        Returns:
            (sum of the losses of all predictions in nats, number of predictions), both () tensors.
        """
        raise NotImplementedError

    def limits(self, ids, changes, rate):
        """Factors for the steps of these words, at most 1.

        Args:
            ids, changes: of equal shape, the change of scores per unit of the rate; a word may come several times.
        """
        flat = ids.reshape(-1)
        self.sums.index_add_(0, flat, changes.reshape(-1))
        total = self.sums.index_select(0, flat)
        self.sums.index_fill_(0, flat, 0.0)
        return total.mul_(rate / self.largest_step).clamp_(min=1).reciprocal_().view(ids.shape)

    def add(self, matrix, ids, steps):
        """Add steps (..., D) to the rows of these ids (...)."""
        matrix.index_add_(0, ids.reshape(-1), steps.reshape(-1, steps.shape[-1]))

    def against_noise(self, vectors, ids, targets, weights, rate):
        """A binary choice between true words and noise.

        Each vector meets each output vector: the loss is -w log sigmoid(s) of a true pair, -w log sigmoid(-s) of noise.

        Args:
            targets: 1 for the columns of true words, -1 for noise, (M,).
            weights: w, (K, L, M).

        Returns:
            (summed loss in nats, step of the vectors (K, L, D) and its changes (K, L), step of the output vectors
            (K, M, D), limited).
        """
        K, L, D = vectors.shape
        output = self.outputs.index_select(0, ids.reshape(-1)).view(K, -1, D)
        right = torch.bmm(vectors, output.transpose(1, 2)).mul_(targets).sigmoid_()  # (K, L, M)
        slope = (1 - right).mul_(weights)
        lengths, output_lengths = (squared_lengths(rows) for rows in (vectors, output))
        changes = torch.bmm(slope, output_lengths.unsqueeze(-1)).squeeze(-1)  # (K, L)
        limits = self.limits(ids, torch.bmm(lengths.unsqueeze(1), slope).squeeze(1), rate)  # (K, M)
        slope.mul_(targets * rate)
        loss = -(right.clamp_(min=1e-10).log_().mul_(weights)).sum()
        step = torch.bmm(slope, output)
        return loss, step, changes, torch.bmm(slope.mul_(limits.unsqueeze(1)).transpose(1, 2), vectors)


class SkipGram(Objective):
    """Each word predicts each word in its window, against noise (2013b, Equation 4)."""

    def update(self, blocks, part, rate):
        words, number, ids, weights, targets = self._plan(blocks, part)
        vectors = self.inputs.index_select(0, words.reshape(-1)).view(*words.shape, -1)
        loss, step, changes, output_step = self.against_noise(vectors, ids, targets, weights, rate)
        limits = self.limits(words, changes, rate)
        self.add(self.inputs, words, step.mul_(limits.unsqueeze(-1)))
        self.add(self.outputs, ids, output_step)
        return loss, number.sum()

    def _plan(self, blocks, part):
        """Words (K, L), their pairs (K, L, 1), output words (K, C + S), weights (K, L, C + S), targets (C + S,).

        Made for PLANNED blocks at a time: a hundred small operations less for every update.
        """
        begin, end = part.start, min(part.stop, len(blocks))
        if (
            self.planned is None
            or self.planned[0] is not blocks
            or not self.planned[1] <= begin <= end <= self.planned[2]
        ):
            last = max(begin + PLANNED, end)
            self.planned = blocks, begin, last, self._made(blocks, slice(begin, last))
        _, first, _, (*each, targets) = self.planned
        return *(values[begin - first : end - first] for values in each), targets

    def _made(self, blocks, part):
        pairs, words, negatives = blocks.pairs(part), blocks.words[part], blocks.negatives[part]
        C, S = pairs.shape[2], negatives.shape[1]
        number = pairs.sum(-1, keepdim=True)  # (K, L, 1)
        weights = pairs.new_empty((*pairs.shape[:2], C + S))
        weights[..., :C] = pairs
        weights[..., C:] = number * (self.num_negatives / S)
        targets = pairs.new_ones(C + S)
        targets[C:] = -1
        return words, number, torch.cat([blocks.around[part], negatives], dim=1), weights, targets


class Cbow(Objective):
    """The mean of the words in its window predicts each word, against noise."""

    def update(self, blocks, part, rate):
        pairs, words, negatives = blocks.pairs(part), blocks.words[part], blocks.negatives[part]
        around, S = blocks.around[part], negatives.shape[1]
        means, has_context = self._means(pairs, around)
        weights = torch.cat([torch.diag_embed(has_context), has_context.unsqueeze(-1).expand(-1, -1, S)
                             * (self.num_negatives / S)], dim=-1)  # fmt: skip
        targets = pairs.new_ones(BLOCK + S)
        targets[BLOCK:] = -1
        ids = torch.cat([words, negatives], dim=1)
        loss, step, changes, output_step = self.against_noise(means, ids, targets, weights, rate)
        self._spread(pairs, around, step, changes, rate)
        self.add(self.outputs, ids, output_step)
        return loss, has_context.sum()

    def _means(self, pairs, around):
        """Mean vector of the context of each word (K, L, D), and 1 where there is any (K, L)."""
        context = self.inputs.index_select(0, around.reshape(-1)).view(*around.shape, -1)
        number = pairs.sum(-1)
        return torch.bmm(pairs, context) / number.clamp(min=1).unsqueeze(-1), (number > 0).to(pairs.dtype)

    def _spread(self, pairs, around, step, changes, rate):
        """The whole error of each prediction to each word of its context, as word2vec.c has it."""
        steps = torch.bmm(pairs.transpose(1, 2), step)  # (K, C, D)
        limits = self.limits(around, torch.bmm(changes.unsqueeze(1), pairs).squeeze(1), rate)
        self.add(self.inputs, around, steps.mul_(limits.unsqueeze(-1)))


class SkipGramSoftmax(Objective):
    """Each word predicts each word in its window among all words (2013b, Equations 1 and 2)."""

    def update(self, blocks, part, rate):
        pairs, words, around = blocks.pairs(part), blocks.words[part], blocks.around[part]
        K, L, C = pairs.shape
        vectors = self.inputs.index_select(0, words.reshape(-1))  # (K L, D)
        wanted = pairs.new_zeros(K * L, len(self.outputs))
        wanted.scatter_add_(1, around.repeat_interleave(L, dim=0), pairs.view(K * L, C))
        loss, step, changes, output_step = full_softmax(vectors, self.outputs, wanted, rate, self.largest_step)
        limits = self.limits(words, changes.view_as(words), rate)
        self.add(self.inputs, words, step.mul_(limits.view(-1, 1)))
        self.outputs.add_(output_step)
        return loss, pairs.sum()


class CbowSoftmax(Cbow):
    """The mean of the words in its window predicts each word among all words."""

    def update(self, blocks, part, rate):
        pairs, words, around = blocks.pairs(part), blocks.words[part], blocks.around[part]
        means, has_context = self._means(pairs, around)
        wanted = means.new_zeros(words.numel(), len(self.outputs))
        wanted.scatter_(1, words.reshape(-1, 1), has_context.view(-1, 1))
        loss, step, changes, output_step = full_softmax(
            means.flatten(0, 1), self.outputs, wanted, rate, self.largest_step
        )
        self._spread(pairs, around, step.view_as(means), changes.view_as(words), rate)
        self.outputs.add_(output_step)
        return loss, has_context.sum()


def full_softmax(vectors, outputs, wanted, rate, largest_step=LARGEST_STEP):
    """Predict counts of words among all words.

    Args:
        vectors: (N, D).
        wanted: how often each word is the right one for each vector, (N, V); overwritten.
        largest_step: see Objective.

    Returns:
        (summed loss in nats, step of the vectors (N, D) and its changes (N,), step of the outputs (V, D), limited).
    """
    chances = torch.log_softmax(vectors @ outputs.T, dim=-1)
    loss = -(chances * wanted).sum()
    chances.exp_()
    slope = wanted.addcmul_(chances, wanted.sum(-1, keepdim=True), value=-1)
    size = slope.abs()
    changes = size @ squared_lengths(outputs)
    limits = (size.T @ squared_lengths(vectors)).mul_(rate / largest_step).clamp_(min=1).reciprocal_()
    slope *= rate
    return loss, slope @ outputs, changes, (slope.T @ vectors).mul_(limits.unsqueeze(-1))


def squared_lengths(vectors):
    """Of the last dimension."""
    return torch.linalg.vector_norm(vectors, dim=-1).square_()
