"""Trainer of reward models: rankings of K answers, a head that starts right, rewards whose mean means something.

It subclasses transformers' Trainer and not TRL's RewardTrainer, which knows pairs only (two halves of a batch in its
collator, its loss and its metrics), so that a ranking would be read as C(K, 2) pairs, each answer K - 1 times, and pairs
of one prompt would fall into different batches; and which reports every run to the Hub. For pairs the loss, the margins
and the penalty are TRL's. What InstructGPT fixes: one epoch, all pairs of a prompt in one batch element, learning rate
9e-6 with a cosine to 10% (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, Appendix C.2).
Shapes: B = prompts, N = answers of all prompts, K = most answers of a prompt.
"""

import torch
from transformers import TrainerCallback

from hftoolkit.data.preferences_batches import ABSENT
from hftoolkit.rl.reward_head import shift_rewards
from hftoolkit.rl.reward_model import RewardModel, read_rewards
from hftoolkit.rl.reward_objective import centre_penalty, ranking_loss
from hftoolkit.training.adaptation import without_adapter
from hftoolkit.training.ordered_evaluation import OrderedEvaluationTrainer


class RewardTrainer(OrderedEvaluationTrainer):
    """Trains a sequence classifier of one output on rows of data.preferences_batches, batched by PreferenceCollator.

    Evaluation gives, for compute_metrics, the rewards of each prompt's answers (rows, K) and their ranks, ABSENT where a
    prompt has fewer answers. Its loss is the mean of Equation 1 over all prompts, without margins and penalty, the same
    for any batches and any number of processes.

    Args:
        centre_coefficient: weight of reward_objective.centre_penalty; 0 leaves it out.
        demonstrations: rows of preferences_tokens.answer_tokens that have the mean reward 0 after the training; None
            leaves the rewards as they are.
    """

    def __init__(self, *args, centre_coefficient=0.0, demonstrations=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.centre_coefficient, self.demonstrations = centre_coefficient, demonstrations
        self.shift, self.bias_in_head = None, None
        self.args.remove_unused_columns = False  # ranks and margins are no arguments of a model
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the prompts of all accumulated batches
        if demonstrations is not None:
            self.add_callback(_ShiftAtTheEnd(self))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Mean of the prompts' losses; the outputs hold the rewards (N,)."""
        inputs = dict(inputs)
        sizes, ranks, margins = (inputs.pop(name) for name in ("labels", "ranks", "margins"))
        rewards = read_rewards(model, inputs, without_adapter(self.accelerator.unwrap_model(self.model)).config)
        losses = ranking_loss(rewards, ranks, sizes, margins)  # (B,)
        if self.centre_coefficient and model.training:
            losses = losses + self.centre_coefficient * centre_penalty(rewards, ranks, sizes)
        if num_items_in_batch is None:
            loss = losses.mean()
        else:  # in a distributed run Trainer takes the mean over the processes
            share = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = losses.sum() * share / num_items_in_batch
        return (loss, {"loss": loss, "rewards": rewards}) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss of the batch, rewards (B, K) and ranks (B, K)."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        sizes = inputs["labels"]
        present = torch.arange(int(sizes.max()), device=sizes.device) < sizes[:, None]  # (B, K)
        rewards = torch.zeros(present.shape, device=sizes.device).masked_scatter(present, outputs["rewards"])
        ranks = torch.full(present.shape, ABSENT, device=sizes.device).masked_scatter(present, inputs["ranks"])
        return loss.detach(), rewards, ranks

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs):
        """Trainer's loop; its loss would weigh the prompts of a last, smaller batch more."""
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if output.label_ids is not None:
            rewards, ranks = (torch.as_tensor(found) for found in (output.predictions, output.label_ids))  # (M, K)
            present = ranks != ABSENT
            losses = ranking_loss(rewards[present], ranks[present], present.sum(1))
            output.metrics[f"{metric_key_prefix}_loss"] = float(losses.mean())
        return output

    def mean_reward(self, rows):
        """Mean reward of rows of answer_tokens, computed by all processes together."""
        model, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        mine = rows[self.args.process_index :: self.args.world_size]
        sums = torch.zeros(2, device=self.args.device)
        if mine:
            rewards = RewardModel(model, self.processing_class, size).score_tokens(mine)
            sums = torch.stack([rewards.sum(), torch.tensor(float(len(mine)))]).to(sums)
        total, number = self.accelerator.reduce(sums, "sum").tolist()
        return total / number

    def shift_to_demonstrations(self):
        """Add a constant to all rewards, after which the demonstrations have the mean 0."""
        self.shift = -self.mean_reward(self.demonstrations)
        self.bias_in_head = shift_rewards(self.accelerator.unwrap_model(self.model), self.shift)


class _ShiftAtTheEnd(TrainerCallback):
    """Sets the constant after the last step, before the model is saved; a run resumed after it sets it too."""

    def __init__(self, trainer):
        self.trainer = trainer

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.shift_to_demonstrations()
