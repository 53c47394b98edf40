"""Deep averaging network (DAN): the mean of a text's word vectors, then feed-forward layers.

Paper: Iyyer et al. 2015, https://aclanthology.org/P15-1162, Section 3 (the network), Section 3.2 (word dropout). With
num_hidden_layers 0 it is the paper's NBOW, a linear classifier of the mean.
Differs from it: the non-linearity is ReLU, and a text that would lose all of its words keeps them.
Shapes: B = rows, T = tokens of a row, E = embedding_size, D = hidden_size, C = classes.
"""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .layers_checks import check_amounts, check_counts, check_shares, check_sizes
from .layers_losses import classification_loss
from .layers_pooling import drop_words, masked_mean, real_tokens

AUTO_MAP = {
    "AutoConfig": "modeling_dan.HftDanConfig",
    "AutoModelForSequenceClassification": "modeling_dan.HftDanForSequenceClassification",
}


class HftDanConfig(PretrainedConfig):
    """Sizes of a DAN; the defaults are the paper's.

    Args:
        embedding_size: of the word vectors; None is hidden_size.
        word_dropout: chance that training ignores a whole token.
        initializer_range: standard deviation of the word vectors at the start.
    """

    model_type = "hft_dan"

    def __init__(
        self,
        vocab_size=30000,
        embedding_size=None,
        hidden_size=300,
        num_hidden_layers=3,
        word_dropout=0.3,
        classifier_dropout_prob=0.0,
        initializer_range=0.1,
        pad_token_id=None,
        **kwargs,
    ):
        embedding_size = hidden_size if embedding_size is None else embedding_size
        values = check_counts(vocab_size=vocab_size, hidden_size=hidden_size, embedding_size=embedding_size)
        values |= check_sizes(num_hidden_layers=num_hidden_layers)
        values |= check_shares(word_dropout=word_dropout, classifier_dropout_prob=classifier_dropout_prob)
        values |= check_amounts(initializer_range=initializer_range)
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class HftDanForSequenceClassification(PreTrainedModel):
    """Average the word vectors, then a stack of feed-forward layers, then a linear classifier."""

    config: HftDanConfig
    config_class = HftDanConfig
    base_model_prefix = "model"
    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _no_split_modules = []

    def __init__(self, config):
        super().__init__(config)
        sizes = [config.embedding_size, *[config.hidden_size] * config.num_hidden_layers]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.layers = nn.ModuleList(nn.Linear(one, two) for one, two in zip(sizes[:-1], sizes[1:], strict=True))
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(sizes[-1], config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):  # Glorot and Bengio 2010
            init.xavier_uniform_(module.weight)

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
            inputs_embeds: word vectors in place of input_ids, (B, T, E).
            labels: (B,) or (B, C), in the forms that classification_loss reads.

        Raises:
            ValueError: neither or both of input_ids and inputs_embeds.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds, and not both")
        embeds = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds  # (B, T, E)
        keep = real_tokens(embeds, attention_mask)
        if self.training:
            keep = drop_words(keep, self.config.word_dropout)
        hidden = masked_mean(embeds, keep)  # (B, E)
        for layer in self.layers:
            hidden = torch.relu(layer(hidden))  # (B, D)
        logits = self.score(self.dropout(hidden))
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)
