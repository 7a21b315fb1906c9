"""The Gaussian channel as an entropy model: rates, strings, and a place in CompressAI's networks."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from rcccodec.baselines.compressai import import_compressai
from rcccodec.errors import FormatError, ModelError
from rcccodec.latent.gaussian_channel import GaussianChannel

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "compressai_channel.py"
M, K = 6, 4
SIZE = (5, 7)


def latents(count: int, seed: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """Patches of a Gaussian mixture of three classes, float32 (count, M, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(3, (count, *size), generator=generator)
    which[:, :, 1::2] = which[:, :, :-1:2]  # neighbours agree
    scale = torch.tensor([0.3, 2.0, 8.0])[which][:, None] * torch.linspace(1, 0.2, M)[:, None, None]
    centre = torch.tensor([0.0, 3.0, -4.0])[which][:, None] * torch.linspace(1, 0, M)[:, None, None]
    return centre + scale * torch.randn(count, M, *size, generator=generator)


def fitted(**arguments: int) -> GaussianChannel:
    channel = GaussianChannel(M, K, **arguments)
    channel.fit_classes(latents(60))
    channel.fit(latents(60))
    return channel.eval()


@pytest.fixture(scope="module")
def channel() -> GaussianChannel:
    return fitted(log2_states=8)


def costs_nats(channel: GaussianChannel, y: Tensor) -> Tensor:
    """Divergence and code length of every class at every position, (n, h, w, K), from torch's own formula."""
    rows = y.permute(0, 2, 3, 1)[..., None, :].double()
    q = Normal(rows, channel.log_noise.double().exp())
    p = Normal(channel.class_centre.double(), channel.class_log_scale.double().exp())
    return kl_divergence(q, p).sum(-1) - channel.class_logits.double().log_softmax(0)


def nats_of(likelihoods: Tensor) -> Tensor:
    return -likelihoods.double().log().sum()


def test_shapes_and_noise_are_those_of_the_channel(channel: GaussianChannel):
    y = latents(40, seed=1)
    torch.manual_seed(0)
    y_hat, likelihoods = channel(y)
    assert y_hat.shape == likelihoods.shape == y.shape
    assert bool(torch.isfinite(likelihoods).all())
    assert bool((likelihoods > 0).all())
    error = (y_hat.detach() - y) / channel.log_noise.detach().exp()[:, None, None]
    deviations = math.sqrt(error.numel())
    assert abs(float(error.mean())) * deviations < 5
    assert abs(float(error.square().mean()) - 1) * deviations < 5 * math.sqrt(2)
    assert abs(float((y_hat.detach() - y).square().mean()) - 1) * deviations > 5 * math.sqrt(
        2
    )  # of noise of scale 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hard", [True, False])
def test_likelihoods_sum_to_the_divergence(channel: GaussianChannel, training: bool, hard: bool):
    mixed = GaussianChannel(M, K, hard=hard)
    mixed.load_state_dict(channel.state_dict())
    y = latents(3, seed=2)
    mixed.class_log_scale.data += 0.5  # classes that overlap, so that soft and hard differ
    costs = costs_nats(mixed, y).detach()
    soft, cheapest = -torch.logsumexp(-costs, -1).sum(), costs.amin(-1).sum()
    assert float(cheapest - soft) > 1.0
    found = nats_of(mixed(y, training=training)[1].detach())
    wanted = soft if training and not hard else cheapest
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("hard", [True, False])
def test_gradients_of_the_rate_are_those_of_the_divergence(channel: GaussianChannel, hard: bool):
    mixed = GaussianChannel(M, K, hard=hard)
    mixed.load_state_dict(channel.state_dict())
    y = latents(2, seed=3).requires_grad_()
    inputs = [y, *mixed.parameters()]
    found = torch.autograd.grad(-mixed(y, training=True)[1].log().sum(), inputs)
    costs = costs_nats(mixed, y)
    total = costs.amin(-1) if hard else -torch.logsumexp(-costs, -1)
    for mine, wanted in zip(found, torch.autograd.grad(total.sum(), inputs), strict=True):
        assert float(wanted.abs().max()) > 0
        torch.testing.assert_close(mine, wanted, rtol=1e-3, atol=1e-3)


def test_noise_receives_a_gradient_through_y_hat(channel: GaussianChannel):
    y = latents(2, seed=4)
    channel(y)[0].square().sum().backward()
    assert bool((channel.log_noise.grad != 0).all())
    channel.zero_grad()


def test_latents_far_from_every_class_keep_finite_rates_and_their_gradients():
    channel = GaussianChannel(M, K)
    y = torch.zeros(1, M, 2, 2)
    y[:, 0] = 60.0  # more than float32 can hold as one element's likelihood
    nats = nats_of(channel(y, training=False)[1])
    torch.testing.assert_close(nats, costs_nats(channel, y).amin(-1).sum(), rtol=1e-4, atol=1e-3)
    far = torch.full((1, M, 2, 2), 1e3, requires_grad=True)
    likelihoods = channel(far)[1]
    likelihoods.log().sum().backward()
    assert bool((likelihoods > 0).all())
    assert bool(torch.isfinite(far.grad).all())
    assert bool((far.grad < 0).all())


def test_strings_decode_to_what_the_encoder_said(channel: GaussianChannel):
    y = latents(3, seed=5)
    strings, y_hat = channel.encode(y)
    assert channel.compress(y) == strings
    assert len(strings) == 3
    torch.testing.assert_close(channel.decompress(strings, SIZE), y_hat, rtol=0, atol=0)
    for i in range(3):  # each alone
        assert channel.compress(y[i : i + 1]) == strings[i : i + 1]
        assert torch.equal(channel.decompress(strings[i : i + 1], y.shape[-2:])[0], y_hat[i])


def test_latents_larger_than_a_tile_that_divide_unevenly_come_back(channel: GaussianChannel):
    y = latents(1, seed=6, size=(17, 19))
    strings, y_hat = channel.encode(y)
    assert torch.equal(channel.decompress(strings, (17, 19)), y_hat)
    assert float((y_hat - y).square().mean()) < 0.1 * float(y.var())


def test_decoded_latents_are_about_the_noise_away_and_of_another_seed_are_not(channel: GaussianChannel):
    y = latents(30, seed=7)
    strings = channel.compress(y)

    def error(decoder: GaussianChannel) -> float:
        away = (decoder.decompress(strings, SIZE) - y) / decoder.log_noise.detach().exp()[:, None, None]
        return float(away.square().mean())

    other = GaussianChannel(M, K)
    other.load_state_dict({**channel.state_dict(), "seed": torch.tensor(1)})
    assert 0.5 < error(channel) < 3
    assert error(other) > 10


def test_more_states_come_nearer_at_the_same_length():
    y = latents(20, seed=8)
    errors, lengths = [], []
    for log2_states in (3, 10):
        strings, y_hat = fitted(log2_states=log2_states).encode(y)
        errors.append(float((y_hat - y).square().mean()))
        lengths.append([len(s) for s in strings])
    assert lengths[0] == lengths[1]
    assert errors[1] < 0.9 * errors[0]


def test_a_state_dict_is_all_a_decoder_needs(channel: GaussianChannel):
    y = latents(2, seed=9)
    encoder = fitted(log2_states=9, seed=(1 << 63) - 1)
    strings, y_hat = encoder.encode(y)
    decoder = GaussianChannel(M, K, log2_states=4)
    decoder.load_state_dict(encoder.state_dict())
    assert torch.equal(decoder.decompress(strings, SIZE), y_hat)
    assert not torch.equal(channel.decompress(strings, SIZE), y_hat)  # another seed


def test_without_tables_there_is_an_error_and_no_string(channel: GaussianChannel):
    new = GaussianChannel(M, K)
    new.fit_classes(latents(10))
    for call in (new.update, lambda: new.compress(latents(1)), lambda: new.decompress([b"\x08"], SIZE)):
        with pytest.raises(ModelError, match=r"call fit\(latents\)"):
            call()
    assert channel.update() is False
    assert channel.update(force=True) is False


@pytest.mark.parametrize(
    "arguments",
    [{"channels": 0}, {"classes": 257}, {"log2_states": 1}, {"log2_states": 21}, {"seed": 1 << 63}],
)
def test_sizes_out_of_bounds_are_refused(arguments: dict[str, int]):
    with pytest.raises(ValueError, match=r"channels|states"):
        GaussianChannel(**{"channels": M, "classes": K, **arguments})


def test_strings_are_as_long_as_the_rate_and_not_as_that_of_other_latents(channel: GaussianChannel):
    y = latents(1, seed=10, size=(64, 64))
    bits = 8 * len(channel.compress(y)[0])

    def rate_bits(y: Tensor) -> float:
        return float(nats_of(channel(y)[1].detach())) / math.log(2)

    assert abs(bits / rate_bits(y) - 1) < 0.1
    assert abs(bits / rate_bits(2 * y) - 1) > 0.1


def test_damaged_strings_are_format_errors(channel: GaussianChannel):
    (string,) = channel.compress(latents(1, seed=11))
    damaged = [b"", b"\x01" + string[1:], b"\x15" + string[1:], string + b"\x00", string[:1]]
    damaged += [string[:end] for end in range(2, len(string), 7)]
    for data in damaged:
        with pytest.raises(FormatError):
            channel.decompress([data], SIZE)
    length = string[1]
    refused = 0
    for bit in range(8 * length):  # of the classes: most are then too long or too short, or of no encoder
        data = bytearray(string)
        data[2 + bit // 8] ^= 1 << bit % 8
        try:
            assert torch.isfinite(channel.decompress([bytes(data)], SIZE)).all()
        except FormatError:
            refused += 1
    assert refused > 4 * length


def test_bits_after_a_tiles_end_are_refused(channel: GaussianChannel):
    strings = [channel.compress(latents(1, seed=seed))[0] for seed in range(12, 20)]
    messages = []
    for string in strings:
        last = bytearray(string)
        last[-1] ^= 1
        try:
            channel.decompress([bytes(last)], SIZE)
        except FormatError as error:
            messages.append(str(error))
    assert messages  # most tiles end inside a byte
    assert all("after the end" in message for message in messages)


def test_it_takes_the_bottlenecks_place_in_compressai():
    pytest.importorskip("pytorch_msssim", reason="CompressAI, an extra, is not installed")
    models = import_compressai("compressai.models")
    loss = import_compressai("compressai.losses").RateDistortionLoss(lmbda=0.01)
    torch.manual_seed(0)

    def build() -> torch.nn.Module:
        net = models.FactorizedPrior(8, M)
        net.entropy_bottleneck = GaussianChannel(M, K, log2_states=6)
        return net

    net = build()
    x = torch.rand(4, 3, 32, 48)
    net.entropy_bottleneck.fit_classes(net.g_a(x))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    losses: list[float] = []
    for _ in range(8):
        parts = loss(net(x), x)
        optimizer.zero_grad()
        (parts["loss"] + net.aux_loss()).backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
        losses.append(float(parts["loss"].detach()))
    assert losses[-1] < losses[0]
    net.eval()
    net.update(force=True)
    net.entropy_bottleneck.fit(net.g_a(x))
    coded = net.compress(x)
    assert len(coded["strings"][0]) == 4
    again = build()
    again.load_state_dict(net.state_dict())
    x_hat = again.eval().decompress(**coded)["x_hat"]
    wanted = net.g_s(net.entropy_bottleneck.encode(net.g_a(x))[1]).clamp(0, 1)
    assert x_hat.shape == x.shape
    torch.testing.assert_close(x_hat, wanted)
    forward = net(x)
    assert float((x_hat - x).square().mean()) < 1.5 * float((forward["x_hat"] - x).square().mean())


def run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_example_trains_both_and_reads_their_strings_back():
    sizes = [
        "--steps=4",
        "--batch=2",
        "--crops=8",
        "--width=8",
        "--latents=6",
        "--classes=4",
        "--log2-states=4",
    ]
    done = run_example("sample-photos", *sizes)
    assert done.returncode == 0, done.stderr
    found = re.findall(
        r"^(\w+) +strings ([\d.]+) bpp, PSNR ([\d.]+) dB; forward pass ([\d.]+) bpp", done.stdout, re.M
    )
    assert [name for name, *_ in found] == ["EntropyBottleneck", "GaussianChannel"]
    for _, bpp, psnr_db, forward_bpp in found:
        assert abs(float(bpp) - float(forward_bpp)) < 0.2 * float(forward_bpp) + 0.01
        assert float(psnr_db) > 2


def test_the_example_says_in_a_line_what_is_missing(tmp_path: Path):
    done = run_example(str(tmp_path / "none"))
    assert done.returncode == 3
    assert done.stderr.startswith("compressai_channel: ")
    assert done.stderr.count("\n") == 1
