"""Words from their characters: bytes to words, and a convolution over each word's bytes with highway layers.

Papers: Kim et al. 2016, https://arxiv.org/abs/1508.06615, Section 2.2 and 2.3; Jozefowicz et al. 2016,
https://arxiv.org/abs/1602.02410, Section 3.2; highways: Srivastava et al. 2015, https://arxiv.org/abs/1505.00387.
Numbers and order of the steps: allenai/bilm-tf at 81a4b54, bilm/model.py and bilm/data.py.

A word is computed once, however often a batch holds it, and padding is computed only as far as it can matter.
Shapes: B = rows, T = tokens (bytes) of a row, W = words of a row, N = words of a batch, C = characters of a word, F = filters
of all widths, P = size of a word's vector.
"""

from dataclasses import dataclass

import torch
from torch import nn

FIRST_SPECIAL = 256  # ids below are bytes; every other token is a word by itself
WORD_START, WORD_END, PADDING = 258, 259, 260
NUM_CHARACTERS = 261
SPACES = (9, 10, 11, 12, 13, 32)  # bytes that part words
ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


@dataclass
class Words:
    """Where the words of a batch are.

    Args:
        characters: of each word that there is, row after row, (N, C).
        lengths: number of words of each row, (B,).
        word_of_token: number of the word in its row, (B, T); -1 at padding and at spaces that no word follows.
    """

    characters: torch.Tensor
    lengths: torch.Tensor
    word_of_token: torch.Tensor

    @property
    def keep(self):
        """True where a row has a word, (B, W); W is at least 1."""
        return torch.arange(self.width, device=self.lengths.device) < self.lengths.unsqueeze(1)

    @property
    def width(self):
        """W: words of the longest row, at least 1."""
        return max(1, int(self.lengths.max()))

    def in_rows(self, values):
        """(N, D) to (B, W, D), 0 where a row has no word."""
        rows = values.new_zeros(len(self.lengths), self.width, values.shape[-1])
        return rows.masked_scatter(self.keep.unsqueeze(-1), values)

    def at_tokens(self, rows):
        """What a word has, at each of its tokens and at the space before it: (B, W, D) to (B, T, D), elsewhere 0."""
        index = self.word_of_token.clamp(min=0).unsqueeze(-1).expand(-1, -1, rows.shape[-1])
        return rows.gather(1, index).masked_fill(self.word_of_token.lt(0).unsqueeze(-1), 0.0)

    def from_tokens(self, labels, nothing=-100):
        """Labels that stand at any one token of a word, (B, T), as one for each word, (B, W)."""
        rows = labels.new_full((len(labels), self.width), nothing)
        row, token = ((labels != nothing) & (self.word_of_token >= 0)).nonzero(as_tuple=True)
        rows[row, self.word_of_token[row, token]] = labels[row, token]
        return rows


def find_words(input_ids, attention_mask=None, max_characters=50, margin=7):
    """The words of rows of bytes: what stands between spaces; every special token is a word.

    Args:
        input_ids: bytes 0 to 255 and special tokens, (B, T).
        attention_mask: not 0 at real tokens, (B, T), padding on either side; None: all are real.
        max_characters: of a word, its two borders included; the rest of a longer word is not read.
        margin: characters of padding that each word gets, as many as the widest filter reads; fewer where
            max_characters ends before.

    Returns:
        Words.

    Example (^ and $ are the borders of a word, _ its padding, margin 1):
        input_ids "<S> an ox"  ->  characters [^<S>$__, ^an$_, ^ox$_], word_of_token [0 1 1 1 2 2 2]
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.ne(0)
    special = real & (input_ids >= FIRST_SPECIAL)
    inside = real & ~special & ~torch.isin(input_ids, torch.tensor(SPACES, device=input_ids.device))
    follows = nn.functional.pad(inside[:, :-1], (1, 0))  # the token before it is of the same word
    starts = special | (inside & ~follows)
    count = starts.cumsum(1)
    lengths = count[:, -1] if input_ids.shape[1] else input_ids.new_zeros(len(input_ids))
    word = torch.where(inside | special, count - 1, count)
    word = word.masked_fill(~real | (word >= lengths.unsqueeze(1)), -1)
    positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    start = positions.masked_fill(~starts, 0).cummax(1).values if input_ids.shape[1] else positions
    number = word + (lengths.cumsum(0) - lengths).unsqueeze(1)  # among the words of the batch
    read = (inside | special) & (positions - start < max_characters - 2)
    number, place, values = number[read], (positions - start)[read], input_ids[read]
    sizes = torch.bincount(number, minlength=int(lengths.sum()))
    longest = int(sizes.max()) if len(sizes) else 0
    characters = input_ids.new_full((len(sizes), min(max_characters, longest + 2 + margin)), PADDING)
    characters[:, 0] = WORD_START
    characters[number, place + 1] = values
    characters[torch.arange(len(sizes), device=sizes.device), sizes + 1] = WORD_END
    return Words(characters, lengths, word)


def distinct(characters):
    """(rows, inverse): the different rows of (N, C), and for each row its number among them, (N,)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randint(-(2**62), 2**62, (characters.shape[1],), generator=generator).to(characters.device)
    codes, inverse = torch.unique((characters * mix).sum(1), return_inverse=True)
    first = inverse.new_zeros(len(codes)).scatter_(0, inverse, torch.arange(len(inverse), device=inverse.device))
    rows = characters[first]
    if not torch.equal(rows[inverse], characters):  # two words of the same code
        return characters, torch.arange(len(characters), device=characters.device)
    return rows, inverse


