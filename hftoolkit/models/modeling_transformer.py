"""The Transformer: an encoder-decoder of attention and feed-forward layers that translates, or rewrites any other text.

Paper: Vaswani et al. 2017, "Attention Is All You Need", https://arxiv.org/abs/1706.03762, Sections 3 and 5.4. In the
config `norm_position="post"`, the default, is the paper's order; "pre" has the norm before each sub-layer and one after
the last, as the authors' later program (tensor2tensor) and Xiong et al. 2020, https://arxiv.org/abs/2002.04745.
Differs from it: padding is never multiplied and the vocabulary is scored only where somebody reads the scores, which
changes no number; the gain of the last norm begins at 1/2, so that training starts at the loss of a guess.
Shapes: B = rows, T = tokens of a row, S = tokens of the encoder's row, H = heads, D = hidden_size, V = vocab_size.
"""

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import can_return_tuple

from .layers_attention import eager_attention, grouped_attention, packed_attention
from .layers_checks import check_activation, check_amounts, check_counts, check_heads, check_shares
from .layers_feed_forward import FeedForward
from .layers_groups import cross_groups, row_lengths
from .layers_losses import IGNORE_INDEX, cross_entropy, linear_cross_entropy
from .layers_positions import flat_layout, flatten, positions_from_mask, sinusoids, unflatten

AUTO_MAP = {
    "AutoConfig": "modeling_transformer.HftTransformerConfig",
    "AutoModel": "modeling_transformer.HftTransformerModel",
    "AutoModelForSeq2SeqLM": "modeling_transformer.HftTransformerForConditionalGeneration",
}


class HftTransformerConfig(PretrainedConfig):
    """Sizes and constants of a Transformer; the defaults are the paper's base model, 63 million parameters.

    Args:
        num_decoder_layers: None is as many as the encoder has.
        intermediate_size: width of the feed-forward layer; None is four times hidden_size.
        norm_position: "post" (after adding what a sub-layer says, as in the paper) or "pre" (of what it reads).
        position_layout: "interleaved", sine and cosine of an angle side by side, as in the paper, or "halves", all
            sines before all cosines, as in tensor2tensor and Marian. Training gives the same; weights know which.
        hidden_dropout_prob: of the output of each sub-layer and of the sums of embeddings and positions.
        attention_probs_dropout_prob, activation_dropout_prob: of the attention weights and of the inside of the
            feed-forward layer; the paper has neither.
        label_smoothing: share of the target's probability spread over the vocabulary, in training, in [0, 1).
        z_loss: weight of the squared log-normaliser in the training loss.
        tie_word_embeddings: whether the output matrix is that of the embeddings, which encoder and decoder share.
        lm_head_bias: whether each word has a number that is added to its score; Marian's models do.
        decoder_start_token_id: what the decoder reads first; None is bos_token_id, or pad_token_id if there is none.
    """

    model_type = "hft_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=37000,
        hidden_size=512,
        num_hidden_layers=6,
        num_decoder_layers=None,
        num_attention_heads=8,
        intermediate_size=None,
        hidden_act="relu",
        norm_position="post",
        position_layout="interleaved",
        layer_norm_eps=1e-5,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
        activation_dropout_prob=0.0,
        label_smoothing=0.1,
        z_loss=0.0,
        tie_word_embeddings=True,
        lm_head_bias=False,
        is_encoder_decoder=True,
        use_cache=True,
        pad_token_id=0,
        bos_token_id=None,
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
        )
        values |= check_counts(intermediate_size=4 * hidden_size if intermediate_size is None else intermediate_size)
        check_heads(hidden_size, num_attention_heads)
        if hidden_size % 2:
            raise ValueError(f"hidden_size must be even, for as many sines as cosines, got {hidden_size}")
        values |= check_amounts(layer_norm_eps=layer_norm_eps, z_loss=z_loss)
        values |= check_shares(
            hidden_dropout_prob=hidden_dropout_prob,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            activation_dropout_prob=activation_dropout_prob,
            label_smoothing=label_smoothing,
        )
        if norm_position not in ("post", "pre"):
            raise ValueError(f'norm_position must be "post" or "pre", got {norm_position!r}')
        if position_layout not in ("interleaved", "halves"):
            raise ValueError(f'position_layout must be "interleaved" or "halves", got {position_layout!r}')
        values |= dict(hidden_act=check_activation(hidden_act), norm_position=norm_position)
        values |= dict(position_layout=position_layout, lm_head_bias=lm_head_bias, use_cache=use_cache)
        for name, value in values.items():
            setattr(self, name, value)
        first = pad_token_id if bos_token_id is None else bos_token_id
        self.decoder_start_token_id = first if decoder_start_token_id is None else decoder_start_token_id
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            is_encoder_decoder=is_encoder_decoder,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )

    def get_text_config(self, decoder=None, encoder=None):
        """The config that a cache is sized by: it holds the layers of the decoder."""
        config = super().get_text_config(decoder=decoder, encoder=encoder)
        if decoder and not encoder:
            config.num_hidden_layers = self.num_decoder_layers  # of a copy
        return config


