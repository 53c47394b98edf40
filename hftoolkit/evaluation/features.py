"""Contextual embeddings from any encoder or decoder: which layers, for tokens, words or whole texts.

Paper: Devlin et al. 2018, https://arxiv.org/abs/1810.04805, Section 5.3 and Table 7 ("Feature-based approach").
Shapes: B = rows, T = tokens, D = hidden size, N = tokens, words or 1 of a text.
"""

import re
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from hftoolkit.errors import DataError

NAMED_LAYERS = {  # Table 7; -1 is the last layer, 0 the embeddings; the output of one, a concatenation or a sum
    "embeddings": ((0,), "concatenate"),
    "second_to_last": ((-2,), "concatenate"),
    "last": ((-1,), "concatenate"),
    "sum_last_four": ((-4, -3, -2, -1), "sum"),
    "weighted_sum_last_four": ((-4, -3, -2, -1), "weighted"),
    "concatenate_last_four": ((-4, -3, -2, -1), "concatenate"),
    "weighted_sum_all": (None, "weighted"),
}
CHUNK_CHARACTERS = 100_000  # texts whose vectors are in memory at once
WORD = re.compile(r"\S+")


class LayerChoice:
    """Turns the hidden states of all layers into one vector per token.

    Args:
        name: of NAMED_LAYERS, or "layers".
        num_layers: of the model; the embeddings do not count.
        layers: for "layers": numbers that are concatenated; 0 the embeddings, 1 the first layer, -1 the last.
        weights: for a weighted sum, one for each of its layers from the lowest on; used as they are.

    Raises:
        DataError: an unknown name, a layer that is not there, another number of weights than layers.
    """

    def __init__(self, name, num_layers, layers=None, weights=None):
        if name != "layers" and name not in NAMED_LAYERS:
            raise DataError(f"no choice of layers {name!r}; there are {', '.join(NAMED_LAYERS)} and layers")
        if (name == "layers") != bool(layers):
            raise DataError(f"numbers of layers belong to the choice 'layers', and only to it; got {name!r}, {layers}")
        numbers, self.way = NAMED_LAYERS.get(name, (layers, "concatenate"))
        numbers = range(1, num_layers + 1) if numbers is None else numbers
        self.layers = [number + num_layers + 1 if number < 0 else number for number in numbers]
        wrong = [number for number, place in zip(numbers, self.layers, strict=True) if not 0 <= place <= num_layers]
        if wrong or (name.endswith("four") and num_layers < 4):
            raise DataError(f"{name}: the model has {num_layers} layers" + (f", no layer {wrong[0]}" if wrong else ""))
        if (self.way == "weighted") != bool(weights) or (weights and len(weights) != len(self.layers)):
            needed = len(self.layers) if self.way == "weighted" else 0
            raise DataError(f"{name} takes {needed} weights, got {len(weights or ())}")
        self.weights = weights

    def size(self, hidden_size):
        """Size of a vector."""
        return hidden_size * (len(self.layers) if self.way == "concatenate" else 1)

    def __call__(self, hidden_states):
        """hidden_states: the embeddings and each layer's output, each (B, T, D); result (B, T, D) or (B, T, k * D)."""
        chosen = [hidden_states[number] for number in self.layers]
        if self.way == "concatenate":
            return torch.cat(chosen, dim=-1)
        weights = self.weights or [1.0] * len(chosen)
        return sum(weight * states for weight, states in zip(weights, chosen, strict=True))


