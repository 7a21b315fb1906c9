"""How latents are quantised in training: soft rounding, its inverse, the order of the phases."""

import pytest
import torch

from rcccodec.baselines.rounding import Rounding, expected, schedule, soft_round

Y = torch.linspace(-3.3, 3.3, 997, dtype=torch.float64)


def test_soft_rounding_goes_from_the_identity_to_rounding():
    assert torch.allclose(soft_round(Y, 1e-3), Y, atol=1e-6)
    away = (Y - torch.floor(Y) - 0.5).abs() > 0.02
    assert torch.allclose(soft_round(Y, 400.0)[away], torch.round(Y)[away], atol=1e-4)
    assert not torch.allclose(soft_round(Y, 5.0), Y, atol=0.05)  # control: in between it is neither
    assert (soft_round(Y, 5.0).diff() > 0).all()


@pytest.mark.parametrize("alpha", [0.5, 3.0, 8.0])
def test_the_synthesis_sees_the_mean_of_what_was_softly_rounded(alpha):
    y = torch.linspace(-20, 20, 4_000_001, dtype=torch.float64)  # a flat density
    torch.manual_seed(0)
    v = soft_round(y, alpha) + torch.rand_like(y) - 0.5
    inside = ((v - 0.3).abs() < 0.01, (v + 1.2).abs() < 0.01)
    for chosen in inside:
        mean = y[chosen].mean()
        assert expected(v, alpha)[chosen].mean() == pytest.approx(float(mean), abs=0.02)
    if alpha > 2:  # control: without r the synthesis would see something else
        assert abs(float(v[inside[0]].mean() - y[inside[0]].mean())) > 0.05


def test_only_hard_rounding_lets_the_analysis_rest():
    for mode, moves in (("noise", True), ("soft", True), ("hard", False)):
        y = Y.clone().requires_grad_()
        charged, seen = Rounding(mode, 2.0)(y)
        assert (charged.requires_grad and seen.requires_grad) is moves
    charged, seen = Rounding("hard")(Y)
    assert torch.equal(charged, torch.round(Y))
    assert torch.equal(seen, charged)


def test_training_goes_from_noise_over_soft_to_hard():
    modes = [schedule(i / 100, 0.3, 0.8, 6.0) for i in range(100)]
    assert [r.mode for r in modes] == ["noise"] * 30 + ["soft"] * 50 + ["hard"] * 20
    alphas = [r.alpha for r in modes if r.mode == "soft"]
    assert alphas == sorted(alphas)
    assert alphas[-1] == pytest.approx(6.0, rel=0.05)
    assert {schedule(i / 100, 1.0, 0.9, 6.0).mode for i in range(100)} == {"noise", "hard"}
