"""Linear bag of words: every word has a weight for each class, and a text's scores are the sums over its words.

It is multinomial logistic regression on word counts. Its limits are the point: no order, no word weighs more in one
text than in another.
Reference: Pang et al. 2002, https://aclanthology.org/W02-1011, Section 5 (maximum entropy on single words).
Shapes: B = rows, T = tokens of a row, V = vocab_size, C = classes.
"""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .layers_checks import check_counts, check_shares
from .layers_losses import classification_loss
from .layers_pooling import drop_words, real_tokens

AUTO_MAP = {
    "AutoConfig": "modeling_bow.HftBowConfig",
    "AutoModelForSequenceClassification": "modeling_bow.HftBowForSequenceClassification",
}


class HftBowConfig(PretrainedConfig):
    """Size of a bag of words; `word_dropout` is the chance that training ignores a token."""

    model_type = "hft_bow"

    def __init__(self, vocab_size=30000, word_dropout=0.0, pad_token_id=None, **kwargs):
        values = check_counts(vocab_size=vocab_size) | check_shares(word_dropout=word_dropout)
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class HftBowForSequenceClassification(PreTrainedModel):
    """A weight for each word and class, and a bias; `embed_tokens.weight[word]` are a word's weights, (C,)."""

    config: HftBowConfig
    config_class = HftBowConfig
    base_model_prefix = "model"
    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _no_split_modules = []

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.num_labels)
        self.bias = nn.Parameter(torch.zeros(config.num_labels))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        """Zeros: the loss is convex, and a word that was never seen weighs nothing."""
        for parameter in module.parameters(recurse=False):
            init.zeros_(parameter)

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
        """Logits (B, C).

        Args:
            attention_mask: 1 = real token, (B, T); None = all real.
            inputs_embeds: weights of the tokens in place of input_ids, (B, T, C).
            labels: (B,) or (B, C), in the forms that classification_loss reads.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        weights = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # (B, T, C)
        keep = real_tokens(weights, attention_mask)
        if self.training:
            keep = drop_words(keep, self.config.word_dropout)
        logits = weights.masked_fill(~keep.unsqueeze(-1), 0.0).sum(1) + self.bias
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)
