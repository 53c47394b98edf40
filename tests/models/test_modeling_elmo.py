"""HftElmo against bilm-tf's model written out word by word in numpy, and against its published weights."""

import json

import numpy as np
import pytest
import torch

from hftoolkit.convert.elmo import converted, from_published
from hftoolkit.errors import CheckpointError
from hftoolkit.models import layers_char_cnn
from hftoolkit.models.layers_char_cnn import distinct, find_words
from hftoolkit.models.modeling_elmo import (
    HftElmoConfig,
    HftElmoForPreTraining,
    HftElmoForSequenceClassification,
    HftElmoForTokenClassification,
    HftElmoModel,
)
from hftoolkit.tokenization import character_ids
from hftoolkit.tokenization.character_ids import character_tokenizer

OPTIONS = {
    "lstm": {"cell_clip": 1.5, "proj_clip": 1.0, "use_skip_connections": True, "n_layers": 2, "projection_dim": 6, "dim": 9},
    "char_cnn": {
        "activation": "relu", "n_highway": 2, "embedding": {"dim": 4}, "filters": [[1, 3], [2, 4], [4, 5]],
        "n_characters": 262, "max_characters_per_token": 12,
    },
}  # fmt: skip
BATCHES = [  # a word longer than 10 bytes, one in two bytes a letter, rows of different lengths, a batch of fewer rows
    ["a cat sat on the unbelievably old mat", "yes", "naïve élan costs £3 ."],
    ["it slept", "no , not at all"],
    ["then , again , the end", "one", "six"],
]
TOLERANCE = dict(rtol=1e-4, atol=1e-5)  # noise floor 1e-6


