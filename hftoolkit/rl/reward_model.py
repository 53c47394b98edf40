"""A reward model as PPO calls it: texts in, one number each out.

    rewards = RewardModel(model, tokenizer)(prompts, completions)   # (N,) float32

It gets texts, not tokens: the policy may have another tokenizer. Each text is tokenized as in training (see
hftoolkit.data.preferences_tokens) and scored in batches of bounded size, texts of similar length together.
Shapes: N = texts, T = tokens of the longest text of a batch.
"""

import torch

from hftoolkit.data.preferences_tokens import answer_tokens, length_limit, pad_right
from hftoolkit.errors import CheckpointError, DataError
from hftoolkit.training.adaptation import without_adapter


class RewardModel:
    """Scores texts with a sequence classifier of one output; the model is read in evaluation, without gradients.

    A stock class whose head has no bias carries the shift of its rewards in config.reward_bias (see
    hftoolkit.rl.reward_head); it is added here.

    Args:
        model: any ...ForSequenceClassification with one label; stays on its device.
        tokenizer: the model's own.
        batch_size: texts that are scored at once; one by one where neither model nor tokenizer has a padding token.
        max_length: tokens of a text that are read; None is as many as model and tokenizer allow.

    Raises:
        CheckpointError: the model has another number of outputs than one.
        DataError: max_length is more than the model reads; from a call, a wrong number of texts, or no text.
    """

    def __init__(self, model, tokenizer, batch_size=16, max_length=None):
        require_scalar_head(model)
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1")
        config = without_adapter(model).config
        if config.pad_token_id is None:  # stock classes tell padding by its id
            config.pad_token_id = tokenizer.pad_token_id
        self.model, self.tokenizer, self.pad_token_id = model, tokenizer, config.pad_token_id
        self.batch_size = 1 if self.pad_token_id is None else batch_size
        self.max_length = length_limit(tokenizer, without_adapter(model), max_length)

    def __call__(self, prompts: list[str], completions: list[str]) -> torch.Tensor:
        """Rewards of the completions, (N,) float32 on the CPU; a completion may be empty."""
        if len(prompts) != len(completions):
            raise DataError(f"{len(prompts)} prompts, but {len(completions)} completions: give as many of each")
        for name, texts in (("prompt", prompts), ("completion", completions)):
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise DataError(f"{name} {number} is {type(text).__name__}, not text")
        return self.score_tokens(answer_tokens(self.tokenizer, prompts, completions, self.max_length))

    def score_tokens(self, rows) -> torch.Tensor:
        """Rewards of rows of answer_tokens, (N,) float32 on the CPU."""
        rewards = torch.empty(len(rows))
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number]["input_ids"]))
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                for begin in range(0, len(order), self.batch_size):
                    part = order[begin : begin + self.batch_size]
                    rewards[part] = self._score([rows[number] for number in part])
        finally:
            self.model.train(training)
        return rewards

    def _score(self, rows):
        batch = pad_right(rows, self.pad_token_id)
        return read_rewards(self.model, {name: value.to(self.model.device) for name, value in batch.items()}).cpu()


def read_rewards(model, batch, config=None):
    """Rewards (N,) float32 of a padded batch, the shift in config.reward_bias included.

    Args:
        config: of the model; needed where the model is wrapped, as in a distributed run.
    """
    config = without_adapter(model).config if config is None else config
    return model(**batch).logits[:, 0].float() + getattr(config, "reward_bias", 0.0)  # (N,)


def require_scalar_head(model):
    """Refuse a model that does not give one number for each text.

    Raises:
        CheckpointError: naming its class and its number of outputs.
    """
    config = without_adapter(model).config
    if config.num_labels != 1:
        raise CheckpointError(
            f"{type(without_adapter(model)).__name__} of {config.name_or_path or 'this model'} has {config.num_labels} "
            "outputs; a reward model has one: load AutoModelForSequenceClassification with num_labels=1, or train one "
            "with recipes/reward.py"
        )
