"""ELMo: a bidirectional language model over words made of characters, and tasks that read its layers.

Paper: Peters et al. 2018, https://arxiv.org/abs/1802.05365, Sections 3.1 to 3.4; what it leaves open is as in
allenai/bilm-tf at 81a4b54, bilm/model.py. The cell with its projection: Sak et al. 2014,
https://arxiv.org/abs/1402.1128, Section 2.2.
Differs from it: a batch is rows that begin with zero states unless `states` are given or the config is stateful; the
tasks' own words are vectors from characters, too, not GloVe's.
Shapes: B = rows, T = tokens (bytes) of a row, W = words of a row, P = projection_size, H = hidden_size, L = layers,
V = num_words, C = classes.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .layers_char_cnn import (
    ACTIVATIONS,
    NUM_CHARACTERS,
    CharacterCnn,
    Highway,
    check_filters,
    find_words,
    initialise_highway,
)
from .layers_checks import check_amounts, check_counts, check_shares, check_sizes
from .layers_losses import classification_loss, cross_entropy, linear_cross_entropy
from .layers_pooling import Pooling, check_pooling
from .layers_recurrent import RecurrentLayer, initialise_cell, reverse_rows
from .layers_sampled_softmax import sampled_cross_entropy
from .layers_scalar_mix import ScalarMix

AUTO_MAP = {
    "AutoConfig": "modeling_elmo.HftElmoConfig",
    "AutoModel": "modeling_elmo.HftElmoModel",
    "AutoModelForPreTraining": "modeling_elmo.HftElmoForPreTraining",
    "AutoModelForSequenceClassification": "modeling_elmo.HftElmoForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_elmo.HftElmoForTokenClassification",
}


class HftElmoConfig(PretrainedConfig):
    """Sizes of ELMo, those published by default.

    Args:
        vocab_size: characters that have a vector: 256 bytes and five special tokens, or more.
        character_size: of a character's vector.
        filter_widths, filter_counts: of each kind of filter over characters, how many it reads at once, and their number.
        max_characters: of a word, its two borders included; what is beyond is not read.
        hidden_size: cells of a layer and direction.
        projection_size: P, of a direction's outputs, which are fed back, and of a word's vector.
        cell_clip, projection_clip: bounds of the cells and of the outputs; 0 is none.
        residual: whether from the second layer on a layer's input is added to its output.
        stateful: whether each call goes on where the one before ended, row by row; reset_states() begins anew.
        num_words: V, words that the language models predict, by falling frequency.
        num_sampled_words: words drawn for the softmax in training; 0 computes all.
        hidden_dropout_prob: dropout of each layer's input and of the last one's output while the biLM is trained.
        freeze_bilm: whether tasks leave the biLM as it is.
        num_task_filters, task_filter_width: filters of a task's own words from characters; 0 is no words of its own.
        task_hidden_size: cells of a task's LSTM and direction.
        task_dropout_prob: dropout of a task's inputs and before its classifier.
        pooling: how the classifier of texts sums up words: "last", "mean", "max" or "attention".
        initializer_range: largest number of a character's vector at the start.
    """

    model_type = "hft_elmo"

    def __init__(
        self,
        vocab_size=261,
        character_size=16,
        filter_widths=(1, 2, 3, 4, 5, 6, 7),
        filter_counts=(32, 32, 64, 128, 256, 512, 1024),
        num_highways=2,
        character_activation="relu",
        max_characters=50,
        hidden_size=4096,
        projection_size=512,
        num_hidden_layers=2,
        cell_clip=3.0,
        projection_clip=3.0,
        residual=True,
        stateful=False,
        num_words=100,
        num_sampled_words=0,
        hidden_dropout_prob=0.1,
        freeze_bilm=True,
        num_task_filters=64,
        task_filter_width=3,
        task_hidden_size=128,
        task_dropout_prob=0.5,
        pooling="max",
        initializer_range=1.0,
        pad_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        values = check_counts(
            vocab_size=vocab_size,
            character_size=character_size,
            hidden_size=hidden_size,
            projection_size=projection_size,
            num_hidden_layers=num_hidden_layers,
            num_words=num_words,
            task_hidden_size=task_hidden_size,
            task_filter_width=task_filter_width,
        )
        values |= check_sizes(
            num_highways=num_highways, num_sampled_words=num_sampled_words, num_task_filters=num_task_filters
        )
        values |= check_shares(hidden_dropout_prob=hidden_dropout_prob, task_dropout_prob=task_dropout_prob)
        values |= check_amounts(
            cell_clip=cell_clip, projection_clip=projection_clip, initializer_range=initializer_range
        )
        if vocab_size < NUM_CHARACTERS:
            raise ValueError(f"vocab_size must be at least {NUM_CHARACTERS}, for all bytes, got {vocab_size}")
        if projection_size >= hidden_size:
            raise ValueError(f"projection_size must be below hidden_size {hidden_size}, got {projection_size}")
        if not isinstance(max_characters, int) or max_characters < max(3, task_filter_width):
            least = f"at least 3 and task_filter_width {task_filter_width}"
            raise ValueError(f"max_characters must be a whole number of {least}, got {max_characters!r}")
        if character_activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"character_activation must be one of {known}, got {character_activation!r}")
        check_filters(filter_widths, filter_counts, max_characters)
        for name, value in dict(residual=residual, stateful=stateful, freeze_bilm=freeze_bilm).items():
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
            values[name] = value
        check_pooling(pooling)
        values |= dict(max_characters=max_characters, character_activation=character_activation, pooling=pooling)
        values |= dict(filter_widths=list(filter_widths), filter_counts=list(filter_counts))
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)


class ElmoLstm(nn.Module):
    """One direction of one layer: an LSTM whose cells and projected outputs are clipped.

    The forget gate's bias begins with 1, which bilm-tf adds in the cell. torch.nn.LSTM(proj_size=P) cannot clip.
    """

    def __init__(self, hidden_size, projection_size, cell_clip, projection_clip):
        super().__init__()
        self.cell_clip, self.projection_clip = cell_clip, projection_clip
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, projection_size))  # input, forget, cell, output
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, projection_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        self.weight_hr = nn.Parameter(torch.empty(projection_size, hidden_size))

    def forward(self, hidden, lengths, state=None, with_state=False):
        """Outputs of rows padded on the right, and the state after each row's last word.

        Args:
            hidden: (B, W, P); lengths (B,), 0 is allowed.
            state: h (B, P) and c (B, H), or None: zeros.

        Returns:
            (outputs (B, W, P), 0 at padding; (h, c) or None).
        """
        B, W, P = hidden.shape
        if state is None:
            state = hidden.new_zeros(B, P), hidden.new_zeros(B, self.weight_hr.shape[1])
        inputs = nn.functional.linear(hidden, self.weight_ih, self.bias)  # of all words at once, (B, W, 4H)
        (h, c), outputs, cells = state, [], []
        for step in inputs.unbind(1):
            i, f, g, o = (step + nn.functional.linear(h, self.weight_hh)).chunk(4, -1)
            c = clip(torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g), self.cell_clip)
            h = clip(nn.functional.linear(torch.sigmoid(o) * torch.tanh(c), self.weight_hr), self.projection_clip)
            outputs.append(h)
            cells.append(c)
        outputs = torch.stack(outputs, 1)
        if with_state:
            rows, last = torch.arange(B, device=hidden.device), (lengths - 1).clamp(min=0)
            ends = outputs[rows, last], torch.stack(cells, 1)[rows, last]
            pairs = zip(ends, state, strict=True)
            state = tuple(torch.where(lengths.unsqueeze(1) > 0, end, old.to(end.dtype)) for end, old in pairs)
        padding = torch.arange(W, device=hidden.device) >= lengths.unsqueeze(1)
        return outputs.masked_fill(padding.unsqueeze(-1), 0.0), state if with_state else None


def clip(values, bound):
    """Values between -bound and bound; 0 is no bound."""
    return values.clamp(-bound, bound) if bound else values


@dataclass
class HftElmoModelOutput(ModelOutput):
    """What ELMo gives for every token: that of its word; a space has that of the word after it, padding 0.

    Args:
        last_hidden_state: the last layer, both directions side by side, (B, T, 2P).
        states: after each row's last word (backwards: first), h (2L, B, P) and c (2L, B, H), forward before backward.
        hidden_states: the words' vectors (twice) and every layer, 1 + L times (B, T, 2P).
    """

    last_hidden_state: torch.FloatTensor | None = None
    states: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class HftElmoForPreTrainingOutput(ModelOutput):
    """`loss` is the mean of the two directions' losses; logits (B, T, V) are those of the next and the previous word."""

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    backward_logits: torch.FloatTensor | None = None
    forward_loss: torch.FloatTensor | None = None
    backward_loss: torch.FloatTensor | None = None
    states: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class HftElmoPreTrainedModel(PreTrainedModel):
    """What all ELMo classes share: initialisation and what transformers and FSDP ask of a class."""

    config: HftElmoConfig
    config_class = HftElmoConfig
    base_model_prefix = "model"
    _no_split_modules = ["ElmoLstm"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            init.uniform_(module.weight, -self.config.initializer_range, self.config.initializer_range)
        elif isinstance(module, nn.Conv1d):
            init.uniform_(module.weight, -0.05, 0.05)
            init.zeros_(module.bias)
        elif isinstance(
            module, ElmoTask
        ):  # comes after its parts; smaller filters would be lost beside the biLM's layers
            for convolution in module.characters.convolutions if module.characters is not None else ():
                init.xavier_uniform_(convolution.weight)
        elif isinstance(module, Highway):  # so does this
            initialise_highway(module, init)
        elif isinstance(module, ElmoLstm):
            for weight in (module.weight_ih, module.weight_hh, module.weight_hr):
                init.xavier_uniform_(weight)
            bias = torch.zeros_like(module.bias)
            bias[len(bias) // 4 : len(bias) // 2] = 1.0  # the forget gate
            init.copy_(module.bias, bias)
        elif isinstance(module, ScalarMix):
            init.zeros_(module.weights)
            init.ones_(module.gamma)
        elif isinstance(module, nn.LSTM):
            initialise_cell(module, init)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)


class HftElmoModel(HftElmoPreTrainedModel):
    """Words from characters, and layers of LSTMs in both directions, which do not see each other."""

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.character_size)
        filters = zip(config.filter_widths, config.filter_counts, strict=True)
        shape = (config.num_highways, config.projection_size, config.character_activation)
        self.characters = CharacterCnn(config.character_size, list(filters), *shape)
        sizes = (config.hidden_size, config.projection_size, config.cell_clip, config.projection_clip)
        layers = range(config.num_hidden_layers)
        self.forward_layers = nn.ModuleList(ElmoLstm(*sizes) for _ in layers)
        self.backward_layers = nn.ModuleList(ElmoLstm(*sizes) for _ in layers)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self._kept = None  # the states of the rows of the last call, where the config is stateful
        self.post_init()

    def find_words(self, input_ids, attention_mask=None):
        """Words of rows of bytes, padded as far as the widest filter reads."""
        margin = max(*self.config.filter_widths, self.config.task_filter_width)
        return find_words(input_ids, attention_mask, self.config.max_characters, margin)

    def layers_of_words(self, words, states=None, with_states=False):
        """Every layer's vectors of the words, from their characters up.

        Args:
            words: as find_words gives them.
            states: where each row goes on, as this returns them; None is the beginning of a text.

        Returns:
            (layers, states): 1 + L times (B, W, 2P), 0 where a row has no word; states or None.
        """
        vectors = words.in_rows(self.characters(words.characters, self.embed_tokens))  # (B, W, P)
        stateful = self.config.stateful and states is None
        states = self._kept_for(vectors) if stateful else states
        layers, left = [torch.cat([vectors, vectors], -1)], []
        hidden = [vectors, reverse_rows(vectors, words.lengths)]
        for number, pair in enumerate(zip(self.forward_layers, self.backward_layers, strict=True)):
            for side, lstm in enumerate(pair):
                own = None if states is None else [part[2 * number + side] for part in states]
                inputs = self.dropout(hidden[side])
                output, state = lstm(inputs, words.lengths, own, with_states or self.config.stateful)
                hidden[side] = output + inputs if number and self.config.residual else output
                left.append(state)
            layers.append(torch.cat([hidden[0], reverse_rows(hidden[1], words.lengths)], -1))
        if not (with_states or self.config.stateful):
            return layers, None
        states = tuple(torch.stack(parts) for parts in zip(*left, strict=True))
        if stateful:
            self._keep(states)
        return layers, states

    def reset_states(self):
        """Let a stateful model begin anew."""
        self._kept = None

    def _kept_for(self, vectors):
        """The kept states of so many rows; rows that were not there before begin with zeros."""
        if self._kept is None:
            return None
        B = len(vectors)
        missing = B - self._kept[0].shape[1]
        parts = (part.to(vectors) for part in self._kept)
        return tuple(nn.functional.pad(part, (0, 0, 0, missing)) if missing > 0 else part[:, :B] for part in parts)

    def _keep(self, states):
        """Keep the states of these rows, and those of rows that this batch did not have."""
        states = tuple(part.detach() for part in states)
        B = states[0].shape[1]
        if self._kept is not None and self._kept[0].shape[1] > B:
            pairs = zip(states, self._kept, strict=True)
            states = tuple(torch.cat([new, old[:, B:].to(new)], 1) for new, old in pairs)
        self._kept = states

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        states=None,
        output_states=False,
        output_hidden_states=None,
        **kwargs,
    ):
        """Vectors of every token's word, in its context.

        Args:
            input_ids: bytes and special tokens, as a character tokenizer gives them, (B, T).
            attention_mask: 1 = real token, (B, T), padding on either side; None = all real.
            states: where each row goes on, as an earlier call returned them.

        Returns:
            HftElmoModelOutput.
        """
        words = self.find_words(input_ids, attention_mask)
        layers, states = self.layers_of_words(words, states, output_states)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return HftElmoModelOutput(
            last_hidden_state=words.at_tokens(layers[-1]),
            states=states if output_states else None,
            hidden_states=tuple(words.at_tokens(layer) for layer in layers) if output_hidden_states else None,
        )