class HftTransformerAttention(nn.Module):
    """Multi-head attention (Section 3.2.2) over the own tokens or over the encoder's."""

    def __init__(self, config, layer_idx, is_causal=False, is_cross=False):
        super().__init__()
        self.config, self.layer_idx, self.is_causal, self.is_cross = config, layer_idx, is_causal, is_cross
        self.num_key_value_groups = 1  # read by the attention functions of transformers
        D = config.hidden_size
        self.head_dim = D // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.q_proj = nn.Linear(D, D)
        self.k_proj = nn.Linear(D, D)
        self.v_proj = nn.Linear(D, D)
        self.o_proj = nn.Linear(D, D)

    def forward(self, hidden, source, mask=None, groups=None, past_key_values=None, **kwargs):
        """Attend from hidden (B, T, D) to source (B, S, D).

        Args:
            mask: what the chosen attention function expects, or None.
            groups: sequences of flat rows, of packed_attention or, of another row's, grouped_attention; or None.
            past_key_values: EncoderDecoderCache; extended in place.

        Returns:
            (output (B, T, D), attention weights (B, H, T, S) or None).
        """
        query = self._heads(self.q_proj(hidden))
        key, value = self._keys_and_values(source, past_key_values)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        options = dict(dropout=dropout, scaling=self.scaling)
        if groups is None:
            attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
            output, weights = attend(self, query, key, value, mask, **options, **kwargs)
            return self.o_proj(output.flatten(2)), weights
        if self.is_cross:
            output = grouped_attention(query, key, value, groups, **options)
        else:
            output = packed_attention(query, key, value, groups, is_causal=self.is_causal, **options)
        return self.o_proj(output.flatten(2)), None

    def _heads(self, projected):
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _keys_and_values(self, source, past):
        """(B, H, S, head_dim) each; those of the encoder are computed once and then read from the cache."""
        if past is None:
            return self._heads(self.k_proj(source)), self._heads(self.v_proj(source))
        cache = past.cross_attention_cache if self.is_cross else past.self_attention_cache
        if self.is_cross and past.is_updated.get(self.layer_idx):
            return cache.layers[self.layer_idx].keys, cache.layers[self.layer_idx].values
        if self.is_cross:
            past.is_updated[self.layer_idx] = True
        return cache.update(self._heads(self.k_proj(source)), self._heads(self.v_proj(source)), self.layer_idx)


class HftTransformerLayer(GradientCheckpointingLayer):
    """Self-attention, in the decoder cross-attention, then the feed-forward layer; each is added to what it reads.

    Post-norm is norm(x + sublayer(x)), the paper's Section 3.1; pre-norm is x + sublayer(norm(x)).
    """

    def __init__(self, config, layer_idx, is_decoder):
        super().__init__()
        norm = dict(normalized_shape=config.hidden_size, eps=config.layer_norm_eps)
        self.pre_norm = config.norm_position == "pre"
        self.self_attn = HftTransformerAttention(config, layer_idx, is_causal=is_decoder)
        self.attn_norm = nn.LayerNorm(**norm)
        self.cross_attn = HftTransformerAttention(config, layer_idx, is_cross=True) if is_decoder else None
        self.cross_attn_norm = nn.LayerNorm(**norm) if is_decoder else None
        self.mlp = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            inner_dropout=config.activation_dropout_prob,
        )
        self.mlp_norm = nn.LayerNorm(**norm)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden, mask, source, source_mask, groups=(None, None), past_key_values=None, **kwargs):
        """(B, T, D) to (B, T, D), and the weights of the self-attention and the cross-attention, or None."""
        read = self._read(hidden, self.attn_norm)
        said, weights = self.self_attn(read, read, mask, groups[0], past_key_values, **kwargs)
        hidden, cross_weights = self._add(hidden, said, self.attn_norm), None
        if self.cross_attn is not None:
            read = self._read(hidden, self.cross_attn_norm)
            said, cross_weights = self.cross_attn(read, source, source_mask, groups[1], past_key_values, **kwargs)
            hidden = self._add(hidden, said, self.cross_attn_norm)
        said = self.mlp(self._read(hidden, self.mlp_norm))
        return self._add(hidden, said, self.mlp_norm), weights, cross_weights

    def _read(self, hidden, norm):
        return norm(hidden) if self.pre_norm else hidden

    def _add(self, hidden, said, norm):
        hidden = hidden + self.dropout(said)
        return hidden if self.pre_norm else norm(hidden)


