"""Another device than the CPU: no tensor left behind (on torch's placeholder), the same files (on CUDA)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rcccodec import codec
from rcccodec.bundle import load_model
from rcccodec.channel import candidates_at, select_channel
from rcccodec.channel.distances import CentredBlocks, chunk_candidates
from rcccodec.proposals import Proposal
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.proposals.generator import GeneratorProposal, GeneratorSpec, build_generator
from rcccodec.proposals.joint import JointProposal

META = torch.device("meta")  # shapes without values: refuses tensors of other devices, and to be read
PRECISIONS = (torch.float32, torch.float64, torch.bfloat16)
SPECS = {
    "mlp": GeneratorSpec("mlp", (6,), 8, 16, output="linear", num_coordinates=5),
    "patches": GeneratorSpec("patches", (8, 8, 3), 8, 16, features=4),
    "dcgan": GeneratorSpec("dcgan", (32, 32, 1), 8, 2),
    "fc": GeneratorSpec("fc", (6,), 8, 16, output="linear"),
}


class LeftBehind(GaussianProposal):
    """Its scale stays on the CPU."""

    def candidates(self, z: Tensor) -> Tensor:
        return z * torch.ones(self.dim, dtype=z.dtype)


def score_all(proposal: Proposal, device: torch.device) -> list[torch.device]:
    """Go through a search's work up to its first look at a value; where each piece was made."""
    y = chunk_candidates(proposal, 2**33, 70, 1, 0, device)
    frame = CentredBlocks(torch.zeros(5, proposal.dim), device)
    tiles = frame.tiles(frame.centre(y), y.square().sum(dim=1), -2.0)
    k = torch.arange(9, device=device)
    made = [candidates_at(proposal, k, seed=0, dtype=dtype) for dtype in PRECISIONS]
    assert [part.dtype for part in made] == list(PRECISIONS)
    return [part.device for part in (y, *made, *(scores for _, scores in tiles))]


@pytest.mark.parametrize("arch", [*SPECS, "joint"])
def test_generators_and_scores_stay_on_the_device(arch: str) -> None:
    plain = build_generator(SPECS["patches" if arch == "joint" else arch]).at_slope(1.0)
    one = GeneratorProposal(plain, META)
    proposal = JointProposal(one, 3) if arch == "joint" else one
    assert set(score_all(proposal, META)) == {META}
    assert one.synthesise(one.analyse(torch.zeros(2, one.block_dim, device=META))).device == META


def test_gaussian_candidates_stay_on_the_device_and_a_tensor_left_behind_is_noticed() -> None:
    variances = np.array([2.0, 1.0, 0.1])
    assert set(score_all(GaussianProposal(variances, 1.0), META)) == {META}
    with pytest.raises(RuntimeError, match="device"):
        score_all(LeftBehind(np.ones(3) * 2, 1.0), META)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_cuda
@pytest.mark.parametrize("with_kernels", ["1", "0"])
@pytest.mark.parametrize("coder", ["pfr", "orc", "mincost"])
def test_files_made_on_cuda_are_those_made_on_the_cpu(
    coder: str, with_kernels: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCC_KERNELS", with_kernels)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (16, 24, 3), dtype=np.uint8) for _ in range(3)]
    model = load_model(str(model_folder / "colour"))
    options = {"model": model, "coder": coder, "index_code": "fitted", "num_candidates": 5000, "seed": 3}
    made = codec.compress(images, device="cuda", **options)
    assert made.data == codec.compress(images, device="cpu", **options).data
    assert made.data != codec.compress(images, device="cuda", **{**options, "seed": 4}).data


@needs_cuda
@pytest.mark.parametrize("coder", ["pfr", "orc"])
def test_gaussian_choices_on_cuda_are_those_on_the_cpu(coder: str) -> None:
    proposal = GaussianProposal(np.geomspace(4.0, 0.3, 24), 1.0)
    x = torch.randn(300, 24, generator=torch.Generator().manual_seed(0))
    options = {"beta": 1.0, "coder": coder, "num_candidates": (1 << 20) + 4321}
    found = select_channel(x, proposal, seed=5, device="cuda", **options)
    expected = select_channel(x, proposal, seed=5, device="cpu", **options)
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.certified, expected.certified)
    other = select_channel(x, proposal, seed=6, device="cuda", **options)
    assert not torch.equal(other.indices, expected.indices)