class HftElmoForPreTraining(HftElmoPreTrainedModel):
    """Both language models: the next word from the words before it, the previous one from those after it.

    They share the words' vectors and the softmax.
    """

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftElmoModel(config)
        self.lm_head = nn.Linear(config.projection_size, config.num_words)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        states=None,
        labels=None,
        backward_labels=None,
        num_items_in_batch=None,
        logits_to_keep=0,
        output_states=False,
        output_hidden_states=None,
        **kwargs,
    ):
        """Losses and logits.

        Args:
            labels: at one token of a word, the number of the word that follows it, elsewhere -100, (B, T).
            backward_labels: likewise, of the word that precedes it. As many as there are labels.
            num_items_in_batch: what each direction's summed loss is divided by; None is the number of its labels.
            logits_to_keep: of how many of the last tokens the logits are wanted; 0 is all. While training with labels
                there are none.

        Returns:
            HftElmoForPreTrainingOutput.

        Raises:
            ValueError: labels of one direction only.
        """
        if (labels is None) != (backward_labels is None):
            raise ValueError(
                "give labels and backward_labels, or neither: there is a language model in each direction"
            )
        words = self.model.find_words(input_ids, attention_mask)
        layers, states = self.model.layers_of_words(words, states, output_states)
        top = self.model.dropout(layers[-1]).chunk(2, -1)
        losses, logits = [None, None], [None, None]
        if labels is not None:
            targets = [words.from_tokens(side) for side in (labels, backward_labels)]
            losses = [self._loss(*pair, num_items_in_batch) for pair in zip(top, targets, strict=True)]
        if labels is None or not self.training:
            logits = [self.lm_head(words.at_tokens(side)[:, -logits_to_keep:]) for side in top]
        return HftElmoForPreTrainingOutput(
            loss=None if labels is None else (losses[0] + losses[1]) / 2,
            logits=logits[0],
            backward_logits=logits[1],
            forward_loss=losses[0],
            backward_loss=losses[1],
            states=states if output_states else None,
            hidden_states=tuple(words.at_tokens(layer) for layer in layers) if output_hidden_states else None,
        )

    def _loss(self, hidden, targets, num_items_in_batch):
        head = dict(bias=self.lm_head.bias, num_items_in_batch=num_items_in_batch)
        if self.training and 0 < self.config.num_sampled_words < self.config.num_words:
            return sampled_cross_entropy(hidden, self.lm_head.weight, targets, self.config.num_sampled_words, **head)
        return linear_cross_entropy(hidden, self.lm_head.weight, targets, **head)