class Highway(nn.Module):
    """A share of the input goes on as it is: g * relu(W x + b) + (1 - g) * x with g = sigmoid(V x + c)."""

    def __init__(self, size):
        super().__init__()
        self.carry = nn.Linear(size, size)
        self.transform = nn.Linear(size, size)

    def forward(self, values):
        """(N, F) to (N, F)."""
        gate = torch.sigmoid(self.carry(values))
        return gate * torch.relu(self.transform(values)) + (1 - gate) * values


class CharacterCnn(nn.Module):
    """Filters of several widths over a word's characters, the largest answer of each, highways, and a projection.

    Args:
        embedding_size: of a character's vector.
        filters: [(width, number), ...].
        num_highways: layers of Highway.
        projection_size: P; None is no projection, and P is F.
        activation: "relu" or "tanh", after the maximum.
    """

    def __init__(self, embedding_size, filters, num_highways=0, projection_size=None, activation="relu"):
        super().__init__()
        total = sum(number for _, number in filters)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding_size, number, width) for width, number in filters)
        self.highways = nn.ModuleList(Highway(total) for _ in range(num_highways))
        self.projection = nn.Identity() if projection_size is None else nn.Linear(total, projection_size)
        self.activation = ACTIVATIONS[activation]

    def forward(self, characters, embedding):
        """Vectors of words, (N, C) to (N, P).

        Args:
            embedding: module that gives characters their vectors.
        """
        if not len(characters):
            return embedding.weight.new_zeros(0, self.output_size)
        rows, inverse = distinct(characters)
        columns = embedding(rows).transpose(1, 2)  # (n, E, C)
        found = torch.cat([convolution(columns).amax(-1) for convolution in self.convolutions], -1)
        found = self.activation(found)  # (n, F)
        for highway in self.highways:
            found = highway(found)
        return self.projection(found)[inverse]

    @property
    def output_size(self):
        """P."""
        is_projected = isinstance(self.projection, nn.Linear)
        return self.projection.out_features if is_projected else sum(c.out_channels for c in self.convolutions)


def check_filters(filter_widths, filter_counts, max_characters):
    """Refuse filters that are no whole numbers, or wider than a word.

    Raises:
        ValueError: naming the field.
    """
    for name, values in dict(filter_widths=filter_widths, filter_counts=filter_counts).items():
        listed = values if isinstance(values, list | tuple) else ()
        whole = [isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in listed]
        if not whole or not all(whole):
            raise ValueError(f"{name} must be a list of whole numbers of at least 1, got {values!r}")
    if len(filter_widths) != len(filter_counts):
        raise ValueError(
            f"filter_counts must have a number for each of filter_widths {filter_widths}, got {filter_counts!r}"
        )
    if max(filter_widths) > max_characters:
        raise ValueError(f"filter_widths must be at most max_characters {max_characters}, got {filter_widths!r}")


def initialise_highway(highway, init):
    """As bilm-tf: N(0, 1 / F), and the gate mostly closed, so that words pass as they are."""
    for part, bias in ((highway.carry, -2.0), (highway.transform, 0.0)):
        init.normal_(part.weight, std=part.in_features**-0.5)
        init.constant_(part.bias, bias)
