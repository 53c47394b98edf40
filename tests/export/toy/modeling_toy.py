"""A bag of words with two heads: the smallest architecture that exports as ours do."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from .layers_toy import masked_mean

AUTO_MAP = {
    "AutoConfig": "modeling_toy.ToyConfig",
    "AutoModel": "modeling_toy.ToyModel",
    "AutoModelForSequenceClassification": "modeling_toy.ToyForSequenceClassification",
}


class ToyConfig(PretrainedConfig):
    model_type = "toy"

    def __init__(self, vocab_size=64, hidden_size=8, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        super().__init__(**kwargs)


class ToyModel(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        return BaseModelOutput(last_hidden_state=torch.tanh(self.embed_tokens(input_ids)))


class ToyForSequenceClassification(PreTrainedModel):
    config_class = ToyConfig
    base_model_prefix = "model"

    def __init__(self, config):
        super().__init__(config)
        self.model = ToyModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        keep = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.model(input_ids).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(masked_mean(hidden, keep)))