def random_arrays(options, seed=0):
    """Weights of a biLM by bilm-tf's names, large enough that clips and gates matter."""
    rng, lstm, characters = np.random.default_rng(seed), options["lstm"], options["char_cnn"]
    size, P, H = characters["embedding"]["dim"], lstm["projection_dim"], lstm["dim"]
    F = sum(number for _, number in characters["filters"])
    shapes = {"char_embed": (261, size), "CNN_proj/W_proj": (F, P), "CNN_proj/b_proj": (P,)}
    for i, (width, number) in enumerate(characters["filters"]):
        shapes |= {f"CNN/W_cnn_{i}": (1, width, size, number), f"CNN/b_cnn_{i}": (number,)}
    for i in range(characters["n_highway"]):
        for part in ("carry", "transform"):
            shapes |= {f"CNN_high_{i}/W_{part}": (F, F), f"CNN_high_{i}/b_{part}": (F,)}
    for side in (0, 1):
        for layer in range(lstm["n_layers"]):
            name = f"RNN_{side}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            shapes |= {f"{name}/W_0": (2 * P, 4 * H), f"{name}/B": (4 * H,), f"{name}/W_P_0": (H, P)}
    return {name: rng.normal(0, 0.7, shape).astype("float32") for name, shape in shapes.items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def word_vector(word, arrays, options):
    """Characters of a whole row of max_characters_per_token, padding and all (bilm/data.py, bilm/model.py)."""
    options = options["char_cnn"]
    most = options["max_characters_per_token"]
    middle = {"<S>": [256], "</S>": [257]}.get(word) or list(word.encode("utf-8", "ignore"))[: most - 2]
    ids = [258, *middle, 259]
    ids += [260] * (most - len(ids))
    columns, found = [arrays["char_embed"][i] for i in ids], []
    for i, (width, number) in enumerate(options["filters"]):
        kernel, best = arrays[f"CNN/W_cnn_{i}"][0], np.full(number, -np.inf)
        for place in range(most - width + 1):
            score = sum(columns[place + k] @ kernel[k] for k in range(width)) + arrays[f"CNN/b_cnn_{i}"]
            best = np.maximum(best, score)
        found.append(np.maximum(best, 0) if options["activation"] == "relu" else np.tanh(best))
    x = np.concatenate(found)
    for i in range(options["n_highway"]):
        gate = sigmoid(x @ arrays[f"CNN_high_{i}/W_carry"] + arrays[f"CNN_high_{i}/b_carry"])
        new = np.maximum(x @ arrays[f"CNN_high_{i}/W_transform"] + arrays[f"CNN_high_{i}/b_transform"], 0)
        x = gate * new + (1 - gate) * x
    return x @ arrays["CNN_proj/W_proj"] + arrays["CNN_proj/b_proj"]


def transcription(sentence, arrays, options, states):
    """Layers (1 + L, W, 2P) of one row of words; states, {(side, layer): (h, c)}, are changed in place."""
    lstm, words = options["lstm"], ["<S>", *sentence.split(), "</S>"]
    vectors = [word_vector(word, arrays, options) for word in words]
    sides = []
    for side in (0, 1):
        inputs = vectors[::-1] if side else vectors
        layers = [inputs]
        for layer in range(lstm["n_layers"]):
            name = f"RNN_{side}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"
            zeros = np.zeros(lstm["projection_dim"]), np.zeros(lstm["dim"])
            (h, c), outputs = states.get((side, layer), zeros), []
            for x in inputs:
                gates = np.concatenate([x, h]) @ arrays[f"{name}/W_0"] + arrays[f"{name}/B"]
                i, j, f, o = np.split(gates, 4)
                c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(j)
                c = np.clip(c, -lstm["cell_clip"], lstm["cell_clip"])
                h = (sigmoid(o) * np.tanh(c)) @ arrays[f"{name}/W_P_0"]
                h = np.clip(h, -lstm["proj_clip"], lstm["proj_clip"])
                outputs.append(h + x if layer and lstm["use_skip_connections"] else h)
            states[side, layer] = h, c
            inputs = outputs
            layers.append(outputs)
        sides.append([rows[::-1] if side else rows for rows in layers])
    return np.concatenate(np.array(sides), -1)


def expected_layers(arrays, options, carried):
    """Of each batch, each row's layers; with `carried`, row i goes on where row i of the batch before ended."""
    states, batches = [{}, {}, {}], []
    for batch in BATCHES:
        states = states if carried else [{}, {}, {}]
        batches.append([transcription(row, arrays, options, state) for row, state in zip(batch, states, strict=False)])
    return batches


def config_of(options, **changes):
    lstm, characters = options["lstm"], options["char_cnn"]
    fields = dict(
        filter_widths=[width for width, _ in characters["filters"]],
        filter_counts=[number for _, number in characters["filters"]],
        character_size=4, character_activation=characters["activation"], max_characters=12, hidden_size=9,
        projection_size=6, cell_clip=lstm["cell_clip"], projection_clip=lstm["proj_clip"],
        residual=lstm["use_skip_connections"],
    )  # fmt: skip
    return HftElmoConfig(**(fields | changes))


def load(arrays, options, **changes):
    config = config_of(options, **changes)
    model = HftElmoModel(config).eval()
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(converted(tensors, config, "here"))
    return model


def encode(batch):
    return character_tokenizer(False)(batch, return_tensors="pt", padding=True, return_token_type_ids=False)


def assert_same(model, expected):
    """Every layer of every word of every batch, at the first and the last token of each word."""
    for batch, rows in zip(BATCHES, expected, strict=True):
        inputs = encode(batch)
        with torch.no_grad():
            output = model(**inputs, output_hidden_states=True)
        word = model.find_words(**inputs).word_of_token
        for row, layers in enumerate(rows):
            for number in range(layers.shape[1]):
                tokens = (word[row] == number).nonzero().flatten()
                for token in (tokens[0], tokens[-1]):
                    ours = torch.stack([layer[row, token] for layer in output.hidden_states])
                    torch.testing.assert_close(ours, torch.from_numpy(layers[:, number]).float(), **TOLERANCE)
        assert torch.equal(output.last_hidden_state, output.hidden_states[-1])


@pytest.fixture(scope="module")
def arrays():
    return random_arrays(OPTIONS)


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("change", [{}, {"use_skip_connections": False}, {"activation": "tanh"}], ids=str)
def test_matches_bilm_tf_written_out(arrays, carried, change):
    options = {part: values | {k: v for k, v in change.items() if k in values} for part, values in OPTIONS.items()}
    assert_same(load(arrays, options, stateful=carried), expected_layers(arrays, options, carried))


@pytest.mark.parametrize(
    "change",
    [{"cell_clip": 0.0}, {"projection_clip": 3.0}, {"residual": False}, {"character_activation": "tanh"},
     {"max_characters": 11}, {"stateful": True}],
    ids=str,
)  # fmt: skip
def test_parity_notices_a_wrong_model(arrays, change):
    with pytest.raises(AssertionError, match="not close"):
        assert_same(load(arrays, OPTIONS, **change), expected_layers(arrays, OPTIONS, carried=False))


def test_parity_notices_gates_in_another_order_a_forget_bias_and_swapped_directions(arrays):
    expected = expected_layers(arrays, OPTIONS, carried=False)
    for name in ("B", "W_P_0"):
        path = f"RNN_0/RNN/MultiRNNCell/Cell0/LSTMCell/{name}"
        wrong = arrays | {path: arrays[path[:4] + "1" + path[5:]]}
        with pytest.raises(AssertionError, match="not close"):
            assert_same(load(wrong, OPTIONS), expected)
    for change in (lambda bias: bias.chunk(4)[1].sub_(1.0), lambda bias: bias.copy_(bias.roll(9))):
        model = load(arrays, OPTIONS)
        change(model.forward_layers[1].bias.data)
        with pytest.raises(AssertionError, match="not close"):
            assert_same(model, expected)


def test_states_given_are_as_states_kept_and_a_new_beginning_forgets(arrays):
    kept, given = load(arrays, OPTIONS, stateful=True), load(arrays, OPTIONS)
    states, first = None, None
    for batch in (BATCHES[0], BATCHES[2]):
        inputs = encode(batch)
        with torch.no_grad():
            ours, theirs = kept(**inputs), given(**inputs, states=states, output_states=True)
        first = ours.last_hidden_state if first is None else first
        states = theirs.states
        assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state) and ours.states is None
    kept.reset_states()
    assert torch.equal(kept(**encode(BATCHES[0])).last_hidden_state, first)


