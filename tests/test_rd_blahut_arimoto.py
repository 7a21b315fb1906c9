"""Certificates that hold, broken ones that do not; streams, words and grids; resuming; closed forms."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rcccodec.checkpoint import load_checkpoint, save_checkpoint
from rcccodec.distortion import absolute_error, squared_error
from rcccodec.errors import ModelError
from rcccodec.rd import kernel as kernels
from rcccodec.rd.ba import trace_ba
from rcccodec.rd.bernoulli import bernoulli_marginal, bernoulli_point_at_slope
from rcccodec.rd.blahut_arimoto import State, blahut_arimoto, evaluate_law
from rcccodec.rd.discretise import line_law, line_lower_bits, make_grid
from rcccodec.rd.exact import trace_exact
from rcccodec.rd.gaussian import gaussian_point_at_distortion
from rcccodec.rd.kernel import HammingKernel, MatrixKernel
from rcccodec.rd.laplacian import laplacian_point_at_distortion, laplacian_point_at_slope
from rcccodec.rd.problem import Problem, load_problem
from rcccodec.rd.run import Run
from rcccodec.rd.settings import BlahutArimotoSettings

LN2 = math.log(2)
HAMMING = 1 - torch.eye(2, dtype=torch.float64)
SMALL = BlahutArimotoSettings(samples=200, spread=1e-3)


def random_problem(seed: int, n: int = 12, m: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source = torch.rand(n, generator=generator, dtype=torch.float64)
    return torch.rand(n, m, generator=generator, dtype=torch.float64), source / source.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 60.0), st.booleans())
def test_upper_values_fall_and_lower_values_never_pass_them(seed: int, beta: float, accelerate: bool) -> None:
    d, source = random_problem(seed)
    found = blahut_arimoto(
        d, beta, source=source, tolerance_bits=1e-4, max_rounds=2000, accelerate=accelerate
    )
    upper, lower = (torch.tensor(values, dtype=torch.float64) for values in zip(*found.history, strict=True))
    assert float(upper.diff().max()) <= 1e-9 if len(upper) > 1 else True
    assert float(lower.max()) <= float(upper.min()) + 1e-9
    assert found.lagrangian_bits == pytest.approx(float(upper[-1]))
    assert found.rate_bits >= -1e-9
    assert float(found.log_mass.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("broken", ["no division by c", "sign of beta", "source masses left out"])
def test_a_broken_kernel_is_given_away_by_its_certificate(broken: str) -> None:
    beta, source = math.log(9), torch.tensor([0.7, 0.3], dtype=torch.float64)
    exact = bernoulli_point_at_slope(0.3, beta)
    ideal = exact.rate_bits + beta * exact.distortion / LN2

    class Broken(MatrixKernel):
        def sweep(
            self, log_mass: torch.Tensor, log_source: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            log_c, _ = super().sweep(log_mass, log_source)
            if broken == "no division by c":
                return log_c, torch.logsumexp(log_source[:, None] - beta * HAMMING, 0)
            if broken == "sign of beta":
                return log_c, torch.logsumexp((log_source - log_c)[:, None] + beta * HAMMING, 0)
            return log_c, torch.logsumexp((math.log(0.5) - log_c)[:, None] - beta * HAMMING, 0)

    def solve(kernel: MatrixKernel) -> tuple[bool, float, float]:
        found = blahut_arimoto(kernel, beta, source=source, tolerance_bits=1e-7, max_rounds=500)
        lower = max(low for _, low in found.history)
        return found.settled, found.lagrangian_bits, lower

    def make(kind: type[MatrixKernel]) -> MatrixKernel:
        return kind(lambda rows: HAMMING[rows], (2, 2), beta, HAMMING, 1 << 20)

    settled, upper, lower = solve(make(MatrixKernel))
    assert settled
    assert upper == pytest.approx(ideal, abs=1e-6)
    assert lower <= ideal + 1e-9
    settled, upper, lower = solve(make(Broken))
    assert not settled or lower > ideal + 1e-3 or upper > ideal + 1e-3


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5, 10.0])
def test_biased_bits_have_their_closed_form_at_every_slope(p: float, beta: float) -> None:
    source = torch.tensor([1 - p, p], dtype=torch.float64)
    found = blahut_arimoto(HAMMING, beta, source=source, tolerance_bits=1e-8, max_rounds=20_000)
    point = bernoulli_point_at_slope(p, beta)
    assert found.settled
    assert found.lagrangian_bits == pytest.approx(point.rate_bits + beta * point.distortion / LN2, abs=1e-7)
    assert float(found.log_mass[1].exp()) == pytest.approx(bernoulli_marginal(p, beta), abs=1e-3)


def test_momentum_ends_where_plain_steps_do_in_fewer_sweeps() -> None:
    law = line_law("gaussian", {"m": 1, "variance": 1.0})
    assert law is not None
    grid = make_grid(law, "mse", 0.3, 401)
    d = squared_error(grid.x, grid.y)
    options = {"source": grid.mass, "tolerance_bits": 1e-3, "max_rounds": 4000}
    plain = blahut_arimoto(d, 0.3, accelerate=False, **options)
    fast = blahut_arimoto(d, 0.3, **options)
    assert plain.settled
    assert fast.settled
    assert abs(plain.lagrangian_bits - fast.lagrangian_bits) < 1e-3
    assert fast.sweeps < plain.sweeps / 3


def test_words_need_no_matrix() -> None:
    words = torch.arange(16)
    bits = (words[:, None] >> torch.arange(4)) & 1
    d = (bits[:, None] != bits).sum(-1).double()
    generator = torch.Generator().manual_seed(2)
    log_q, log_p = torch.randn(2, 16, generator=generator, dtype=torch.float64).log_softmax(1)
    for beta in (0.3, 400.0):
        fast, slow = HammingKernel(4, beta), MatrixKernel.of(d, beta)
        for one, other in zip(fast.sweep(log_q, log_p), slow.sweep(log_q, log_p), strict=True):
            torch.testing.assert_close(one, other)
        for one, other in zip(fast.evaluate(log_q), slow.evaluate(log_q), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stream_of_tiles_is_the_matrix(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(57, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    held = MatrixKernel.between(x, x, squared_error, 2.0)
    monkeypatch.setitem(kernels.TILE_BYTES, "cpu", 10 * 57 * x.element_size())
    streamed = MatrixKernel.between(x, x, squared_error, 2.0, budget=0)
    assert (held.streams, streamed.streams) == (False, True)
    first, second = (blahut_arimoto(k, 2.0, tolerance_bits=1e-3) for k in (held, streamed))
    assert first.rounds == second.rounds
    assert first.lagrangian_bits == pytest.approx(second.lagrangian_bits, rel=1e-6)
    torch.testing.assert_close(
        evaluate_law(held, first.log_mass, 2.0),
        evaluate_law(streamed, first.log_mass, 2.0),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beta", [1.0, 50.0, 1e4])
def test_no_row_vanishes_at_any_slope_or_law(dtype: torch.dtype, beta: float) -> None:
    generator = torch.Generator().manual_seed(1)
    d = (10 * torch.rand(20, 8, generator=generator)).to(dtype)
    log_q = torch.full((8,), -5e3, dtype=torch.float64)
    log_q[3] = 0.0  # nearly all mass on one candidate, far from most rows
    log_p = torch.full((20,), -math.log(20), dtype=torch.float64)
    kernel = MatrixKernel.of(d, beta)
    logs = log_q - beta * d.double()
    log_c = torch.logsumexp(logs, 1)
    found_c, found_f = kernel.sweep(log_q, log_p)
    torch.testing.assert_close(found_c, log_c, rtol=1e-5, atol=1e-3)
    log_f = torch.logsumexp((log_p - log_c)[:, None] - beta * d.double(), 0)
    ordinary = log_f > -60
    assert ordinary.any()
    torch.testing.assert_close(found_f[ordinary], log_f[ordinary], rtol=1e-4, atol=1e-3)
    assert bool((found_f[~ordinary] < -50).all())
    mean = (torch.softmax(logs, 1) * d).sum(1)
    torch.testing.assert_close(kernel.evaluate(log_q)[1], mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [0.1, 0.7, 5.0])
@pytest.mark.parametrize(
    ("spec", "distortion"), [("gaussian:m=1,variance=1", "mse"), ("laplacian:m=1", "l1")]
)
def test_a_grid_of_the_line_has_the_closed_form(spec: str, distortion: str, beta: float) -> None:
    problem = load_problem(spec, distortion=distortion, num_train=4, num_test=4)
    plain = BlahutArimotoSettings(rounds=1000)
    (point, dual), (ideal,) = trace_ba(problem, [beta], plain, Run()), trace_exact(problem, [beta], Run())
    assert (point.kind, dual.kind) == ("upper", "lower")
    assert ideal.lagrangian_bits - 2e-3 < dual.lagrangian_bits <= ideal.lagrangian_bits + 1e-6
    assert abs(point.lagrangian_bits - ideal.lagrangian_bits) < 2e-5
    assert point.lagrangian_bits - point.details["gap_bits"] <= ideal.lagrangian_bits + 1e-6
    assert 0 <= point.details["gap_bits"] < 2e-3
    if distortion == "mse":
        closed = gaussian_point_at_distortion([1.0], point.distortion).rate_bits
    else:
        closed = laplacian_point_at_distortion(1.0, point.distortion).rate_bits
    assert abs(point.rate_bits - closed) < 1e-4
    assert abs(point.rate_bits + beta * point.distortion - ideal.lagrangian_bits) > 1e-3  # bits plus nats


def test_a_lower_value_for_the_line_holds_for_bad_laws_and_fails_without_its_maximum() -> None:
    beta = 2.0
    law = line_law("laplacian", {"m": 1, "b": 1.0})
    assert law is not None
    grid = make_grid(law, "l1", beta, 401)
    point = laplacian_point_at_slope(1.0, beta)
    ideal = point.rate_bits + beta * point.distortion / LN2
    kernel = MatrixKernel.between(grid.x, grid.y, absolute_error, beta)
    for rounds in (0, 5, 300):
        found = blahut_arimoto(kernel, beta, source=grid.mass, tolerance_bits=1e-9, max_rounds=rounds)
        log_c, _ = kernel.evaluate(found.log_mass)
        lower = line_lower_bits(grid, absolute_error, beta, log_c)
        assert lower < ideal
        if rounds == 0:
            assert -float(grid.mass @ log_c) / LN2 > ideal  # ln s alone, without the maximum
    assert lower > ideal - 3e-3


def test_grid_cells_hold_the_mass_of_the_law() -> None:
    law = line_law("sphere", {"m": 1, "noise": 0.1})
    assert law is not None
    grid = make_grid(law, "mse", 1.0, 401)
    assert float(grid.mass.sum()) == pytest.approx(1)
    for moment, true in ((1, 0.0), (2, 1.1), (4, 1 + 0.6 + 0.03)):
        assert float(grid.mass @ grid.x[:, 0] ** moment) == pytest.approx(true, abs=1e-6)
    assert line_law("sphere", {"m": 2, "noise": 0.1}) is None
    assert line_law("bernoulli", {"m": 1, "p": 0.1}) is None


def test_short_words_are_solved_over_all_words() -> None:
    for spec in ("bernoulli:p=0.3,m=4", "markov:n=6,p=0.3,q=0.2"):
        problem = load_problem(spec, num_train=4, num_test=4)
        (point, dual), ideal = (
            trace_ba(problem, [8.0], SMALL, Run()),
            next(trace_exact(problem, [8.0], Run())),
        )
        assert dual.lagrangian_bits <= ideal.lagrangian_bits + 1e-9
        assert ideal.kind == "exact"
        assert abs(point.lagrangian_bits - ideal.lagrangian_bits) < 1e-5
        assert abs(point.rate_bits - ideal.rate_bits) < 1e-3


def test_samples_flatter_themselves_and_test_vectors_do_not() -> None:
    problem = load_problem("gaussian:m=3", num_train=300, num_test=400)
    beta = 2.0
    inside, outside = trace_ba(problem, [beta], SMALL, Run())
    (ideal,) = trace_exact(problem, [beta], Run())
    assert (inside.method, inside.kind, inside.num_blocks) == ("ba-train", "estimate", 0)
    assert (outside.method, outside.kind, outside.num_blocks) == ("ba", "upper", 400)
    assert inside.num_samples == 200  # as many as the settings say
    assert inside.lagrangian_bits < ideal.lagrangian_bits
    assert outside.lagrangian_bits > ideal.lagrangian_bits - 4 * outside.lagrangian_se_bits
    assert inside.rate_bits <= math.log2(200)
    assert inside.saturated == (math.log2(200) - inside.rate_bits < 3)


def test_slopes_are_independent_of_each_other() -> None:
    problem = load_problem("gaussian:m=2", num_train=100, num_test=50)
    both = [p for p in trace_ba(problem, [0.5, 2.0], SMALL, Run()) if p.beta == 2.0]
    alone = list(trace_ba(problem, [2.0], SMALL, Run()))
    assert [p.lagrangian_bits for p in both] == [p.lagrangian_bits for p in alone]


def test_a_stopped_run_goes_on_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rcccodec.rd.ba.CHECKPOINT_EVERY_S", -1.0)
    problem = load_problem("gaussian:m=2", num_train=100, num_test=50)
    whole = list(trace_ba(problem, [2.0], SMALL, Run()))
    rounds = []

    def stop(_what: str, done: int, _total: int) -> None:
        rounds.append(done)
        if done == 9 and rounds.count(9) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(trace_ba(problem, [2.0], SMALL, Run(folder=tmp_path, progress=stop)))
    resumed = list(trace_ba(problem, [2.0], SMALL, Run(folder=tmp_path, progress=stop)))
    assert rounds[9] == 9  # round 8 was kept
    assert [p.lagrangian_bits for p in resumed] == [p.lagrangian_bits for p in whole]
    assert [p.details["rounds"] for p in resumed] == [p.details["rounds"] for p in whole]
    count = len(rounds)
    again = list(trace_ba(problem, [2.0], SMALL, Run(folder=tmp_path, progress=stop)))
    assert len(rounds) == count  # what was solved is not solved again
    assert again[1].lagrangian_bits == whole[1].lagrangian_bits
    (file,) = tmp_path.glob("*.safetensors")
    tensors, values = load_checkpoint(file)
    for spoilt in (
        ({}, values),
        ({k: v[1:] for k, v in tensors.items()}, values),
        (tensors, values | {"age": -1}),
        ({k: v.float() for k, v in tensors.items()}, values),
        (tensors, {"plan": values["plan"]}),
    ):
        save_checkpoint(file, *spoilt)
        with pytest.raises(ModelError, match="not a usable checkpoint"):
            list(trace_ba(problem, [2.0], SMALL, Run(folder=tmp_path)))
    save_checkpoint(file, tensors, values)
    other = Problem("other", problem.train, problem.test, "mse")
    list(trace_ba(other, [2.0], SMALL, Run(folder=tmp_path)))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_state_goes_on_from_its_round() -> None:
    d, source = random_problem(4)
    states: list[State] = []
    options = {"source": source, "tolerance_bits": 1e-7, "max_rounds": 500}
    whole = blahut_arimoto(d, 20.0, keep=states.append, **options)
    later = blahut_arimoto(d, 20.0, start=states[4], **options)
    torch.testing.assert_close(later.log_mass, whole.log_mass, rtol=0, atol=0)
    assert later.rounds == whole.rounds
    assert later.sweeps < whole.sweeps
