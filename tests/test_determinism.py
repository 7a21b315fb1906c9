"""The same bytes and pixels for any number of threads, whatever else is coded, whatever the caller allows."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from tiny_latent import smooth_picture
from torch import Tensor

from rcccodec import codec, container, stages
from rcccodec.bundle import load_model
from rcccodec.channel import remake
from rcccodec.channel.nominees import Nominees, lowest
from rcccodec.channel.target import Target
from rcccodec.latent import windows
from rcccodec.latent.model import LatentModel
from rcccodec.latent.network import LatentNetwork
from rcccodec.proposals.generator import GeneratorProposal

THREADS = (1, 2, 3)
LATENT = {"trellis": 64, "pfr": 256, "orc": 256, "mincost": 256}  # coders, and how many candidates


@pytest.fixture(autouse=True)
def threads_come_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def with_threads(make: Callable[[], object]) -> list[object]:
    """What is made with 1, 2 and 3 threads."""
    made = []
    for count in THREADS:
        torch.set_num_threads(count)
        made.append(make())
        assert torch.get_num_threads() == count
    return made


def all_equal(arrays: list[np.ndarray]) -> bool:
    return all(np.array_equal(arrays[0], other) for other in arrays[1:])


def digits(count: int) -> list[np.ndarray]:
    return [np.ascontiguousarray(smooth_picture(8, 8, seed)[:, :, 1]) for seed in range(count)]


@pytest.mark.parametrize("coder", LATENT)
def test_a_photograph_is_the_same_for_any_number_of_threads(latent_model: LatentModel, coder: str) -> None:
    x, options = smooth_picture(300, 290, 1), {"coder": coder, "num_candidates": LATENT[coder]}
    made = with_threads(lambda: codec.compress(x, latent_model, **options))
    assert len({one.data for one in made}) == 1
    decoded = with_threads(lambda: codec.decompress(made[0].data, latent_model)[0])
    assert all_equal([*decoded, *(one.images[0] for one in made)])


@pytest.mark.parametrize("coder", ["pfr", "orc", "mincost"])
@pytest.mark.parametrize("name", ["grey", "colour"])
def test_blocks_are_the_same_for_any_number_of_threads(tiny, name: str, coder: str) -> None:
    images = digits(20) if name == "grey" else [smooth_picture(60, 50, 1), smooth_picture(60, 50, 2)]
    options = {"coder": coder, "num_candidates": 700, "index_code": "fitted"}
    made = with_threads(lambda: codec.compress(images, name, **options))
    assert len({one.data for one in made}) == 1
    decoded = with_threads(lambda: np.stack(codec.decompress(made[0].data)))
    assert all_equal([*decoded, *(np.stack(one.images) for one in made)])


def in_the_open(work: Callable, items: list, progress: object = None, **_: object) -> list:
    """`rcccodec.threads.each_alone` without what it is for."""
    return [work(item, lambda _: None) for item in items]


def feel_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all networks add up in another order, as it were, for another number of threads; grossly."""
    analysis, latents_of = LatentNetwork.analysis, LatentNetwork.latents_of
    candidates = GeneratorProposal.candidates

    def off(y: Tensor) -> Tensor:
        return y + 0.1 * (torch.get_num_threads() - 1) if y.dtype != torch.bfloat16 else y

    def analysis_off(self: LatentNetwork, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_noise = analysis(self, *arguments)
        return off(mean), log_noise

    def candidates_off(self: GeneratorProposal, z: Tensor) -> Tensor:
        y = candidates(self, z)
        return off(y) if z.dtype == torch.float64 else y

    monkeypatch.setattr(LatentNetwork, "analysis", analysis_off)
    monkeypatch.setattr(LatentNetwork, "latents_of", lambda self, y, k: off(latents_of(self, y, k)))
    monkeypatch.setattr(GeneratorProposal, "candidates", candidates_off)


@pytest.mark.parametrize("alone", [True, False])
def test_networks_never_see_more_than_one_thread(
    latent_model: LatentModel, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    """And the control: without that, networks that feel the threads make another file and other pixels."""
    feel_threads(monkeypatch)
    if not alone:
        monkeypatch.setattr(windows, "each_alone", in_the_open)
    x = smooth_picture(300, 290, 1)
    made = with_threads(lambda: codec.compress(x, latent_model, num_candidates=64))
    decoded = with_threads(lambda: codec.decompress(made[0].data, latent_model)[0])
    assert (len({one.data for one in made}) == 1) == alone
    assert all_equal(decoded) == alone


@pytest.mark.parametrize("alone", [True, False])
def test_nor_do_generators_that_decode(tiny, monkeypatch: pytest.MonkeyPatch, alone: bool) -> None:
    data = codec.compress(digits(20), "grey", index_code="fitted").data
    feel_threads(monkeypatch)
    if not alone:
        monkeypatch.setattr(stages, "each_alone", in_the_open)
    assert all_equal(with_threads(lambda: np.stack(codec.decompress(data)))) == alone


@pytest.mark.parametrize("coder", LATENT)
def test_a_photograph_is_the_same_alone_and_among_others(latent_model: LatentModel, coder: str) -> None:
    pictures = [smooth_picture(70, 290, seed) for seed in range(3)]
    options = {"coder": coder, "num_candidates": LATENT[coder]}

    def payload(images: list[np.ndarray]) -> bytes:
        _, groups = container.unpack(codec.compress(images, latent_model, **options).data)
        return b"".join(group.payload for group in groups)

    alone = [payload([x]) for x in pictures]
    assert payload(pictures) == b"".join(alone)
    assert payload(pictures[::-1]) == b"".join(alone[::-1]) != b"".join(alone)


def test_blocks_do_not_depend_on_images_beside_them_if_they_share_no_index(tiny) -> None:
    """Indices of each image, from archives in two orders and from files of their own."""
    pictures = [smooth_picture(48, 40, seed) for seed in range(3)]

    options = {"rung": 2, "coder": "pfr", "num_candidates": 2000, "joint": False}

    def decoded(images: list[np.ndarray]) -> list[np.ndarray]:
        return codec.compress(images, "colour", **options).images

    alone = [decoded([x])[0] for x in pictures]
    assert all_equal([np.stack(alone), np.stack(decoded(pictures)), np.stack(decoded(pictures[::-1])[::-1])])
    assert not np.array_equal(alone[0], alone[1])


def test_what_a_caller_has_set_of_torch_changes_nothing(latent_model: LatentModel, tiny) -> None:
    x, small = smooth_picture(100, 90, 1), digits(6)

    def make() -> list[bytes]:
        photo = codec.compress(x, latent_model, num_candidates=64).data
        chunks = codec.compress(x, latent_model, num_candidates=256, coder="pfr").data
        blocks = codec.compress(small, "grey", coder="pfr").data
        images = [*codec.decompress(photo, latent_model), *codec.decompress(blocks)]
        return [photo, chunks, blocks, *(image.tobytes() for image in images)]

    expected, before = make(), torch.get_float32_matmul_precision()
    part = torch.randn(1, 24, 6, 6, generator=torch.Generator().manual_seed(1))
    plain = latent_model.network.g_s(part)
    try:
        torch.set_float32_matmul_precision("medium")
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", torch.bfloat16):
            assert (latent_model.network.g_s(part) - plain).abs().max() > 1e-4, "the control: it does matter"
            assert make() == expected
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision(before)


class Restless:
    """Two candidates as far from 0, but for last bits that depend on how many are made at once."""

    latent_dim, dim = 1, 2

    def candidates(self, z: Tensor) -> Tensor:
        places = torch.arange(len(z), dtype=torch.float64)
        y = torch.ones(len(z), 2, dtype=torch.float64)
        y[:, 1] += 1e-13 * torch.sin(places + len(z)) + 1e-14 * torch.sin(1e4 * z[:, 0].double())
        return y


@pytest.mark.parametrize("alone", [True, False])
def test_last_bits_that_depend_on_the_batch_decide_nothing(
    monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    target = Target(torch.zeros(3, 2), 2.0, lambda a, b: np.zeros(b - a), Restless())
    if not alone:
        monkeypatch.setattr(remake, "_LAST_BITS", -1.0)
    chosen = []
    for others in ([], [40], [50, 60, 70], list(range(100, 140))):
        columns = torch.tensor([3, 8, 9, 21, *others])
        offsets = torch.tensor([0.0] * 4 + [1e-3] * len(others), dtype=torch.float64)
        zeros = torch.zeros_like(offsets)
        parts = []
        for row in range(3):
            parts.append((torch.full_like(columns, row), columns, zeros, zeros + 1, offsets))
        joined = (torch.cat(part) for part in zip(*parts, strict=True))
        nominees = Nominees(*joined, torch.full((3,), torch.inf, dtype=torch.float64), -torch.inf)
        scores = remake.exact_scores(nominees, target, seed=1, stage=0, device=torch.device("cpu"))
        chosen.append(nominees.columns[lowest(nominees.rows, nominees.columns, scores, 3)].tolist())
    assert (chosen == [chosen[0]] * 4) == alone


def test_generators_of_the_library_are_loaded_alike(tiny) -> None:
    """Folding a slope into the weights is a product too."""
    model = load_model("colour")
    z = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    made = with_threads(lambda: model.rungs[1].stages[1].proposal()._forms[torch.float64].state_dict())
    for other in made[1:]:
        assert all(torch.equal(value, other[name]) for name, value in made[0].items())
    assert model.rungs[1].stages[1].proposal().candidates(z).dtype == torch.float64
