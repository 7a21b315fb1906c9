"""A lower bound on R(D) from held-out source vectors (Yang and Mandt, ICLR 2022, section 4).

For every positive function u and slope beta, in nats (Csiszar 1974)::

    R(D) + beta D  >=  E[-ln u(X)] - ln sup_y E[exp(-beta d(X, y)) / u(X)]

The supremum is estimated by C_k = sup_y (1/k) sum_i exp(-beta d(x_i, y)) / u(x_i), for which E[C_k] is at
least the supremum of the expectation: the bias is to the safe side, and large once the Lagrangian nears ln k,
which no such bound passes. -ln c >= -c / alpha - ln alpha + 1 makes it linear, so that means over folds are
unbiased::

    xi = (1/k) sum_i -ln u(x_i) - C_k / alpha - ln alpha + 1,     E[xi] <= R(D) + beta D

for any alpha that does not depend on the fold. The folds are made of the test vectors and, where these are
too few, of vectors taken out of train before u is fitted: train and test are taken to follow one law. Part of
what is left of train gives starts for u, the rest chooses between them and trains a network; whether that is
kept, and alpha, come from further folds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from rcccodec.errors import InputError
from rcccodec.rd.point import RatePoint, is_saturated, standard_error
from rcccodec.rd.potential import SOURCE, Mixture, Potential, Quadratic
from rcccodec.rd.problem import Problem
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import SandwichSettings
from rcccodec.rd.supremum import Supremum, climb_from_best, find_supremum, list_reproductions

CONFIDENCE = 0.99  # one-sided
CHOICE_FOLDS = 4  # for alpha, and whether the network helps
START_FOLDS = 4  # of the network's vectors, before it is trained: for start and floor
MOST_TRAINED = 2048  # vectors in a step of training, if k is more
LEAST_FOLDS, LEAST_DRAWS = 5, 32
FLOORS = (
    0.0,
    1.0,
    2.0,
    3.0,
)  # ln(k floor) that are tried; with less, one rare vector in a fold could rule it
LogU = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class HeldOut:
    """Vectors by their use, float32.

    start, network: (n, dim), for u. choice, folds: (folds, k, dim).
    from_train: vectors in choice and folds that were train's.
    """

    start: Tensor
    network: Tensor
    choice: Tensor
    folds: Tensor
    from_train: int


def split_vectors(problem: Problem, settings: SandwichSettings, run: Run) -> HeldOut:
    """Test first, then at most half of train, shuffled into disjoint folds; k shrinks where they are too few.

    Raises:
        InputError: too few vectors for `LEAST_FOLDS` folds of `LEAST_DRAWS`.
    """
    count = max(settings.evaluations, LEAST_FOLDS)
    half = len(problem.train) // 2
    available = len(problem.test) + half
    k = min(settings.draws, available // (count + CHOICE_FOLDS))
    if k < LEAST_DRAWS:
        raise InputError(
            f"sandwich: {count + CHOICE_FOLDS} disjoint folds of {LEAST_DRAWS} vectors need more than "
            f"the {available} of test and half of train"
        )
    order = torch.randperm(len(problem.train), generator=run.generator("sandwich", "train"))
    wanted = (count + CHOICE_FOLDS) * k
    taken = max(0, wanted - len(problem.test))
    pool = torch.cat([problem.test, problem.train[order[:taken]]])
    pool = pool[torch.randperm(len(pool), generator=run.generator("sandwich", "folds"))[:wanted]]
    choice, folds = pool.reshape(-1, k, problem.dim).split([CHOICE_FOLDS, count])
    rest = problem.train[order[taken:]]
    if len(rest) < 2 * LEAST_DRAWS:
        raise InputError(f"sandwich: {len(rest)} vectors of train are too few to fit u to")
    fitted = min(SOURCE, len(rest) // 2)
    return HeldOut(rest[:fitted], rest[fitted:], choice, folds, taken)


def trace_lower_bound(problem: Problem, beta: float, settings: SandwichSettings, run: Run) -> RatePoint:
    """Fit u at slope beta and state the bound: method ``sandwich-lower``, see `bound_from_folds`.

    Raises:
        InputError: too few vectors. LimitError: the training diverged.
    """
    began = time.perf_counter()
    parts = split_vectors(problem, settings, run)
    potential, alpha, chosen = fit_potential(problem, parts, beta, settings, run)
    return bound_from_folds(
        problem, potential, parts.folds, beta, alpha, settings.ascent,
        began=began, details=chosen | {"vectors_from_train": float(parts.from_train)},
    )  # fmt: skip


def fit_potential(
    problem: Problem, parts: HeldOut, beta: float, settings: SandwichSettings, run: Run
) -> tuple[Potential, float, dict[str, float]]:
    """u, alpha = the mean of C_k on the choice folds, and what was chosen.

    Starts and floors are compared first; the network is trained on the tightest and kept only if it helps.
    """
    starts = [("mixture", Mixture(problem, parts.start, beta, run.generator("sandwich", beta, "mixture")))]
    if problem.distortion == "mse":
        starts.append(("quadratic", Quadratic(parts.start, beta)))
    k = parts.choice.shape[1]
    first = parts.network[: START_FOLDS * k].split(k)
    floors = [f - math.log(k) for f in FLOORS]
    tried = []
    for name, start in starts:
        potential = Potential(
            start, parts.network, settings.width, run.generator("sandwich", beta, "network")
        )
        for floor in floors:
            potential.set_floor(floor)
            tried.append((_quick_bound(problem, potential, first, beta)[0], floor, name, potential))
    _, floor, name, potential = max(tried, key=lambda item: item[0])
    potential.set_floor(floor)
    untrained, alpha = _quick_bound(problem, potential, parts.choice, beta)
    tail = potential.tail
    before = {key: value.clone() for key, value in tail.state_dict().items()}
    _train(problem, potential, parts.network, beta, settings, run, name)
    trained, alpha_trained = _quick_bound(problem, potential, parts.choice, beta)
    if not trained > untrained:
        tail.load_state_dict(before)
        potential.set_floor(floor)
    gain = max(trained - untrained, 0.0)
    facts = {
        "quadratic_start": float(name == "quadratic"),
        "network_gain_bits": gain / math.log(2),
        "log2_floor": potential.log_floor.item() / math.log(2),
    }
    return potential, alpha_trained if trained > untrained else alpha, facts


def bound_from_folds(
    problem: Problem,
    log_u: LogU,
    folds: Tensor,
    beta: float,
    alpha: float,
    ascent: int,
    *,
    starts: Tensor | None = None,
    began: float | None = None,
    details: dict[str, float] | None = None,
) -> RatePoint:
    """The bound of a function u, from vectors that neither u nor alpha depends on.

    The record's Lagrangian is the one-sided 99 % limit (Student's t over the folds' xi, so that it covers
    both the mean of ln u and the draws of C_k), and 0 if that is less.

    Args:
        log_u: x (n, dim) -> ln u(x) (n,).
        folds: float32 (folds, k, dim), disjoint.
        alpha: > 0.
        ascent: steps from every start; every vector of the fold is one, and the particles of u.
        starts: (n, dim) to use instead of the fold's vectors: then the answer is no bound.

    Returns:
        RatePoint of kind ``lower``. details: ``mean_bits`` of xi; ``lower_confidence_bits``;
        ``supremum`` (mean C_k, near 1 for the best u), ``supremum_half`` (the same with k / 2: what it falls
        by is a hint at the bias left), ``supremum_fresh`` (mean of f at each fold's y on another fold: at
        most the true supremum); ``unsettled_starts``, a share; ``proven`` (1: suprema are; 0: searched for).
    """
    began = time.perf_counter() if began is None else began
    listed = list_reproductions(problem.alphabet, problem.dim)
    own = log_u.particles if isinstance(log_u, Potential) else folds[0, :0]

    def search(x: Tensor, a: Tensor) -> Supremum:
        places = torch.cat([x, own]) if starts is None else starts
        return find_supremum(
            x, a, places, beta=beta, distortion=problem.distortion, steps=ascent, listed=listed
        )

    with torch.no_grad():
        values = [log_u(x).double() for x in folds]
        found = [search(x, -a) for x, a in zip(folds, values, strict=True)]
        k = folds.shape[1]
        halves = [
            search(x, -a).log_value
            for fold, value in list(zip(folds, values, strict=True))[:2]
            for x, a in zip(fold.split(k // 2), value.split(k // 2), strict=True)
            if len(x) == k // 2
        ] if k % 2 == 0 else []  # fmt: skip
        fresh = [
            float(
                (-values[i - 1] - beta * problem.distance(folds[i - 1], s.y[None])[:, 0].double())
                .exp()
                .mean()
            )
            for i, s in enumerate(found)
        ]
    linear = torch.stack([-v.mean() for v in values])
    suprema = torch.tensor([s.log_value for s in found], dtype=torch.float64).exp()
    xi = linear - suprema / alpha - math.log(alpha) + 1
    limit = float(xi.mean()) - t_quantile(len(xi) - 1) * standard_error(xi)
    ln2 = math.log(2)
    bits = max(0.0, limit / ln2) if math.isfinite(limit) else 0.0
    return RatePoint(
        method="sandwich-lower",
        kind="lower",
        beta=beta,
        rate_bits=math.nan,
        distortion=math.nan,
        lagrangian_bits=bits,
        lagrangian_se_bits=standard_error(torch.cat(values)) / ln2,
        lagrangian_se_samples_bits=standard_error(xi) / ln2,
        num_blocks=folds.shape[0] * k,
        num_repeats=len(folds),
        num_samples=k,
        saturated=is_saturated(k, bits),
        seconds=time.perf_counter() - began,
        details={
            "mean_bits": float(xi.mean()) / ln2,
            "lower_confidence_bits": limit / ln2,
            "supremum": float(suprema.mean()),
            "supremum_half": float(torch.tensor(halves).exp().mean()) if halves else math.nan,
            "supremum_fresh": sum(fresh) / len(fresh),
            "unsettled_starts": sum(s.unsettled for s in found) / sum(s.starts for s in found),
            "proven": float(all(s.proven for s in found)),
            **(details or {}),
        },
    )


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Student's t: the quantile of ``confidence``, to about 0.1 % from 4 degrees of freedom on.

    Fisher and Cornish's expansion (Abramowitz and Stegun 26.7.5).
    """
    z, n = NormalDist().inv_cdf(confidence), degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * n**4)
    )


