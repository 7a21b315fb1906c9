"""The integer tables: the code of classes, expected rates, dead classes, codes of chunks."""

import math

import numpy as np
import pytest
import torch
from tiny_latent import SPEC, haar_network, smooth_picture
from torch.distributions import Normal, kl_divergence

from rcccodec.index_code.fitted import FREQUENCY_TOTAL
from rcccodec.latent import fit
from rcccodec.latent.class_code import neighbours
from rcccodec.latent.fit import LEAST_MILLIBITS, RATE_WEIGHT, fit_class_code, fit_tables
from rcccodec.latent.model import assemble, stored_network
from rcccodec.latent.network import LatentNetwork
from rcccodec.latent.spec import LatentSpec
from rcccodec.latent.windows import analyse


def markov_field(count: int, tiles: int, seed: int) -> np.ndarray:
    """Tiles of classes that are most often the one on the left or the one above, and rarely uniform."""
    random = np.random.default_rng(seed)
    share = 0.5 ** np.arange(count)
    field = random.choice(count, (tiles, 16, 16), p=share / share.sum())
    source = random.random(field.shape)
    for row in range(16):
        for column in range(16):
            if column:
                copied = source[:, row, column] < 0.4
                field[copied, row, column] = field[copied, row, column - 1]
            if row:
                copied = source[:, row, column] > 0.6
                field[copied, row, column] = field[copied, row - 1, column]
    return field


def mean_bits(classes: np.ndarray, code) -> float:
    return float(code.lengths_bits_of(*neighbours(classes, code.classes), classes).mean())


def test_a_fitted_code_of_classes_beats_the_uniform_one_and_that_of_their_shares() -> None:
    trained, tested = markov_field(8, 40, 1), markov_field(8, 10, 2)
    share = np.bincount(trained.ravel(), minlength=8) / trained.size
    order_0 = float(-np.log2(share)[tested].mean())
    found = mean_bits(tested, fit_class_code(trained, 8))
    assert order_0 < 3
    assert found < order_0 - 0.4
    size = 8 * sum(len(fit_class_code(trained, 8).encode(tile)) for tile in tested) / tested.size
    assert size == pytest.approx(found, abs=8 / 256)


def test_a_code_of_classes_without_structure_loses_next_to_nothing() -> None:
    random = np.random.default_rng(3)
    trained, tested = random.integers(0, 8, (60, 16, 16)), random.integers(0, 8, (20, 16, 16))
    assert 3 <= mean_bits(tested, fit_class_code(trained, 8)) < 3.02


def test_uneven_classes_without_structure_cost_their_entropy() -> None:
    random, share = np.random.default_rng(4), np.array([0.9, 0.04, 0.03, 0.01, 0.01, 0.005, 0.004, 0.001])
    trained, tested = (random.choice(8, (n, 16, 16), p=share) for n in (60, 20))
    assert mean_bits(tested, fit_class_code(trained, 8)) < float(-np.log2(share)[tested].mean()) + 0.02


@pytest.mark.parametrize("tiles", [1, 3])
def test_classes_never_seen_and_very_few_tiles_still_make_a_code(tiles: int) -> None:
    code = fit_class_code(np.zeros((tiles, 16, 16), np.int64), 200)
    every = np.arange(256).reshape(16, 16) % 200
    assert np.array_equal(code.decode(code.encode(every), 16, 16), every)
    assert mean_bits(np.zeros((1, 16, 16), np.int64), code) < 0.1 * mean_bits(every[None], code)


@pytest.fixture(scope="module")
def fitted():
    network = stored_network(haar_network())
    pictures = torch.from_numpy(np.stack([smooth_picture(256, 256, seed) for seed in range(4)]))
    said: list[str] = []
    return network, pictures, fit_tables(network, pictures, classes=16, say=said.append), said


def test_tables_have_the_forms_that_a_bundle_stores(fitted) -> None:
    _, _, tables, said = fitted
    shape = (2, 16, SPEC.latent_dim)
    assert {name: (t.dtype, tuple(t.shape)) for name, t in tables.items()} == {
        "centre": (torch.float16, shape),
        "log_scale": (torch.float16, shape),
        "rates_millibits": (torch.int32, shape),
        "left": (torch.int16, (2, 17, 16)),
        "up": (torch.int16, (2, 17, 16)),
    }
    assert len(said) == 2
    rates = tables["rates_millibits"]
    assert rates.min() == 0
    assert rates[rates > 0].min() >= LEAST_MILLIBITS
    assert (rates[1].sum(1) > rates[0].sum(1)).float().mean() > 0.8


