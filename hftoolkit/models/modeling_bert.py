"""BERT: a bidirectional Transformer encoder, pretrained on masked words and on which sentence follows.

Paper: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers", https://arxiv.org/abs/1810.04805,
Section 3 (the model and its two tasks), Section 4 (the heads), Appendix A.2 (constants). LayerNorm stands after each
residual sum.
Differs from it: padding is never multiplied and the vocabulary is scored only where somebody reads the scores, which
changes no number; positions count real tokens, so that padding may stand on either side; and in question answering
padding gets no probability.
Shapes: B = rows, T = tokens of a row, N = real tokens of all rows, D = hidden_size, V = vocab_size, C = classes.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple

from .layers_attention import SelfAttention, cumulative_lengths
from .layers_checks import check_activation, check_amounts, check_counts, check_heads, check_shares
from .layers_feed_forward import FeedForward, PredictionTransform
from .layers_losses import IGNORE_INDEX, classification_loss, cross_entropy, masked_words, mean_or_share, span_loss
from .layers_positions import document_numbers, first_real, flat_layout, flatten, learned_positions, unflatten

AUTO_MAP = {
    "AutoConfig": "modeling_bert.HftBertConfig",
    "AutoModel": "modeling_bert.HftBertModel",
    "AutoModelForPreTraining": "modeling_bert.HftBertForPreTraining",
    "AutoModelForMaskedLM": "modeling_bert.HftBertForMaskedLM",
    "AutoModelForNextSentencePrediction": "modeling_bert.HftBertForNextSentencePrediction",
    "AutoModelForSequenceClassification": "modeling_bert.HftBertForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_bert.HftBertForTokenClassification",
    "AutoModelForQuestionAnswering": "modeling_bert.HftBertForQuestionAnswering",
    "AutoModelForMultipleChoice": "modeling_bert.HftBertForMultipleChoice",
}


class HftBertConfig(PretrainedConfig):
    """Sizes and constants of a BERT; the defaults are BERT-base's of 110 million parameters.

    Args:
        intermediate_size: width of the feed-forward layer; None is four times hidden_size.
        hidden_act: "gelu" is the exact form, with erf, as the reference program has it.
        type_vocab_size: how many segments are told apart; 2 for pairs.
        initializer_range: standard deviation of the normal distribution that is cut at twice that.
    """

    model_type = "hft_bert"
    keys_to_ignore_at_inference = ["mlm_loss", "nsp_loss"]  # numbers of a batch, not of its rows

    def __init__(
        self,
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=None,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        classifier_dropout_prob=0.1,
        max_position_embeddings=512,
        type_vocab_size=2,
        initializer_range=0.02,
        layer_norm_eps=1e-12,
        pad_token_id=0,
        tie_word_embeddings=True,
        **kwargs,
    ):
        values = check_counts(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            max_position_embeddings=max_position_embeddings,
            type_vocab_size=type_vocab_size,
        )
        values |= check_counts(intermediate_size=4 * hidden_size if intermediate_size is None else intermediate_size)
        values |= check_amounts(initializer_range=initializer_range, layer_norm_eps=layer_norm_eps)
        values |= check_shares(
            hidden_dropout_prob=hidden_dropout_prob,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            classifier_dropout_prob=classifier_dropout_prob,
        )
        check_heads(hidden_size, num_attention_heads)
        values["hidden_act"] = check_activation(hidden_act)
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)


class HftBertLayer(GradientCheckpointingLayer):
    """norm(x + attention(x)), then norm(x + feed-forward(x))."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = SelfAttention(config, layer_idx, is_causal=False)
        self.attn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(
            config.hidden_size, config.intermediate_size, config.hidden_act, config.hidden_dropout_prob
        )
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden, attention_mask=None, groups=None, **kwargs):
        """(B, T, D) to (B, T, D) and the attention weights, or None."""
        attended, weights = self.self_attn(hidden, attention_mask, groups=groups, **kwargs)
        hidden = self.attn_norm(hidden + self.dropout(attended))
        return self.mlp_norm(hidden + self.mlp(hidden)), weights


class HftBertPreTrainedModel(PreTrainedModel):
    """What all BERT classes share: initialisation and what transformers, PEFT and FSDP ask of a class."""

    config: HftBertConfig
    config_class = HftBertConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HftBertLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear | nn.Embedding):  # modeling.py of the reference program, create_initializer
            std = self.config.initializer_range
            init.trunc_normal_(module.weight, mean=0.0, std=std, a=-2 * std, b=2 * std)