def _quick_bound(problem: Problem, log_u: LogU, folds: Iterable[Tensor], beta: float) -> tuple[float, float]:
    """(mean of -ln u minus ln of the mean C_k, that mean) with a short search: to choose by, not to state."""
    listed = list_reproductions(problem.alphabet, problem.dim)
    linear, suprema = [], []
    with torch.no_grad():
        for x in folds:
            a = -log_u(x)
            y = climb_from_best(x, a, x, beta=beta, distortion=problem.distortion, steps=10, listed=listed)
            logits = a.double() - beta * problem.distance(x, y[None])[:, 0].double()
            linear.append(float(a.double().mean()))
            suprema.append(float(logits.exp().mean()))
    mean = sum(suprema) / len(suprema)
    bound = sum(linear) / len(linear) - math.log(mean) if math.isfinite(mean) else -math.inf
    return bound, mean


def _train(
    problem: Problem,
    potential: Potential,
    x: Tensor,
    beta: float,
    settings: SandwichSettings,
    run: Run,
    start: str,
) -> None:
    """Raise mean(-ln u) - ln C_k on fresh draws of k; y need not follow u, since f is highest there."""
    k = min(settings.draws, len(x), MOST_TRAINED)
    listed = list_reproductions(problem.alphabet, problem.dim)
    tail = potential.tail
    optimizer = torch.optim.Adam(tail.parameters(), lr=settings.rate)

    def update(step: int, generator: torch.Generator) -> None:
        optimizer.param_groups[0]["lr"] = settings.rate * 0.02 ** (step / settings.steps)
        batch = x[torch.randint(len(x), (k,), generator=generator)]
        a = -potential(batch)
        fixed = a.detach()
        y = climb_from_best(
            batch, fixed, batch, beta=beta, distortion=problem.distortion, steps=10, listed=listed
        )
        kernel = -beta * problem.distance(batch, y[None])[:, 0]
        loss = torch.logsumexp(a + kernel, 0) - a.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    plan = asdict(settings) | {"problem": problem.name, "beta": beta, "start": start, "vectors": len(x)}
    fit(f"sandwich-{beta:g}", {"tail": tail}, {"adam": optimizer}, update, settings.steps, run, plan)
