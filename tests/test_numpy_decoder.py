"""The package's decoders against one in NumPy alone, on every rung of every shipped model."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy_decoder
import pytest
import torch
from numpy_philox import normals, trellis_shrinkage, trellis_values

from rcccodec import codec, container
from rcccodec.bundle import Model, load_model, load_one_shot, model_path
from rcccodec.decoder import reconstruct
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import Reader, chunks_of, read_tile, sent_rates
from rcccodec.latent.windows import analyse, synthesise, tiles_of
from rcccodec.layout import Layout
from rcccodec.settings import choose_settings
from rcccodec.sources import load_source
from rcccodec.stages import blocks_at

MOST_SAMPLES_APART = 1e-4  # of photographs' samples, by one grey level: float32 against float64
GREY_LEVELS = 0.01  # that a pixel is off in float32 before it is rounded, at most
ONE_SHOT = [("mnist", rung) for rung in range(8)] + [("photo-pixels", rung) for rung in range(12)]


@dataclass(frozen=True)
class Case:
    """Random addresses of all stages, and the layout of the images that they make."""

    layout: Layout
    stages: list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: load_one_shot(name) for name in ("mnist", "photo-pixels")}


@pytest.fixture(scope="module")
def photo() -> LatentModel:
    model = load_model("photo")
    assert isinstance(model, LatentModel)
    return model


def picture() -> np.ndarray:
    """A colour picture of 100x120, of 7x8 positions."""
    return np.ascontiguousarray(load_source("sample-photos", "test").images()[0][40:140, 30:150])


def random_case(model: Model, rung: int) -> Case:
    """Indices below 2^40 and any draws, which is more than a search would find."""
    settings, random = choose_settings(model, rung=rung), np.random.default_rng(rung)
    count, height, width = (3, 32, 32) if model.channels == 1 else (1, 40, 70)
    layout = Layout(count, height, width, model.channels == 3, settings.tile)
    numbers = [layout.num_blocks(stage.block) for stage in settings.step.stages]
    return Case(layout, [(random.integers(0, 1 << 40, n), random.integers(0, 16, n)) for n in numbers])


def decoded(name: str, rung: int, case: Case, seed: int) -> list[np.ndarray]:
    layout = case.layout
    return numpy_decoder.decode_blocks(
        model_path(name), rung, [(k.tolist(), d.tolist()) for k, d in case.stages], seed=seed,
        count=layout.count, size=(layout.height, layout.width), grey=not layout.colour,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "rung"), ONE_SHOT)
def test_blocks_are_those_of_numpy(models: dict[str, Model], name: str, rung: int) -> None:
    """To the grey level: both are float64."""
    settings = choose_settings(models[name], rung=rung)
    case = random_case(models[name], rung)
    proposals = [stage.proposal() for stage in settings.step.stages]
    addresses = [16 * k + d for k, d in case.stages]
    ours = reconstruct(case.layout, settings, proposals, addresses)
    theirs = decoded(name, rung, case, settings.seed)
    assert all(np.array_equal(x, y) for x, y in zip(ours, theirs, strict=True))
    assert min(x.std() for x in ours) > 10, "else this compares little"


def test_every_rung_is_compared(models: dict[str, Model]) -> None:
    assert [(name, rung) for name, model in models.items() for rung in range(len(model.rungs))] == ONE_SHOT


@pytest.mark.parametrize("what", ["seed", "draw", "stage", "slope"])
def test_a_decoder_that_errs_is_noticed(models: dict[str, Model], what: str) -> None:
    """The control of what is above."""
    case = random_case(models["photo-pixels"], 6)
    right = decoded("photo-pixels", 6, case, 0)[0].astype(int)
    wrong = {
        "seed": lambda: decoded("photo-pixels", 6, case, 1),
        "draw": lambda: decoded(
            "photo-pixels", 6, replace(case, stages=[(k, (d + 1) % 16) for k, d in case.stages]), 0
        ),
        "stage": lambda: decoded(
            "photo-pixels", 6, replace(case, stages=[*case.stages[:1], case.stages[2], *case.stages[2:]]), 0
        ),
        "slope": lambda: decoded("photo-pixels", 7, case, 0),  # of the last stage
    }[what]()
    difference = np.abs(right - wrong[0])
    assert (difference > 0).mean() > (0.05 if what == "slope" else 0.3)


@pytest.mark.parametrize(("name", "stage"), [("mnist", 0), ("photo-pixels", 0), ("photo-pixels", 3)])
def test_float64_blocks_and_float32_candidates_are_close(
    models: dict[str, Model], name: str, stage: int
) -> None:
    model = models[name]
    own, seed = model.rungs[-1].stages[stage], model.default_seed
    proposal, bundle = own.proposal(), numpy_decoder.read_bundle(model_path(name))
    number = bundle.card["rungs"][-1]["stages"][stage]["generator"]
    k = np.arange(40)
    expected = numpy_decoder.generate(
        bundle, number, own.beta, normals(seed, k, 0, proposal.latent_dim, stage)
    )
    assert np.abs(blocks_at(proposal, 16 * k, seed, stage) - expected).max() < 1e-12
    z = torch.from_numpy(normals(seed, k, 0, proposal.latent_dim, stage))
    single = proposal.synthesise(proposal.candidates(z.float())).numpy()
    assert 1e-9 < np.abs(single - expected).max() < 1e-4


@pytest.mark.parametrize("rung", range(6))
def test_photographs_are_those_of_numpy_but_for_a_grey_level(photo: LatentModel, rung: int) -> None:
    x = picture()
    mean, log_noise = analyse(photo.network, torch.from_numpy(x), rung)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(rung))
    y = mean + log_noise.exp() * noise
    exact = numpy_decoder.latent_values(model_path("photo"), rung, y.double().numpy(), x.shape[:2])
    with torch.inference_mode():
        made = photo.network.synthesis(y[None], torch.tensor([rung]))[0].permute(1, 2, 0)
    assert 255 * np.abs(made[: x.shape[0], : x.shape[1]].numpy() - exact).max() < GREY_LEVELS
    ours = synthesise(photo.network, y, rung, x.shape[:2]).numpy()
    theirs = numpy_decoder.decode_latents(model_path("photo"), rung, y.double().numpy(), x.shape[:2])
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= MOST_SAMPLES_APART
    assert 10 * np.log10(255**2 / np.square(ours - x.astype(float)).mean()) > 20, "it is the picture"
    wrong = numpy_decoder.decode_latents(model_path("photo"), (rung + 1) % 6, y.double().numpy(), x.shape[:2])
    assert (np.abs(ours.astype(int) - wrong) > 0).mean() > 0.3, "the control: another slope's gain"


def test_every_slope_is_compared(photo: LatentModel) -> None:
    assert len(photo.spec.betas) == 6


@pytest.mark.parametrize(("coder", "num_candidates"), [("trellis", 64), ("pfr", 256), ("mincost", 256)])
def test_a_file_of_latents_is_that_of_numpy(photo: LatentModel, coder: str, num_candidates: int) -> None:
    """From what a tile says, its classes and its bits or indices, to pixels; a grey picture of two tiles."""
    x = np.ascontiguousarray(load_source("sample-photos", "test").images()[0][:60, :270, 1])
    made = codec.compress(x, photo, rung=1, coder=coder, num_candidates=num_candidates, seed=11)
    header, (group,) = container.unpack(made.data)
    from rcccodec.latent.file import _read_channel

    prior, channel, reader = photo.priors[1], _read_channel(header, photo), Reader(group.payload)
    rows, columns = 4, 17
    classes, sent = np.zeros((rows, columns), np.int64), []
    for top, left, height, width in tiles_of(rows, columns):
        tile = read_tile(prior, channel, reader, height, width)
        classes[top : top + height, left : left + width] = tile.classes
        rates = sent_rates(prior, tile.classes)
        if coder == "trellis":
            z = trellis_values(tile.symbols, rates, tile.measure, 6, 11)
            sent.append(z * trellis_shrinkage(rates, tile.measure))
        else:
            starts, _ = chunks_of(rates, tile.measure)
            dims = np.diff(starts)
            pairs = zip(tile.symbols, dims, strict=True)
            sent.append(np.concatenate([normals(11, np.array([k]), 0, int(n), 0)[0] for k, n in pairs]))
    reader.finish()
    y = numpy_decoder.latents(model_path("photo"), 1, classes, sent)
    theirs = numpy_decoder.decode_latents(model_path("photo"), 1, y, x.shape, grey=True)
    ours = codec.decompress(made.data, photo)[0]
    apart = np.abs(ours.astype(int) - theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 2 * MOST_SAMPLES_APART  # of three rounded channels, and their mean
    assert 10 * np.log10(255**2 / np.square(ours - x.astype(float)).mean()) > 20


def test_the_decoder_imports_nothing_of_the_package() -> None:
    for name in ("numpy_decoder.py", "numpy_philox.py"):
        text = (Path(__file__).parent / name).read_text()
        assert "rcccodec" not in text
        assert "torch" not in text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_makes_the_same_pixels_but_for_a_grey_level(
    photo: LatentModel, models: dict[str, Model]
) -> None:
    from rcccodec.arithmetic import full_float32

    x = picture()
    mean, _ = analyse(photo.network, torch.from_numpy(x), 3)
    network = load_model("photo").network.to("cuda")
    with torch.inference_mode(), full_float32():
        made = (
            network.synthesis(mean[None].cuda(), torch.tensor([3], device="cuda"))[0].permute(1, 2, 0).cpu()
        )
    on_gpu = (255 * made.clamp(0, 1)).round().numpy()[: x.shape[0], : x.shape[1]]
    apart = np.abs(on_gpu - synthesise(photo.network, mean, 3, x.shape[:2]).numpy())
    assert apart.max() <= 1
    assert (apart > 0).mean() <= MOST_SAMPLES_APART
    stage = models["mnist"].rungs[4].stages[0]
    z = torch.from_numpy(normals(0, np.arange(100), 0, 24, 0))
    on_cpu, on_gpu_too = stage.proposal().candidates(z), stage.proposal("cuda").candidates(z.cuda()).cpu()
    assert (on_cpu - on_gpu_too).abs().max() < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["photo", "mnist"])
def test_a_file_made_on_cuda_decodes_on_the_cpu(name: str) -> None:
    if name == "photo":
        made = codec.compress(picture(), name, device="cuda", num_candidates=256)
    else:
        made = codec.compress(list(load_source("sample-digits", "test").images()[:4]), name, device="cuda")
    for x, y in zip(codec.decompress(made.data), made.images, strict=True):
        assert np.array_equal(x, y)
