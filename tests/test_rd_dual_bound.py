"""Lower bounds by the dual problem: below exact values and near them, each with a control that must fail."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rcccodec.errors import InputError
from rcccodec.rd import dual_bound, supremum
from rcccodec.rd.blahut_arimoto import blahut_arimoto
from rcccodec.rd.dual_bound import bound_from_folds, split_vectors, t_quantile, trace_lower_bound
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.rd.potential import Mixture, Potential, Quadratic
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.sandwich import trace_sandwich
from rcccodec.rd.settings import BetaVaeSettings, SandwichSettings
from rcccodec.rd.supremum import climb_from_best, find_supremum, list_reproductions
from rcccodec.sources.synthetic import gaussian_variances

LN2 = math.log(2)
SMALL = SandwichSettings(draws=256, steps=30, evaluations=8, width=16)


def gaussian_bits(m: int, decay: float, beta: float) -> float:
    point = gaussian_point_at_slope(gaussian_variances(m, decay), beta)
    return point.rate_bits + beta * point.distortion / LN2


def optimal_log_u(m: int, decay: float, beta: float, log_floor: float = -math.inf):
    """ln (floor + E exp(-beta |x - Y|^2)) under the best law of Y."""
    spread = torch.tensor(gaussian_variances(m, decay)).float().clamp_min(1 / (2 * beta))

    def log_u(x: Tensor) -> Tensor:
        exact = -0.5 * ((2 * beta * spread).log() + x.square() / spread).sum(1)
        return torch.logaddexp(exact, torch.tensor(log_floor))

    return log_u


def bernoulli_problem(p: float, seed: int, count: int = 8000) -> Problem:
    return load_problem(f"bernoulli:m=1,p={p}", num_train=count, num_test=1000, seed=seed)


def bernoulli_bits(p: float, beta: float) -> float:
    return (-p * math.log(p) - (1 - p) * math.log1p(-p) - math.log1p(math.exp(-beta))) / LN2


# the search


def brute_force(x: Tensor, a: Tensor, y: Tensor, beta: float, d) -> Tensor:
    return torch.logsumexp(a.double() - beta * d(x.double(), y.double()), 1) - math.log(len(x))


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (y[:, None] - x).square().sum(2)


def absolute(x: Tensor, y: Tensor) -> Tensor:
    return (y[:, None] - x).abs().sum(2)


@pytest.mark.parametrize(("distortion", "d"), [("mse", squared), ("l1", absolute)])
@pytest.mark.parametrize("beta", [0.2, 3.0])
def test_the_search_finds_what_a_fine_grid_finds(distortion: str, d, beta: float):
    g = torch.Generator().manual_seed(3)
    x, a = torch.randn(40, 2, generator=g), torch.randn(40, generator=g)
    line = torch.linspace(-3.5, 3.5, 281)
    grid = torch.cartesian_prod(line, line)
    best = float(brute_force(x, a, grid, beta, d).max())
    found = find_supremum(x, a, x, beta=beta, distortion=distortion, steps=60)
    assert found.log_value >= best - 1e-6  # the grid is one more search
    assert found.log_value <= best + beta * 0.05
    at_y = float(brute_force(x, a, found.y[None], beta, d))
    assert found.log_value == pytest.approx(at_y, abs=1e-5)
    assert found.starts == 40
    assert not found.proven


@pytest.mark.parametrize(("distortion", "d"), [("mse", squared), ("l1", absolute)])
def test_on_the_line_the_supremum_is_proven(distortion: str, d):
    g = torch.Generator().manual_seed(4)
    x, a = 2 * torch.randn(300, 1, generator=g), torch.randn(300, generator=g)
    grid = torch.linspace(-8, 8, 200_001)[:, None]
    best = max(float(brute_force(x, a, part, 2.0, d).max()) for part in grid.split(2000))
    found = find_supremum(x, a, x[:1], beta=2.0, distortion=distortion, steps=1)
    assert found.proven
    assert best - 1e-7 <= found.log_value <= best + 3e-4


def two_hills() -> tuple[Tensor, Tensor]:
    """Forty vectors about the origin, and five far off that weigh much more."""
    g = torch.Generator().manual_seed(5)
    x = torch.cat([torch.randn(40, 3, generator=g), 12 + 0.1 * torch.randn(5, 3, generator=g)])
    return x, torch.cat([torch.zeros(40), torch.full((5,), 5.0)])


@pytest.mark.parametrize("distortion", ["mse", "l1", "lp:3"])
def test_few_starts_miss_a_hill_that_all_starts_find(distortion: str):
    x, a = two_hills()
    everywhere = find_supremum(x, a, x, beta=0.5, distortion=distortion, steps=20)
    assert torch.allclose(everywhere.y, torch.full((3,), 12.0), atol=0.3)
    few = find_supremum(x, a, x[:3], beta=0.5, distortion=distortion, steps=20)
    assert few.log_value < everywhere.log_value - 1  # the control: a bound from these would be no bound


def test_gradient_steps_find_what_mean_shift_finds():
    g = torch.Generator().manual_seed(6)
    x, a = torch.randn(60, 3, generator=g), torch.zeros(60)
    exact = find_supremum(x, a, x, beta=0.7, distortion="mse", steps=60)
    frame = supremum._Frame(x, a, 0.7, "mse")
    value, end, _ = frame._gradient(x.clone(), 300)
    assert float(value.max()) == pytest.approx(exact.log_value, abs=1e-4)
    assert torch.allclose(end[value.argmax()], exact.y, atol=0.02)


def test_flips_reach_the_best_of_all_short_sequences():
    g = torch.Generator().manual_seed(7)
    x, a = (torch.rand(200, 8, generator=g) < 0.3).float(), torch.randn(200, generator=g)
    every = list_reproductions(torch.tensor([0.0, 1.0]), 8)
    assert every is not None
    assert len(every) == 256
    listed = find_supremum(x, a, x, beta=1.0, distortion="hamming", steps=1, listed=every)
    best = brute_force(x, a, every, 1.0, absolute).max()
    assert listed.proven
    assert listed.log_value == pytest.approx(float(best), abs=1e-9)
    climbed = find_supremum(x, a, x, beta=1.0, distortion="hamming", steps=40)
    assert climbed.log_value == pytest.approx(listed.log_value, abs=1e-9)
    assert not climbed.proven


def test_a_flip_gains_where_a_vote_stays(monkeypatch: pytest.MonkeyPatch):
    g = torch.Generator().manual_seed(1)
    x, a = (torch.rand(12, 6, generator=g) < 0.5).float(), torch.randn(12, generator=g)
    every = list_reproductions(torch.tensor([0.0, 1.0]), 6)
    best = find_supremum(x, a, x, beta=1.5, distortion="hamming", steps=1, listed=every)

    def from_one() -> float:
        return find_supremum(x, a, x[:1], beta=1.5, distortion="hamming", steps=30).log_value

    assert from_one() == pytest.approx(best.log_value, abs=1e-9)
    monkeypatch.setattr(supremum._Frame, "_vote", lambda _self, ones, y: (ones > 0.5).to(y.dtype))
    assert from_one() < best.log_value - 1e-3  # the control


def test_too_many_sequences_are_not_listed():
    assert list_reproductions(torch.tensor([0.0, 1.0]), 40) is None
    assert list_reproductions(None, 1) is None


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch):
    g = torch.Generator().manual_seed(8)
    x, a = torch.randn(50, 4, generator=g), torch.randn(50, generator=g)
    whole = find_supremum(x, a, x, beta=1.0, distortion="mse", steps=50)
    monkeypatch.setattr(supremum, "TILE", 50 * 7)
    tiled = find_supremum(x, a, x, beta=1.0, distortion="mse", steps=50)
    assert tiled.log_value == pytest.approx(whole.log_value, abs=1e-6)


def test_a_climb_for_training_ends_on_the_listed_best():
    x = torch.tensor([[0.0], [0.0], [1.0]])
    listed = torch.tensor([[0.0], [1.0]])
    best = climb_from_best(x, torch.zeros(3), x, beta=1.0, distortion="hamming", steps=1, listed=listed)
    assert float(best) == 0


# functions u


def test_the_quadratic_start_is_the_gaussian_optimum():
    problem = load_problem("gaussian:m=4,decay=0.7", num_train=40_000, num_test=500)
    exact = optimal_log_u(4, 0.7, 0.4)(problem.test)
    assert (Quadratic(problem.train, 0.4)(problem.test) - exact).abs().mean() < 0.05
    assert (Quadratic(problem.train, 0.8)(problem.test) - exact).abs().mean() > 0.3  # the control


@pytest.mark.parametrize(("spec", "distortion"), [("gaussian:m=2", None), ("laplacian:m=2", "l1")])
def test_a_mixture_is_a_partition_function_near_the_optimum(spec: str, distortion: str | None):
    problem = load_problem(spec, distortion=distortion, num_train=3000, num_test=500)
    mixture = Mixture(problem, problem.train, 1.0, torch.Generator().manual_seed(0))
    assert float(mixture.log_mass.exp().sum()) == pytest.approx(1, abs=1e-4)
    x = problem.test[:50]
    kernel = torch.exp(-problem.distance(x, mixture.y)) @ mixture.log_mass.exp()
    assert torch.allclose(mixture(x), kernel.log(), atol=1e-4)
    lagrangian = -float(mixture(problem.test).mean()) / LN2  # a proposal: an upper bound
    known = gaussian_bits(2, 0.5, 1.0) if distortion is None else 2 / LN2  # ln(beta b) = 0
    assert known - 0.15 < lagrangian < known + 0.3


def test_a_potential_begins_at_its_start_and_keeps_above_its_floor():
    problem = load_problem("gaussian:m=3", num_train=500, num_test=100)
    start = Quadratic(problem.train, 0.5)
    potential = Potential(start, problem.train, 8, torch.Generator().manual_seed(0))
    assert torch.allclose(potential(problem.test), start(problem.test))
    potential.set_floor(-2.0)
    assert float(potential(problem.test).min().detach()) >= -2
    assert float(start(problem.test).min()) < -2


# the bound


def folds_of(m: int, decay: float, count: int, k: int, seed: int) -> tuple[Problem, Tensor]:
    problem = load_problem(f"gaussian:m={m},decay={decay}", num_train=count * k, num_test=10, seed=seed)
    return problem, problem.train.reshape(count, k, m)


@pytest.mark.parametrize(("m", "gap"), [(1, 0.2), (5, 0.45)])
def test_the_best_u_gives_a_tight_bound_that_holds(m: int, gap: float):
    beta = 0.3
    known = gaussian_bits(m, 0.5, beta)
    gaps = []
    for seed in range(5):
        problem, folds = folds_of(m, 0.5, 8, 400, seed)
        point = bound_from_folds(problem, optimal_log_u(m, 0.5, beta, -5.0), folds, beta, 1.0, 20)
        assert point.lagrangian_bits <= known
        assert point.details["mean_bits"] <= known + 3 * point.lagrangian_se_samples_bits
        gaps.append(known - point.lagrangian_bits)
    assert sum(gaps) / 5 < gap  # and tight, where ln k is far away


def test_a_u_of_the_wrong_sign_or_size_gives_no_better_bound():
    problem, folds = folds_of(1, 0.5, 8, 512, 0)
    log_u = optimal_log_u(1, 0.5, 0.3, -5.0)
    right = bound_from_folds(problem, log_u, folds, 0.3, 1.0, 20).lagrangian_bits
    upside_down = bound_from_folds(problem, lambda x: -log_u(x), folds, 0.3, 1.0, 20).lagrangian_bits
    flat = bound_from_folds(problem, lambda x: 0 * log_u(x), folds, 0.3, 1.0, 20).lagrangian_bits
    assert upside_down < right - 0.3
    assert flat < right - 0.1


def test_the_size_of_u_and_alpha_cost_nothing_together_and_a_wrong_alpha_costs():
    problem, folds = folds_of(1, 0.5, 6, 256, 0)
    log_u = optimal_log_u(1, 0.5, 0.3, -5.0)
    one = bound_from_folds(problem, log_u, folds, 0.3, 1.0, 20)
    scaled = bound_from_folds(problem, lambda x: log_u(x) + 3, folds, 0.3, math.exp(-3), 20)
    assert scaled.details["mean_bits"] == pytest.approx(one.details["mean_bits"], abs=1e-5)
    for alpha in (0.3, 3.0):
        assert bound_from_folds(problem, log_u, folds, 0.3, alpha, 20).details["mean_bits"] < (
            one.details["mean_bits"] - 0.1
        )


def test_without_the_logarithm_of_alpha_the_bound_would_fail(monkeypatch: pytest.MonkeyPatch):
    problem, folds = folds_of(1, 0.5, 6, 256, 0)
    log_u, known = optimal_log_u(1, 0.5, 0.3, -5.0), gaussian_bits(1, 0.5, 0.3)

    def bits() -> float:
        scaled = bound_from_folds(problem, lambda x: log_u(x) - 2, folds, 0.3, math.exp(2), 20)
        return scaled.lagrangian_bits

    assert bits() <= known

    class WithoutLogarithm:
        def __getattr__(self, name: str):
            real = getattr(math, name)
            return (lambda v: real(v) if v == 2 else 0.0) if name == "log" else real

    monkeypatch.setattr(dual_bound, "math", WithoutLogarithm())
    assert bits() > known + 1


def test_an_ascent_from_few_starts_states_more_than_is_true():
    """A source on two places: seen from one of them only, u may be tiny on the other."""
    g = torch.Generator().manual_seed(9)
    far = (torch.rand(2000, 1, generator=g) < 0.5).float() * 20
    x = torch.cat([far, torch.zeros(2000, 1)], 1) + 0.1 * torch.randn(2000, 2, generator=g)
    problem = Problem("two places", x, x[:10], "mse")
    folds, beta = x.reshape(8, 250, 2), 0.5

    def log_u(v: Tensor) -> Tensor:
        return torch.where(v[:, 0] > 10, -8.0, 0.0)

    # about one bit says where; the rest is less than 2 beta 0.01 nats of distortion
    most = 1 + 2 * beta * 0.01 / LN2
    assert bound_from_folds(problem, log_u, folds, beta, 1500.0, 30).lagrangian_bits <= most
    near = torch.zeros(1, 2)
    few = bound_from_folds(problem, log_u, folds, beta, 0.5, 30, starts=near)
    assert few.lagrangian_bits > most + 2


def test_more_draws_bias_less_and_a_fresh_fold_shows_the_true_supremum():
    problem, folds = folds_of(5, 0.5, 8, 256, 1)

    def log_u(x: Tensor) -> Tensor:  # with a floor: one rare vector must not rule
        return torch.logaddexp(optimal_log_u(5, 0.5, 0.5)(x), torch.tensor(-5.0))

    details = bound_from_folds(problem, log_u, folds, 0.5, 1.0, 20).details
    assert details["supremum_half"] > details["supremum"] > details["supremum_fresh"]


def test_the_bound_never_passes_log2_k():
    problem, folds = folds_of(5, 0.1, 6, 64, 0)
    assert gaussian_bits(5, 0.1, 20.0) > 15
    point = bound_from_folds(problem, lambda x: torch.full((len(x),), -math.log(64)), folds, 20.0, 1.0, 5)
    assert 4 < point.lagrangian_bits <= 6
    assert point.saturated


# fitted bounds


@pytest.mark.parametrize("seed", range(5))
def test_fitted_bounds_hold_for_bits(seed: int):
    known = bernoulli_bits(0.3, 1.5)
    point = trace_lower_bound(bernoulli_problem(0.3, seed), 1.5, SMALL, Run(seed=seed))
    assert known - 0.2 < point.lagrangian_bits <= known
    assert point.kind == "lower"
    assert point.details["proven"] == 1
    assert math.isnan(point.rate_bits)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("spec", "distortion", "beta", "known", "loose"),
    [
        ("gaussian:m=1,decay=0", None, 0.3, gaussian_bits(1, 0, 0.3), 0.4),
        ("gaussian:m=5,decay=1", None, 0.2, gaussian_bits(5, 1, 0.2), 0.4),
        ("laplacian:m=1", "l1", 2.0, (math.log(2) + 1) / LN2, 0.6),
    ],
)
def test_fitted_bounds_hold(
    spec: str, distortion: str | None, beta: float, known: float, loose: float, seed: int
):
    problem = load_problem(spec, distortion=distortion, num_train=8000, num_test=500, seed=seed)
    point = trace_lower_bound(problem, beta, SMALL, Run(seed=seed))
    assert known - loose < point.lagrangian_bits <= known
    assert point.lagrangian_bits == pytest.approx(point.details["lower_confidence_bits"])
    assert point.lagrangian_bits < point.details["mean_bits"]


def test_markov_blocks_lie_below_blahut_arimoto():
    problem = load_problem("markov:n=6,q=0.25", num_train=8000, num_test=500)
    every = list_reproductions(problem.alphabet, 6)
    assert every is not None
    x = torch.cat([problem.train, problem.test])
    counts = torch.zeros(64, dtype=torch.float64).index_add(
        0, (x @ (2.0 ** torch.arange(5, -1, -1))).long(), torch.ones(len(x), dtype=torch.float64)
    )
    known = blahut_arimoto(problem.distance(every, every), 1.5, source=counts / counts.sum()).lagrangian_bits
    point = trace_lower_bound(problem, 1.5, SMALL, Run())
    assert known - 0.6 < point.lagrangian_bits <= known


def test_folds_are_disjoint_from_what_u_sees_and_use_the_test_vectors():
    train, test = torch.arange(4000.0)[:, None], -1 - torch.arange(300.0)[:, None]
    problem = Problem("numbered", train, test, "mse")
    parts = split_vectors(problem, SMALL, Run())
    seen = torch.cat([parts.start, parts.network]).flatten().tolist()
    held = torch.cat([parts.folds.flatten(), parts.choice.flatten()]).tolist()
    assert not set(seen) & set(held)
    assert len(set(held)) == len(held)
    assert parts.folds.shape == (8, 2300 // 12, 1)  # k gives way
    assert sum(v < 0 for v in held) > 290
    assert min(seen) >= 0
    assert len(seen) >= 2000


def test_too_few_vectors_are_refused():
    problem = Problem("few", torch.randn(200, 2), torch.randn(50, 2), "mse")
    with pytest.raises(InputError, match="disjoint folds"):
        trace_lower_bound(problem, 1.0, SMALL, Run())


def test_the_same_seed_gives_the_same_bound_and_a_checkpoint_is_used(tmp_path: Path):
    problem = load_problem("gaussian:m=2", num_train=1200, num_test=100)
    runs = [trace_lower_bound(problem, 0.3, SMALL, Run(seed=1, folder=tmp_path)) for _ in range(2)]
    again = trace_lower_bound(problem, 0.3, SMALL, Run(seed=1))
    other = trace_lower_bound(problem, 0.3, SMALL, Run(seed=2))
    assert runs[0].lagrangian_bits == runs[1].lagrangian_bits == again.lagrangian_bits
    assert other.lagrangian_bits != again.lagrangian_bits
    assert list(tmp_path.glob("sandwich-0.3*"))


@pytest.mark.parametrize("degrees", [4, 7, 19])
def test_quantiles_of_student(degrees: int):
    exact = {4: 3.746947, 7: 2.997952, 19: 2.539483}[degrees]
    assert t_quantile(degrees) == pytest.approx(exact, rel=2e-3)
    assert t_quantile(degrees) > t_quantile(10_000) == pytest.approx(2.3267, abs=1e-3)


def test_the_sandwich_has_two_sides_and_slopes_stand_alone():
    problem = load_problem("gaussian:m=2", num_train=1200, num_test=200)
    vae = BetaVaeSettings(latents=2, width=8, depth=1, steps=20)
    both = list(trace_sandwich(problem, (0.2, 0.5), SMALL, vae, Run()))
    assert [p.method for p in both] == ["sandwich-upper", "sandwich-lower"] * 2
    assert both[1].lagrangian_bits <= gaussian_bits(2, 0.5, 0.2)
    alone = list(trace_sandwich(problem, (0.5,), SMALL, vae, Run()))
    assert [p.lagrangian_bits for p in alone] == [p.lagrangian_bits for p in both[2:]]


def test_discrete_reproductions_have_the_lower_side_alone():
    points = trace_sandwich(bernoulli_problem(0.5, 0), (1.0,), SMALL, BetaVaeSettings(), Run())
    assert [p.method for p in points] == ["sandwich-lower"]