class HftBertModel(HftBertPreTrainedModel):
    """The encoder: embeddings of tokens, positions and segments, then blocks; with or without the pooler."""

    def __init__(self, config, add_pooling_layer=True):
        super().__init__(config)
        D = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, D)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, D)
        self.embed_token_types = nn.Embedding(config.type_vocab_size, D)
        self.embed_norm = nn.LayerNorm(D, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(HftBertLayer(config, i) for i in range(config.num_hidden_layers))
        self.pooler = nn.Linear(D, D) if add_pooling_layer else None
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Hidden states of every real position; padding reads 0.

        Two layouts: padded rows with `attention_mask` (B, T), 1 = real token, padding on either side, None = all real;
        or packed rows with `position_ids` (B, T) that restart at each document and no mask, where no document sees
        another. The attention weights exist with attn_implementation="eager" only.

        Returns:
            BaseModelOutputWithPooling; last_hidden_state (B, T, D), pooler_output (B, D) from the first real token of
            each row, hidden_states a tuple of the embeddings and each layer's output.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds; more positions than the model has.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        inputs = input_ids if inputs_embeds is None else inputs_embeds
        packed = attention_mask is None and position_ids is not None
        positions = learned_positions(inputs, attention_mask, position_ids, self.config.max_position_embeddings)
        run = self._run_flat if self._leaves_padding_out(attention_mask) else self._run_rows
        states, attentions = run(
            inputs, attention_mask, token_type_ids, positions, packed, keep_all=output_hidden_states, **kwargs
        )
        hidden, pooled = states[-1], None
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(first_real(hidden, attention_mask)))
        return modeling_outputs.BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )

    def _embed(self, inputs, token_type_ids, positions):
        """Token ids (...) or embeddings (..., D), with segments and positions (...), to (..., D)."""
        embeds = inputs if inputs.is_floating_point() else self.embed_tokens(inputs)
        types = self.embed_token_types.weight[0] if token_type_ids is None else self.embed_token_types(token_type_ids)
        return self.dropout(self.embed_norm(embeds + types + self.embed_positions(positions)))

    def _run_flat(self, inputs, attention_mask, token_type_ids, positions, packed, keep_all, **kwargs):
        """All layers over one flat row (1, N, D) of the real tokens; what is returned is back in rows."""
        documents = positions if packed else None
        index, groups = flat_layout(positions.shape, attention_mask, documents, positions.device)
        parts = [None if part is None else flatten(part, index) for part in (inputs, token_type_ids, positions)]
        hidden = self._embed(*parts)
        sdpa = self.config._attn_implementation == "sdpa"
        kwargs |= dict(groups=groups) if sdpa else cumulative_lengths(groups, hidden.device)
        states = (hidden,)
        for layer in self.layers:
            hidden, _ = layer(hidden, **kwargs)
            states = (*states, hidden) if keep_all else (hidden,)
        return tuple(unflatten(state, index, positions.shape) for state in states), None

    def _run_rows(self, inputs, attention_mask, token_type_ids, positions, packed, keep_all, **kwargs):
        """All layers over rows with a mask; also the attention weights, if the implementation has them."""
        hidden = self._embed(inputs, token_type_ids, positions)
        documents = document_numbers(positions) if packed else None
        inside = None if documents is None else lambda b, h, q, kv: documents[b, q] == documents[b, kv]
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=attention_mask, and_mask_function=inside
        )
        states, attentions = (hidden,), ()
        for layer in self.layers:
            hidden, weights = layer(hidden, mask, **kwargs)
            states, attentions = (*states, hidden) if keep_all else (hidden,), (*attentions, weights)
        if attention_mask is not None and attention_mask.dim() == 2:
            padding = attention_mask.eq(0).unsqueeze(-1)
            states = tuple(state.masked_fill(padding, 0.0) for state in states)
        return states, None if attentions[0] is None else attentions

    def _leaves_padding_out(self, attention_mask):
        """Whether only real tokens are computed: the shapes then depend on the data, which no compiled graph takes."""
        implementation = self.config._attn_implementation
        takes_lengths = implementation == "sdpa" or "flash" in implementation
        by_rows = attention_mask is None or attention_mask.dim() == 2
        return takes_lengths and by_rows and not torch.compiler.is_compiling()


