"""Recurrent networks: simple (Elman), GRU and LSTM, stacked, in one direction or both, with three heads.

Papers: those of layers_recurrent; Graves 2013, https://arxiv.org/abs/1308.0850, Section 2 (stacks); Zaremba et al. 2014,
https://arxiv.org/abs/1409.2329, Section 3 (dropout between layers, never from step to step); Huang et al. 2015,
https://arxiv.org/abs/1508.01991, Section 2.3 (tagging with both directions, without the CRF). Language models: Mikolov
et al. 2010; Zaremba et al.; Press and Wolf 2017, https://arxiv.org/abs/1608.05859 (one matrix for reading and writing).
Shapes: B = rows, T = tokens of a row, E = embedding_size, D = output size of a layer, C = classes.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .layers_cache import StateCache
from .layers_checks import check_amounts, check_counts, check_shares
from .layers_losses import classification_loss, cross_entropy, next_words
from .layers_pooling import Pooling, check_pooling
from .layers_positions import require_single_texts
from .layers_recurrent import CELLS, RecurrentLayer, check_cell, initialise_cell, row_lengths, run_layers, take

AUTO_MAP = {
    "AutoConfig": "modeling_rnn.HftRnnConfig",
    "AutoModel": "modeling_rnn.HftRnnModel",
    "AutoModelForCausalLM": "modeling_rnn.HftRnnForCausalLM",
    "AutoModelForSequenceClassification": "modeling_rnn.HftRnnForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_rnn.HftRnnForTokenClassification",
}


class HftRnnConfig(PretrainedConfig):
    """Sizes of a recurrent network.

    Args:
        embedding_size: of the word vectors; None is hidden_size.
        hidden_size: cells of a layer and direction.
        cell_type: "rnn" (tanh), "gru" or "lstm".
        projection_size: an LSTM's outputs are projected to this size, and fed back; None is no projection.
        bidirectional: whether every layer also reads from right to left; its outputs stand side by side.
        pooling: how the classifier sums up a text: "last" (each direction's last step), "mean", "max" or "attention".
        embedding_dropout_prob: dropout of the word vectors.
        hidden_dropout_prob: dropout between the layers, and before a language model's output layer.
        weight_dropout_prob: dropout of the recurrent matrices, the same at all steps.
        classifier_dropout_prob: dropout before the classifier.
        initializer_range: standard deviation of the word vectors at the start.
        label_smoothing: share of the target's probability spread over the vocabulary; of language models, in training.
        z_loss: weight of the squared log-normaliser in the training loss of language models.
        tie_word_embeddings: whether a language model's output matrix is that of the word vectors; the layers' outputs
            must then be of their size.
    """

    model_type = "hft_rnn"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=30000,
        embedding_size=None,
        hidden_size=256,
        num_hidden_layers=1,
        cell_type="lstm",
        projection_size=None,
        bidirectional=True,
        pooling="max",
        embedding_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        weight_dropout_prob=0.0,
        classifier_dropout_prob=0.0,
        initializer_range=0.1,
        label_smoothing=0.0,
        z_loss=0.0,
        use_cache=True,
        pad_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        embedding_size = hidden_size if embedding_size is None else embedding_size
        values = check_counts(
            vocab_size=vocab_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
        )
        check_cell(cell_type, hidden_size, projection_size)
        check_pooling(pooling)
        if not isinstance(bidirectional, bool):
            raise ValueError(f"bidirectional must be true or false, got {bidirectional!r}")
        values |= check_shares(
            embedding_dropout_prob=embedding_dropout_prob,
            hidden_dropout_prob=hidden_dropout_prob,
            weight_dropout_prob=weight_dropout_prob,
            classifier_dropout_prob=classifier_dropout_prob,
            label_smoothing=label_smoothing,
        )
        values |= check_amounts(initializer_range=initializer_range, z_loss=z_loss)
        values |= dict(cell_type=cell_type, projection_size=projection_size, use_cache=use_cache)
        values |= dict(bidirectional=bidirectional, pooling=pooling)
        for name, value in values.items():
            setattr(self, name, value)
        is_one_way = not bidirectional and (not tie_word_embeddings or self.embedding_size == self.output_size)
        kwargs.setdefault(
            "auto_map", {auto: path for auto, path in AUTO_MAP.items() if is_one_way or auto != "AutoModelForCausalLM"}
        )  # a program elsewhere is not offered a head that would refuse
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)

    @property
    def output_size(self):
        """D: of what every layer gives for a token, both directions together."""
        return (2 if self.bidirectional else 1) * (self.projection_size or self.hidden_size)


@dataclass
class HftRnnModelOutput(ModelOutput):
    """`states` are those after each row's last token, as torch.nn has them: h, or for an LSTM (h, c)."""

    last_hidden_state: torch.FloatTensor | None = None
    states: torch.FloatTensor | tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class HftRnnPreTrainedModel(PreTrainedModel):
    """What all recurrent classes share: initialisation and what transformers and FSDP ask of a class."""

    config: HftRnnConfig
    config_class = HftRnnConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RecurrentLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _is_stateful = True  # a state cannot be cut back to an earlier token

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, tuple(CELLS.values())):
            initialise_cell(module, init)
        elif isinstance(module, nn.Linear):  # Glorot and Bengio 2010
            init.xavier_uniform_(module.weight)


