"""Pictures through the transforms a window at a time, regions, and the transforms against CompressAI's."""

import numpy as np
import pytest
import torch
from tiny_latent import random_network, smooth_picture
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.baselines.compressai import import_compressai
from rcccodec.errors import InputError
from rcccodec.latent import windows
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.transforms import LEAST_BETA, PEDESTAL, Gdn, analysis_transform, synthesis_transform
from rcccodec.latent.windows import analyse, grid_of, needed, synthesise, tiles_of

SIZES = [(1, 1), (16, 16), (17, 300), (100, 75), (129, 161)]


@pytest.fixture(scope="module")
def network() -> LatentNetwork:
    return random_network()


def whole_analysis(network: LatentNetwork, x: Tensor, slope: int) -> tuple[Tensor, Tensor]:
    height, width = x.shape[:2]
    padded = functional.pad(
        x.permute(2, 0, 1)[None].float() / 255, (0, -width % 16, 0, -height % 16), mode="replicate"
    )
    mean, log_noise = network.analysis(padded, torch.tensor([slope]))
    return mean[0], log_noise[0]


def whole_synthesis(network: LatentNetwork, y: Tensor, slope: int, size: tuple[int, int]) -> Tensor:
    """Pixels times 255, not rounded: float32 (h, w, 3)."""
    made = network.synthesis(y[None], torch.tensor([slope]))[0]
    return (255 * made.clamp(0, 1)).permute(1, 2, 0)[: size[0], : size[1]]


def latents_of(network: LatentNetwork, size: tuple[int, int]) -> Tensor:
    random = torch.Generator().manual_seed(sum(size))
    return torch.randn(network.spec.latent_dim, *grid_of(*size), generator=random)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 3, windows.WINDOW])
