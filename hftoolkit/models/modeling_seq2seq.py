"""Sequence to sequence with recurrence: an encoder and a decoder of LSTM or GRU layers, with attention or without.

Papers: Sutskever et al. 2014, https://arxiv.org/abs/1409.3215, Sections 2 and 3.3 (no attention: the decoder begins
with the encoder's last state and sees nothing else of the source, which may be read in reverse); Bahdanau et al. 2015,
https://arxiv.org/abs/1409.0473, Section 3 and Appendix A.2 (additive attention from the last state to what the next one
reads; maxout before the words); Luong et al. 2015, https://arxiv.org/abs/1508.04025, Sections 3.1 and 3.3 (dot, general
and concat from the new state, Equation 5, and input feeding).
Differs from them: encoder and decoder may share their words; the maxout of additive attention reads the new state, as
the paper's Equation 4 has it, where its appendix has the last one; a state of an LSTM passes the dense bridge as two.
Shapes: B = rows, T = tokens of a row, S = tokens of the encoder's row, L = layers, N = 2 for an LSTM, whose state is h
and c, or else 1, E = embedding_size, D = hidden_size.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .layers_checks import check_amounts, check_counts, check_shares
from .layers_losses import IGNORE_INDEX, cross_entropy, linear_cross_entropy
from .layers_recurrent import (
    CELLS,
    RecurrentLayer,
    check_cell,
    initialise_cell,
    reverse_rows,
    row_lengths,
    run_layers,
    take,
)
from .layers_recurrent_attention import RecurrentAttention, cell_step, check_attention

AUTO_MAP = {
    "AutoConfig": "modeling_seq2seq.HftSeq2SeqConfig",
    "AutoModel": "modeling_seq2seq.HftSeq2SeqModel",
    "AutoModelForSeq2SeqLM": "modeling_seq2seq.HftSeq2SeqForConditionalGeneration",
}


class HftSeq2SeqConfig(PretrainedConfig):
    """Sizes of a recurrent encoder-decoder.

    Args:
        embedding_size: of the word vectors; None is hidden_size.
        hidden_size: cells of a layer; of a bidirectional encoder one half reads from each side.
        num_hidden_layers: of the encoder.
        num_decoder_layers: None is as many as the encoder has.
        cell_type: "rnn" (tanh), "gru" or "lstm".
        bidirectional: whether the encoder also reads from right to left.
        reverse_source: whether the encoder reads the source from its end; of use with one direction.
        attention_type: "none", "additive" (Bahdanau), "dot", "general" or "concat" (Luong).
        input_feeding: whether the decoder reads, beside a word, the attentional vector that wrote it (Luong, 3.3). As
            with additive attention each step then waits for the one before, which takes longer to train.
        bridge: how the decoder begins: "copy" (with the encoder's last states) or "dense" (with a layer of them, whose
            h passes tanh). None is a copy where both have as many layers.
        embedding_dropout_prob, hidden_dropout_prob: of the word vectors; between layers and before the output layer.
        label_smoothing: share of the target's probability spread over the vocabulary, in training, in [0, 1).
        z_loss: weight of the squared log-normaliser in the training loss.
        tie_word_embeddings: whether the output matrix is that of the embeddings, which encoder and decoder share.
        initializer_range: standard deviation of the word vectors at the start.
        decoder_start_token_id: what the decoder reads first; None is bos_token_id, or pad_token_id if there is none.
    """

    model_type = "hft_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values"]

    def __init__(
        self,
        vocab_size=8000,
        embedding_size=None,
        hidden_size=512,
        num_hidden_layers=1,
        num_decoder_layers=None,
        cell_type="lstm",
        bidirectional=True,
        reverse_source=False,
        attention_type="general",
        input_feeding=False,
        bridge=None,
        embedding_dropout_prob=0.2,
        hidden_dropout_prob=0.2,
        label_smoothing=0.0,
        z_loss=0.0,
        tie_word_embeddings=True,
        initializer_range=0.1,
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
            embedding_size=hidden_size if embedding_size is None else embedding_size,
            num_hidden_layers=num_hidden_layers,
            num_decoder_layers=num_hidden_layers if num_decoder_layers is None else num_decoder_layers,
        )
        check_cell(cell_type, hidden_size)
        check_attention(attention_type)
        switches = dict(bidirectional=bidirectional, reverse_source=reverse_source, input_feeding=input_feeding)
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {value!r}")
        values |= check_amounts(initializer_range=initializer_range, z_loss=z_loss)
        values |= check_shares(
            embedding_dropout_prob=embedding_dropout_prob,
            hidden_dropout_prob=hidden_dropout_prob,
            label_smoothing=label_smoothing,
        )
        same_layers = values["num_hidden_layers"] == values["num_decoder_layers"]
        values |= switches | dict(cell_type=cell_type, attention_type=attention_type, use_cache=use_cache)
        values |= dict(bridge=("copy" if same_layers else "dense") if bridge is None else bridge)
        for name, value in values.items():
            setattr(self, name, value)
        self._check_together(tie_word_embeddings, same_layers)
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

    def _check_together(self, tie_word_embeddings, same_layers):
        """What is possible alone, but not with the rest."""
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(
                f"hidden_size must be even, half for each direction of the encoder, got {self.hidden_size}"
            )
        if tie_word_embeddings and self.embedding_size != self.hidden_size:
            raise ValueError(
                f"embedding_size {self.embedding_size} must be hidden_size {self.hidden_size} with tie_word_embeddings;"
                " leave it out, or set tie_word_embeddings to false"
            )
        if self.input_feeding and self.attention_type in ("none", "additive"):
            raise ValueError(
                f"input_feeding is for dot, general and concat attention, got True with attention_type "
                f"{self.attention_type!r}"
            )
        if self.bridge not in ("copy", "dense"):
            raise ValueError(f'bridge must be "copy" or "dense", got {self.bridge!r}')
        if self.bridge == "copy" and not same_layers:
            raise ValueError(
                f"bridge 'copy' needs as many layers on both sides, got num_hidden_layers {self.num_hidden_layers} and "
                f"num_decoder_layers {self.num_decoder_layers}; use 'dense'"
            )


@dataclass
class HftSeq2SeqEncoderOutput(ModelOutput):
    """`final_states` are those after each row's last token, both directions side by side, (B, N, L, D)."""

    last_hidden_state: torch.FloatTensor | None = None
    final_states: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


