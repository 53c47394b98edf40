"""The KL controller against the rule of Ziegler et al. 2019, Section 2.2."""

import pytest

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
