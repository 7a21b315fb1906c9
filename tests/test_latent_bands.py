"""Pictures in bands: the same pixels as all at once, in memory for a few rows of tiles; damage met first."""

import numpy as np
import pytest
import torch
from tiny_latent import random_network, smooth_picture

from rcccodec import codec, container
from rcccodec.errors import FormatError
from rcccodec.latent import bands
from rcccodec.latent.codec import encode_picture
from rcccodec.latent.file import _analyse, _pixels, choose_settings
from rcccodec.latent.payload import Reader
from rcccodec.latent.windows import synthesise

SIZE = (560, 290)  # three rows of tiles, two columns


@pytest.fixture(scope="module")
def picture(latent_model):
    """A picture coded, and its pixels made of all its latents at once."""
    settings = choose_settings(latent_model, num_candidates=64, slope=0)
    coded = encode_picture(latent_model, _analyse(smooth_picture(*SIZE, 1), settings), settings.channel)
    return settings.channel, coded, synthesise(latent_model.network, coded.y, 0, SIZE).numpy()


@pytest.mark.parametrize(
    "region", [None, (0, 0, 5, 290), (250, 3, 20, 200), (500, 100, 60, 190), (256, 0, 256, 256)]
)
@pytest.mark.parametrize("positions", [1, 2 * 16 * 32, 1 << 14])
def test_bands_make_the_pixels_that_are_made_at_once(
    latent_model, picture, monkeypatch, region, positions
) -> None:
    channel, coded, whole = picture
    monkeypatch.setattr(bands, "BAND_POSITIONS", positions)
    reader = Reader(coded.data)
    found, tiles = bands.read_picture(latent_model, 0, channel, reader, SIZE, region)
    reader.finish()
    top, left, height, width = region or (0, 0, *SIZE)
    assert np.array_equal(found, whole[top : top + height, left : left + width])
    assert tiles == 6


def test_without_the_rows_around_a_band_its_pixels_are_others(latent_model, picture) -> None:
    """The control: at the edges of bands latents do reach over."""
    _, coded, _whole = picture
    network = random_network(latent_model.spec)
    y = torch.randn(coded.y.shape, generator=torch.Generator().manual_seed(0))
    at_once, alone = synthesise(network, y, 0, SIZE), synthesise(network, y[:, :16], 0, (256, 290))
    assert not torch.equal(at_once[:256], alone)
    assert torch.equal(at_once[:200], alone[:200])


def test_of_a_part_bands_make_what_is_made_at_once(latent_model, picture, monkeypatch) -> None:
    channel, coded, _ = picture
    part = coded.data[: len(coded.data) // 2]
    at_once = bands.read_picture(latent_model, 0, channel, Reader(part), SIZE, partial=True)
    monkeypatch.setattr(bands, "BAND_POSITIONS", 1)
    found = bands.read_picture(latent_model, 0, channel, Reader(part), SIZE, partial=True)
    assert np.array_equal(found[0], at_once[0])
    assert 0 < found[1] == at_once[1] < 6
    with pytest.raises(FormatError, match="not one tile"):
        bands.read_picture(latent_model, 0, channel, Reader(part[:3]), SIZE, partial=True)


def test_a_damaged_first_tile_is_met_before_memory_is_taken(latent_model, monkeypatch) -> None:
    """The size is allowed and backed by two bytes a tile; the first of them is damaged."""
    header = choose_settings(latent_model, num_candidates=64).header()
    data = container.pack(header, [container.Group(1, 1, 1 << 14, 1 << 14, bytes(2 * 64 * 64))])
    asked = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, **kind: asked.append(size) or zeros(*size, **kind))
    with pytest.raises(FormatError, match="measure 0"):
        codec.decompress(data, latent_model)
    assert len(asked) == 1
    assert asked[0][1] * asked[0][2] <= 2 * bands.BAND_POSITIONS + 16 * (1 << 10)


def test_grey_pictures_are_averaged_alike_in_bands(monkeypatch) -> None:
    made = np.random.default_rng(0).integers(0, 256, (37, 11, 3), np.uint8)
    at_once = _pixels(made, grey=True)
    monkeypatch.setattr("rcccodec.latent.file._GREY_AT_ONCE", 1)
    assert np.array_equal(_pixels(made, grey=True), at_once)
    assert _pixels(made, grey=False) is made