def test_analysis_in_windows_is_the_analysis_at_once(network, size, window, monkeypatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", window)
    x = torch.from_numpy(smooth_picture(*size, 1))
    found, expected = analyse(network, x, 1), whole_analysis(network, x, 1)
    for part, whole in zip(found, expected, strict=True):
        assert part.shape == (network.spec.latent_dim, *grid_of(*size))
        assert part.dtype == torch.float32
        assert torch.allclose(part, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("window", [2, 3, windows.WINDOW])
def test_synthesis_in_windows_is_the_synthesis_at_once(network, size, window, monkeypatch) -> None:
    monkeypatch.setattr(windows, "SYNTHESIS_WINDOW", window)
    y = latents_of(network, size)
    found, whole = synthesise(network, y, 0, size), whole_synthesis(network, y, 0, size)
    assert found.shape == (*size, 3)
    assert found.dtype == torch.uint8
    assert (found - whole).abs().max() < 0.5 + 1e-2
    assert found.float().std() > 20 or max(size) < 100  # else the last lines compare little


REGIONS = [(0, 0, 129, 161), (0, 0, 1, 1), (128, 160, 1, 1), (31, 15, 50, 66), (96, 3, 20, 158)]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("window", [1, 3, windows.SYNTHESIS_WINDOW])
def test_a_region_is_the_crop_of_the_whole_and_needs_no_other_latents(
    network, region, window, monkeypatch
) -> None:
    monkeypatch.setattr(windows, "SYNTHESIS_WINDOW", window)
    size = (129, 161)
    y = latents_of(network, size)
    top, left, height, width = region
    rows, columns = grid_of(*size)
    kept = torch.full_like(y, 1e3)
    for row in range(rows):
        for column in range(columns):
            if needed((row, column, row + 1, column + 1), region):
                kept[:, row, column] = y[:, row, column]
    found = synthesise(network, kept, 0, (height, width), (top, left))
    whole = synthesise(network, y, 0, size)[top : top + height, left : left + width]
    assert torch.equal(found, whole), "to the bit"
    assert window > 1 or kept.max() == 1e3 or region == REGIONS[0], "the control: not all were needed"


def test_a_margin_of_one_position_less_is_too_little(network, monkeypatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", 3)
    monkeypatch.setattr(windows, "SYNTHESIS_WINDOW", 3)
    monkeypatch.setattr(windows, "MARGIN", windows.MARGIN - 1)
    size = (160, 160)
    x, y = torch.from_numpy(smooth_picture(*size, 1)), latents_of(network, size)
    assert (analyse(network, x, 1)[0] - whole_analysis(network, x, 1)[0]).abs().max() > 1e-2
    assert (synthesise(network, y, 0, size) - whole_synthesis(network, y, 0, size)).abs().max() > 1


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_no_layer_of_the_synthesis_could_do_with_less_of_the_margin(network, layer, monkeypatch) -> None:
    margins = list(windows._MARGINS)
    margins[layer] -= 1
    monkeypatch.setattr(windows, "_MARGINS", tuple(margins))
    monkeypatch.setattr(windows, "SYNTHESIS_WINDOW", 3)
    size = (160, 160)
    y = latents_of(network, size)
    assert (synthesise(network, y, 0, size) - whole_synthesis(network, y, 0, size)).abs().max() > 1


def test_what_an_analysis_sees_is_30_pixels_around_a_position(network) -> None:
    x = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network.analysis(x, torch.tensor([0]))[0][0, :, 5, 5].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    assert (int(rows.min()), int(rows.max())) == (80 - 30, 80 + 30)


def test_the_last_row_and_column_are_repeated_at_the_edges(network) -> None:
    x = torch.from_numpy(smooth_picture(20, 40, 2))
    larger = torch.cat([x, x[-1:].expand(12, -1, -1)])
    larger = torch.cat([larger, larger[:, -1:].expand(-1, 8, -1)], 1)
    assert torch.equal(analyse(network, x, 0)[0], analyse(network, larger, 0)[0])


@pytest.mark.parametrize(("rows", "columns", "count"), [(1, 1, 1), (16, 16, 1), (17, 16, 2), (33, 40, 9)])
def test_tiles_cover_every_position_once(rows: int, columns: int, count: int) -> None:
    covered = np.zeros((rows, columns), int)
    tiles = tiles_of(rows, columns)
    for top, left, height, width in tiles:
        covered[top : top + height, left : left + width] += 1
        assert 1 <= height <= 16
        assert 1 <= width <= 16
    assert (covered == 1).all()
    assert len(tiles) == count
    assert tiles == sorted(tiles)


def test_the_transforms_are_those_of_compressai() -> None:
    try:
        models = import_compressai("compressai.models")
    except InputError:
        pytest.skip("CompressAI, an extra, is not installed")
    torch.manual_seed(1)
    theirs = models.FactorizedPrior(12, 20).eval()
    with torch.no_grad():
        for module in theirs.modules():
            if type(module).__name__ == "GDN":
                module.gamma.add_(0.1 * torch.rand_like(module.gamma))
                module.beta.sub_(2 * torch.rand_like(module.beta))  # some below the bound
    x, y = torch.rand(2, 3, 64, 48), torch.randn(2, 20, 4, 3)
    for ours, their, value in (
        (analysis_transform(12, 20), theirs.g_a, x),
        (synthesis_transform(12, 20), theirs.g_s, y),
    ):
        state = {
            name.replace("beta_reparam.", "").replace("gamma_reparam.", ""): t
            for name, t in their.state_dict().items()
            if "reparam" not in name
        }
        ours.load_state_dict(state)
        with torch.no_grad():
            assert torch.allclose(ours(value), their(value), rtol=1e-5, atol=1e-6)


def test_gdn_divides_by_the_norm_and_its_inverse_multiplies() -> None:
    gdn, inverse = Gdn(3), Gdn(3, inverse=True)
    beta, gamma = (
        torch.tensor([0.5, 1.0, 2.0]),
        torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.4, 0.1], [0.3, 0.0, 0.2]]),
    )
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    for module in (gdn, inverse):
        with torch.no_grad():
            module.beta.copy_((beta + PEDESTAL).sqrt())
            module.gamma.copy_((gamma + PEDESTAL).sqrt())
    norm = (beta[:, None, None] + torch.einsum("ij,njhw->nihw", gamma, x * x)).sqrt()
    assert torch.allclose(gdn(x), x / norm, atol=1e-6)
    assert torch.allclose(inverse(x), x * norm, atol=1e-6)


def test_a_gdn_parameter_below_its_bound_is_moved_up_only() -> None:
    bound = (LEAST_BETA + PEDESTAL) ** 0.5
    for away, grad_of_loss, moved in (
        (-0.1, 1.0, False),
        (-0.1, -1.0, True),
        (0.1, 1.0, True),
        (0.1, -1.0, True),
    ):
        gdn: nn.Module = Gdn(1, inverse=True)
        with torch.no_grad():
            gdn.beta.fill_(bound + away)
        (grad_of_loss * gdn(torch.ones(1, 1, 1, 1))).sum().backward()
        assert bool(gdn.beta.grad.abs() > 0) == moved
        if moved:
            assert float(gdn.beta.grad) * grad_of_loss > 0  # a larger beta, a larger output
