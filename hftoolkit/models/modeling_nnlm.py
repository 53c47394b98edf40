"""The feed-forward neural language model: the next word from the vectors of the n - 1 words before it.

Paper: Bengio et al. 2003, https://www.jmlr.org/papers/v3/bengio03a.html, Section 2, Equation 1:
y = b + W x + U tanh(d + H x), where x is the vectors of the n - 1 words side by side, the nearest first.
Differs from it: a word that a text does not have yet, at its beginning, has the vector 0.
Shapes: B = rows, T = tokens of a row, E = embedding_size, N = context_size = n - 1, D = what the output layer reads.
"""

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .layers_cache import StateCache
from .layers_checks import check_amounts, check_counts, check_shares
from .layers_losses import next_words
from .layers_positions import require_single_texts

AUTO_MAP = {
    "AutoConfig": "modeling_nnlm.HftNnlmConfig",
    "AutoModel": "modeling_nnlm.HftNnlmModel",
    "AutoModelForCausalLM": "modeling_nnlm.HftNnlmForCausalLM",
}


class HftNnlmConfig(PretrainedConfig):
    """Sizes of a feed-forward language model.

    Args:
        embedding_size: of the word vectors.
        hidden_size: of the tanh layer.
        context_size: words that are read, n - 1 of an n-gram model.
        direct_connections: whether the output layer also reads the word vectors themselves (the matrix W).
        hidden_dropout_prob: dropout before the output layer.
        label_smoothing: share of the target's probability spread over the vocabulary, in training, in [0, 1).
        z_loss: weight of the squared log-normaliser in the training loss.
        initializer_range: standard deviation of the word vectors at the start.
        tie_word_embeddings: whether the output matrix is that of the word vectors; needs hidden_size = embedding_size
            and no direct connections.
    """

    model_type = "hft_nnlm"
    num_hidden_layers = 1  # the tanh layer; programs that read the outputs of layers ask for their number
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=17000,
        embedding_size=60,
        hidden_size=50,
        context_size=4,
        direct_connections=False,
        hidden_dropout_prob=0.0,
        label_smoothing=0.0,
        z_loss=0.0,
        initializer_range=0.1,
        use_cache=True,
        pad_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        values = check_counts(
            vocab_size=vocab_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            context_size=context_size,
        )
        if not isinstance(direct_connections, bool):
            raise ValueError(f"direct_connections must be true or false, got {direct_connections!r}")
        if tie_word_embeddings and (direct_connections or hidden_size != embedding_size):
            raise ValueError(
                f"tie_word_embeddings needs hidden_size = embedding_size and no direct_connections, got {hidden_size}, "
                f"{embedding_size} and {direct_connections}"
            )
        values |= check_shares(hidden_dropout_prob=hidden_dropout_prob, label_smoothing=label_smoothing)
        values |= check_amounts(initializer_range=initializer_range, z_loss=z_loss)
        values |= dict(direct_connections=direct_connections, use_cache=use_cache)
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)

    @property
    def output_size(self):
        """D: of what the output layer reads."""
        return self.hidden_size + (self.context_size * self.embedding_size if self.direct_connections else 0)


class HftNnlmPreTrainedModel(PreTrainedModel):
    """What both classes share: initialisation and what transformers asks of a class."""

    config: HftNnlmConfig
    config_class = HftNnlmConfig
    base_model_prefix = "model"
    _no_split_modules = []
    _skip_keys_device_placement = ["past_key_values"]
    _is_stateful = True  # the words before those that it remembers are gone

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # Glorot and Bengio 2010
            init.xavier_uniform_(module.weight)


def words_before(embeds, past, number):
    """The vectors of the last `number` words up to each word, that word's own first; (B, T, number * E).

    Args:
        embeds: (B, T, E), 0 where there is no word.
        past: those before the row, (B, number - 1, E), the nearest last.

    Example (number 3, past [- a]):
        embeds [b c]  ->  [b a -] [c b a]
    """
    rows = torch.cat([past.to(embeds.dtype), embeds], 1)
    T = embeds.shape[1]
    return torch.cat([rows[:, number - 1 - back : number - 1 - back + T] for back in range(number)], -1)


class HftNnlmModel(HftNnlmPreTrainedModel):
    """The word vectors and the tanh layer."""

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.up_proj = nn.Linear(config.context_size * config.embedding_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        past_key_values=None,
        inputs_embeds=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """What the output layer reads at every position; padding reads 0.

        Args:
            attention_mask: 1 = real token, (B, T), or with a cache (B, earlier + T); padding wherever it is.
            past_key_values: a StateCache with the vectors of the last words, (B, N - 1, E); moved on in place.

        Returns:
            BaseModelOutputWithPast; last_hidden_state (B, T, D), hidden_states the embeddings and the same.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds; packed rows.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        require_single_texts(attention_mask, kwargs.get("position_ids"))
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        B, T, E = embeds.shape
        number, cache = self.config.context_size, past_key_values
        past = None if cache is None else cache.state
        past = embeds.new_zeros(B, number - 1, E) if past is None else past.to(embeds.dtype)
        rows, order, real = embeds, None, None
        if attention_mask is not None:
            real = attention_mask[:, -T:].ne(0)
            order = (~real).long().argsort(dim=1, stable=True).unsqueeze(-1)  # the real ones to the left
            embeds = embeds.masked_fill(~real.unsqueeze(-1), 0.0)
            rows = embeds.take_along_dim(order, 1)
        read = words_before(rows, past, number)
        hidden = torch.tanh(self.up_proj(read))
        hidden = self.dropout(torch.cat([hidden, read], -1) if self.config.direct_connections else hidden)
        if cache is not None:
            lengths = real.sum(1) if real is not None else torch.full((B,), T, device=embeds.device)
            places = lengths.unsqueeze(1) + torch.arange(number - 1, device=embeds.device)
            cache.move_on(torch.cat([past, rows], 1).take_along_dim(places.unsqueeze(-1), 1), T)
        if order is not None:
            hidden = hidden.take_along_dim(order.argsort(dim=1), 1).masked_fill(~real.unsqueeze(-1), 0.0)
        return modeling_outputs.BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=cache,
            hidden_states=(embeds, hidden) if output_hidden_states else None,
        )


class HftNnlmForCausalLM(HftNnlmPreTrainedModel, GenerationMixin):
    """The feed-forward network with the output layer over the vocabulary."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftNnlmModel(config)
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
            use_cache: whether the last words are to be remembered; None is config.use_cache, and in training no.

        Returns:
            CausalLMOutputWithPast; loss in nats per token, logits (B, kept, V) or None.
        """
        wanted = self.config.use_cache and not self.training if use_cache is None else use_cache
        cache = StateCache() if wanted and past_key_values is None else past_key_values
        output = self.model(input_ids, attention_mask, cache, inputs_embeds, return_dict=True, **kwargs)
        hidden = output.last_hidden_state
        loss, logits = next_words(self, hidden, labels, shift_labels, num_items_in_batch, logits_to_keep)
        return modeling_outputs.CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=cache, hidden_states=output.hidden_states
        )