class HftTransformerStack(nn.Module):
    """The encoder, with the token embeddings that both share, or the decoder: positions and layers."""

    def __init__(self, config, is_decoder=False):
        super().__init__()
        self.config, self.is_decoder, D = config, is_decoder, config.hidden_size
        self.embed_tokens = None if is_decoder else nn.Embedding(config.vocab_size, D)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        count = config.num_decoder_layers if is_decoder else config.num_hidden_layers
        self.layers = nn.ModuleList(HftTransformerLayer(config, i, is_decoder) for i in range(count))
        pre_norm = config.norm_position == "pre"
        self.norm = nn.LayerNorm(D, eps=config.layer_norm_eps) if pre_norm else nn.Identity()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        source=None,
        source_mask=None,
        past_key_values=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Hidden states of every position; padding reads 0.

        Args:
            attention_mask: 1 = real token, (B, T), or with a cache (B, earlier + T); padding on either side.
            inputs_embeds: rows of the embedding matrix, (B, T, D), not yet scaled.
            source: what the decoder reads, (B, S, D), with source_mask (B, S).

        Returns:
            BaseModelOutputWithPastAndCrossAttentions; hidden_states is a tuple of the embeddings with positions and each
            layer's output, the last one after the final norm.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        masks = [mask for mask in (attention_mask, source_mask) if mask is not None]
        plain = self.config._attn_implementation == "sdpa" and not torch.compiler.is_compiling()
        flat = plain and past_key_values is None and all(mask.dim() == 2 for mask in masks)
        run = self._run_flat if flat else self._run_rows
        states, attentions, cross_attentions = run(
            *(embeds, attention_mask, source, source_mask, past_key_values), keep_all=output_hidden_states, **kwargs
        )
        return modeling_outputs.BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=states[-1],
            past_key_values=past_key_values,
            hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
            cross_attentions=cross_attentions if output_attentions and source is not None else None,
        )

    def _with_positions(self, embeds, positions):
        """Section 3.4 and 3.5: embeddings times sqrt(D), plus what says where a token stands."""
        D, in_halves = self.config.hidden_size, self.config.position_layout == "halves"
        return self.dropout(embeds * D**0.5 + sinusoids(positions, D, in_halves).to(embeds.dtype))

    def _run_layers(self, hidden, mask, source, source_mask, keep_all, **kwargs):
        states, attentions, cross_attentions = (hidden,), (), ()
        for layer in self.layers:
            hidden, weights, cross_weights = layer(hidden, mask, source, source_mask, **kwargs)
            states = (*states, hidden) if keep_all else (hidden,)
            attentions, cross_attentions = (*attentions, weights), (*cross_attentions, cross_weights)
        known = attentions[0] is not None
        states = (*states[:-1], self.norm(hidden))
        return states, attentions if known else None, cross_attentions if known else None

    def _run_flat(self, embeds, attention_mask, source, source_mask, past, **kwargs):
        """All layers over one flat row (1, N, D) of the real tokens; what is returned is back in rows."""
        shape, device = embeds.shape[:2], embeds.device
        index, groups = flat_layout(shape, attention_mask, None, device)
        groups = groups or [(0, 1)]  # of a batch that is all padding
        positions = torch.cat([torch.arange(size, device=device).repeat(n) for n, size in groups])
        crossing = None
        if source is not None:
            lengths = [row_lengths(values, mask) for values, mask in ((embeds, attention_mask), (source, source_mask))]
            crossing = cross_groups(*lengths)
            source = flatten(source, flat_layout(source.shape[:2], source_mask, None, device)[0])
        hidden = self._with_positions(flatten(embeds, index), positions)
        states, _, _ = self._run_layers(hidden, None, source, None, groups=(groups, crossing), **kwargs)
        return tuple(unflatten(state, index, shape) for state in states), None, None

    def _run_rows(self, embeds, attention_mask, source, source_mask, past, **kwargs):
        """All layers over rows with masks; also the attention weights, if the implementation has them."""
        T, cache = embeds.shape[1], None if past is None else past.self_attention_cache
        padded = attention_mask is not None and attention_mask.dim() == 2
        if padded:
            positions = positions_from_mask(attention_mask)[:, -T:]
        else:
            positions = torch.arange(T, device=embeds.device) + (0 if cache is None else cache.get_seq_length())
        hidden, options = self._with_positions(embeds, positions), dict(config=self.config, inputs_embeds=embeds)
        if self.is_decoder:
            mask = create_causal_mask(**options, attention_mask=attention_mask, past_key_values=cache)
        else:
            mask = create_bidirectional_mask(**options, attention_mask=attention_mask)
        if source is not None:
            source_mask = create_bidirectional_mask(
                **options, attention_mask=source_mask, encoder_hidden_states=source
            )
        states, *attentions = self._run_layers(hidden, mask, source, source_mask, past_key_values=past, **kwargs)
        if padded:
            padding = attention_mask[:, -T:].eq(0).unsqueeze(-1)
            states = tuple(state.masked_fill(padding, 0.0) for state in states)
        return states, *attentions


