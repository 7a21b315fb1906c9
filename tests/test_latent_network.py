"""Rate and distortion of a training step against independent sums."""

import dataclasses
import math

import pytest
import torch
from tiny_latent import SPEC, random_network, smooth_picture
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from rcccodec.baselines.rounding import Rounding
from rcccodec.fields import MAX_RUNG
from rcccodec.latent.network import CLASS_DISCOUNT, CODING, FIRST_NOISE, REACH, LatentNetwork
from rcccodec.latent.spec import MAX_SLOPES, LatentSpec

SLOPES = torch.tensor([0, 1, 0, 1])


def crops(count: int = 4) -> Tensor:
    pictures = [torch.from_numpy(smooth_picture(32, 32, seed)) for seed in range(count)]
    return torch.stack(pictures).float().reshape(count, -1) / 255


def with_classes(network: LatentNetwork) -> LatentNetwork:
    """Random ones, so near that several matter."""
    random = torch.Generator().manual_seed(5)
    for value, size in (
        (network.class_centre, 1.0),
        (network.class_log_scale, 0.3),
        (network.class_logits, 1.0),
    ):
        value.copy_(size * torch.randn(value.shape, generator=random))
    return network


@pytest.fixture
def network() -> LatentNetwork:
    made = with_classes(random_network())
    made.g_a[-1].weight.mul_(0.02)
    return made


def costs(network: LatentNetwork, row: Tensor, slope: int) -> tuple[Tensor, Tensor]:
    """Divergence less the discounted log share, (classes, positions), and means (M, positions), of a crop."""
    mean, log_noise = network.analysis(row.view(1, 32, 32, 3).permute(0, 3, 1, 2), torch.tensor([slope]))
    mean, log_noise = mean[0].flatten(1), log_noise[0].flatten(1)
    share = network.class_logits[slope].softmax(0)
    each = []
    for c in range(SPEC.classes):
        prior = Normal(
            network.class_centre[slope, c][:, None], network.class_log_scale[slope, c].exp()[:, None]
        )
        divergence = kl_divergence(Normal(mean, log_noise.exp()), prior).sum(0)
        each.append(divergence - CLASS_DISCOUNT * share[c].log())
    return torch.stack(each), mean


def test_rates_marginalise_classes_first_and_take_the_cheapest_later(network) -> None:
    x = crops()
    soft, _ = network.rate_and_distortion(x, SLOPES, Rounding("noise"))
    hard, _ = network.rate_and_distortion(x, SLOPES, Rounding("soft"))
    last, _ = network.rate_and_distortion(x, SLOPES, Rounding("hard"))
    assert soft.shape == hard.shape == (4,)
    for row, slope in enumerate(SLOPES.tolist()):
        each, _ = costs(network, x[row], slope)
        assert float(soft[row]) == pytest.approx(float(-each.neg().exp().sum(0).log().sum()), rel=1e-4)
        assert float(hard[row]) == pytest.approx(float(each.min(0).values.sum()), rel=1e-4)
        other, _ = costs(network, x[row], 1 - slope)
        assert float(hard[row]) != pytest.approx(float(other.min(0).values.sum()), rel=1e-2)
    assert torch.equal(hard, last)
    assert (soft < hard).all()


def test_rows_take_slopes_in_turn(network) -> None:
    x = crops()
    rates = network.rate_and_distortion(x, SLOPES, Rounding("hard"))[0]
    swapped = network.rate_and_distortion(x[[1, 0, 3, 2]], SLOPES, Rounding("hard"))[0]
    again = network.rate_and_distortion(x[[2, 3, 0, 1]], SLOPES, Rounding("hard"))[0]
    assert torch.allclose(again, rates[[2, 3, 0, 1]], rtol=1e-5)
    assert not torch.allclose(swapped, rates[[1, 0, 3, 2]], rtol=1e-2)


def test_the_distortion_is_that_of_a_sample_through_the_synthesis(network) -> None:
    x = crops()
    torch.manual_seed(3)
    _, found = network.rate_and_distortion(x, SLOPES, Rounding("noise"))
    torch.manual_seed(3)
    pictures = x.view(-1, 32, 32, 3).permute(0, 3, 1, 2)
    mean, log_noise = network.analysis(pictures, SLOPES)
    made = network.synthesis(mean + log_noise.exp() * torch.randn_like(mean), SLOPES)
    expected = ((made - pictures) ** 2).sum((1, 2, 3))
    assert torch.allclose(found, expected, rtol=1e-4)


def test_what_is_seen_of_a_mean_is_within_reach_of_its_class(network) -> None:
    rows = torch.linspace(-30, 30, 40)[:, None].expand(40, SPEC.latent_dim)
    classes = torch.arange(40) % SPEC.classes
    found = network._within_reach(rows, classes, 1)
    centre, scale = network.class_centre[1][classes], network.class_log_scale[1][classes].exp()
    away = (found - centre) / scale
    assert away.abs().max() <= REACH + 1e-4
    inside = ((rows - centre) / scale).abs() <= REACH
    assert 0 < inside.float().mean() < 1
    assert torch.equal(found[inside], rows[inside])
    assert torch.allclose(away[~inside].abs(), torch.tensor(REACH), atol=1e-3)
    assert (away[~inside].sign() == (rows - centre)[~inside].sign()).all()