class HftRnnModel(HftRnnPreTrainedModel):
    """Embeddings and recurrent layers."""

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embed_dropout = nn.Dropout(config.embedding_dropout_prob)
        sizes = [config.embedding_size, *[config.output_size] * (config.num_hidden_layers - 1)]
        shape = (config.hidden_size, config.projection_size, config.bidirectional, config.weight_dropout_prob)
        self.layers = nn.ModuleList(RecurrentLayer(config.cell_type, size, *shape) for size in sizes)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        states=None,
        output_states=False,
        output_hidden_states=None,
        **kwargs,
    ):
        """Hidden states of every real token; padding reads 0.

        Args:
            attention_mask: 1 = real token, (B, T), padding on either side; None = all real.
            states: where each row goes on, as an earlier call returned them; None is the beginning of a text.
            output_states: whether the states at the end are wanted.

        Returns:
            HftRnnModelOutput; last_hidden_state (B, T, D), hidden_states a tuple of the embeddings and each layer's
            output.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds; packed rows.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        require_single_texts(attention_mask, kwargs.get("position_ids"))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        lengths, order = row_lengths(attention_mask)
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        embeds = self.embed_dropout(embeds)
        rows = embeds if order is None else take(embeds, order)
        hidden, states = run_layers(self.layers, rows, lengths, states, self.dropout, output_states)
        if order is not None:
            back = order.argsort(dim=1)
            hidden = [take(output, back) for output in hidden]
        if output_hidden_states and lengths is not None:
            embeds = embeds.masked_fill(attention_mask.eq(0).unsqueeze(-1), 0.0)
        return HftRnnModelOutput(
            last_hidden_state=hidden[-1],
            states=states,
            hidden_states=(embeds, *hidden) if output_hidden_states else None,
        )


class HftRnnForCausalLM(HftRnnPreTrainedModel, GenerationMixin):
    """A recurrent language model: one direction, and the output layer over the vocabulary.

    Raises:
        ValueError: bidirectional, which would see the word it predicts; a tied matrix whose two sizes differ.
    """

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        if config.bidirectional:
            raise ValueError(
                "bidirectional must be false in a language model, got True: it would see what it predicts"
            )
        if config.tie_word_embeddings and config.embedding_size != config.output_size:
            raise ValueError(
                f"embedding_size {config.embedding_size} must be the size of the layers' outputs, {config.output_size}, "
                "with tie_word_embeddings; an LSTM's projection_size may differ from its hidden_size"
            )
        self.model = HftRnnModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.lm_head = nn.Linear(config.output_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        shift_labels=None,
        num_items_in_batch=None,
        use_cache=None,
        logits_to_keep=None,
        **kwargs,
    ):
        """Next-token loss and logits; labels, shift_labels and logits_to_keep are those of next_words.

        Args:
            attention_mask: 1 = real token, (B, T), or with a cache (B, earlier + T); padding on either side.
            past_key_values: a StateCache, whose state is that of torch.nn; moved on in place.
            use_cache: whether the state after the tokens is wanted; None is config.use_cache, and in training no.

        Returns:
            CausalLMOutputWithPast; loss in nats per token, logits (B, kept, V) or None.
        """
        wanted = self.config.use_cache and not self.training if use_cache is None else use_cache
        cache = StateCache(dim=1) if wanted and past_key_values is None else past_key_values
        given = input_ids if inputs_embeds is None else inputs_embeds
        tokens = 0 if given is None else given.shape[1]
        output = self.model(
            input_ids,
            None if attention_mask is None else attention_mask[:, -tokens:],
            inputs_embeds,
            states=None if cache is None else cache.state,
            output_states=cache is not None,
            return_dict=True,
            **kwargs,
        )
        if cache is not None:
            cache.move_on(output.states, tokens)
        hidden = self.dropout(output.last_hidden_state)
        loss, logits = next_words(self, hidden, labels, shift_labels, num_items_in_batch, logits_to_keep)
        return modeling_outputs.CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=cache, hidden_states=output.hidden_states
        )


class HftRnnForSequenceClassification(HftRnnPreTrainedModel):
    """A recurrent network with a linear classifier on what its pooling makes of all tokens; one label is regression."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftRnnModel(config)
        self.pooling = Pooling(config.pooling, config.output_size, config.bidirectional)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(config.output_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Logits (B, C); labels (B,) or (B, C), in the forms that classification_loss reads."""
        output = self.model(input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs)
        logits = self.score(self.dropout(self.pooling(output.last_hidden_state, attention_mask)))
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)


class HftRnnForTokenClassification(HftRnnPreTrainedModel):
    """A recurrent network with a linear classifier on every token."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftRnnModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(config.output_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Scores of each token, (B, T, C); labels (B, T) with -100 where there is none."""
        output = self.model(input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs)
        logits = self.score(self.dropout(output.last_hidden_state))
        loss = None if labels is None else cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        return modeling_outputs.TokenClassifierOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)