class HftTransformerPreTrainedModel(PreTrainedModel):
    """What both classes share: initialisation and what transformers, PEFT and FSDP ask of a class."""

    config: HftTransformerConfig
    config_class = HftTransformerConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HftTransformerLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = False  # transformers would take the padding of the source for that of the queries
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def get_input_embeddings(self):
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, value):
        self.base_model.encoder.embed_tokens = value

    @torch.no_grad()
    def _init_weights(self, module):
        """As fairseq and torch.nn.Transformer: Xavier (Glorot), less by sqrt(2) for queries, keys and values; zero biases.

        Words have deviation 1/sqrt(D), so that scaled they have 1. The last gain is 1/2: with 1 the logits would have
        deviation 1, which costs 1/2 nat, and lean to the decoder's input token by up to sqrt(D).
        """
        super()._init_weights(module)
        if isinstance(module, nn.Embedding) or module is self.get_output_embeddings():
            init.normal_(module.weight, mean=0.0, std=self.config.hidden_size**-0.5)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight, gain=0.5**0.5 if module in self._inward_projections() else 1.0)
        elif module is self._last_norm():
            init.constant_(module.weight, 0.5)

    def _inward_projections(self):
        attentions = [module for module in self.modules() if type(module).__name__ == "HftTransformerAttention"]
        return [part for module in attentions for part in (module.q_proj, module.k_proj, module.v_proj)]

    def _last_norm(self):
        decoder = self.base_model.decoder
        return decoder.norm if self.config.norm_position == "pre" else decoder.layers[-1].mlp_norm


class HftTransformerModel(HftTransformerPreTrainedModel):
    """Encoder and decoder without a head."""

    def __init__(self, config):
        super().__init__(config)
        self.encoder = HftTransformerStack(config)
        self.decoder = HftTransformerStack(config, is_decoder=True)
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
            inputs_embeds: rows of the embedding matrix, (B, S, D), not yet scaled; decoder_inputs_embeds likewise.
            output_attentions: the weights of all layers, with attn_implementation="eager" only.

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


class HftTransformerForConditionalGeneration(HftTransformerPreTrainedModel, GenerationMixin):
    """The Transformer with the output layer over the vocabulary."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftTransformerModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.lm_head_bias)
        self.post_init()

    def prepare_decoder_input_ids_from_labels(self, labels):
        """What the decoder reads to write these labels, (B, T): the start token, then all but the last."""
        ids = nn.functional.pad(labels[:, :-1], (1, 0), value=self.config.decoder_start_token_id)
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
        """Loss and logits; the other arguments are those of HftTransformerModel.

        Args:
            labels: the target text, (B, T), -100 where nothing is predicted. Without decoder_input_ids the decoder reads
                them moved by one; what stands after a row's last label is then padding, and always in training.
            num_items_in_batch: number of labelled positions of all accumulated batches; None counts this batch's.
            logits_to_keep: how many of the last positions get logits, or a tensor of positions; 0 is all. None is all
                in evaluation and none while training with labels, where nobody reads them.

        Returns:
            Seq2SeqLMOutput; loss in nats per token, smoothed in training only, logits (B, kept, V) or None.
        """
        if labels is not None:
            use_cache, given = False, decoder_input_ids is not None or decoder_inputs_embeds is not None
            if not given:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None and past_key_values is None and (self.training or not given):
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
        loss, logits = self._words(output.last_hidden_state, labels, num_items_in_batch, logits_to_keep)
        inside = {name: value for name, value in output.items() if name != "last_hidden_state"}
        return modeling_outputs.Seq2SeqLMOutput(loss=loss, logits=logits, **inside)

    def _words(self, hidden, targets, num_items_in_batch, logits_to_keep):
        """Loss and logits, computed where somebody reads them; hidden (B, T, D), targets (B, T) or None."""
        loss, logits = None, None
        if targets is None or logits_to_keep is not None or not self.training:
            keep = logits_to_keep or 0 if not torch.is_tensor(logits_to_keep) else logits_to_keep
            logits = self.lm_head(hidden[:, slice(-keep, None) if isinstance(keep, int) else keep])
        if targets is not None:
            options = dict(num_items_in_batch=num_items_in_batch)
            if self.training:
                options.update(label_smoothing=self.config.label_smoothing, z_loss=self.config.z_loss)
            if logits is not None and logits.shape[1] == hidden.shape[1]:
                loss = cross_entropy(logits, targets, **options)
            else:
                loss = linear_cross_entropy(hidden, self.lm_head.weight, targets, bias=self.lm_head.bias, **options)
        return loss, logits