class HftSeq2SeqCache(Cache):
    """What a decoder that goes on has to know: its state, and what never changes of the source.

    Attributes:
        state: (B, N, L, D).
        fed: the attentional vector of the last token, (B, D).
        keys: what the attention reads of the source, (B, S, ...), or None without attention.
    """

    is_compileable = False

    def __init__(self):
        super().__init__(layers=[])
        self.state, self.fed, self.keys, self.length = None, None, None, 0

    def get_seq_length(self, layer_idx=0):
        """Number of tokens that were read."""
        return self.length

    def _change(self, function):
        for name in ("state", "fed", "keys"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else function(value))

    def reorder_cache(self, beam_idx):
        """Take the rows of the beams that go on."""
        self._change(lambda value: value.index_select(0, beam_idx.to(value.device)))

    def batch_repeat_interleave(self, repeats):
        """Every row so many times."""
        self._change(lambda value: value.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices):
        """Some rows."""
        self._change(lambda value: value[indices])

    def reset(self):
        """Forget everything."""
        self.state, self.fed, self.keys, self.length = None, None, None, 0


class HftSeq2SeqEncoder(nn.Module):
    """The words that both sides share, and the layers that read the source."""

    def __init__(self, config):
        super().__init__()
        self.config, D = config, config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.embed_dropout = nn.Dropout(config.embedding_dropout_prob)
        sizes = [config.embedding_size, *[D] * (config.num_hidden_layers - 1)]
        shape = (D // 2 if config.bidirectional else D, None, config.bidirectional)
        self.layers = nn.ModuleList(RecurrentLayer(config.cell_type, size, *shape) for size in sizes)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, output_hidden_states=None, **kwargs):
        """States of every token of the source, (B, S, D), where padding reads 0, and those at its end.

        Args:
            attention_mask: 1 = real token, (B, S), padding on either side; None: all are real.
            inputs_embeds: word vectors in place of input_ids, (B, S, E).
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        lengths, order = row_lengths(attention_mask)
        embeds = self.embed_dropout(self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds)
        rows = embeds if order is None else take(embeds, order)
        turned = self.config.reverse_source
        rows = reverse_rows(rows, lengths) if turned else rows
        hidden, states = run_layers(self.layers, rows, lengths, None, self.dropout, with_states=True)
        hidden = hidden if output_hidden_states else hidden[-1:]
        hidden = [reverse_rows(output, lengths) for output in hidden] if turned else hidden
        hidden = hidden if order is None else [take(output, order.argsort(dim=1)) for output in hidden]
        if output_hidden_states and lengths is not None:
            embeds = embeds.masked_fill(attention_mask.eq(0).unsqueeze(-1), 0.0)
        L, B = len(self.layers), len(rows)
        parts = states if isinstance(states, tuple) else (states,)  # each (L * directions, B, D / directions)
        parts = [part.unflatten(0, (L, -1)).permute(2, 0, 1, 3).reshape(B, L, -1) for part in parts]
        return HftSeq2SeqEncoderOutput(
            last_hidden_state=hidden[-1],
            final_states=torch.stack(parts, 1),
            hidden_states=(embeds, *hidden) if output_hidden_states else None,
        )


class HftSeq2SeqDecoder(nn.Module):
    """The layers that write, with what they look at."""

    def __init__(self, config):
        super().__init__()
        self.config, E, D = config, config.embedding_size, config.hidden_size
        L, N = config.num_decoder_layers, 2 if config.cell_type == "lstm" else 1
        kind = config.attention_type
        self.bridge = None
        if config.bridge == "dense":
            self.bridge = nn.ModuleList(nn.Linear(config.num_hidden_layers * D, L * D) for _ in range(N))
        self.waits = kind == "additive" or config.input_feeding  # for the step before
        first = E + D if self.waits else E
        sizes = [first, *[D] * (L - 1)]
        self.layers = nn.ModuleList(CELLS[config.cell_type](size, D, batch_first=True) for size in sizes)
        self.attention = None if kind == "none" else RecurrentAttention(kind, D, D)
        self.combine = None
        if kind != "none":
            self.combine = nn.Linear(E + 2 * D, 2 * D) if kind == "additive" else nn.Linear(2 * D, D, bias=False)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def first_state(self, final_states):
        """How the decoder begins, (B, N, L, D), from the encoder's last states."""
        if self.bridge is None:
            return final_states
        parts = [layer(part.flatten(1)) for layer, part in zip(self.bridge, final_states.unbind(1), strict=True)]
        parts[0] = torch.tanh(parts[0])
        return torch.stack([part.unflatten(1, (-1, self.config.hidden_size)) for part in parts], 1)

    def forward(self, embeds, source, source_padding, cache, lengths=None, with_state=False):
        """What the output layer reads of every position.

        Args:
            embeds: word vectors, (B, T, E), padded on the right, of which the first `lengths` (B,) are real; None: all.
            source: of the encoder, (B, S, D); source_padding is True at its padding, (B, S), or None.
            cache: HftSeq2SeqCache with state and keys; it is moved on if with_state.

        Returns:
            (hidden (B, T, D), where padding is not defined, attention weights (B, T, S) or None).
        """
        look = None
        if self.attention is not None:
            look = lambda query: self.attention(query, source, cache.keys, source_padding)  # noqa: E731
        if self.waits or (with_state and lengths is not None):
            tops, contexts, weights, state = self._run_steps(embeds, look, cache, lengths)
        else:
            tops, state = self._run_kernels(embeds, cache.state)
            contexts, weights = (None, None) if look is None else look(tops)
        hidden = self._combine(tops, contexts, embeds)
        if with_state:
            last = hidden[:, -1] if lengths is None else hidden[torch.arange(len(hidden)), (lengths - 1).clamp(min=0)]
            if lengths is not None and cache.fed is not None:
                last = torch.where(lengths.unsqueeze(1) > 0, last, cache.fed)
            cache.state, cache.fed = state, last
            cache.length += embeds.shape[1]
        return self.dropout(hidden), weights

    def _combine(self, tops, contexts, embeds):
        """Luong's Equation 5, tanh(W [c; s]); Bahdanau's maxout of state, last word and context; or the state."""
        if contexts is None:
            return tops
        if self.config.attention_type != "additive":
            return torch.tanh(self.combine(torch.cat([contexts.to(tops.dtype), tops], -1)))
        read = torch.cat([tops, embeds.to(tops.dtype), contexts.to(tops.dtype)], -1)
        return self.combine(read).unflatten(-1, (-1, 2)).amax(-1)

    def _run_kernels(self, embeds, state):
        """All steps of a layer at once: outputs of the last layer (B, T, D), and the state after them."""
        hidden, left = embeds, []
        for number, rnn in enumerate(self.layers):
            own = tuple(part[:, number].unsqueeze(0).contiguous().to(hidden.dtype) for part in state.unbind(1))
            hidden, after = rnn(self.dropout(hidden) if number else hidden, own if len(own) > 1 else own[0])
            after = after if isinstance(after, tuple) else (after,)
            left.append(torch.stack([part.squeeze(0) for part in after], 1))
        return hidden, torch.stack(left, 2)

    def _run_steps(self, embeds, look, cache, lengths):
        """One step after the other; as much as possible of it is computed before the first.

        Returns:
            (outputs of the last layer, contexts, weights, state); contexts and weights are None without attention.
        """
        E, additive = embeds.shape[-1], self.config.attention_type == "additive"
        first = self.layers[0]
        inward = nn.functional.linear(embeds, first.weight_ih_l0[:, :E], first.bias_ih_l0)  # (B, T, gates)
        beside = first.weight_ih_l0[:, E:]
        states = [tuple(part[:, number] for part in cache.state.unbind(1)) for number in range(len(self.layers))]
        fed = cache.fed if cache.fed is not None else states[0][0].new_zeros(states[0][0].shape)
        tops, contexts, weights = [], [], []
        for step, (gates, word) in enumerate(zip(inward.unbind(1), embeds.unbind(1), strict=True)):
            before = states
            if additive:
                context, weight = look(states[-1][0].unsqueeze(1))
                context = context.squeeze(1)
            if self.waits:
                gates = gates + nn.functional.linear(context if additive else fed, beside)
            states = self._step(gates, states)
            top = states[-1][0]
            if look is not None and not additive:
                context, weight = look(top.unsqueeze(1))
                context = context.squeeze(1)
            if self.config.input_feeding:
                new = self._combine(top, context, word)
                fed = new if lengths is None else torch.where((lengths > step).unsqueeze(1), new, fed)
            if lengths is not None:
                real = (lengths > step).unsqueeze(1)
                states = [
                    tuple(torch.where(real, new, old) for new, old in zip(*pair, strict=True))
                    for pair in zip(states, before, strict=True)
                ]
            tops.append(top)
            if look is not None:
                contexts.append(context)
                weights.append(weight)
        state = torch.stack([torch.stack(parts, 1) for parts in states], 2)
        rows = (torch.stack(contexts, 1), torch.cat(weights, 1)) if look is not None else (None, None)
        return torch.stack(tops, 1), *rows, state

    def _step(self, gates, states):
        """One step of all layers, from the gates of the first; the states after it."""
        after = []
        for number, (rnn, state) in enumerate(zip(self.layers, states, strict=True)):
            if number:
                below = self.dropout(after[-1][0])
                gates = nn.functional.linear(below, rnn.weight_ih_l0, rnn.bias_ih_l0)
            after.append(cell_step(rnn, gates, state))
        return after