def test_means_out_of_reach_are_seen_nearer_once_classes_are_chosen(network) -> None:
    network.class_log_scale.fill_(-4.0)  # so narrow that nearly all are out of reach
    x = crops()
    seen = []
    network.synthesis = lambda y, slope: seen.append(y) or torch.zeros(4, 3, 32, 32)
    for mode in ("noise", "hard"):
        torch.manual_seed(1)
        network.rate_and_distortion(x, SLOPES, Rounding(mode))
    mean, log_noise = network.analysis(x.view(-1, 32, 32, 3).permute(0, 3, 1, 2), SLOPES)
    torch.manual_seed(1)
    noise = log_noise.exp() * torch.randn_like(mean)
    assert torch.allclose(seen[0] - noise, mean, atol=1e-5)
    for row, slope in enumerate(SLOPES.tolist()):
        each, means = costs(network, x[row], slope)
        clipped = network._within_reach(means.T, each.argmin(0), slope).T
        assert torch.allclose((seen[1] - noise)[row].flatten(1), clipped, atol=1e-4)
        assert not torch.allclose(clipped, means, atol=1e-2)


@pytest.mark.parametrize("mode", ["noise", "hard"])
def test_every_parameter_has_a_gradient(network, mode: str) -> None:
    network.requires_grad_(True)
    nats, distortion = network.rate_and_distortion(crops(), SLOPES, Rounding(mode))
    (nats + distortion).sum().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None, name
        assert value.grad.isfinite().all(), name
        assert (value.grad != 0).any(), name


def test_noise_and_gains_begin_as_they_should() -> None:
    torch.manual_seed(0)
    network = LatentNetwork(SPEC)
    _, log_noise = network.analysis(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    assert torch.allclose(log_noise, torch.tensor(math.log(FIRST_NOISE)))
    plain = network.g_a(torch.zeros(1, 3, 32, 32))[:, : SPEC.latent_dim]
    low, high = (network.analysis(torch.zeros(1, 3, 32, 32), torch.tensor([k]))[0] for k in (0, 1))
    assert torch.allclose(
        high / plain, (network.log_gain[1].exp())[None, :, None, None].expand_as(plain), rtol=1e-3
    )
    assert (high.abs() > low.abs()).all()
    assert torch.equal(network.log_gain, -network.log_gain_back)


def test_the_noise_is_bounded() -> None:
    network = random_network()
    network.noise_bias[0], network.noise_bias[1] = -100, 100
    for slope, bound in ((0, -6.0), (1, 4.0)):
        log_noise = network.analysis(torch.rand(1, 3, 32, 32), torch.tensor([slope]))[1]
        assert (log_noise == bound).all()


def test_classes_are_fitted_so_that_pictures_cost_less_and_dropped_with_a_trace_of_nothing() -> None:
    network = random_network()
    x = crops(8)
    slopes = torch.arange(8) % 2
    before = network.rate_and_distortion(x, slopes, Rounding("hard"))[0]
    network.fit_classes(x.view(-1, 32, 32, 3).permute(0, 3, 1, 2))
    after = network.rate_and_distortion(x, slopes, Rounding("hard"))[0]
    assert after.sum() < before.sum()
    assert torch.allclose(network.class_logits.exp().sum(1), torch.ones(2))
    assert len(network.class_centre[0].unique(dim=0)) > 1
    network.drop_classes()
    assert all(name.startswith(CODING) for name, _ in network.named_parameters())


def test_a_spec_comes_back_from_json_and_holds_its_bounds() -> None:
    assert LatentSpec.from_json(SPEC.to_json()) == SPEC
    assert (SPEC.dim, SPEC.images_per_code, SPEC.photographs) == (32 * 32 * 3, 1, True)
    for fields in (
        {"shape": (32, 33, 3)}, {"shape": (32, 32, 1)}, {"shape": (2048, 32, 3)}, {"shape": (32, 32)},
        {"betas": ()}, {"betas": (1.0, 1.0)}, {"betas": (2.0, 1.0)}, {"betas": (0.0, 1.0)},
        {"betas": (1.0, math.nan)}, {"betas": (1.0, math.inf)}, {"betas": tuple(map(float, range(1, 18)))},
        {"latent_dim": 321}, {"latent_dim": 0}, {"width": 321}, {"width": 1.5}, {"classes": 257},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"size|sides|shape|slopes|latents|width|classes"):
            dataclasses.replace(SPEC, **fields)
    most = dataclasses.replace(SPEC, betas=tuple(map(float, range(1, MAX_RUNG + 2))))
    assert len(most.betas) == MAX_SLOPES  # no more than a header can name
    for fields in ({"shape": [32, 32, 3]}, {**SPEC.to_json(), "extra": 1}, {**SPEC.to_json(), "betas": 3}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            LatentSpec.from_json(fields)
