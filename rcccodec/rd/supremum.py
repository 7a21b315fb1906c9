"""Search for the highest point of a sum of kernels over given source vectors, from every one of them.

    f(y) = (1/k) sum_i exp(a_i - beta d(x_i, y))            r_i(y) = exp(a_i - beta d(x_i, y)) / (k f(y))

Where y goes next is the y' that makes sum_i r_i(y) d(x_i, y') least: by Jensen's inequality f never falls
(minorise and maximise). That is a mean for squared error (mean shift), a median of each component for
absolute error, a vote for Hamming; other distortions take gradient steps. Where there are few reproductions,
all are tried.

f is not concave and in general the search proves nothing: what it returns is at most the supremum. It is
proven where all of a finite set is tried, and in one dimension: for absolute error f is convex between
neighbouring x_i, so that the highest point is one of them; for squared error ln f(y) + beta |y|^2 is convex,
so that f has nothing higher than exp(beta h^2 / 4) times its highest value on a grid of step h.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rcccodec.distortion import parse_distortion

MOST_LISTED = 1 << 12  # reproductions that are all tried
LINE_NATS = 1e-4  # by which a grid on the line may miss the supremum
MOST_ON_LINE = 1 << 16
TILE = 1 << 22  # kernel values at a time
MOST_POINTS = 1 << 10  # that a climb in training chooses from
LEADERS = 32  # local maxima that are followed to the end
LEADER_ROUNDS = 16  # times the steps of the others
_SETTLED = {torch.float32: 1e-6, torch.float64: 1e-9}  # nats gained in a step


@dataclass(frozen=True)
class Supremum:
    """The highest value found.

    log_value: ln f(y), nats, summed in float64; `LINE_NATS` more for a grid on the line.
    y: float32 (dim,). starts: where the search began, or points tried.
    unsettled: starts that still gained in their last step; the best of them were followed on.
    proven: this is at least the supremum, but for rounding.
    """

    log_value: float
    y: Tensor
    starts: int
    unsettled: int
    proven: bool


def list_reproductions(alphabet: Tensor | None, dim: int) -> Tensor | None:
    """All vectors of ``dim`` letters, float32 (a ** dim, dim), or None: too many, or no alphabet."""
    if alphabet is None or len(alphabet) ** dim > MOST_LISTED:
        return None
    return torch.tensor(list(itertools.product(alphabet.tolist(), repeat=dim)), dtype=torch.float32)


def find_supremum(
    x: Tensor,
    log_weights: Tensor,
    starts: Tensor,
    *,
    beta: float,
    distortion: str,
    steps: int,
    listed: Tensor | None = None,
) -> Supremum:
    """Climb f from every start, then follow the best distinct ones until they settle.

    Memory is bounded whatever the number of starts: they climb in tiles.

    Args:
        x: float32 (k, dim). log_weights: (k,), a_i.
        starts: float32 (n, dim); a bound on a supremum needs every x_i among them.
        beta: > 0. distortion: as `rcccodec.rd.problem.Problem` has it.
        steps: for each start; the leaders take up to `LEADER_ROUNDS` times as many.
        listed: all reproductions there are; then nothing else is looked at.

    Invariants: more starts or more steps never lower the value.
    """
    frame = _Frame(x, log_weights, beta, distortion)
    margin = 0.0
    if listed is None and x.shape[1] == 1:
        listed, margin = _line(x, beta, distortion)
    if listed is not None:
        values = torch.cat([frame.exact_values(y) for y in listed.split(frame.rows)])
        best = int(values.argmax())
        return Supremum(float(values[best]) + margin, listed[best], len(listed), 0, True)
    found = [frame.climb(y, steps) for y in starts.split(frame.rows)]
    values, ends, settled = (torch.cat(part) for part in zip(*found, strict=True))
    leaders = ends[_distinct(values, ends, beta, distortion)]
    leaders = frame.refine(leaders, steps * LEADER_ROUNDS)
    exact = frame.exact_values(leaders)
    best = int(exact.argmax())
    return Supremum(float(exact[best]), leaders[best].float(), len(starts), int((~settled).sum()), False)


def climb_from_best(
    x: Tensor,
    log_weights: Tensor,
    points: Tensor,
    *,
    beta: float,
    distortion: str,
    steps: int,
    listed: Tensor | None = None,
    most: int = 16,
) -> Tensor:
    """The end (dim,) of a climb from the best few of the first points: to train with, no bound to state."""
    frame = _Frame(x, log_weights, beta, distortion)
    points = points[:MOST_POINTS] if listed is None else listed
    values = torch.cat([frame.values(y) for y in points.split(frame.rows)])
    best = points[values.topk(min(most, len(points))).indices]
    if listed is not None:
        return best[0]
    values, ends, _ = frame.climb(best, steps)
    return ends[values.argmax()]


def _line(x: Tensor, beta: float, distortion: str) -> tuple[Tensor | None, float]:
    """Points (n, 1) among which the highest is, and the nats by which it may be missed; None: not so."""
    if distortion == "l1":
        return x, 0.0
    low, high = float(x.min()), float(x.max())  # means of the x_i lie between
    count = 2 + int((high - low) / math.sqrt(4 * LINE_NATS / beta))
    if distortion != "mse" or count > MOST_ON_LINE:
        return None, 0.0
    return torch.linspace(low, high, count)[:, None], LINE_NATS


def _distinct(values: Tensor, y: Tensor, beta: float, distortion: str) -> Tensor:
    """Indices of the highest ends, none of them within a tenth of a kernel's width of a higher one."""
    left = values.clone()
    chosen: list[int] = []
    measure = parse_distortion("l1" if distortion == "hamming" else distortion)
    while len(chosen) < LEADERS and bool(left.max() > -torch.inf):
        top = int(left.argmax())
        chosen.append(top)
        left[beta * measure(y, y[top : top + 1])[:, 0] < 0.01] = -torch.inf
        left[top] = -torch.inf
    return torch.tensor(chosen)


