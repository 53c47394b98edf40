"""T5: a Transformer encoder-decoder that reads text and writes text, and its decoder-only sibling, the prefix LM.

Paper: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
https://arxiv.org/abs/1910.10683, Section 2.1 (the model) and Section 3.2 (encoder-decoder, prefix LM). Version 1.1 is
Shazeer 2020, https://arxiv.org/abs/2002.05202. In the config, 1.0 is `hidden_act="relu", is_gated=False,
tie_word_embeddings=True`; 1.1, the default, is `"gelu_new"`, True and False. Norm before each sub-layer, no biases, no
scaling of the attention scores; tied logits are scaled by 1/sqrt(D).
Differs from it: padding is never multiplied and the vocabulary is scored only where somebody reads the scores, which
changes no number; the first weights of the vocabulary are smaller, so that training starts at the loss of a guess.
Shapes: B = rows, T = tokens of a row, S = tokens of the encoder's row, D = hidden_size, V = vocab_size, C = classes.
"""

import copy

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple

from .layers_attention import eager_attention, grouped_attention
from .layers_checks import check_activation, check_amounts, check_counts, check_shares
from .layers_groups import cross_groups, own_groups, row_lengths
from .layers_losses import IGNORE_INDEX, classification_loss, cross_entropy, linear_cross_entropy, next_token_targets
from .layers_positions import document_lengths, document_numbers, flat_layout, flatten, last_real, unflatten
from .layers_t5 import GatedFeedForward, RelativeBias, RMSNorm, add_mask

AUTO_MAP = {
    "AutoConfig": "modeling_t5.HftT5Config",
    "AutoModel": "modeling_t5.HftT5Model",
    "AutoModelForSeq2SeqLM": "modeling_t5.HftT5ForConditionalGeneration",
    "AutoModelForTextEncoding": "modeling_t5.HftT5EncoderModel",
    "AutoModelForSequenceClassification": "modeling_t5.HftT5ForSequenceClassification",
    "AutoModelForCausalLM": "modeling_t5.HftT5ForPrefixLM",
}


class HftT5Config(PretrainedConfig):
    """Sizes and constants of a T5; the defaults are those of T5 1.1 base, 248 million parameters.

    Args:
        intermediate_size: width of the feed-forward layer; None is 8/3 of hidden_size where it is gated, else four
            times it.
        head_dim: size of a head; the heads need not add up to hidden_size.
        num_decoder_layers: None is as many as the encoder has.
        is_gated: whether the activation multiplies a second projection (1.1).
        tie_word_embeddings: whether the output matrix is that of the embeddings, scaled by 1/sqrt(D) (1.0).
        initializer_factor: what the standard deviation of every first weight is multiplied by.
        label_smoothing: share of the target's probability spread over the vocabulary, in training, in [0, 1).
        z_loss: weight of the squared log-normaliser in the training loss; the authors' program has 1e-4.
        decoder_start_token_id: what the decoder reads first; None is pad_token_id.
    """

    model_type = "hft_t5"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=32128,
        hidden_size=768,
        num_hidden_layers=12,
        num_decoder_layers=None,
        num_attention_heads=12,
        head_dim=64,
        intermediate_size=None,
        hidden_act="gelu_new",
        is_gated=True,
        relative_attention_num_buckets=32,
        relative_attention_max_distance=128,
        layer_norm_eps=1e-6,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        classifier_dropout_prob=0.0,
        initializer_factor=1.0,
        label_smoothing=0.0,
        z_loss=0.0,
        tie_word_embeddings=False,
        is_encoder_decoder=True,
        use_cache=True,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=None,
        **kwargs,
    ):
        values = check_counts(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_decoder_layers=num_hidden_layers if num_decoder_layers is None else num_decoder_layers,
            num_attention_heads=num_attention_heads,
            head_dim=head_dim,
            relative_attention_num_buckets=relative_attention_num_buckets,
            relative_attention_max_distance=relative_attention_max_distance,
        )
        if intermediate_size is None:
            intermediate_size = round(8 * hidden_size / 3) if is_gated else 4 * hidden_size
        values |= check_counts(intermediate_size=intermediate_size)
        if relative_attention_num_buckets < 4 or relative_attention_num_buckets % 2:
            raise ValueError(
                f"relative_attention_num_buckets must be even and at least 4, got {relative_attention_num_buckets}"
            )
        if relative_attention_max_distance <= relative_attention_num_buckets // 2:
            raise ValueError(
                f"relative_attention_max_distance must be above half of relative_attention_num_buckets "
                f"{relative_attention_num_buckets}, got {relative_attention_max_distance}"
            )
        values |= check_amounts(layer_norm_eps=layer_norm_eps, initializer_factor=initializer_factor, z_loss=z_loss)
        values |= check_shares(
            hidden_dropout_prob=hidden_dropout_prob,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            classifier_dropout_prob=classifier_dropout_prob,
            label_smoothing=label_smoothing,
        )
        values |= dict(hidden_act=check_activation(hidden_act), is_gated=is_gated, use_cache=use_cache)
        for name, value in values.items():
            setattr(self, name, value)
        self.decoder_start_token_id = pad_token_id if decoder_start_token_id is None else decoder_start_token_id
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            is_encoder_decoder=is_encoder_decoder,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )

    def get_text_config(self, decoder=None, encoder=None):
        """The config that a cache is sized by: it holds the layers of the decoder."""
        config = super().get_text_config(decoder=decoder, encoder=encoder)
        if decoder and not encoder and self.is_encoder_decoder:
            config.num_hidden_layers = self.num_decoder_layers  # of a copy
        return config


