"""The head of a reward model: how it starts, and the constant that sets the mean of its rewards.

Preferences say nothing of a constant added to all rewards, but a policy's training does depend on it. InstructGPT
(Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Section 3.5) sets the bias so that demonstrations have the mean
reward 0. A head with a bias holds it: the plain class reads the same rewards. Stock decoders' heads have none: then it
lies in config.reward_bias, which hftoolkit.rl.reward_model and a value function of PPO add and a plain class does not.
"""

import inspect
import math

import torch
from torch import nn
from transformers import PretrainedConfig

from hftoolkit.errors import CheckpointError
from hftoolkit.training.adaptation import without_adapter


def is_reward_model(source, revision=None):
    """Whether a checkpoint is a classifier already, whose head is to be kept."""
    try:
        config, _ = PretrainedConfig.get_config_dict(source, revision=revision)
    except OSError:
        return False  # loading it says what is wrong
    return any(name.endswith("ForSequenceClassification") for name in config.get("architectures") or [])


def new_head(model):
    """Give a model the head that a reward model starts with: weights N(0, 1 / (d + 1)), bias 0.

    Source: openai/lm-human-preferences, commit cbfd210, model.py, fc_layer; vwxyzjn/summarize_from_feedback_details,
    commit ee77a9a, reward.py, lines 200 to 203 (a standard deviation of 1 / sqrt(d + 1)). A GPT of ours gets a bias.
    """
    head = reward_head(model)
    if head.bias is None and "score_bias" in model.config.to_dict():
        model.config.score_bias = True
        head.bias = nn.Parameter(torch.zeros(1, device=head.weight.device, dtype=head.weight.dtype))
    with torch.no_grad():
        nn.init.normal_(head.weight, std=1 / math.sqrt(head.in_features + 1))
        if head.bias is not None:
            head.bias.zero_()
    return model


def reads_shared_prompts(model):
    """Whether a classifier reads all answers to a prompt in one row: preferences_batches.shared_rows."""
    model = without_adapter(model)
    masks = model.config._attn_implementation in ("sdpa", "eager")
    return masks and "last_positions" in inspect.signature(model.forward).parameters


def reward_head(model):
    """The linear layer that gives the reward; of a model with an adapter (PEFT) the one that is trained.

    Raises:
        CheckpointError: there is none with one output.
    """
    found = [one for one in model.modules() if isinstance(one, nn.Linear) and one.out_features == 1]
    trained = [one for one in found if one.weight.requires_grad]
    if not found:
        raise CheckpointError(f"{type(model).__name__} has no linear layer with one output: it cannot give a reward")
    return (trained or found)[-1]


def shift_rewards(model, amount):
    """Add a constant to every reward; True where the head's bias holds it, False where config.reward_bias does."""
    head = reward_head(model)
    if head.bias is not None:
        with torch.no_grad():
            head.bias.add_(amount)
        return True
    config = without_adapter(model).config
    config.reward_bias = getattr(config, "reward_bias", 0.0) + amount
    return False


def without_dropout(model):
    """Switch dropout off, as lm-human-preferences does in all its models: a reward must not depend on chance.

    The config says so too, so that what is built from it, such as a value model, has none either.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
    for name, value in model.config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(model.config, name, 0.0)
    return model
