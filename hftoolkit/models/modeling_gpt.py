"""GPT-1 and GPT-2: a decoder-only Transformer language model.

Papers: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training", Section 4.1 (GPT-1:
LayerNorm after each residual sum); Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
Section 2.3 (GPT-2: LayerNorm before each sub-layer and once more at the end, residual projections initialised smaller
by the square root of their number). `norm_order` in the config chooses: "post" is GPT-1, "pre" is GPT-2.
Differs from them: GPT-1 kept its position vectors in the token matrix, so that its softmax also ran over positions and
one dropout mask served input and output; here positions are a table of their own, as in transformers.
Shapes: B = rows, T = tokens of a row, S = keys, D = hidden_size, V = vocab_size, C = classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    ModelOutput,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .layers_attention import SelfAttention
from .layers_auxiliary import real_next_tokens, token_accuracy, token_shares
from .layers_checks import check_activation, check_amounts, check_counts, check_heads, check_shares
from .layers_feed_forward import FeedForward
from .layers_losses import classification_loss, cross_entropy, linear_cross_entropy, next_token_targets
from .layers_positions import (
    document_lengths,
    flat_layout,
    flatten,
    last_real,
    learned_positions,
    positions_from_mask,
    unflatten,
)

AUTO_MAP = {
    "AutoConfig": "modeling_gpt.HftGptConfig",
    "AutoModel": "modeling_gpt.HftGptModel",
    "AutoModelForCausalLM": "modeling_gpt.HftGptForCausalLM",
    "AutoModelForSequenceClassification": "modeling_gpt.HftGptForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_gpt.HftGptForTokenClassification",
    "AutoModelForMultipleChoice": "modeling_gpt.HftGptForTaskClassification",
}
TASK_FORMS = ("single", "similarity", "choice")


class HftGptConfig(PretrainedConfig):
    """Sizes and constants of a GPT; the defaults are GPT-2's of 124 million parameters.

    Args:
        norm_order: "pre" (GPT-2) or "post" (GPT-1).
        hidden_act: "gelu_new" is the tanh form of both papers.
        initializer_range: standard deviation of every weight at the start.
        label_smoothing: share of the target's probability spread over the vocabulary, in training, in [0, 1).
        z_loss: weight of the squared log-normaliser in the training loss; 0 leaves it out.
        task_form: what HftGptForTaskClassification reads for an example: "single", one sequence; "similarity", several
            whose states are added; "choice", several that are scored against one another.
        auxiliary_loss_weight: lambda of the language-model loss beside the task's; 0 leaves it out.
        score_bias: whether the head of HftGptForSequenceClassification has a bias, as reward models need; stock has none.
    """

    model_type = "hft_gpt"
    keys_to_ignore_at_inference = ["past_key_values", "task_loss", "lm_loss", "lm_accuracy"]

    def __init__(
        self,
        vocab_size=50257,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=None,
        max_position_embeddings=1024,
        hidden_act="gelu_new",
        norm_order="pre",
        layer_norm_eps=1e-5,
        embedding_dropout_prob=0.1,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        classifier_dropout_prob=0.1,
        initializer_range=0.02,
        label_smoothing=0.0,
        z_loss=0.0,
        task_form="choice",
        auxiliary_loss_weight=0.5,
        score_bias=False,
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **kwargs,
    ):
        values = check_counts(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            max_position_embeddings=max_position_embeddings,
            intermediate_size=4 * hidden_size if intermediate_size is None else intermediate_size,
        )
        check_heads(hidden_size, num_attention_heads)
        if norm_order not in ("pre", "post"):
            raise ValueError(f'norm_order must be "pre" (GPT-2) or "post" (GPT-1), got {norm_order!r}')
        if task_form not in TASK_FORMS:
            raise ValueError(f"task_form must be one of {', '.join(TASK_FORMS)}, got {task_form!r}")
        values |= check_amounts(
            layer_norm_eps=layer_norm_eps,
            initializer_range=initializer_range,
            z_loss=z_loss,
            auxiliary_loss_weight=auxiliary_loss_weight,
        )
        values |= check_shares(
            embedding_dropout_prob=embedding_dropout_prob,
            hidden_dropout_prob=hidden_dropout_prob,
            attention_probs_dropout_prob=attention_probs_dropout_prob,
            classifier_dropout_prob=classifier_dropout_prob,
            label_smoothing=label_smoothing,
        )
        values |= dict(hidden_act=check_activation(hidden_act), norm_order=norm_order, task_form=task_form)
        for name, value in values.items():
            setattr(self, name, value)
        self.use_cache, self.score_bias = use_cache, score_bias
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            tie_word_embeddings=tie_word_embeddings,
            **kwargs,
        )


class PreNormBlock(GradientCheckpointingLayer):
    """GPT-2's block: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, layer_idx, is_causal=True)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(
            config.hidden_size, config.intermediate_size, config.hidden_act, config.hidden_dropout_prob
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden, attention_mask=None, past_key_values=None, groups=None, **kwargs):
        """(B, T, D) to (B, T, D) and the attention weights, or None."""
        attended, weights = self.self_attn(
            self.attn_norm(hidden), attention_mask, past_key_values=past_key_values, groups=groups, **kwargs
        )
        hidden = hidden + self.dropout(attended)
        return hidden + self.mlp(self.mlp_norm(hidden)), weights


