"""Sources given by a law: Gaussian, Laplacian, sawbridge, noisy sphere, Bernoulli, binary Markov.

A sample is made by NumPy's PCG64 from (seed, split): the same on every machine with one NumPy version, and
train and test never share a draw. The first n of a longer sample are the sample of n.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rcccodec.errors import InputError, LimitError
from rcccodec.sources.source import Source

DEFAULT_COUNT = 10_000
_MAX_VALUES = 1 << 28
_DEFAULTS: dict[str, dict[str, float]] = {
    "gaussian": {"m": 20, "decay": 0.5, "variance": 4.0},
    "laplacian": {"m": 1, "b": 1.0},
    "sawbridge": {"n": 1024},
    "sphere": {"m": 2, "noise": 0.1},
    "bernoulli": {"m": 1, "p": 0.5},
    "markov": {"n": 100, "p": 0.25, "q": 0.25},
}
_PROBABILITIES = {"bernoulli": ("p",), "markov": ("p", "q")}
NAMES = tuple(_DEFAULTS)


def load_synthetic(spec: str, split: str, limit: int | None = None, seed: int = 0) -> Source:
    """Sample one of the synthetic sources.

    Args:
        spec: ``gaussian:m=20,decay=0.5,variance=4``, ``laplacian:b=1,m=1``, ``sawbridge:n=1024``,
            ``sphere:m=2,noise=0.1``, ``bernoulli:p=0.5,m=1``, ``markov:n=100,q=0.25,p=0.25``; what is left
            out takes these values.
        split: "train" or "test", independent of each other.
        limit: how many vectors; 10,000 when None.
        seed: non-negative.

    Returns:
        Source of float64 vectors (limit, m) or (limit, n).

    Raises:
        InputError: the specification is not one of these.
        LimitError: more than 2^28 values in all.
    """
    name, parameters = parse_synthetic(spec)
    count = DEFAULT_COUNT if limit is None else limit
    dim = int(parameters["n" if "n" in parameters else "m"])
    if count * dim > _MAX_VALUES:
        raise LimitError(f"{spec}: {count} vectors of {dim} values; at most {_MAX_VALUES} values in all")
    generator = np.random.Generator(np.random.PCG64([seed, 0 if split == "train" else 1]))
    if name == "gaussian":
        x = generator.standard_normal((count, dim)) * np.sqrt(gaussian_variances(**{**parameters, "m": dim}))
    elif name == "laplacian":
        x = laplacian(generator, count, dim, parameters["b"])
    elif name == "sawbridge":
        x = sawbridge(generator, count, dim)
    elif name == "sphere":
        x = noisy_sphere(generator, count, dim, parameters["noise"])
    elif name == "bernoulli":
        x = (generator.random((count, dim)) < parameters["p"]).astype(np.float64)
    else:
        x = binary_markov(generator, count, dim, parameters["p"], parameters["q"])
    return Source(spec, x)


def parse_synthetic(spec: str) -> tuple[str, dict[str, float]]:
    """Split ``name:key=value,...`` and fill in the defaults; a Markov chain with one of p and q is symmetric.

    Returns:
        (name, parameters); the lengths m and n are whole numbers from 1 to 2^20.

    Raises:
        InputError: unknown name or key, a value that is no number or out of range.
    """
    name, _, text = spec.partition(":")
    if name not in _DEFAULTS:
        raise InputError(f"{spec}: no such synthetic source; there are {', '.join(NAMES)}")
    parameters, given = dict(_DEFAULTS[name]), set()
    for item in filter(None, text.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key not in parameters:
            raise InputError(
                f"{spec}: {name} takes {', '.join(f'{key}=' for key in parameters)}, not {item!r}"
            )
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"{spec}: {key}={value} is not a number") from None
        whole = key in ("m", "n")
        if whole and not (number.is_integer() and 1 <= number <= 1 << 20):
            raise InputError(f"{spec}: {key} is a whole number from 1 to {1 << 20}")
        if not whole and not (math.isfinite(number) and (number >= 0 if key == "decay" else number > 0)):
            raise InputError(f"{spec}: {key}={value} is out of range")
        if key in _PROBABILITIES.get(name, ()) and number >= 1:
            raise InputError(f"{spec}: {key} is a probability between 0 and 1")
        parameters[key] = number
        given.add(key)
    if name == "markov" and len(given & {"p", "q"}) == 1:
        parameters["p"] = parameters["q"] = parameters[min(given & {"p", "q"})]
    return name, parameters


def gaussian_variances(m: int, decay: float, variance: float = 4.0) -> NDArray[np.float64]:
    """Component variances sigma_k^2 = variance exp(-decay k), k = 0..m-1; float64 (m,)."""
    return variance * np.exp(-decay * np.arange(m, dtype=np.float64))


def laplacian(generator: np.random.Generator, count: int, m: int, b: float) -> NDArray[np.float64]:
    """Independent components of density exp(-|x| / b) / (2 b), by inversion; float64 (count, m)."""
    u = generator.random((count, m)) - 0.5  # in [-1/2, 1/2): -1/2 itself would be an infinite value
    magnitudes: NDArray[np.float64] = -b * np.log1p(-np.minimum(2 * np.abs(u), 1 - 2.0**-53))
    return np.copysign(magnitudes, u)


def sawbridge(generator: np.random.Generator, count: int, n: int) -> NDArray[np.float64]:
    """Sawbridge of Wagner and Balle: X_t = t - 1{t >= U}, U uniform on [0, 1], t on n even steps from 0 to 1.

    Returns:
        float64 (count, n): one path a row, a ramp with one drop.
    """
    t = np.linspace(0.0, 1.0, n)
    return t - (t >= generator.random((count, 1)))


def noisy_sphere(generator: np.random.Generator, count: int, m: int, noise: float) -> NDArray[np.float64]:
    """X = Y + N(0, noise I), Y uniform on the unit sphere of R^m; float64 (count, m).

    At the slope 1 / (2 noise) of squared error, the law of Y is the optimal marginal.
    """
    y, w = np.split(generator.standard_normal((count, 2 * m)), 2, axis=1)
    return y / np.linalg.norm(y, axis=1, keepdims=True) + np.sqrt(noise) * w


def binary_markov(
    generator: np.random.Generator, count: int, n: int, p: float, q: float
) -> NDArray[np.float64]:
    """Stationary chains of zeros and ones, P(0 -> 1) = q, P(1 -> 0) = p; float64 (count, n)."""
    u = generator.random((count, n))
    x = np.empty((count, n))
    x[:, 0] = u[:, 0] < q / (p + q)
    for t in range(1, n):
        x[:, t] = np.where(x[:, t - 1] == 0, u[:, t] < q, u[:, t] >= p)
    return x
