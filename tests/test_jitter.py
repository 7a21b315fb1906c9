"""Random affine maps of training images: small, centred, repeatable, and none where none is asked for."""

import pytest
import torch

from rcccodec.training.jitter import jitter

SHAPE = (16, 24, 3)


def images(count: int) -> torch.Tensor:
    """A smooth bump in the middle of black images, another place in each channel."""
    rows, columns = torch.arange(16.0)[:, None], torch.arange(24.0)
    places = ((8.0, 12.0), (6.0, 12.0), (8.0, 15.0))
    bumps = [torch.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 8) for r, c in places]
    return torch.stack(bumps, 2).flatten().expand(count, -1).contiguous()


def moved(strength: float, count: int = 400) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return jitter(images(count), SHAPE, strength)


def centres(x: torch.Tensor) -> torch.Tensor:
    """(n, channel, row or column) of the centre of mass."""
    x = x.view(-1, *SHAPE)
    mass = x.sum((1, 2))
    rows = (x.sum(2) * torch.arange(16.0)[:, None]).sum(1) / mass
    columns = (x.sum(1) * torch.arange(24.0)[:, None]).sum(1) / mass
    return torch.stack([rows, columns], 2)


def test_no_strength_is_no_change_and_no_draw():
    before = torch.get_rng_state()
    x = images(2)
    assert jitter(x, SHAPE, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_a_vanishing_strength_leaves_the_pixels():
    torch.testing.assert_close(moved(1e-6, 3), images(3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_pictures_move_a_fraction_of_a_pixel_either_way(strength: float):
    x = moved(strength)
    assert x.shape == (400, 16 * 24 * 3)
    assert 0 <= x.min() <= x.max() <= 1
    shift = centres(x) - centres(images(1))
    assert shift.mean(0).abs().max() < 0.1
    spread = shift[:, 0].std(0)
    assert (0.1 * strength < spread).all()
    assert (spread < 0.8 * strength).all()


def test_stronger_is_further_and_the_same_seed_is_the_same():
    gaps = [(moved(strength) - images(400)).square().sum(1).mean() for strength in (0.3, 1.0, 3.0)]
    assert gaps[0] < gaps[1] < gaps[2]
    assert torch.equal(moved(1.0, 5), moved(1.0, 5))


def test_every_image_moves_its_own_way_with_its_channels_together():
    x = moved(1.0, 50)
    assert len({tuple(row.tolist()) for row in x[:, :200]}) == 50
    apart = centres(x)
    gap = (apart[:, 1] - apart[:, 0]) - (centres(images(1))[:, 1] - centres(images(1))[:, 0])
    assert gap.abs().max() < 1.0  # two pixels apart before, and turned or scaled by little