def test_the_bytes_of_a_row_make_words():
    tokenizer = character_tokenizer(False)
    ids = torch.tensor([tokenizer("an ox")["input_ids"]])
    words = find_words(ids, max_characters=6, margin=1)
    assert words.characters.tolist() == [[258, 256, 259, 260, 260], [258, 97, 110, 259, 260], [258, 111, 120, 259, 260],
                                         [258, 257, 259, 260, 260]]  # fmt: skip
    assert words.word_of_token.tolist() == [[0, 1, 1, 1, 2, 2, 2, 3]]  # a space is of the word after it
    spaces = torch.tensor([[32, 32, 97, 10, 32, 98, 32, 99]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]])
    assert find_words(spaces, mask).word_of_token.tolist() == [[0, 0, 0, 1, 1, 1, -1, -1]]
    empty = find_words(torch.tensor([[32, 32]]))
    assert empty.lengths.tolist() == [0] and empty.keep.tolist() == [[False]] and len(empty.characters) == 0
    labels = torch.tensor([[-100, 7, -100, -100, 9, -100, -100, 5]])
    assert words.from_tokens(labels).tolist() == [[-100, 7, 9, 5]]


def test_a_row_without_words_gives_zeros_everywhere(arrays):
    model = load(arrays, OPTIONS)
    output = model(torch.tensor([[32, 32, 32], [97, 32, 98]]))
    assert torch.equal(output.last_hidden_state[0], torch.zeros(3, 12))
    alone = model(torch.tensor([[97, 32, 98]])).last_hidden_state[0]
    torch.testing.assert_close(output.last_hidden_state[1], alone, **TOLERANCE)
    assert model(torch.tensor([[32]]), output_states=True).states[0].abs().max() == 0