class PostNormBlock(GradientCheckpointingLayer):
    """GPT-1's block: norm(x + attention(x)), then norm(x + feed-forward(x))."""

    def __init__(self, config, layer_idx):
        super().__init__()
        self.self_attn = SelfAttention(config, layer_idx, is_causal=True)
        self.attn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = FeedForward(
            config.hidden_size, config.intermediate_size, config.hidden_act, config.hidden_dropout_prob
        )
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden, attention_mask=None, past_key_values=None, groups=None, **kwargs):
        """(B, T, D) to (B, T, D) and the attention weights, or None."""
        attended, weights = self.self_attn(
            hidden, attention_mask, past_key_values=past_key_values, groups=groups, **kwargs
        )
        hidden = self.attn_norm(hidden + self.dropout(attended))
        return self.mlp_norm(hidden + self.mlp(hidden)), weights


class HftGptPreTrainedModel(PreTrainedModel):
    """What all GPT classes share: initialisation and what transformers, PEFT and FSDP ask of a class."""

    config: HftGptConfig
    config_class = HftGptConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["PreNormBlock", "PostNormBlock"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if self.config.norm_order == "pre" and module in self._residual_projections():  # GPT-2's paper, Section 2.3
            std = self.config.initializer_range / math.sqrt(2 * self.config.num_hidden_layers)
            init.normal_(module.weight, mean=0.0, std=std)

    def _residual_projections(self):
        """The layers whose output is added to the residual stream; transformers never shows us their block.

        It passes over modules without parameters of their own when a class is not one of its own.
        """
        return [last for layer in self.base_model.layers for last in (layer.self_attn.o_proj, layer.mlp.down_proj)]


class HftGptModel(HftGptPreTrainedModel):
    """The Transformer without a head: token and position embeddings, blocks, and for GPT-2 a final LayerNorm."""

    def __init__(self, config):
        super().__init__(config)
        block = PreNormBlock if config.norm_order == "pre" else PostNormBlock
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = nn.Dropout(config.embedding_dropout_prob)
        self.layers = nn.ModuleList(block(config, i) for i in range(config.num_hidden_layers))
        pre_norm = config.norm_order == "pre"
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if pre_norm else nn.Identity()
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        output_attentions=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Hidden states of every position.

        Three layouts: padded rows with `attention_mask` (B, T), 1 = real token, where padding reads 0 and is not
        computed unless there is a cache; packed rows with `position_ids` (B, T) that restart at each document and no
        mask, where no document sees another and no cache is made; cached decoding with `past_key_values`.

        Returns:
            BaseModelOutputWithPast; last_hidden_state (B, T, D), hidden_states a tuple of the embeddings and each
            layer's output (the last one after the final norm).

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds; more positions than the model has.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # (B, T, D)
        packed = self._is_packed(len(embeds), attention_mask, position_ids, past_key_values)
        use_cache = self.config.use_cache if use_cache is None else use_cache
        use_cache = use_cache and not self.training and not packed
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        padded = attention_mask is not None and attention_mask.dim() == 2 and past_key_values is None
        position_ids = self._positions(embeds, attention_mask, position_ids, past_key_values)
        hidden = self.dropout(embeds + self.embed_positions(position_ids))
        if (packed or padded) and self._groups_sequences(output_attentions, output_hidden_states):
            run, mask = self._run_grouped, attention_mask
            kwargs.update(position_ids=position_ids)
        else:
            run = self._run_rows
            mask = create_causal_mask(
                config=self.config,
                inputs_embeds=embeds,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_ids=position_ids,
            )
            kwargs.update(past_key_values=past_key_values, position_ids=position_ids)
        hidden, states, attentions = run(hidden, mask, **kwargs)
        if padded:
            hidden = hidden.masked_fill(attention_mask.eq(0).unsqueeze(-1), 0.0)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )

    def _run_rows(self, hidden, mask, **kwargs):
        """All layers over rows; also every layer's output and attention weights."""
        states, attentions = (hidden,), ()
        for layer in self.layers:
            hidden, weights = layer(hidden, mask, **kwargs)
            states, attentions = (*states, hidden), (*attentions, weights)
        hidden = self.norm(hidden)
        return hidden, (*states[:-1], hidden), attentions

    def _run_grouped(self, hidden, attention_mask, position_ids, **kwargs):
        """All layers over one flat row of the real tokens, sequences of equal length together; put back in rows after."""
        shape = hidden.shape[:2]
        documents = position_ids if attention_mask is None else None
        index, groups = flat_layout(shape, attention_mask, documents, hidden.device)
        hidden = flatten(hidden, index)
        for layer in self.layers:
            hidden, _ = layer(hidden, groups=groups)
        return unflatten(self.norm(hidden), index, shape), (), ()

    def _is_packed(self, rows, attention_mask, position_ids, past_key_values):
        """Whether there are boundaries of documents inside the rows."""
        if attention_mask is not None or position_ids is None or past_key_values is not None:
            return False
        if torch.compiler.is_compiling():  # counting them would break the graph; the mask finds the boundaries
            return True
        return len(document_lengths(position_ids.expand(rows, -1))) > rows

    def _groups_sequences(self, output_attentions, output_hidden_states):
        """Whether packed and padded rows take the path without masks: no per-layer outputs, no fixed shapes."""
        plain = self.config._attn_implementation == "sdpa" and not torch.compiler.is_compiling()
        return plain and not output_attentions and not output_hidden_states

    def _positions(self, embeds, attention_mask, position_ids, past_key_values):
        """Position of every token (B, T): as given, from the mask, or counted on from the cache."""
        B, T = embeds.shape[:2]
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            position_ids = positions_from_mask(attention_mask)[:, -T:]
        if position_ids is None:
            position_ids = (torch.arange(T, device=embeds.device) + seen).expand(B, T)
        return learned_positions(embeds, None, position_ids, self.config.max_position_embeddings)


