"""The choice of classes and the divergences that it stands on."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from rcccodec.latent.class_code import ClassCode, neighbours
from rcccodec.latent.prior import SlopePrior, divergences


def some_prior(classes: int, channels: int, seed: int, most: int = 100) -> SlopePrior:
    random, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    left, up = (random.integers(-most, most + 1, (classes + 1, classes)).astype(np.int16) for _ in range(2))
    centre = torch.randn(classes, channels, generator=generator)
    scale = (0.3 * torch.randn(classes, channels, generator=generator)).exp()
    return SlopePrior(centre, scale, random.integers(0, 1500, (classes, channels)), ClassCode(left, up))


def some_rows(positions: int, channels: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 1000)
    mean = torch.randn(positions, channels, generator=generator)
    return mean, -0.7 + 0.2 * torch.randn(positions, channels, generator=generator)


def stated_cost(prior: SlopePrior, mean: Tensor, log_noise: Tensor, classes: np.ndarray) -> float:
    """Nats of classes (h, w) as the docstring of `choose_classes` has them, from torch's own divergence."""
    nats = math.log(2) * float(
        prior.code.lengths_bits_of(*neighbours(classes, prior.code.classes), classes).sum()
    )
    for row, c in enumerate(classes.ravel().tolist()):
        posterior = Normal(mean[row].double(), log_noise[row].double().exp())
        d = float(kl_divergence(posterior, Normal(prior.centre[c].double(), prior.scale[c].double())).sum())
        rates = prior.rates_millibits[c] * math.log(2) / 1000
        nats += d + (d - rates.sum()) ** 2 / max(1.0, (1 - np.exp(-2 * rates)).sum())
    return nats


def single_changes(classes: np.ndarray, count: int) -> list[np.ndarray]:
    changed = []
    for row, column, c in product(*(range(side) for side in classes.shape), range(count)):
        if c != classes[row, column]:
            changed.append(classes.copy())
            changed[-1][row, column] = c
    return changed


@pytest.mark.parametrize("size", [(2, 2), (1, 4), (3, 1)])
def test_no_other_class_at_one_position_is_cheaper(size: tuple[int, int]) -> None:
    better_than_alone = 0
    for seed in range(12):
        prior, rows = some_prior(3, 2, seed), some_rows(math.prod(size), 2, seed)
        chosen = prior.choose_classes(*rows, *size)
        assert chosen.shape == size
        assert chosen.dtype == np.int64
        cost = stated_cost(prior, *rows, chosen)
        assert all(stated_cost(prior, *rows, other) > cost - 1e-4 for other in single_changes(chosen, 3))
        blind = SlopePrior(prior.centre, prior.scale, prior.rates_millibits, uniform_code(3))
        alone = blind.choose_classes(*rows, *size)  # control: without the neighbours
        better_than_alone += stated_cost(prior, *rows, alone) > cost + 1e-3
    assert better_than_alone >= 4


def uniform_code(classes: int) -> ClassCode:
    tables = np.zeros((classes + 1, classes), np.int16)
    return ClassCode(tables, tables.copy())


def test_the_choice_comes_near_the_cheapest_of_all() -> None:
    above = []
    for seed in range(8):
        prior, rows = some_prior(3, 2, seed), some_rows(4, 2, seed)
        every = [
            stated_cost(prior, *rows, np.array(classes).reshape(2, 2))
            for classes in product(range(3), repeat=4)
        ]
        above.append(stated_cost(prior, *rows, prior.choose_classes(*rows, 2, 2)) - min(every))
        assert above[-1] < np.median(every) - min(every)
    assert np.mean(np.array(above) < 1e-4) >= 0.5


def test_the_cost_of_a_position_counts_what_it_does_to_its_neighbours() -> None:
    prior, classes = some_prior(4, 1, 3), np.random.default_rng(3).integers(0, 4, (3, 4))
    context = prior._context_nats(torch.from_numpy(classes))
    for row, column in product(range(3), range(4)):
        exact = []
        for c in range(4):
            other = classes.copy()
            other[row, column] = c
            left, up = neighbours(other, 4)
            exact.append(math.log(2) * float(prior.code.lengths_bits_of(left, up, other).sum()))
        found = context[row, column].numpy()
        assert found - found[0] == pytest.approx(np.array(exact) - exact[0], abs=1e-3)


def test_divergences_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_noise = torch.randn(7, 5, generator=generator), torch.randn(7, 5, generator=generator)
    centre, log_scale = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    expected = kl_divergence(
        Normal(mean[:, None], log_noise[:, None].exp()), Normal(centre, log_scale.exp())
    ).sum(2)
    assert torch.allclose(divergences(mean, log_noise, centre, log_scale), expected, rtol=1e-4, atol=1e-4)
    same = divergences(centre, log_scale, centre, log_scale).diagonal()
    assert same.tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_an_expected_rate_that_is_not_that_of_the_position_makes_a_class_dearer() -> None:
    centre, scale = torch.zeros(2, 3), torch.ones(2, 3)
    mean, log_noise = torch.zeros(1, 3), torch.full((1, 3), -1.0)
    d = float(divergences(mean, log_noise, centre[:1], scale[:1].log()))
    right = round(1000 * d / math.log(2) / 3)
    for order in ([right, 4 * right], [4 * right, right], [0, right]):
        rates = np.repeat(np.array(order)[:, None], 3, 1).astype(np.int64)
        chosen = SlopePrior(centre, scale, rates, uniform_code(2)).choose_classes(mean, log_noise, 1, 1)
        assert order[int(chosen[0, 0])] == right