class HftSeq2SeqPreTrainedModel(PreTrainedModel):
    """What both classes share: initialisation and what transformers and FSDP ask of a class."""

    config: HftSeq2SeqConfig
    config_class = HftSeq2SeqConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["RecurrentLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _is_stateful = True  # a state cannot be cut back to an earlier token

    @classmethod
    def _supports_default_dynamic_cache(cls):
        return False

    def get_input_embeddings(self):
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, value):
        self.base_model.encoder.embed_tokens = value

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, tuple(CELLS.values())):
            initialise_cell(module, init)
        elif isinstance(module, nn.Embedding) or module is self.get_output_embeddings():
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        elif isinstance(module, nn.Linear):  # Glorot and Bengio 2010
            init.xavier_uniform_(module.weight)


class HftSeq2SeqModel(HftSeq2SeqPreTrainedModel):
    """Encoder and decoder without a head."""

    def __init__(self, config):
        super().__init__(config)
        self.encoder = HftSeq2SeqEncoder(config)
        self.decoder = HftSeq2SeqDecoder(config)
        self.gradient_checkpointing = False
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
        """What the output layer reads of every position of the decoder.

        Args:
            attention_mask: 1 = real token of the encoder, (B, S); padding on either side. None: all are real.
            decoder_input_ids: (B, T); what follows those that `past_key_values` has read, if there is a cache.
            decoder_attention_mask: 1 = real token, (B, T), or with a cache (B, earlier + T).
            encoder_outputs: what the encoder returned, in place of input_ids and inputs_embeds.
            past_key_values: HftSeq2SeqCache; moved on in place.
            inputs_embeds: word vectors, (B, S, E); decoder_inputs_embeds likewise, (B, T, E).

        Returns:
            Seq2SeqModelOutput; last_hidden_state (B, T, D), where padding reads 0; decoder_hidden_states are the word
            vectors and it; cross_attentions one tensor (B, 1, T, S), without attention None.

        Raises:
            ValueError: neither or both of ids and embeddings, of the encoder or of the decoder.
        """
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("give either decoder_input_ids or decoder_inputs_embeds, and not both")
        shown = (
            (output_attentions, self.config.output_attentions),
            (output_hidden_states, self.config.output_hidden_states),
        )
        output_attentions, output_hidden_states = (default if value is None else value for value, default in shown)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, output_hidden_states=output_hidden_states, return_dict=True
            )
        elif isinstance(encoder_outputs, tuple):
            names = ("last_hidden_state", "final_states", "hidden_states")
            encoder_outputs = HftSeq2SeqEncoderOutput(**dict(zip(names, encoder_outputs, strict=False)))
        use_cache = (self.config.use_cache if use_cache is None else use_cache) and not self.training
        with_state = use_cache or past_key_values is not None
        cache = HftSeq2SeqCache() if past_key_values is None else past_key_values
        if decoder_inputs_embeds is None:
            decoder_inputs_embeds = self.encoder.embed_tokens(decoder_input_ids)
        embeds = self.encoder.embed_dropout(decoder_inputs_embeds)
        padding = None if attention_mask is None else attention_mask.eq(0)
        hidden, embeds, weights = self._write(
            embeds, decoder_attention_mask, encoder_outputs, padding, cache, with_state
        )
        return modeling_outputs.Seq2SeqModelOutput(
            last_hidden_state=hidden,
            past_key_values=cache if with_state else None,
            decoder_hidden_states=(embeds, hidden) if output_hidden_states else None,
            cross_attentions=(weights.unsqueeze(1),) if output_attentions and weights is not None else None,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
        )

    def _write(self, embeds, mask, encoded, source_padding, cache, with_state):
        """Run the decoder over rows with padding on either side.

        Args:
            embeds: (B, T, E); mask: not 0 at real tokens, (B, T) or (B, earlier + T), or None.

        Returns:
            (hidden (B, T, D), embeds, weights (B, T, S) or None), all 0 at padding.
        """
        source = encoded.last_hidden_state
        if cache.state is None:
            cache.state = self.decoder.first_state(encoded.final_states)
            cache.keys = None if self.decoder.attention is None else self.decoder.attention.keys(source)
        mask = None if mask is None else mask[:, -embeds.shape[1] :]
        lengths, order = row_lengths(mask)
        rows = embeds if order is None else take(embeds, order)
        hidden, weights = self.decoder(rows, source, source_padding, cache, lengths, with_state)
        if lengths is None:
            return hidden, embeds, weights
        if order is not None:
            back = order.argsort(dim=1)
            hidden, weights = take(hidden, back), None if weights is None else take(weights, back)
        padding = mask.eq(0).unsqueeze(-1)
        values = (hidden, embeds, weights)
        return tuple(None if value is None else value.masked_fill(padding, 0.0) for value in values)


class HftSeq2SeqForConditionalGeneration(HftSeq2SeqPreTrainedModel, GenerationMixin):
    """Encoder and decoder with the output layer over the vocabulary."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.encoder.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftSeq2SeqModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
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
        """Loss and logits; the other arguments are those of HftSeq2SeqModel.

        Args:
            labels: the target text, (B, T), -100 where nothing is predicted. Without decoder_input_ids the decoder
                reads them moved by one, the right word at every step (teacher forcing).
            num_items_in_batch: number of labelled positions of all accumulated batches; None counts this batch's.
            logits_to_keep: how many of the last positions get logits, or a tensor of positions; 0 is all. None is all
                in evaluation and none while training with labels, where nobody reads them.

        Returns:
            Seq2SeqLMOutput; loss in nats per token, smoothed in training only, logits (B, kept, V) or None.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
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
                loss = linear_cross_entropy(hidden, self.lm_head.weight, targets, **options)
        return loss, logits
