"""The coefficient of the KL penalty, fixed or steered towards a target.

Paper: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, Section 2.2; openai/lm-human-preferences, commit cbfd210,
train_policy.py, lines 115-124, for the horizon.
"""

from dataclasses import dataclass

LARGEST_ERROR = 0.2  # of one rollout, as a share of the target (Ziegler et al. 2019, Section 2.2)


@dataclass
class KLController:
    """beta; with a target it grows by at most a fifth of episodes / horizon a rollout while the KL is above it.

    e = clip(KL / target - 1, -0.2, 0.2); beta <- beta (1 + e episodes / horizon).

    Args:
        coefficient: beta at the beginning.
        target: of the KL per response, in nats; None leaves beta as it is.
        horizon: episodes in which beta can change by a factor of about e^0.2; above a fifth of those of a rollout, or
            beta could become negative (PPOConfig sees to it).
    """

    coefficient: float
    target: float | None = None
    horizon: int = 10_000

    def update(self, kl, episodes):
        """Renew beta after a rollout of so many episodes with this mean KL per response, in nats."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -LARGEST_ERROR), LARGEST_ERROR)
            self.coefficient *= 1 + error * episodes / self.horizon