def test_expected_rates_are_mean_divergences(fitted) -> None:
    """To what the last change of classes leaves, and to what rare classes lean on the mean."""
    network, pictures, tables, _ = fitted
    model = assemble(network, tables)
    for slope, prior in enumerate(model.priors):
        total = np.zeros(prior.rates_millibits.shape)
        count = np.zeros(16)
        for x in pictures:
            mean, log_noise = (v.flatten(1).T for v in analyse(network, x, slope))
            chosen = prior.choose_classes(mean, log_noise, 16, 16).ravel()
            nats = kl_divergence(
                Normal(mean, log_noise.exp()), Normal(prior.centre[chosen], prior.scale[chosen])
            )
            np.add.at(total, chosen, nats.numpy() / math.log(2))
            np.add.at(count, chosen, 1)
        often = count > 6 * RATE_WEIGHT
        assert often.sum() >= 3
        mean_bits_ = total[often] / count[often, None]
        expected = prior.rates_millibits[often] / 1000
        assert np.abs(expected - mean_bits_)[:, :12].max() < 0.1
        assert (expected * count[often, None]).sum() == pytest.approx(
            (mean_bits_ * count[often, None]).sum(), rel=0.02
        )


def test_a_channel_that_says_nothing_is_not_sent() -> None:
    mean, log_noise = torch.zeros(64, 2), torch.tensor([[0.0, -2.0]]).expand(64, 2)
    chosen = torch.zeros(64, dtype=torch.int64)
    exact = torch.zeros(3, 2), torch.zeros(3, 2)
    rates = fit._rates((mean, log_noise), chosen, exact, None)
    d = float(kl_divergence(Normal(0, math.exp(-2)), Normal(0, 1))) / math.log(2)
    assert rates.tolist() == [[0, round(1000 * d)]] * 3  # classes that nobody takes have the mean of all


def test_dead_classes_are_revived(monkeypatch) -> None:
    random = torch.Generator().manual_seed(0)
    places = 6 * torch.randn(12, 4, generator=random)  # twelve clusters, and classes that begin in one place
    mean = places[torch.arange(6000) % 12] + 0.1 * torch.randn(6000, 4, generator=random)
    network = LatentNetwork(LatentSpec((32, 32, 3), (8.0,), 4, 4, 16)).requires_grad_(False)
    network.class_centre[0, 1:] = 100.0
    rows = mean, torch.full_like(mean, -2.0)
    alive = {}
    for revivals in (fit.REVIVALS, ()):
        monkeypatch.setattr(fit, "REVIVALS", revivals)
        centre, log_scale, chosen = fit._em(network, rows, 0, 16)
        assert centre.shape == log_scale.shape == (16, 4)
        alive[bool(revivals)] = len(chosen.unique())
    assert alive[False] == 1
    assert alive[True] >= 5


def test_classes_are_doubled_until_there_are_enough() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(3000, SPEC.latent_dim, generator=random), torch.full((3000, SPEC.latent_dim), -1.0)
    for classes in (3, 8, 40):
        centre, log_scale, chosen = fit._em(haar_network(), rows, 0, classes)
        assert centre.shape == log_scale.shape == (classes, SPEC.latent_dim)
        assert int(chosen.max()) < classes
        assert centre.isfinite().all()
        assert log_scale.isfinite().all()


def test_codes_of_chunks_are_fitted_for_every_coder_and_budget(latent_model) -> None:
    assert set(latent_model.chunk_codes) == {"pfr", "orc", "mincost"}
    for rows in latent_model.chunk_codes.values():
        assert list(rows) == [6, 8]
        for frequencies in rows.values():
            assert sum(frequencies) == FREQUENCY_TOTAL
            assert min(frequencies) >= 1
            assert max(frequencies) > 4 * FREQUENCY_TOTAL / len(frequencies)  # small indices are the likelier
