"""Convolutional network for sentences (Kim CNN): n-gram detectors, the strongest match of each, a linear classifier.

Paper: Kim 2014, "Convolutional Neural Networks for Sentence Classification", https://arxiv.org/abs/1408.5882, Section 2;
the limit on the norm of the classifier's weights (Section 2.1) belongs to the training: hftoolkit.training.max_norm.
Differs from it: a window may reach over either end of a sentence, where it reads zeros, as in the author's program, but
never stands in padding alone, so that a sentence's answer does not depend on its neighbours in the batch.
Shapes: B = rows, T = tokens of a row, E = embedding_size, F = num_filters, W = windows of a row, C = classes.
"""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, modeling_outputs
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from .layers_checks import check_amounts, check_counts, check_shares
from .layers_losses import classification_loss
from .layers_pooling import drop_words, masked_max, real_tokens

AUTO_MAP = {
    "AutoConfig": "modeling_textcnn.HftTextCnnConfig",
    "AutoModelForSequenceClassification": "modeling_textcnn.HftTextCnnForSequenceClassification",
}


class HftTextCnnConfig(PretrainedConfig):
    """Sizes of a CNN; the defaults are the paper's.

    Args:
        filter_sizes: how many words each kind of filter reads, a list.
        num_filters: of each kind.
        word_dropout: chance that training reads zeros in place of a word.
        classifier_dropout_prob: dropout of the strongest matches.
        initializer_range: standard deviation of the word vectors at the start.
    """

    model_type = "hft_textcnn"

    def __init__(
        self,
        vocab_size=30000,
        embedding_size=300,
        filter_sizes=(3, 4, 5),
        num_filters=100,
        word_dropout=0.0,
        classifier_dropout_prob=0.5,
        initializer_range=0.1,
        pad_token_id=None,
        **kwargs,
    ):
        values = check_counts(vocab_size=vocab_size, embedding_size=embedding_size, num_filters=num_filters)
        sizes = filter_sizes if isinstance(filter_sizes, list | tuple) else ()
        if not sizes or not all(type(size) is int and size >= 1 for size in sizes):
            raise ValueError(f"filter_sizes must be a list of whole numbers of at least 1, got {filter_sizes!r}")
        values |= check_shares(word_dropout=word_dropout, classifier_dropout_prob=classifier_dropout_prob)
        values |= check_amounts(initializer_range=initializer_range) | {"filter_sizes": list(filter_sizes)}
        for name, value in values.items():
            setattr(self, name, value)
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(pad_token_id=pad_token_id, **kwargs)


class HftTextCnnForSequenceClassification(PreTrainedModel):
    """Filters over windows of words, ReLU, the maximum over time, dropout, a linear classifier."""

    config: HftTextCnnConfig
    config_class = HftTextCnnConfig
    base_model_prefix = "model"
    accepts_loss_kwargs = True  # the loss is divided by num_items_in_batch here
    _no_split_modules = []

    def __init__(self, config):
        super().__init__(config)
        E, F = config.embedding_size, config.num_filters
        self.embed_tokens = nn.Embedding(config.vocab_size, E)
        self.convolutions = nn.ModuleList(nn.Conv1d(E, F, size, padding=size - 1) for size in config.filter_sizes)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.score = nn.Linear(F * len(config.filter_sizes), config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear | nn.Conv1d):  # Glorot and Bengio 2010
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
        real = real_tokens(embeds, attention_mask)
        read = drop_words(real, self.config.word_dropout) if self.training else real
        embeds = embeds.masked_fill(~read.unsqueeze(-1), 0.0).transpose(1, 2)  # (B, E, T)
        sizes = zip(self.convolutions, self.config.filter_sizes, strict=True)
        strongest = [self._strongest(convolution, size, embeds, real) for convolution, size in sizes]
        logits = self.score(self.dropout(torch.cat(strongest, -1)))
        loss = None if labels is None else classification_loss(logits, labels, self.config, num_items_in_batch)
        return modeling_outputs.SequenceClassifierOutput(loss=loss, logits=logits)

    def _strongest(self, convolution, size, embeds, real):
        """The strongest match of each filter in any window with a real word; (B, E, T) and (B, T) to (B, F)."""
        if embeds.shape[-1] == 0:
            return embeds.new_zeros(embeds.shape[0], self.config.num_filters)
        windows = nn.functional.pad(real.float(), (size - 1, size - 1)).unfold(1, size, 1).amax(-1) > 0  # (B, W)
        return torch.relu(masked_max(convolution(embeds).transpose(1, 2), windows))