@dataclass
class HftBertForPreTrainingOutput(ModelOutput):
    """`loss` is mlm_loss + nsp_loss; the two parts carry no gradient and are divided as in the sum."""

    loss: torch.FloatTensor | None = None
    prediction_logits: torch.FloatTensor | None = None
    seq_relationship_logits: torch.FloatTensor | None = None
    mlm_loss: torch.FloatTensor | None = None
    nsp_loss: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class HftBertForPreTraining(HftBertPreTrainedModel):
    """BERT with both heads of the paper's Section 3.1: masked words (tied to the embeddings) and next sentence."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config)
        self.transform = PredictionTransform(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        next_sentence_label=None,
        num_items_in_batch=None,
        num_pairs_in_batch=None,
        logits_to_keep=None,
        **kwargs,
    ):
        """Both losses and both logits.

        Args:
            labels: the masked words, (B, T), -100 everywhere else.
            next_sentence_label: 0 = the second sentence follows the first, 1 = it is a random one, (B,).
            num_items_in_batch: number of masked words of all accumulated batches; None counts this batch's.
            num_pairs_in_batch: number of pairs of all accumulated batches. None counts this batch's, and where
                num_items_in_batch is given weighs their mean by this batch's share of the masked words.
            logits_to_keep: True at the positions whose logits are wanted, (B, T). None is all in evaluation and none
                while training with labels, where nobody reads them.

        Returns:
            HftBertForPreTrainingOutput; prediction_logits (B, T, V), or (kept, V) in reading order, or None;
            seq_relationship_logits (B, 2).
        """
        output = self.model(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        relation = self.seq_relationship(output.pooler_output)
        words, logits = masked_words(self, output.last_hidden_state, labels, num_items_in_batch, logits_to_keep)
        pairs = None
        if next_sentence_label is not None:
            pairs = cross_entropy(relation, next_sentence_label, num_items_in_batch=num_pairs_in_batch)
            if num_pairs_in_batch is None and num_items_in_batch is not None and labels is not None:
                pairs = pairs * mean_or_share((labels != IGNORE_INDEX).sum(), labels, num_items_in_batch)
        given = [part for part in (words, pairs) if part is not None]
        return HftBertForPreTrainingOutput(
            loss=sum(given) if given else None,
            prediction_logits=logits,
            seq_relationship_logits=relation,
            mlm_loss=None if words is None else words.detach(),
            nsp_loss=None if pairs is None else pairs.detach(),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class HftBertForMaskedLM(HftBertPreTrainedModel):
    """BERT with the head for masked words, tied to the token embeddings."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config, add_pooling_layer=False)
        self.transform = PredictionTransform(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        logits_to_keep=None,
        **kwargs,
    ):
        """Loss in nats per masked word, and logits; the arguments are those of HftBertForPreTraining."""
        output = self.model(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        loss, logits = masked_words(self, output.last_hidden_state, labels, num_items_in_batch, logits_to_keep)
        return modeling_outputs.MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


class HftBertForNextSentencePrediction(HftBertPreTrainedModel):
    """BERT with the classifier of pairs: does the second sentence follow the first?"""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Logits (B, 2); labels (B,), 0 = the second sentence follows the first, 1 = it is a random one."""
        output = self.model(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.seq_relationship(output.pooler_output)
        loss = None if labels is None else cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        return modeling_outputs.NextSentencePredictorOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


class HftBertForSequenceClassification(HftBertPreTrainedModel):
    """BERT with a linear classifier on the pooled first token; one label is regression."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Logits (B, C); labels (B,) or (B, C), in the forms that classification_loss reads."""
        output = self.model(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.score(self.dropout(output.pooler_output))
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return modeling_outputs.SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


class HftBertForTokenClassification(HftBertPreTrainedModel):
    """BERT with a linear classifier on every token."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Scores of each token; labels (B, T) with -100 where there is none; logits (B, T, C)."""
        output = self.model(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.score(self.dropout(output.last_hidden_state))
        loss = None if labels is None else cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        return modeling_outputs.TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


class HftBertForQuestionAnswering(HftBertPreTrainedModel):
    """BERT with the span head of the paper's Section 4.2: a score for every token to begin and to end the answer."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)  # the name by which PEFT knows the head of this task
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        start_positions=None,
        end_positions=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """start_logits and end_logits, both (B, T), the lowest number there is at padding.

        Args:
            start_positions: index of the answer's first token, (B,); -100 or beyond the row is not counted.
            end_positions: index of its last token, (B,).
        """
        output = self.model(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.qa_outputs(output.last_hidden_state)  # (B, T, 2)
        if attention_mask is not None and attention_mask.dim() == 2:
            logits = logits.masked_fill(attention_mask.eq(0).unsqueeze(-1), torch.finfo(logits.dtype).min)
        start_logits, end_logits = (part.contiguous() for part in logits.unbind(-1))
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss(start_logits, end_logits, start_positions, end_positions, num_items_in_batch)
        return modeling_outputs.QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class HftBertForMultipleChoice(HftBertPreTrainedModel):
    """BERT with a score for each of several continuations, as the paper's Section 4.4 for SWAG."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftBertModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.choice_score = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        token_type_ids=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Logits (B, choices); every input has a dimension for the choices, (B, choices, T); labels (B,)."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        rows = [None if part is None else part.flatten(0, 1) for part in inputs]
        output = self.model(*rows, return_dict=True, **kwargs)
        shape = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        logits = self.choice_score(self.dropout(output.pooler_output)).view(shape)
        loss = None if labels is None else cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        return modeling_outputs.MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )
