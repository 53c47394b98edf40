"""The KL controller against the rule of Ziegler et al. 2019, Section 2.2."""

import pytest

from hftoolkit.rl.config import PPOConfig
from hftoolkit.rl.kl_control import KLController


@pytest.mark.parametrize(("kl", "error"), [(6.0, 0.0), (6.6, 0.1), (60.0, 0.2), (5.4, -0.1), (0.0, -0.2)])
def test_one_update(kl, error):
    control = KLController(0.15, target=6.0, horizon=10_000)
    control.update(kl, episodes=512)
    assert control.coefficient == pytest.approx(0.15 * (1 + error * 0.0512))


def test_without_a_target_it_is_fixed():
    control = KLController(0.05)
    control.update(1000.0, episodes=512)
    assert control.coefficient == 0.05


def test_a_horizon_at_which_a_rollout_could_turn_the_penalty_round_is_refused(tmp_path):
    settings = dict(output_dir=str(tmp_path), rollout_batch_size=512, kl_target=1.5, use_cpu=True)
    with pytest.raises(
        ValueError, match=r"above 0.2 x rollout_batch_size .* got 102 with rollout_batch_size 512: .*5120"
    ):
        PPOConfig(**settings, kl_horizon=102)
    args = PPOConfig(**settings, kl_horizon=103)
    control = KLController(args.kl_coef, args.kl_target, args.kl_horizon)
    control.update(0.0, args.rollout_batch_size)
    assert control.coefficient > 0
    assert PPOConfig(**settings | {"kl_target": None}, kl_horizon=1).kl_horizon == 1  # nothing is steered