def test_the_special_ids_are_those_of_the_tokenizer():
    tokenizer = character_tokenizer()
    numbers = [layers_char_cnn.FIRST_SPECIAL, 257, layers_char_cnn.WORD_START, layers_char_cnn.WORD_END]
    assert tokenizer.convert_tokens_to_ids(list(character_ids.SPECIAL)) == [*numbers, layers_char_cnn.PADDING]
    assert len(tokenizer) == layers_char_cnn.NUM_CHARACTERS == HftElmoConfig().vocab_size


def test_equal_words_are_computed_once_also_when_their_codes_meet(monkeypatch):
    rows = torch.tensor([[1, 2], [3, 4], [1, 2], [3, 4], [5, 6]])
    found, inverse = distinct(rows)
    assert len(found) == 3 and torch.equal(found[inverse], rows)
    monkeypatch.setattr(torch, "randint", lambda *a, generator=None: torch.zeros(2, dtype=torch.long))
    found, inverse = distinct(rows)
    assert torch.equal(found[inverse], rows)


def test_each_direction_sees_its_own_side_only(arrays):
    model, ids = load(arrays, OPTIONS), encode(["ab cd ef gh"])["input_ids"]
    words = model.find_words(ids)
    vectors = []
    model.characters.register_forward_hook(lambda module, inputs, output: vectors.append(output.requires_grad_()))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    layers, _ = model.layers_of_words(words)
    for place in range(6):
        for part, sees in ((slice(0, 6), range(place + 1)), (slice(6, 12), range(place, 6))):
            (gradient,) = torch.autograd.grad(layers[-1][0, place, part].sum(), vectors[0], retain_graph=True)
            assert [word for word in range(6) if gradient[word].abs().max() > 0] == list(sees)


def labelled(number=4, words=60):
    """Rows of words with random labels at one token of each word."""
    inputs = encode([" ".join(f"w{row}{place}" for place in range(3 + row)) for row in range(number)])
    word = find_words(**inputs).word_of_token
    first = (word >= 0) & torch.cat([torch.ones(number, 1, dtype=torch.bool), word[:, 1:] != word[:, :-1]], 1)
    drawn = torch.randint(words, (2, *word.shape), generator=torch.Generator().manual_seed(0))
    return inputs, first, drawn


def test_the_loss_is_the_mean_of_both_directions_and_the_softmax_is_shared():
    torch.manual_seed(0)
    model = HftElmoForPreTraining(config_of(OPTIONS, num_words=60)).eval()
    inputs, first, drawn = labelled()
    labels = dict(zip(("labels", "backward_labels"), (side.masked_fill(~first, -100) for side in drawn), strict=True))
    output, hidden = model(**inputs, **labels), model.model(**inputs).last_hidden_state
    by_hand = [
        torch.nn.functional.cross_entropy(side[first] @ model.lm_head.weight.T + model.lm_head.bias, target[first])
        for side, target in zip(hidden.chunk(2, -1), drawn, strict=True)
    ]
    torch.testing.assert_close(torch.stack([output.forward_loss, output.backward_loss]), torch.stack(by_hand))
    torch.testing.assert_close(output.loss, sum(by_hand) / 2)
    assert by_hand[0] != by_hand[1] and output.logits.shape == (*first.shape, 60)
    torch.testing.assert_close(model.train()(**inputs, **labels).loss, output.loss, atol=0.5, rtol=0)  # dropout 0.1
    assert model(**inputs, **labels).logits is None
    with pytest.raises(ValueError, match="backward_labels"):
        model(**inputs, labels=labels["labels"])


def test_the_sampled_softmax_is_for_training_only():
    torch.manual_seed(0)
    sizes = dict(num_words=60, hidden_dropout_prob=0.0)
    full, sampled = (HftElmoForPreTraining(config_of(OPTIONS, **sizes, num_sampled_words=n)) for n in (0, 20))
    sampled.load_state_dict(full.state_dict())
    inputs, first, drawn = labelled()
    sides = [side.masked_fill(~first, -100) for side in drawn]
    inputs |= dict(labels=sides[0], backward_labels=sides[1])
    assert torch.equal(full.eval()(**inputs).loss, sampled.eval()(**inputs).loss)
    losses = torch.stack([sampled.train()(**inputs).loss for _ in range(3)])
    assert losses.std() > 0 and (losses < full.train()(**inputs).loss).all()