def extract_features(
    model,
    tokenizer,
    texts: Iterable[str],
    choose_layers,
    *,
    unit="word",
    pooling="mean",
    max_length=512,
    batch_size=32,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (pieces, vectors (N, D) in float32) of each text, in the order of the texts.

    Texts are batched by length. A text longer than max_length is read in windows that overlap by half; a token's
    vector comes from the window in which it has most context.

    Args:
        choose_layers: LayerChoice.
        unit: "token", "word" (what stands between white space; a word without a token has zeros) or "sentence" (a
            text as a whole).
        pooling: of a word: "first" sub-word, "mean" or "max"; of a sentence: "cls", "mean" or "max" of its tokens.
    """
    check_pooling(tokenizer, unit, pooling)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    room = max_length - tokenizer.num_special_tokens_to_add()
    if room < 2 or max_length > tokenizer.model_max_length:
        raise DataError(
            f"max_length {max_length}: it must be at most {tokenizer.model_max_length}, with room for text"
        )
    for chunk in _chunks(texts):
        encoded = tokenizer(
            chunk, max_length=max_length, truncation=True, stride=room // 2, return_overflowing_tokens=True,
            return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False,
        )  # fmt: skip
        vectors = _vectors(model, tokenizer, encoded, choose_layers, batch_size)
        windows = [[] for _ in chunk]
        for window, text in enumerate(encoded["overflow_to_sample_mapping"]):
            windows[text].append(window)
        for text, mine in zip(chunk, windows, strict=True):
            yield _join(tokenizer, encoded, vectors, text, mine, unit, pooling, room // 2)


def check_pooling(tokenizer, unit, pooling):
    """Refuse what does not go together.

    Raises:
        DataError: an unknown or impossible pooling, or a slow tokenizer (it gives no offsets).
    """
    known = {"token": ("mean", "max", "first", "cls"), "word": ("first", "mean", "max")}
    known["sentence"] = ("cls", "mean", "max")
    if pooling not in known[unit]:
        raise DataError(f"pooling {pooling!r} is not for a {unit}; there are {', '.join(known[unit])}")
    if unit == "sentence" and pooling == "cls" and tokenizer.cls_token_id is None:
        raise DataError("pooling 'cls': the tokenizer has no [CLS] token; choose mean or max")
    if not tokenizer.is_fast:
        raise DataError(f"{type(tokenizer).__name__} gives no offsets of its tokens; use a fast tokenizer")


def _chunks(texts):
    chunk, size = [], 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@torch.inference_mode()
def _vectors(model, tokenizer, encoded, choose_layers, batch_size):
    """Vectors of all tokens of every window, arrays (T, D)."""
    lengths = np.array([len(ids) for ids in encoded["input_ids"]])
    size = choose_layers.size(model.config.hidden_size)
    result = [np.zeros((0, size), dtype=np.float32)] * len(lengths)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]  # an empty text may have no token at all
    for begin in range(0, len(order), batch_size):
        chosen = order[begin : begin + batch_size].tolist()
        rows = {name: [encoded[name][row] for row in chosen] for name in tokenizer.model_input_names}
        batch = tokenizer.pad(rows, padding_side="right", return_tensors="pt").to(model.device)
        states = choose_layers(model(**batch, output_hidden_states=True).hidden_states).float().cpu().numpy()
        for row, found in zip(chosen, states, strict=True):
            result[row] = found[: lengths[row]]
    return result


def _join(tokenizer, encoded, vectors, text, windows, unit, pooling, shared):
    """Pieces and vectors of a text from its windows, of which neighbours share tokens; each token once."""
    ids, offsets, states, first = [], [], [], 0
    for number, window in enumerate(windows):
        own = np.flatnonzero(np.array(encoded["special_tokens_mask"][window]) == 0)
        is_last = number + 1 == len(windows)
        kept = own[first : None if is_last else len(own) - shared // 2]
        first = shared - shared // 2
        ids.extend(encoded["input_ids"][window][place] for place in kept)
        offsets.extend(encoded["offset_mapping"][window][place] for place in kept)
        states.append(vectors[window][kept])
    states, offsets = np.concatenate(states), np.array(offsets).reshape(-1, 2)
    if unit == "token":
        return tokenizer.convert_ids_to_tokens(ids), states
    if unit == "sentence":
        if pooling == "cls":
            place = encoded["input_ids"][windows[0]].index(tokenizer.cls_token_id)
            return [text], vectors[windows[0]][place][None]
        return [text], pool([states], pooling, states.shape[1])
    words = list(WORD.finditer(text))
    ends = np.array([word.end() for word in words], dtype=int)
    number = np.searchsorted(ends, offsets[:, 1] - 1, side="right")  # by its last character: the first may be a space
    number = np.where(offsets[:, 1] > offsets[:, 0], number, -1)
    return [word[0] for word in words], pool(
        [states[number == place] for place in range(len(words))], pooling, states.shape[1]
    )


def pool(groups, pooling, size):
    """One vector of each group of vectors (n, D), (number of groups, D); zeros for an empty group."""
    ways = {"first": lambda group: group[0], "mean": lambda group: group.mean(0), "max": lambda group: group.max(0)}
    result = np.zeros((len(groups), size), dtype=np.float32)
    for place, group in enumerate(groups):
        if len(group):
            result[place] = ways[pooling](group)
    return result