class HftGptForCausalLM(HftGptPreTrainedModel, GenerationMixin):
    """GPT with the language-model head, tied to the token embeddings."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftGptModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        shift_labels=None,
        num_items_in_batch=None,
        use_cache=None,
        logits_to_keep=None,
        **kwargs,
    ):
        """Next-token loss and logits.

        Args:
            labels: equal to input_ids or -100, (B, T); position t is scored on label t + 1.
            shift_labels: what each position is scored on, (B, T), for batches that already carry the next token;
                taken before `labels`.
            num_items_in_batch: number of scored positions of all accumulated batches; None counts this batch's.
            logits_to_keep: how many of the last positions get logits, or a tensor of positions; 0 is all. None is all
                in evaluation and none while training with labels, where nobody reads them.

        Returns:
            CausalLMOutputWithPast; loss in nats per token, logits (B, kept, V) or None.
        """
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden = output.last_hidden_state  # (B, T, D)
        targets = next_token_targets(labels) if shift_labels is None and labels is not None else shift_labels
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
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class HftGptForSequenceClassification(HftGptPreTrainedModel):
    """GPT with a linear classifier on the last real token; one label is regression."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftGptModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=config.score_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        use_cache=False,
        last_positions=None,
        **kwargs,
    ):
        """Scores of each row, or of several texts of a row that begin alike.

        Args:
            attention_mask: 1 = real token, (B, T). Without it padding is told by config.pad_token_id; with neither,
                the last position of each row is read.
            last_positions: where each text of a row ends, (B, K), -1 where a row has fewer; the texts share their
                beginning, and an attention_mask (B, 1, T, T), True where a token may be read, keeps them apart.
            labels: classes (B,), real numbers (B,) when num_labels is 1, or 0/1 per class (B, C) when
                config.problem_type is "multi_label_classification".

        Returns:
            SequenceClassifierOutputWithPast; logits (B, C); with last_positions (N, C), one for each text, row by row.
        """
        pad = self.config.pad_token_id
        if attention_mask is None and input_ids is not None and pad is not None:
            attention_mask = (input_ids != pad).long()
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden = output.last_hidden_state
        if last_positions is None:
            last = last_real(hidden, attention_mask)
        else:
            row, text = (last_positions >= 0).nonzero(as_tuple=True)
            last = hidden[row, last_positions[row, text]]
        logits = self.score(last)  # (B, C)
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class HftGptForTokenClassification(HftGptPreTrainedModel):
    """GPT with a linear classifier on every token."""

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftGptModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        **kwargs,
    ):
        """Scores of each token; labels (B, T) with -100 where there is none; logits (B, T, C)."""
        output = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            return_dict=True,
            **kwargs,
        )
        logits = self.score(self.dropout(output.last_hidden_state))
        loss = None if labels is None else cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )


@dataclass
class HftGptTaskOutput(ModelOutput):
    """What HftGptForTaskClassification returns.

    loss: task_loss + auxiliary_loss_weight * lm_loss.
    logits: (B, C), or the scores of the choices (B, N).
    lm_loss: mean over the examples of the mean loss of their tokens, nats; None where its weight is 0.
    lm_accuracy: share of the tokens that are predicted, averaged alike; None in training.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    task_loss: torch.FloatTensor | None = None
    lm_loss: torch.FloatTensor | None = None
    lm_accuracy: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class HftGptForTaskClassification(HftGptPreTrainedModel):
    """GPT-1's fine-tuning: a linear layer on the state of the last token, and the language model beside it.

    Paper: Radford et al. 2018, Section 3.2, equations 3 to 5 (L3 = L2 + lambda * L1), Section 3.3 and Figure 1. One
    head serves the four input forms, see config.task_form; the losses are weighed as in layers_auxiliary.
    Shapes: N = sequences of an example.
    """

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = HftGptModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.task_score = nn.Linear(config.hidden_size, 1 if config.task_form == "choice" else config.num_labels)
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
        """Scores of each example, read at the last real token of its sequences.

        Args:
            input_ids: (B, N, T), or (B, T) for one sequence each; the language model's loss needs them.
            attention_mask: 1 = real token, in the shape of input_ids. Without it padding is told by
                config.pad_token_id; with neither, all are real. A sequence without real tokens does not count: that is
                how an example has fewer choices than another.
            labels: the class, the number of the right choice, or a real number when num_labels is 1; (B,).
            num_items_in_batch: number of labelled examples of all accumulated batches; None counts this batch's.

        Returns:
            HftGptTaskOutput.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds; several sequences where config.task_form is
                "single".
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        shape = input_ids.shape if inputs_embeds is None else inputs_embeds.shape[:-1]
        B, N, T = shape if len(shape) == 3 else (shape[0], 1, shape[1])
        if self.config.task_form == "single" and N > 1:
            raise ValueError(
                f'inputs of shape {tuple(shape)} hold {N} sequences for each example, but task_form is "single": give '
                'one, or load the model with task_form="similarity" or "choice"'
            )
        if attention_mask is None:
            pad = None if input_ids is None else self.config.pad_token_id
            attention_mask = torch.ones(shape, device=self.device) if pad is None else input_ids != pad
        ids = None if input_ids is None else input_ids.reshape(B * N, T)
        mask = attention_mask.reshape(B * N, T).long()
        if inputs_embeds is not None:
            inputs_embeds = inputs_embeds.reshape(B * N, T, -1)
        kwargs |= dict(inputs_embeds=inputs_embeds, use_cache=False, return_dict=True)
        output = self.model(ids, attention_mask=mask, **kwargs)
        hidden, present = output.last_hidden_state, mask.any(-1).view(B, N)
        states = last_real(hidden, mask).view(B, N, -1)
        # The sequences of an example share what is dropped: train.py, `clf_h = tf.nn.dropout(..., noise_shape)`.
        states = states * self.dropout(torch.ones_like(states[:, :1])) * present.unsqueeze(-1)
        if self.config.task_form == "choice":
            logits = self.task_score(states.flatten(0, 1)).view(B, N)
            logits = logits.masked_fill(~present, torch.finfo(logits.dtype).min)
        else:
            logits = self.task_score(states.sum(1))  # (B, C)
        loss, task_loss, lm_loss, lm_accuracy = self._losses(hidden, ids, mask, logits, labels, num_items_in_batch)
        return HftGptTaskOutput(
            loss=loss,
            logits=logits,
            task_loss=task_loss,
            lm_loss=lm_loss,
            lm_accuracy=lm_accuracy,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _losses(self, hidden, ids, mask, logits, labels, num_items_in_batch):
        """Loss, its two parts, and the accuracy of the language model; hidden (B * N, T, D), ids and mask (B * N, T)."""
        if labels is None:
            return None, None, None, None
        if self.config.task_form == "choice":
            task_loss = cross_entropy(logits, labels, num_items_in_batch=num_items_in_batch)
        else:
            task_loss = classification_loss(logits, labels, self.config, num_items_in_batch)
        if ids is None or not self.config.auxiliary_loss_weight:
            return task_loss, task_loss, None, None
        targets = real_next_tokens(ids, mask)
        shares = token_shares(targets, labels, num_items_in_batch)
        weight = self.lm_head.weight
        lm_loss = linear_cross_entropy(hidden, weight, targets, shares=shares, num_items_in_batch=1)
        accuracy = None if self.training else token_accuracy(hidden, weight, targets, shares)
        return task_loss + self.config.auxiliary_loss_weight * lm_loss, task_loss, lm_loss, accuracy
