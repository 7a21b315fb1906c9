"""What R(D) is asked of: samples of a source, a distortion, and where reproductions may lie."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rcccodec.distortion import Distortion, hamming, parse_distortion
from rcccodec.errors import InputError, LimitError
from rcccodec.sources import load_source
from rcccodec.sources.synthetic import NAMES, gaussian_variances, parse_synthetic

MAX_TRAIN = 60_000
MAX_TEST = 1_000
MAX_DIM = 8192  # where a covariance is needed
MAX_VALUE = 1e9  # its square times the dimension must be far from the end of float32
MAX_VALUES = 1 << 29  # of float32: 2 GiB
BINARY = ("bernoulli", "markov")


@dataclass(frozen=True)
class Problem:
    """A source as estimators see it.

    Attributes:
        name: the specification.
        train, test: float32 (n, dim) and (m, dim), disjoint; images in units of pixel / 255.
        distortion: ``mse`` (summed squared error), ``l1`` (summed absolute error), ``hamming``, ``lp:P``.
        alphabet: values that a component of a reproduction may take, float32 (a,); None: any real number.
        law: name and parameters of a synthetic source; None for data.
        shape: of one image (h, w, c), or None.
        notes: lines a reader should know.
    """

    name: str
    train: Tensor
    test: Tensor
    distortion: str
    alphabet: Tensor | None = None
    law: tuple[str, dict[str, float]] | None = None
    shape: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()
    distance: Distortion = field(init=False, repr=False)

    def __post_init__(self) -> None:
        distance = hamming if self.distortion == "hamming" else parse_distortion(self.distortion)
        object.__setattr__(self, "distance", distance)

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of both splits' shapes and values."""
        found = hashlib.sha256()
        for x in (self.train, self.test):
            found.update(f"{tuple(x.shape)}".encode() + x.numpy().tobytes())
        return found.hexdigest()[:16]

    @property
    def dim(self) -> int:
        """Components of one source vector."""
        return self.train.shape[1]


def load_problem(
    spec: str,
    *,
    distortion: str | None = None,
    data_root: Path | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    seed: int = 0,
) -> Problem:
    """Load both splits of a source for estimation.

    Args:
        spec: as `rcccodec.sources.load_source`; every image must have the same size.
        distortion: Hamming for binary sources if None, else squared error.
        num_train, num_test: how many vectors; at most 60,000 and 1000 if None.

    Raises:
        InputError: missing, empty or damaged; values that are no finite numbers; photographs of any sizes; a
        distortion that does not fit, as Hamming but for zeros and ones. LimitError: more than 2 GiB.
    """
    law = parse_synthetic(spec) if spec.partition(":")[0] in NAMES else None
    if distortion is None:
        distortion = "hamming" if law and law[0] in BINARY else "mse"
    parts = []
    for split, count in (("train", num_train or MAX_TRAIN), ("test", num_test or MAX_TEST)):
        source = load_source(spec, split, data_root, limit=count, seed=seed)
        if isinstance(source.x, list):
            sizes = {item.shape for item in source.x}
            if len(sizes) != 1:
                raise InputError(
                    f"{spec}: its images have {len(sizes)} sizes; R(D) is of vectors of one size"
                )
            stacked = np.stack(source.x)
            rows = stacked.reshape(len(stacked), -1)
            shape = (*stacked.shape[1:3], 1 if stacked.ndim == 3 else 3)
            if rows.size > MAX_VALUES:
                raise _too_large(spec, *rows.shape)
            values = rows.astype(np.float32) / np.float32(255)
        else:
            shape = source.shape
            if source.x.size > MAX_VALUES:
                raise _too_large(spec, len(source.x), source.x[0].size)
            values = source.flattened(np.float32)
        parts.append(torch.from_numpy(values))
    if distortion == "hamming" and not all(((x == 0) | (x == 1)).all() for x in parts):
        raise InputError(f"{spec}: hamming distortion is for vectors of zeros and ones")
    problem = Problem(
        name=spec,
        train=parts[0],
        test=parts[1],
        distortion=distortion,
        alphabet=torch.tensor([0.0, 1.0]) if distortion == "hamming" else None,
        law=law,
        shape=shape,
        notes=tuple(source.notes),
    )
    check_problem(problem)
    return problem


def check_dim(problem: Problem, method: str) -> None:
    """Refuse vectors whose covariance, dim x dim, would not fit in memory.

    Raises:
        InputError: more than 8192 values a vector.
    """
    if problem.dim > MAX_DIM:
        raise InputError(f"{method}: vectors of {problem.dim} values are beyond it; at most {MAX_DIM}")


def zero_rate_distortion(problem: Problem) -> tuple[float, float]:
    """Distortion to the best constant, an upper point at rate 0, and its standard error over vectors.

    In closed form, with an error of 0, for most laws. Else the mean and the median of the training vectors
    are tried, rounded where the alphabet asks for it.
    """
    known = _zero_rate_of_law(problem)
    if known is not None:
        return known, 0.0
    constants = torch.stack([problem.train.mean(0), problem.train.median(0).values])
    if problem.alphabet is not None:
        constants = constants.round()
    distances = problem.distance(problem.test, constants).double()
    best = distances[:, distances.mean(0).argmin()]
    return float(best.mean()), float(best.std() / len(best) ** 0.5) if len(best) > 1 else 0.0


def _zero_rate_of_law(problem: Problem) -> float | None:
    if problem.law is None:
        return None
    (name, p), measure, dim = problem.law, problem.distortion, problem.dim
    squared = measure in ("mse", "lp:2")
    if name == "gaussian" and squared:
        return float(gaussian_variances(dim, p["decay"], p["variance"]).sum())
    if name == "laplacian" and (squared or measure == "l1"):
        return dim * (2 * p["b"] ** 2 if squared else p["b"])
    if name == "sphere" and squared:
        return 1 + dim * p["noise"]
    if name in BINARY and measure in ("hamming", "l1"):
        ones = p["p"] if name == "bernoulli" else p["q"] / (p["p"] + p["q"])
        return dim * min(ones, 1 - ones)
    return None


def check_problem(problem: Problem) -> None:
    """Refuse what no estimator can use.

    Raises:
        InputError: a split is empty, the splits differ in size, or a value is NaN, infinite or beyond 1e9.
    """
    for split, x in (("train", problem.train), ("test", problem.test)):
        if not x.numel():
            raise InputError(f"{problem.name}: its {split} split is empty")
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise InputError(f"{problem.name}: {bad} values of its {split} split are NaN or infinite")
        if float(x.abs().max()) > MAX_VALUE:
            raise InputError(
                f"{problem.name}: values beyond {MAX_VALUE:g} in its {split} split; scale them down"
            )
    if problem.train.shape[1] != problem.test.shape[1]:
        raise InputError(f"{problem.name}: train and test have different sizes")


def _too_large(spec: str, count: int, dim: int) -> LimitError:
    return LimitError(f"{spec}: {count} vectors of {dim} values are more than 2 GiB; take fewer with --train")
