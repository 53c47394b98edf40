"""Word vectors: one vector for every word, and one for what stands around it.

Papers: Mikolov et al. 2013a, "Efficient Estimation of Word Representations in Vector Space",
https://arxiv.org/abs/1301.3781, Section 3 (CBOW, skip-gram); Mikolov et al. 2013b, "Distributed Representations of Words
and Phrases and their Compositionality", https://arxiv.org/abs/1310.4546, Section 2 (negative sampling). Count vectors:
Levy, Goldberg and Dagan 2015, https://aclanthology.org/Q15-1016, whose two factors are the same two matrices.
How the matrices come about (skip-gram, CBOW, counting) is no business of this file: training does not go through
autograd (hftoolkit.training.word_vectors).
Shapes: B = rows, T = words of a row, D = hidden_size, V = vocab_size, W = window_size.
"""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .layers_checks import check_counts
from .layers_losses import masked_words

AUTO_MAP = {
    "AutoConfig": "modeling_word2vec.HftWord2VecConfig",
    "AutoModel": "modeling_word2vec.HftWord2VecModel",
    "AutoModelForMaskedLM": "modeling_word2vec.HftWord2VecForMaskedLM",
}
OBJECTIVES = ("skipgram", "cbow", "ppmi_svd")


class HftWord2VecConfig(PretrainedConfig):
    """Sizes of word vectors; the defaults are those of word2vec.c.

    Args:
        hidden_size: numbers in a vector.
        window_size: words on each side that count as context.
        objective: how the vectors were made: skipgram, cbow or ppmi_svd.
    """

    model_type = "hft_word2vec"

    def __init__(
        self,
        vocab_size=30000,
        hidden_size=100,
        window_size=5,
        objective="skipgram",
        pad_token_id=0,
        tie_word_embeddings=False,
        **kwargs,
    ):
        values = check_counts(vocab_size=vocab_size, hidden_size=hidden_size, window_size=window_size)
        if objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
        if tie_word_embeddings:
            raise ValueError("tie_word_embeddings must be False: a word is seldom its own context, got True")
        self.objective, self.num_hidden_layers = objective, 0
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.pop("num_hidden_layers", None)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, tie_word_embeddings=tie_word_embeddings, **kwargs)


class HftWord2VecPreTrainedModel(PreTrainedModel):
    """What both classes share: initialisation and what transformers asks of a class."""

    config: HftWord2VecConfig
    config_class = HftWord2VecConfig
    base_model_prefix = "model"
    _no_split_modules = []
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module):
        """word2vec.c, InitNet: input vectors U(-0.5, 0.5) / D, output vectors 0."""
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            bound = 0.5 / self.config.hidden_size
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.zeros_(module.weight)


class HftWord2VecModel(HftWord2VecPreTrainedModel):
    """The vector of each word, whatever stands around it."""

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    @can_return_tuple
    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, output_hidden_states=None, **kwargs):
        """Input vectors of the words of each row; padding reads 0.

        Args:
            attention_mask: 1 = real word, (B, T); None = all real.

        Returns:
            BaseModelOutput; last_hidden_state (B, T, D).

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if attention_mask is not None:
            hidden = hidden.masked_fill(attention_mask.eq(0).unsqueeze(-1), 0.0)  # (B, T, D)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return modeling_outputs.BaseModelOutput(last_hidden_state=hidden, hidden_states=(hidden,) if wanted else None)


class HftWord2VecForMaskedLM(HftWord2VecPreTrainedModel):
    """Both matrices, as a model of which word fits into a gap.

    CBOW's own prediction: the mean of the input vectors of the words around the gap, times the output vectors. Of
    skip-gram vectors it is the mean of the logits of every word around it, which is the normalised geometric mean of
    their predictions.
    """

    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here

    def __init__(self, config):
        super().__init__(config)
        self.model = HftWord2VecModel(config)
        self.transform = nn.Identity()  # nothing stands between the mean and the output vectors
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        num_items_in_batch=None,
        logits_to_keep=None,
        output_hidden_states=None,
        **kwargs,
    ):
        """Loss in nats per labelled word, and logits at every position; a position does not see its own word.

        Args:
            labels: the words to predict, (B, T), -100 everywhere else.
            num_items_in_batch: number of labelled words of all accumulated batches; None counts this batch's.
            logits_to_keep: True at the positions whose logits are wanted, (B, T). None is all in evaluation and none
                while training with labels, where nobody reads them.

        Returns:
            MaskedLMOutput; logits (B, T, V), or (kept, V) in reading order, or None.
        """
        output = self.model(input_ids, attention_mask, inputs_embeds, output_hidden_states, return_dict=True)
        around = window_mean(output.last_hidden_state, attention_mask, self.config.window_size)
        loss, logits = masked_words(self, around, labels, num_items_in_batch, logits_to_keep)
        return modeling_outputs.MaskedLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)


def window_mean(vectors, attention_mask, size):
    """Mean over the words up to `size` places away on both sides, the word itself left out; 0 where there are none.

    Args:
        vectors: 0 at padding, (B, T, D).
        attention_mask: 1 = real word, (B, T); None = all real.
    """
    T = vectors.shape[1]
    places = torch.arange(T, device=vectors.device)
    distance = (places[:, None] - places).abs()
    near = ((distance > 0) & (distance <= size)).expand(len(vectors), T, T)
    if attention_mask is not None:
        near = near & attention_mask.bool()[:, None, :]
    near = near.to(vectors.dtype)
    return torch.bmm(near, vectors) / near.sum(-1, keepdim=True).clamp(min=1)  # (B, T, D)