class _Frame:
    """The kernels, and one step of the climb for each distortion."""

    def __init__(self, x: Tensor, log_weights: Tensor, beta: float, distortion: str) -> None:
        self.x, self.beta, self.distortion = x, beta, distortion
        self.log_weights = log_weights.double() - math.log(len(x))
        self.measure = parse_distortion("l1" if distortion == "hamming" else distortion)
        self.rows = max(1, TILE // len(x))
        if distortion == "l1":
            self.order = x.argsort(0)

    def exact_values(self, y: Tensor) -> Tensor:
        """ln f(y), float64 (n,), with distances in float64."""
        x, y = self.x.double(), y.double()
        if self.distortion == "mse" and x.shape[1] > 1:  # without the cancellation of a product
            d = torch.stack([(x - row).square().sum(1) for row in y])
        else:
            d = (y - x.T).square() if self.distortion == "mse" else self.measure(y, x)
        return torch.logsumexp(self.log_weights - self.beta * d, 1)

    def values(self, y: Tensor) -> Tensor:
        """ln f(y), (n,), in the precision of y."""
        return torch.logsumexp(self._logits(y), 1)

    def climb(self, y: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """From y (n, dim): (values, ends, settled), in the precision of y."""
        if self.distortion in ("mse", "l1", "hamming"):
            return self._minorise(y, steps)
        return self._gradient(y, steps)

    def refine(self, y: Tensor, steps: int) -> Tensor:
        """The leaders, followed in float64."""
        y = self.climb(y.double(), steps)[1]
        return self._by_components(y) if self.distortion == "l1" else y

    def _minorise(self, y: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of mean, median or vote; those of squared error are lengthened as long as f keeps rising.

        A step that was too long is taken back (adaptive overrelaxed bound optimisation, Salakhutdinov and
        Roweis 2003).
        """
        smooth, tolerance = self.distortion == "mse", _SETTLED[y.dtype]
        best, ends = torch.full((len(y),), -torch.inf, dtype=y.dtype), y.clone()
        settled = torch.zeros(len(y), dtype=torch.bool)
        going = torch.arange(len(y))
        stretch = torch.ones(len(y), dtype=y.dtype)
        goal = y.clone()
        for _ in range(steps):
            value, towards = self._look(y)
            old = best[going]
            rose = value > old
            kept = going[rose]
            best[kept], ends[kept], goal[kept] = value[rose], y[rose], towards[rose]
            done = torch.where(rose, value - old < tolerance, stretch == 1)
            settled[going[done]] = True
            stretch = torch.where(rose & smooth, stretch * 1.4, 1.0)[~done]
            going = going[~done]
            if not len(going):
                break
            y = ends[going] + stretch[:, None] * (goal[going] - ends[going])
        return best, ends, settled

    def _look(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """ln f(y) (n,) and where to go from there (n, dim)."""
        logits = self._logits(y)
        top = torch.logsumexp(logits, 1)
        r = logits.sub_(top[:, None]).exp_()
        if self.distortion == "l1":
            return top, self._medians(r)
        mean = r @ self.x.to(y.dtype)
        return top, mean if self.distortion == "mse" else self._vote(mean, y)

    def _logits(self, y: Tensor) -> Tensor:
        """a_i - ln k - beta d(x_i, y), (n, k), in the precision of y."""
        return torch.add(self.log_weights.to(y.dtype), self.measure(y, self.x.to(y.dtype)), alpha=-self.beta)

    def _medians(self, r: Tensor) -> Tensor:
        """Medians of every component of x under the masses r (n, k)."""
        columns = []
        for c, order in enumerate(self.order.T):
            half = (r[:, order].cumsum(1) < 0.5).sum(1).clamp_max(len(order) - 1)
            columns.append(self.x[order[half], c])
        return torch.stack(columns, 1).to(r.dtype)

    def _vote(self, ones: Tensor, y: Tensor) -> Tensor:
        """What most of the mass has; where that is y already, y with the one flip that raises f most.

        Flipping component c multiplies f by g exp(-beta) + (1 - g) exp(beta), g the mass that agrees with y.
        """
        voted = (ones > 0.5).to(y.dtype)
        agreeing = torch.where(y == 1, ones, 1 - ones)
        least, which = agreeing.min(1)
        flipped = y.clone()
        gains = least < 1 / (1 + math.exp(-self.beta))
        rows = torch.arange(len(y))[gains]
        flipped[rows, which[gains]] = 1 - y[rows, which[gains]]
        return torch.where((voted == y).all(1, keepdim=True), flipped, voted)

    def _by_components(self, y: Tensor) -> Tensor:
        """Absolute error: the best value of one component at a time, which is one of the x_i's."""
        x, a = self.x.double(), self.log_weights
        for _ in range(20):
            before = y.clone()
            for c in range(x.shape[1]):
                kernel = torch.exp(-self.beta * (x[:, c : c + 1] - x[:, c]).abs())
                rest = self.measure(y, x) - (y[:, c : c + 1] - x[:, c]).abs()
                logits = a - self.beta * rest
                f = (logits - logits.amax(1, keepdim=True)).exp() @ kernel
                y[:, c] = x[f.argmax(1), c]
            if bool((y == before).all()):
                break
        return y

    @torch.enable_grad()
    def _gradient(self, y: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Steps of Adam that shrink; the best point on the way is kept."""
        best, ends = torch.full((len(y),), -torch.inf, dtype=y.dtype), y.clone()
        moving = y.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([moving], lr=0.1 * float(self.x.std(0).mean()), maximize=True)
        settled = torch.zeros(len(y), dtype=torch.bool)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] *= 0.01 ** (1 / steps)
            optimizer.zero_grad()
            value = self.values(moving)
            settled = value.detach() - best < _SETTLED[y.dtype]
            rose = value.detach() > best
            best = torch.where(rose, value.detach(), best)
            ends = torch.where(rose[:, None], moving.detach(), ends)
            value.sum().backward()  # type: ignore[no-untyped-call]
            if step + 1 < steps:
                optimizer.step()
        return best, ends, settled
