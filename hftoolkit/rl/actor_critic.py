"""A policy and its value function as one module: what Trainer wraps, clips, optimises and saves together.

The value function is a linear head on the policy's last hidden states (Ziegler et al. 2019), or a model of its own that
begins as the reward model (Ouyang et al. 2022, Appendix C.4).
Shapes: B = rows, T = tokens of the longest row, N = tokens of responses, D = hidden size, V = vocabulary.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hftoolkit.errors import CheckpointError
from hftoolkit.training.adaptation import without_adapter

CHUNK_LOGITS = 2**25  # logits computed at a time; more are computed again in backward instead of kept


class TokenScores(NamedTuple):
    """Of the tokens of all responses, row by row: log-probabilities and values, (N,) each."""

    logprobs: torch.Tensor
    values: torch.Tensor


def predicting(attention_mask, prompt_lengths):
    """True at the positions whose next token belongs to the response, (B, T).

    Args:
        attention_mask: 1 at the tokens of prompt and response, padding on the right, (B, T).
        prompt_lengths: (B,), at least 1.
    """
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    lengths = attention_mask.sum(dim=1, keepdim=True)
    return (position >= prompt_lengths.unsqueeze(1) - 1) & (position < lengths - 1)


def last_hidden_state(model, input_ids, attention_mask):
    """Hidden states of rows with padding on the right, (B, T, D).

    A causal model never looks to the right, so the padding needs no mask, and without one the fastest kernel is
    taken; models of this package take the mask to leave the padding out.
    """
    inner = without_adapter(model)
    mask = attention_mask if inner.config.model_type.startswith("hft_") else None
    return inner.base_model(input_ids=input_ids, attention_mask=mask, use_cache=False).last_hidden_state


def token_logprobs(hidden, head, targets, temperature=1.0):
    """Log-probabilities of the targets, (N,) in float32, without the logits of all positions in memory.

    Args:
        hidden: (N, D).
        head: the linear layer to the vocabulary.
        targets: token ids, (N,).
    """

    def of_some(rows, ids):
        logits = head(rows).float()  # (n, V)
        logits = logits if temperature == 1 else logits / temperature
        return -nn.functional.cross_entropy(logits, ids, reduction="none")

    size = max(1, CHUNK_LOGITS // head.weight.shape[0])
    if len(hidden) <= size:
        return of_some(hidden, targets)
    pieces = zip(hidden.split(size), targets.split(size), strict=True)
    options = {"use_reentrant": False, "preserve_rng_state": False}  # nothing random happens in it
    return torch.cat([checkpoint(of_some, *piece, **options) for piece in pieces])


class ActorCritic(nn.Module):
    """The policy with a value head on its trunk (`value_model` None), or beside a value model.

    Args:
        policy: a causal language model of transformers, or a PEFT model around one.
        value_model: a sequence-classification model with one label and a linear layer `score`.

    Raises:
        CheckpointError: no causal model; a value model without a scalar head.
    """

    def __init__(self, policy, value_model=None, temperature=1.0):
        super().__init__()
        inner = without_adapter(policy)
        if inner.get_output_embeddings() is None or getattr(inner.config, "is_encoder_decoder", False):
            raise CheckpointError(
                f"the policy must be a causal language model, got {type(inner).__name__}: load AutoModelForCausalLM"
            )
        self.policy, self.value_model, self.temperature = policy, value_model, temperature
        self.checkpointing = False
        if value_model is None:
            hidden_size = inner.get_output_embeddings().weight.shape[1]
            self.value_head = nn.Linear(hidden_size, 1, device=inner.device)
            nn.init.zeros_(self.value_head.weight)  # lm-human-preferences, policy.py: scale 0
            nn.init.zeros_(self.value_head.bias)
        else:
            head = getattr(without_adapter(value_model), "score", None)
            if head is None or getattr(head, "out_features", None) != 1:
                raise CheckpointError(
                    f"the value model {type(without_adapter(value_model)).__name__} has no scalar head `score`: load it "
                    "with AutoModelForSequenceClassification and num_labels=1"
                )
        self.train()

    @property
    def config(self):
        """The policy's."""
        return without_adapter(self.policy).config

    @property
    def _no_split_modules(self):
        """Classes of the layers of both models, which FSDP shares out one by one."""
        inner = [without_adapter(model) for model in (self.policy, self.value_model) if model is not None]
        named = {name for model in inner for name in model._no_split_modules or ()}
        return sorted(named & {type(module).__name__ for module in self.modules()})

    @property
    def shown_name(self):
        """What a screen calls the pair."""
        models = [
            type(without_adapter(model)).__name__ for model in (self.policy, self.value_model) if model is not None
        ]
        return f"{models[0]} with {'a value head' if self.value_model is None else f'{models[1]} as value function'}"

    @property
    def exported_model(self):
        """What a run leaves for others."""
        return self.policy

    def gradient_checkpointing_enable(self, *args, **kwargs):
        """Keep fewer activations, in policy and value model; the arguments are those of transformers' models."""
        self.checkpointing = True
        for model in filter(None, (self.policy, self.value_model)):
            model.gradient_checkpointing_enable(*args, **kwargs)

    def train(self, mode=True):
        """Dropout never acts (lm-human-preferences has none): the modules stay in evaluation mode.

        Gradient checkpointing works in training mode alone; there the dropout rates are set to 0, not in the config.
        """
        super().train(mode and self.checkpointing)
        if self.training:
            for module in self.modules():
                for name, value in vars(module).items():
                    if isinstance(value, float) and (name == "p" or "drop" in name):
                        setattr(module, name, 0.0)
        return self

    def value_parameters(self):
        """The weights that only the value function has."""
        return list((self.value_head if self.value_model is None else self.value_model).parameters())

    def forward(self, input_ids, attention_mask, prompt_lengths, ptx_input_ids=None, with_last_value=False):
        """Log-probability and value at every token of the responses.

        Args:
            input_ids: prompts and responses, padding on the right, (B, T).
            attention_mask: 1 at prompt and response, (B, T).
            prompt_lengths: (B,).
            ptx_input_ids: rows of pretraining text without padding; adds their language-model loss.
            with_last_value: also the value after the last token of each row, (B,).

        Returns:
            (TokenScores, the loss of ptx_input_ids in nats per token or None, values after the last tokens or None).
        """
        places = predicting(attention_mask, prompt_lengths)
        targets = input_ids[:, 1:][places[:, :-1]]
        hidden = last_hidden_state(self.policy, input_ids, attention_mask)
        head = without_adapter(self.policy).get_output_embeddings()
        logprobs = token_logprobs(hidden[places], head, targets, self.temperature)
        all_values = self.all_values(input_ids, attention_mask, hidden)
        ends = attention_mask.sum(dim=1, keepdim=True) - 1
        last = all_values.gather(1, ends).squeeze(1) if with_last_value else None
        ptx_loss = None
        if ptx_input_ids is not None:
            states = last_hidden_state(self.policy, ptx_input_ids, torch.ones_like(ptx_input_ids))[:, :-1]
            ptx_loss = -token_logprobs(states.flatten(0, 1), head, ptx_input_ids[:, 1:].flatten()).mean()
        return TokenScores(logprobs, all_values[places]), ptx_loss, last

    def all_values(self, input_ids, attention_mask, policy_hidden):
        """Value at every position, (B, T) in float32; a value model's include its config.reward_bias, as its rewards do."""
        if self.value_model is None:
            with torch.autocast(policy_hidden.device.type, enabled=False):  # values keep the precision of the head
                return self.value_head(policy_hidden.to(self.value_head.weight.dtype)).squeeze(2).float()
        hidden = last_hidden_state(self.value_model, input_ids, attention_mask)
        inner = without_adapter(self.value_model)
        return inner.score(hidden).squeeze(2).float() + getattr(inner.config, "reward_bias", 0.0)