class ElmoTask(nn.Module):
    """What a task makes of ELMo: its mixed layers beside words of its own, read by a bidirectional LSTM."""

    def __init__(self, config):
        super().__init__()
        self.mix = ScalarMix(config.num_hidden_layers + 1)
        self.embed_characters, self.characters, size = None, None, 2 * config.projection_size
        if config.num_task_filters:
            filters = [(config.task_filter_width, config.num_task_filters)]
            self.embed_characters = nn.Embedding(config.vocab_size, config.character_size)
            self.characters = CharacterCnn(config.character_size, filters)
            size += self.characters.output_size
        self.dropout = nn.Dropout(config.task_dropout_prob)
        self.lstm = RecurrentLayer("lstm", size, config.task_hidden_size, bidirectional=True)
        self.output_size = 2 * config.task_hidden_size

    def forward(self, words, layers):
        """(B, W, 2 * task_hidden_size), 0 where a row has no word."""
        inputs = [self.mix(layers)]
        if self.characters is not None:
            inputs.append(words.in_rows(self.characters(words.characters, self.embed_characters)).to(inputs[0].dtype))
        hidden, _ = self.lstm(self.dropout(torch.cat(inputs, -1)), words.lengths)
        return self.dropout(hidden)


class HftElmoTaskModel(HftElmoPreTrainedModel):
    """A biLM, frozen or not, under a task; what the two heads share."""

    def __init__(self, config):
        super().__init__(config)
        self.model = HftElmoModel(config)
        self.task = ElmoTask(config)
        self.model.requires_grad_(not config.freeze_bilm)

    def train(self, mode=True):
        """As every module; a frozen biLM drops nothing out."""
        super().train(mode)
        if self.config.freeze_bilm:
            self.model.eval()
        return self

    def read(self, input_ids, attention_mask):
        """(words, what the task makes of them (B, W, D), the biLM's layers)."""
        words = self.model.find_words(input_ids, attention_mask)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_bilm):
            layers, _ = self.model.layers_of_words(words)
        return words, self.task(words, layers), layers


class HftElmoForTokenClassification(HftElmoTaskModel):
    """Tags of words from ELMo; every token has the scores of its word."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.score = nn.Linear(self.task.output_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        labels=None,
        num_items_in_batch=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Scores of each token, (B, T, C); labels (B, T), -100 at all tokens of a word but one."""
        words, hidden, layers = self.read(input_ids, attention_mask)
        logits = words.at_tokens(self.score(hidden))
        loss = None if labels is None else cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        states = tuple(words.at_tokens(layer) for layer in layers) if output_hidden_states else None
        return modeling_outputs.TokenClassifierOutput(loss=loss, logits=logits, hidden_states=states)


class HftElmoForSequenceClassification(HftElmoTaskModel):
    """Classes of texts from ELMo; one label is regression."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.pooling = Pooling(config.pooling, self.task.output_size, bidirectional=True)
        self.score = nn.Linear(self.task.output_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        labels=None,
        num_items_in_batch=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Logits (B, C); labels (B,) or (B, C), in the forms that classification_loss reads."""
        words, hidden, layers = self.read(input_ids, attention_mask)
        logits = self.score(self.pooling(hidden, words.keep))
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        states = tuple(words.at_tokens(layer) for layer in layers) if output_hidden_states else None
        return modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=states)