class HftT5Attention(nn.Module):
    """Multi-head attention without biases and without 1/sqrt(D), over the own tokens or over another row's."""

    def __init__(self, config, layer_idx, is_cross=False):
        super().__init__()
        self.config, self.layer_idx, self.is_cross = config, layer_idx, is_cross
        self.is_causal = False  # the mask says so where it is
        self.num_key_value_groups = 1  # read by the attention functions of transformers
        D, inner = config.hidden_size, config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(D, inner, bias=False)
        self.k_proj = nn.Linear(D, inner, bias=False)
        self.v_proj = nn.Linear(D, inner, bias=False)
        self.o_proj = nn.Linear(inner, D, bias=False)

    def forward(self, hidden, source, mask=None, groups=None, past_key_values=None, **kwargs):
        """Attend from hidden (B, T, D) to source (B, S, D).

        Args:
            mask: what the chosen attention function expects, or None.
            groups: sequences of flat rows (see grouped_attention), or None.
            past_key_values: EncoderDecoderCache or the cache of a decoder alone; extended in place.

        Returns:
            (output (B, T, D), attention weights (B, H, T, S) or None).
        """
        query = self._heads(self.q_proj(hidden))
        key, value = self._keys_and_values(source, past_key_values)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        if groups is not None:
            return self.o_proj(grouped_attention(query, key, value, groups, dropout).flatten(2)), None
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        output, weights = attend(self, query, key, value, mask, dropout=dropout, scaling=1.0, **kwargs)
        return self.o_proj(output.flatten(2)), weights

    def _heads(self, projected):
        return projected.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def _keys_and_values(self, source, past):
        """(B, H, S, head_dim) each; those of the encoder are computed once and then read from the cache."""
        cache = past
        if isinstance(past, EncoderDecoderCache):
            cache = past.cross_attention_cache if self.is_cross else past.self_attention_cache
            if self.is_cross and past.is_updated.get(self.layer_idx):
                layer = cache.layers[self.layer_idx]
                return layer.keys, layer.values
        key, value = self._heads(self.k_proj(source)), self._heads(self.v_proj(source))
        if cache is None:
            return key, value
        if self.is_cross:
            past.is_updated[self.layer_idx] = True
        return cache.update(key, value, self.layer_idx)


class HftT5Layer(GradientCheckpointingLayer):
    """x + self-attention(norm(x)), in the decoder x + cross-attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config, layer_idx, is_decoder):
        super().__init__()
        self.attn_norm = RMSNorm(config.hidden_size, config.layer_norm_eps)
        self.self_attn = HftT5Attention(config, layer_idx)
        self.cross_attn_norm = RMSNorm(config.hidden_size, config.layer_norm_eps) if is_decoder else None
        self.cross_attn = HftT5Attention(config, layer_idx, is_cross=True) if is_decoder else None
        self.mlp_norm = RMSNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = GatedFeedForward(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden, mask, bias, source, source_mask, groups=(None, None), past_key_values=None, **kwargs):
        """(B, T, D) to (B, T, D), and the weights of the self-attention and the cross-attention, or None."""
        normed, own = self.attn_norm(hidden), kwargs if bias is None else kwargs | dict(position_bias=bias)
        attended, weights = self.self_attn(normed, normed, mask, groups[0], past_key_values, **own)
        hidden, cross_weights = hidden + self.dropout(attended), None
        if self.cross_attn is not None:
            normed = self.cross_attn_norm(hidden)
            attended, cross_weights = self.cross_attn(
                normed, source, source_mask, groups[1], past_key_values, **kwargs
            )
            hidden = hidden + self.dropout(attended)
        return hidden + self.dropout(self.mlp(self.mlp_norm(hidden))), weights, cross_weights


class HftT5Stack(nn.Module):
    """The encoder, with the token embeddings that both share, or the decoder: layers with one bias, a last norm."""

    def __init__(self, config, is_decoder=False):
        super().__init__()
        self.config, D = config, config.hidden_size
        self.embed_tokens = None if is_decoder else nn.Embedding(config.vocab_size, D)
        self.relative_bias = RelativeBias(config, is_bidirectional=not is_decoder)
        count = config.num_decoder_layers if is_decoder else config.num_hidden_layers
        self.layers = nn.ModuleList(HftT5Layer(config, i, is_decoder) for i in range(count))
        self.norm = RMSNorm(D, config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        source=None,
        source_mask=None,
        past_key_values=None,
        is_causal=False,
        prefix_mask=None,
        position_ids=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Hidden states of every position; padding reads 0.

        Args:
            attention_mask: 1 = real token, (B, T), or with a cache (B, earlier + T); padding on either side.
            source: what the decoder reads, (B, S, D), with source_mask (B, S).
            is_causal: whether later tokens are hidden, but for those of the prefix from one another.
            prefix_mask: 1 = token of the prefix, (B, up to earlier + T); None is none.
            position_ids: (B, T) of packed rows, which restart at each document; None where each row is one.

        Returns:
            BaseModelOutputWithPastAndCrossAttentions; hidden_states is a tuple of the embeddings and each layer's
            output, the last one after the final norm.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        hidden = self.dropout(self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds)
        masks = [mask for mask in (attention_mask, source_mask) if mask is not None]
        plain = self.config._attn_implementation == "sdpa" and not torch.compiler.is_compiling()
        flat = plain and past_key_values is None and all(mask.dim() == 2 for mask in masks)
        run = self._run_flat if flat else self._run_rows
        states, attentions, cross_attentions = run(
            *(hidden, attention_mask, source, source_mask, past_key_values, is_causal, prefix_mask, position_ids),
            keep_all=output_hidden_states,
            **kwargs,
        )
        return modeling_outputs.BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=states[-1],
            past_key_values=past_key_values,
            hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
            cross_attentions=cross_attentions if output_attentions and source is not None else None,
        )

    def _run_layers(self, hidden, mask, bias, source, source_mask, keep_all, **kwargs):
        states, attentions, cross_attentions = (hidden,), (), ()
        for layer in self.layers:
            hidden, weights, cross_weights = layer(hidden, mask, bias, source, source_mask, **kwargs)
            states = (*states, hidden) if keep_all else (hidden,)
            attentions, cross_attentions = (*attentions, weights), (*cross_attentions, cross_weights)
        hidden = self.dropout(self.norm(hidden))
        known = attentions[0] is not None
        return (*states[:-1], hidden), attentions if known else None, cross_attentions if known else None

    def _run_flat(
        self, hidden, attention_mask, source, source_mask, past, is_causal, prefix_mask, position_ids, **kwargs
    ):
        """All layers over one flat row (1, N, D) of the real tokens; what is returned is back in rows."""
        shape = hidden.shape[:2]
        index, groups = flat_layout(shape, attention_mask, position_ids, hidden.device)
        L = groups[0][1] if groups else 1
        bias, allowed, crossing = self.relative_bias(L, L), None, None
        if is_causal:
            earlier = torch.ones(L, L, dtype=torch.bool, device=hidden.device).tril()
            if prefix_mask is None:
                bias = bias.masked_fill(~earlier, -torch.inf)
            else:
                prefix = flatten(pad_to(prefix_mask, shape[1]), index)[0].split([n * size for n, size in groups])
                allowed = [
                    (part.view(n, 1, 1, size) & part.view(n, 1, size, 1)) | earlier[:size, :size]
                    for part, (n, size) in zip(prefix, groups, strict=True)
                ]
        if source is not None:
            lengths = [row_lengths(values, mask) for values, mask in ((hidden, attention_mask), (source, source_mask))]
            crossing = cross_groups(*lengths)
            source = flatten(source, flat_layout(source.shape[:2], source_mask, None, source.device)[0])
        kwargs |= dict(groups=(own_groups(groups, bias, allowed), crossing))
        states, _, _ = self._run_layers(flatten(hidden, index), None, None, source, None, **kwargs)
        return tuple(unflatten(state, index, shape) for state in states), None, None

    def _run_rows(
        self, hidden, attention_mask, source, source_mask, past, is_causal, prefix_mask, position_ids, **kwargs
    ):
        """All layers over rows with masks; also the attention weights, if the implementation has them."""
        T, flex = hidden.shape[1], self.config._attn_implementation == "flex_attention"
        cache = past.self_attention_cache if isinstance(past, EncoderDecoderCache) else past
        seen, S = (0, T) if cache is None else (cache.get_seq_length(), cache.get_mask_sizes(T, 0)[0])
        bias, options = self.relative_bias(T, S, seen), dict(config=self.config, inputs_embeds=hidden)
        own = options | dict(attention_mask=attention_mask, and_mask_function=same_document(position_ids))
        if is_causal:
            prefix = None if prefix_mask is None else pad_to(prefix_mask, S)
            mask = create_causal_mask(
                **own,
                past_key_values=cache,
                or_mask_function=None if prefix is None else lambda b, h, q, kv: prefix[b, q] & prefix[b, kv],
                allow_is_causal_skip=False,
            )
        else:
            mask = create_bidirectional_mask(**own)
        if source is not None:
            source_mask = create_bidirectional_mask(
                **options, attention_mask=source_mask, encoder_hidden_states=source
            )
        mask, bias = (mask, bias.expand(len(hidden), -1, -1, -1)) if flex else (add_mask(bias, mask), None)
        states, *attentions = self._run_layers(hidden, mask, bias, source, source_mask, past_key_values=past, **kwargs)
        if attention_mask is not None and attention_mask.dim() == 2:
            padding = attention_mask[:, -T:].eq(0).unsqueeze(-1)
            states = tuple(state.masked_fill(padding, 0.0) for state in states)
        return states, *attentions


def pad_to(prefix_mask, length):
    """A prefix mask for so many tokens, (B, length), True = prefix: those that came after it are no prefix."""
    return nn.functional.pad(prefix_mask.bool(), (0, length - prefix_mask.shape[1]))


def same_document(position_ids):
    """The mask function of packed rows, None where each row is one document."""
    if position_ids is None:
        return None
    documents = document_numbers(position_ids)
    return lambda b, h, q, kv: documents[b, q] == documents[b, kv]


def packed_positions(position_ids, inputs, attention_mask, past=None):
    """The positions (B, T) where there are boundaries of documents inside the rows, else None."""
    if attention_mask is not None or position_ids is None or past is not None:
        return None
    position_ids = position_ids.expand(*inputs.shape[:2])
    if torch.compiler.is_compiling():  # counting them would break the graph
        return position_ids
    return position_ids if len(document_lengths(position_ids)) > len(position_ids) else None


def shift_right(values, mask, first):
    """Each row moved by one real token, which gives the first one's place to `first`; the last is dropped.

    Args:
        values: token ids (B, T) or embeddings (B, T, D); first: an id, or an embedding (D,).
        mask: 1 = real token, (B, T); padding on either side.
    """
    moved = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)
    starts = mask.ne(0) & (mask.cumsum(1) == 1)
    starts = starts if values.dim() == 2 else starts.unsqueeze(-1)
    return torch.where(starts, torch.as_tensor(first, dtype=values.dtype, device=values.device), moved)


class HftT5PreTrainedModel(PreTrainedModel):
    """What all T5 classes share: initialisation and what transformers, PEFT and FSDP ask of a class."""

    config: HftT5Config
    config_class = HftT5Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HftT5Layer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = False  # its kernels take no bias
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def get_input_embeddings(self):
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, value):
        self.base_model.encoder.embed_tokens = value

    @torch.no_grad()
    def _init_weights(self, module):
        """As mesh_tensorflow has it: 1/sqrt(inputs), for queries 1/sqrt(inputs * head_dim), which takes the scaling's place.

        Logits would have deviation 1, and tied ones would also lean to the input token, by up to sqrt(D): untied
        output weights get half of that, and tied embeddings 1/sqrt(D), where the paper's have 1.
        """
        super()._init_weights(module)
        D, factor = self.config.hidden_size, self.config.initializer_factor
        if isinstance(module, nn.Linear):
            std = factor * module.in_features**-0.5
            std *= 0.5 if module is self.get_output_embeddings() else 1.0
            std *= self.config.head_dim**-0.5 if module in self._queries() else 1.0
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, nn.Embedding):
            std = D**-0.5 if self.config.tie_word_embeddings else 1.0
            init.normal_(module.weight, mean=0.0, std=factor * std)
        elif type(module).__name__ == "RelativeBias":
            init.normal_(module.weight, mean=0.0, std=factor * D**-0.5)

    def _queries(self):
        attentions = [module for module in self.modules() if type(module).__name__ == "HftT5Attention"]
        return [attention.q_proj for attention in attentions]


def with_mode(config, is_encoder_decoder):
    """The config, or a copy of it that says what `generate` and collators ask: whether there is a decoder apart."""
    if config.is_encoder_decoder != is_encoder_decoder:
        config = copy.deepcopy(config)
        config.is_encoder_decoder = is_encoder_decoder
    return config


class HftT5EncoderModel(HftT5PreTrainedModel):
    """The encoder alone."""

    _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^lm_head\.", r"^(dense|score)\."]

    def __init__(self, config):
        super().__init__(with_mode(config, False))
        self.encoder = HftT5Stack(self.config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        **kwargs,
    ):
        """Hidden states of every real token, (B, T, D); padding reads 0.

        Args:
            attention_mask: 1 = real token, (B, T); padding on either side.
            position_ids: read for where documents begin in packed rows, which come without attention_mask.
        """
        if position_ids is not None:
            inputs = input_ids if inputs_embeds is None else inputs_embeds
            kwargs |= dict(position_ids=packed_positions(position_ids, inputs, attention_mask))
        output = self.encoder(input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs)
        return modeling_outputs.BaseModelOutput(
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class HftT5Model(HftT5PreTrainedModel):
    """Encoder and decoder without a head."""

    def __init__(self, config):
        super().__init__(with_mode(config, True))
        self.encoder = HftT5Stack(self.config)
        self.decoder = HftT5Stack(self.config, is_decoder=True)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        past_key_values=None,
        inputs_embeds=None,
        decoder_inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Hidden states of every position of the decoder.

        Args:
            attention_mask: 1 = real token of the encoder, (B, S); padding on either side. None: all are real.
            decoder_input_ids: (B, T); what follows those in `past_key_values`, if there is a cache.
            decoder_attention_mask: 1 = real token, (B, T), or with a cache (B, earlier + T).
            encoder_outputs: what the encoder returned, in place of input_ids and inputs_embeds.

        Returns:
            Seq2SeqModelOutput; last_hidden_state (B, T, D), where padding reads 0.

        Raises:
            ValueError: neither or both of ids and embeddings, of the encoder or of the decoder.
        """
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("give either decoder_input_ids or decoder_inputs_embeds, and not both")
        kwargs |= dict(output_attentions=output_attentions, output_hidden_states=output_hidden_states)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs)
        elif isinstance(encoder_outputs, tuple):
            names = ("last_hidden_state", "hidden_states", "attentions")
            encoder_outputs = modeling_outputs.BaseModelOutput(**dict(zip(names, encoder_outputs, strict=False)))
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and not self.training and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if decoder_inputs_embeds is None:
            decoder_inputs_embeds = self.encoder.embed_tokens(decoder_input_ids)
        output = self.decoder(
            None,
            decoder_attention_mask,
            decoder_inputs_embeds,
            source=encoder_outputs.last_hidden_state,
            source_mask=attention_mask,
            past_key_values=past_key_values,
            is_causal=True,
            return_dict=True,
            **kwargs,
        )
        return modeling_outputs.Seq2SeqModelOutput(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            decoder_hidden_states=output.hidden_states,
            decoder_attentions=output.attentions,
            cross_attentions=output.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


def around(output, head_class, **answer):
    """The output of a head from that of HftT5Model."""
    inside = {name: value for name, value in output.items() if name != "last_hidden_state"}
    return head_class(**answer, **inside)


class HftT5ForConditionalGeneration(HftT5PreTrainedModel, GenerationMixin):
    """T5 with the output layer over the vocabulary."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(with_mode(config, True))
        self.model = HftT5Model(self.config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def prepare_decoder_input_ids_from_labels(self, labels):
        """What the decoder reads to write these labels, (B, T): the start token, then all but the last."""
        ids = shift_right(labels, torch.ones_like(labels), self.config.decoder_start_token_id)
        return ids.masked_fill(ids == IGNORE_INDEX, self.config.pad_token_id or 0)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        encoder_outputs=None,
        past_key_values=None,
        inputs_embeds=None,
        decoder_inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        use_cache=None,
        logits_to_keep=None,
        **kwargs,
    ):
        """Loss and logits; the other arguments are those of HftT5Model.

        Args:
            labels: the target text, (B, T), -100 where nothing is predicted. Without decoder_input_ids the decoder reads
                them moved by one; what stands after a row's last label is then padding.
            num_items_in_batch: number of labelled positions of all accumulated batches; None counts this batch's.
            logits_to_keep: how many of the last positions get logits, or a tensor of positions; 0 is all. None is all
                in evaluation and none while training with labels, where nobody reads them.

        Returns:
            Seq2SeqLMOutput; loss in nats per token, logits (B, kept, V) or None.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
                if decoder_attention_mask is None and past_key_values is None:
                    later = labels.ne(IGNORE_INDEX).flip(1).cumsum(1).flip(1) > 0
                    decoder_attention_mask = later | (torch.arange(labels.shape[1], device=labels.device) == 0)
        output = self.model(
            *(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, encoder_outputs, past_key_values),
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        loss, logits = words(self, output.last_hidden_state, labels, num_items_in_batch, logits_to_keep)
        return around(output, modeling_outputs.Seq2SeqLMOutput, loss=loss, logits=logits)


def words(model, hidden, targets, num_items_in_batch, logits_to_keep):
    """Loss and logits of a model with `lm_head`, computed where somebody reads them; hidden (B, T, D), targets (B, T)."""
    config, loss, logits = model.config, None, None
    hidden = hidden * config.hidden_size**-0.5 if config.tie_word_embeddings else hidden
    if targets is None or logits_to_keep is not None or not model.training:
        keep = logits_to_keep or 0 if not torch.is_tensor(logits_to_keep) else logits_to_keep
        logits = model.lm_head(hidden[:, slice(-keep, None) if isinstance(keep, int) else keep])
    if targets is not None:
        options = dict(num_items_in_batch=num_items_in_batch)
        if model.training:
            options.update(label_smoothing=config.label_smoothing, z_loss=config.z_loss)
        if logits is not None and logits.shape[1] == hidden.shape[1]:
            loss = cross_entropy(logits, targets, **options)
        else:
            loss = linear_cross_entropy(hidden, model.lm_head.weight, targets, **options)
    return loss, logits


class HftT5ForSequenceClassification(HftT5PreTrainedModel):
    """T5 with a classifier on the decoder's last state, after it has read the encoder's text moved by one.

    The stock class reads the state at </s>, which each text must then end with: that is the same state.
    """

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(with_mode(config, True))
        self.model = HftT5Model(self.config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.score:
            init.normal_(module.weight, mean=0.0, std=0.5 * self.config.initializer_factor * module.in_features**-0.5)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        decoder_input_ids=None,
        decoder_attention_mask=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Scores of each row.

        Args:
            attention_mask: 1 = real token, (B, T). Without it padding is told by config.pad_token_id.
            decoder_input_ids: what the decoder reads in place of the same text, with decoder_attention_mask.
            labels: (B,) or (B, C), in the forms that classification_loss reads.

        Returns:
            Seq2SeqSequenceClassifierOutput; logits (B, C).

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        embed = self.get_input_embeddings()
        embeds = embed(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is None:
            pad = None if input_ids is None else self.config.pad_token_id
            attention_mask = torch.ones_like(embeds[..., 0]) if pad is None else input_ids != pad
        mask = attention_mask.long()
        if decoder_input_ids is None:
            start = embed(torch.tensor(self.config.decoder_start_token_id, device=embeds.device))
            decoder_embeds, decoder_attention_mask = shift_right(embeds, mask, start), mask
        else:
            decoder_embeds = embed(decoder_input_ids)
        kwargs |= dict(decoder_inputs_embeds=decoder_embeds, decoder_attention_mask=decoder_attention_mask)
        output = self.model(attention_mask=mask, inputs_embeds=embeds, use_cache=False, return_dict=True, **kwargs)
        hidden = self.dropout(last_real(output.last_hidden_state, decoder_attention_mask))
        logits = self.score(self.dropout(torch.tanh(self.dense(hidden))))  # (B, C)
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return around(output, modeling_outputs.Seq2SeqSequenceClassifierOutput, loss=loss, logits=logits)


class HftT5ForPrefixLM(HftT5PreTrainedModel, GenerationMixin):
    """The paper's prefix LM: one stack; tokens of the prefix see the whole prefix, all others what is before them.

    The stack is an encoder, from which it can be loaded. Its buckets tell both directions, as they do for this model in
    mesh_tensorflow (transformer_layers.py: bidirectional=not context.model.fully_autoregressive).
    """

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}
    _keys_to_ignore_on_load_unexpected = [r"^model\.decoder\."]

    def __init__(self, config):
        super().__init__(with_mode(config, False))
        self.model = HftT5EncoderModel(self.config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def generate(self, inputs=None, *args, prefix_mask=None, **kwargs):
        """Continue prompts; the whole prompt is the prefix unless prefix_mask, (B, T), says what is."""
        if prefix_mask is None:
            prompt = next(p for p in (inputs, kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if p is not None)
            prefix_mask = torch.ones(prompt.shape[:2], dtype=torch.bool, device=prompt.device)
        return super().generate(inputs, *args, prefix_mask=prefix_mask, **kwargs)

    @staticmethod
    def create_masks_for_generate(attention_mask=None, **kwargs):
        """Hand the padding on, (B, T): what `generate` would make of it for a static cache knows no prefix."""
        return attention_mask

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        prefix_mask=None,
        labels=None,
        shift_labels=None,
        num_items_in_batch=None,
        use_cache=None,
        logits_to_keep=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Next-token loss and logits; padded rows, packed rows and cached decoding as HftGptModel takes them.

        Args:
            position_ids: read for where documents begin in packed rows, which come without attention_mask.
            prefix_mask: 1 = token of the prefix, (B, T); None is none, a causal language model. Its tokens are to have
                no labels but the last: they see the tokens that they would predict.
            labels: equal to input_ids or -100, (B, T); position t is scored on label t + 1. The other arguments of the
                loss are those of HftGptForCausalLM.

        Returns:
            CausalLMOutputWithPast; loss in nats per token, logits (B, kept, V) or None.
        """
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        position_ids = packed_positions(position_ids, inputs, attention_mask, past_key_values)
        packed = position_ids is not None
        targets = next_token_targets(labels) if shift_labels is None and labels is not None else shift_labels
        use_cache = (self.config.use_cache if use_cache is None else use_cache) and targets is None
        if use_cache and not self.training and not packed and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        output = self.model.encoder(
            input_ids,
            attention_mask,
            inputs_embeds,
            past_key_values=past_key_values,
            is_causal=True,
            prefix_mask=prefix_mask,
            position_ids=position_ids,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            **kwargs,
        )
        loss, logits = words(self, output.last_hidden_state, targets, num_items_in_batch, logits_to_keep)
        return modeling_outputs.CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