@pytest.mark.parametrize("head", [HftElmoForTokenClassification, HftElmoForSequenceClassification])
def test_a_frozen_bilm_stays_bit_for_bit_and_drops_nothing(head):
    torch.manual_seed(0)
    model = head(config_of(OPTIONS, num_labels=3, hidden_dropout_prob=0.5, task_dropout_prob=0.0, num_task_filters=4))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    inputs, first, drawn = labelled()
    labels = (drawn[0] % 3).masked_fill(~first, -100) if "Token" in head.__name__ else torch.tensor([0, 1, 2, 1])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    model.train()
    assert torch.equal(model(**inputs, labels=labels).loss, model(**inputs, labels=labels).loss)
    for _ in range(3):
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("model."), name
    trained = head(config_of(OPTIONS, num_labels=3, freeze_bilm=False, num_task_filters=0)).train()
    trained(**inputs, labels=labels).loss.backward()
    assert trained.model.embed_tokens.weight.grad.abs().max() > 0 and trained.task.characters is None


def test_published_files_are_checked(arrays):
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    config = config_of(OPTIONS)
    with pytest.raises(CheckpointError, match="CNN_proj/b_proj is missing"):
        converted({name: tensor for name, tensor in tensors.items() if name != "CNN_proj/b_proj"}, config, "here")
    with pytest.raises(CheckpointError, match="without a counterpart: extra"):
        converted(tensors | {"extra": torch.zeros(1)}, config, "here")


def test_a_folder_of_published_weights_becomes_one_of_ours(arrays, tmp_path):
    h5py = pytest.importorskip("h5py")
    from transformers import AutoModel, AutoTokenizer

    from hftoolkit.convert import convert_folder

    source = tmp_path / "published"
    source.mkdir()
    (source / "options.json").write_text(json.dumps(OPTIONS))
    with pytest.raises(CheckpointError, match="not a model folder"):
        convert_folder(source, tmp_path / "ours")
    with h5py.File(source / "lm_weights.hdf5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    convert_folder(source, tmp_path / "ours")
    model = AutoModel.from_pretrained(tmp_path / "ours").eval()
    assert_same(model, expected_layers(arrays, OPTIONS, carried=False))
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "ours")(BATCHES[0][0]).input_ids
        == encode(BATCHES[0][:1]).input_ids[0].tolist()
    )
    (source / "options.json").write_text(json.dumps(OPTIONS | {"lstm": OPTIONS["lstm"] | {"projection_dim": 5}}))
    with pytest.raises(CheckpointError, match="options.json says"):
        convert_folder(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (source / "lm_weights.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(CheckpointError, match="cannot be read as HDF5"):
        convert_folder(source, tmp_path / "other")


@pytest.mark.realdata
def test_the_published_bilm_gives_its_published_embeddings(real_data):
    """bilm-tf's fixture: ten batches of three sentences, the states carried on; without them the error is 0.79."""
    h5py, published = pytest.importorskip("h5py"), real_data / "reference/elmo_tiny/model"
    sentences = json.loads((published / "lm_embeddings_sentences.json").read_text())
    files = [h5py.File(published / f"lm_embeddings_{row}.hdf5") for row in range(3)]
    errors = {}
    for stateful in (True, False):
        model, errors[stateful] = from_published(published, stateful=stateful), 0.0
        for batch in range(10):
            inputs = encode([rows[batch] for rows in sentences])
            words = model.find_words(**inputs)
            with torch.no_grad():
                layers, _ = model.layers_of_words(words)
            for row, file in enumerate(files):
                theirs = torch.from_numpy(file[str(batch)][...])  # (2, words, P), forward and backward
                ours = torch.stack(layers[-1][row, 1 : theirs.shape[1] + 1].chunk(2, -1))
                assert int(words.lengths[row]) == theirs.shape[1] + 2
                errors[stateful] = max(errors[stateful], float((ours - theirs).abs().max()))
    assert errors[True] < 1e-5 and errors[False] > 0.5
