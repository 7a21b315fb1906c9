"""Discriminative Blahut-Arimoto and RD-GEN beside closed forms (rd-ebm figs. 2 and 3).

    python bench/rd_dba.py                      # bench/results/rd_dba.{json,png}
    python bench/rd_dba.py --stop-after-s 600   # rows done so far are kept; the next call goes on

Every row is one training at one slope with its own draw of the source. ``excess_bits`` is the rate over R(D)
at the row's own measured distortion; per symbol for Markov sequences, where R(D) is only enclosed: the lower
bound H(X^n)/n - h(D), which is tight at small D, and Blahut-Arimoto on blocks of 10, an upper bound.

    rate_bits             what the estimator says: annealed, or the discriminator's (RD-GEN, paper's chains)
    discriminator_bits    the discriminator's bound for the same channel
    quadrature_*          of the learnt energy itself, one component only: what is left is the energy's error
    chains = paper        200 unadjusted steps of 0.001 from Gaussian starts, as published
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result

from rcccodec.rd.dba import trace_dba
from rcccodec.rd.point import RatePoint
from rcccodec.rd.problem import load_problem
from rcccodec.rd.rd_gen import trace_rd_gen
from rcccodec.rd.run import Run
from rcccodec.rd.settings import EnergySettings

BLOCK = 10
SYMBOLS = 100
SMALL = EnergySettings(steps=500, batch=128, rate=6e-3, langevin=8, distributions=400)
PAPER = EnergySettings(steps=150, batch=128, rate=6e-3, langevin=200, step=1e-3, adjusted=False)
GAME = EnergySettings(steps=600)
SEQUENCES = EnergySettings(steps=500, batch=128, rate=6e-3, langevin=8, distributions=1000)


@dataclass(frozen=True)
class Task:
    """One training. ``chains``: own, paper or game (RD-GEN)."""

    source: str
    distortion: str
    beta: float
    chains: str
    run: int


SCALARS = (
    ("bernoulli:p=0.5", "l1", (1.0, 2.0, 4.0)),
    ("gaussian:m=1,decay=0,variance=1", "mse", (0.8, 3.0, 15.0)),
    ("laplacian:b=1", "l1", (1.3, 3.0, 8.0)),
    ("laplacian:b=1", "mse", (0.4, 1.5, 8.0)),
)
MARKOV = (
    ("markov:n=100,p=0.25,q=0.25", "hamming", (2.0, 4.0)),
    ("markov:n=100,p=0.25,q=0.3", "hamming", (2.0, 4.0)),
)


def tasks(runs: int) -> list[Task]:
    """All slopes once, the second slopes in every run, then the rest: stopped, it has some of everything."""
    middle = [
        Task(source, distortion, betas[1], "own", run)
        for run in range(runs)
        for source, distortion, betas in SCALARS + MARKOV
    ]
    every = [
        Task(source, distortion, beta, "own", run)
        for run in range(runs)
        for source, distortion, betas in SCALARS + MARKOV
        for beta in betas
    ]
    compared = [Task("bernoulli:p=0.5", "hamming", 2.0, "own", 0)]
    for source, distortion, betas in SCALARS[:3]:
        compared += [Task(source, distortion, betas[1], chains, 0) for chains in ("paper", "game")]
    first = [task for task in every if task.run == 0]
    return list(dict.fromkeys(first + compared + middle + every))


def settings_of(task: Task) -> EnergySettings:
    """What a task is run with."""
    if task.chains == "own":
        return SEQUENCES if task.source.startswith("markov") else SMALL
    return PAPER if task.chains == "paper" else GAME


def estimate(task: Task, folder: Path | None = None) -> dict[str, Any]:
    """The row of one task, beside R(D) at its own distortion."""
    sequence = task.source.startswith("markov")
    problem = load_problem(
        task.source, distortion=task.distortion, num_train=20_000, num_test=150 if sequence else 1000,
        seed=task.run,
    )  # fmt: skip
    run = Run(seed=task.run, folder=folder)
    trace = trace_rd_gen if task.chains == "game" else trace_dba
    point = next(trace(problem, [task.beta], settings_of(task), run))
    return {**vars(task), **compare(task, point), "seconds": point.seconds}


def compare(task: Task, point: RatePoint) -> dict[str, Any]:
    """Rate, distortion and their reference, per symbol for sequences."""
    symbols = SYMBOLS if task.source.startswith("markov") else 1
    low, high = reference(task.source, task.distortion)
    d, rate = point.distortion / symbols, point.rate_bits / symbols
    row = {
        "rate_bits": rate,
        "rate_se_bits": point.rate_se_bits / symbols,
        "mean_distortion": d,
        "mean_distortion_se": point.distortion_se / symbols,
        "true_rate_bits": low(d),
        "excess_bits": rate - low(d),
        **{k: v / symbols for k, v in point.details.items() if k.endswith("_bits")},
        **{k: v for k, v in point.details.items() if k.endswith("acceptance")},
    }
    if symbols > 1:
        row |= {"upper_rate_bits": high(d), "excess_over_upper_bits": rate - high(d)}
    if "quadrature_distortion" in point.details:
        exact_d = point.details["quadrature_distortion"]
        row["quadrature_distortion"] = exact_d
        row["quadrature_excess_bits"] = point.details["quadrature_rate_bits"] - low(exact_d)
    return {k: v if math.isfinite(v) and abs(v) < 1e6 else None for k, v in row.items()}


@cache
def reference(source: str, distortion: str) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """R(D) in bits, or a lower and an upper bound on it, both per symbol."""
    if source.startswith("bernoulli"):
        return (lambda d: 1 - entropy_bits(min(d, 0.5)),) * 2
    if source.startswith("gaussian"):
        return (lambda d: max(0.0, -0.5 * math.log2(d)),) * 2
    if source.startswith("laplacian"):
        if distortion == "l1":
            return (lambda d: max(0.0, -math.log2(d)),) * 2
        edges = np.linspace(-14, 14, 702)
        below = np.where(edges < 0, np.exp(edges) / 2, 1 - np.exp(-edges) / 2)
        x = (edges[1:] + edges[:-1]) / 2
        return (interpolate(curve(np.diff(below), (x[:, None] - x) ** 2, np.geomspace(0.15, 30, 24))),) * 2
    p, q = (float(part[2:]) for part in source.split(",")[1:])
    zero = p / (p + q)
    rate = zero * entropy_bits(q) + (1 - zero) * entropy_bits(p)
    start = entropy_bits(zero)
    words = (np.arange(1 << BLOCK)[:, None] >> np.arange(BLOCK)) & 1
    mass = np.where(words[:, 0] == 0, zero, 1 - zero)
    step = np.array([[1 - q, q], [p, 1 - p]])
    for i in range(1, BLOCK):
        mass = mass * step[words[:, i - 1], words[:, i]]
    distances = (words[:, None] != words).sum(2).astype(float)
    blocks = interpolate(curve(mass, distances, np.geomspace(0.8, 8, 16)) / BLOCK)
    return lambda d: (start + (SYMBOLS - 1) * rate) / SYMBOLS - entropy_bits(min(d, 0.5)), blocks


def entropy_bits(p: float) -> float:
    """h(p) = -p log2 p - (1 - p) log2 (1 - p)."""
    return 0.0 if not 0 < p < 1 else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def curve(mass: np.ndarray, distances: np.ndarray, betas: np.ndarray, rounds: int = 400) -> np.ndarray:
    """Points (D, R bits) of Blahut-Arimoto with reproductions where the source is, (betas, 2), D falling."""
    points = []
    for beta in betas:
        kernel = np.exp(-beta * distances)
        law = np.full(len(mass), 1 / len(mass))
        for _ in range(rounds):
            law = law * ((mass / (kernel @ law)) @ kernel)
        partition = kernel @ law
        d = float(mass @ ((kernel * distances) @ law / partition))
        points.append((d, (-float(mass @ np.log(partition)) - beta * d) / math.log(2)))
    return np.array(points)


def interpolate(points: np.ndarray) -> Callable[[float], float]:
    """R at D, linear in ln D between points of a curve."""
    d, rate = np.log(points[::-1, 0]), points[::-1, 1]
    return lambda at: float(np.interp(math.log(at), d, rate))


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over runs of every source, slope and kind of chain."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[k] for k in ("source", "distortion", "chains", "beta"))
        groups.setdefault(key, []).append(row)
    found = []
    for (source, distortion, chains, beta), group in groups.items():
        line = {
            "source": source,
            "distortion": distortion,
            "chains": chains,
            "beta": beta,
            "runs": len(group),
        }
        names = (
            "mean_distortion", "rate_bits", "true_rate_bits", "excess_bits", "excess_over_upper_bits",
            "discriminator_bits", "gap_bits", "quadrature_rate_bits", "quadrature_excess_bits",
            "generator_lagrangian_bits", "seconds",
        )  # fmt: skip
        for name in names:
            values = [r[name] for r in group if r.get(name) is not None]
            if values:
                key = name if name == "mean_distortion" else f"{name}_mean"
                line[key] = float(np.mean(values))
                line[key.removesuffix("_mean") + "_sd"] = (
                    float(np.std(values, ddof=1)) if values[1:] else None
                )
        found.append(line)
    return found


def draw(summary: list[dict[str, Any]], path: Path) -> None:
    """One panel a source: the closed form or bounds, and means with their spread."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = [(s, d) for s, d, _ in SCALARS + MARKOV]
    figure, axes = plt.subplots(2, 3, figsize=(12, 7.2), layout="constrained")
    styles = {
        "own": ("o", "C0", "DBA"),
        "paper": ("s", "C3", "DBA, the paper's chains"),
        "game": ("^", "C2", "RD-GEN"),
    }
    for axis, (source, distortion) in zip(axes.flat, panels, strict=True):
        lines = [x for x in summary if (x["source"], x["distortion"]) == (source, distortion)]
        if not lines:
            continue
        low, high = reference(source, distortion)
        d = [x["mean_distortion"] for x in lines]
        grid = np.geomspace(0.6 * min(d), 1.4 * max(d), 200)
        sequence = source.startswith("markov")
        axis.plot(
            grid, [max(0, low(v)) for v in grid], "k-", lw=1, label="lower bound" if sequence else "R(D)"
        )
        if sequence:
            axis.plot(grid, [high(v) for v in grid], "k--", lw=1, label=f"upper bound, blocks of {BLOCK}")
        for chains, (marker, colour, label) in styles.items():
            of = [x for x in lines if x["chains"] == chains]
            if of:
                axis.errorbar(
                    [x["mean_distortion"] for x in of], [x["rate_bits_mean"] for x in of],
                    [x["rate_bits_sd"] or 0 for x in of], fmt=marker, color=colour, ms=5, capsize=3,
                    label=label,
                )  # fmt: skip
        axis.set(title=f"{source}, {distortion}", xlabel="D", ylabel="bits" + " a symbol" * sequence)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stop-after-s", type=float, default=math.inf)
    parser.add_argument("--source", default="", help="only sources whose name begins like this")
    parser.add_argument("--output", type=Path, default=RESULTS / "rd_dba.json")
    parser.add_argument("--rows", type=Path, default=Path("runs/rd_dba"), help="finished rows, a file each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    arguments.rows.mkdir(parents=True, exist_ok=True)
    rows, complete = [], True
    for task in tasks(arguments.runs):
        if not task.source.startswith(arguments.source):
            continue
        name = f"{task.source}-{task.distortion}-{task.chains}-{task.beta:g}-{task.run}".replace(":", "_")
        path = arguments.rows / f"{name}.json"
        plan = vars(task) | {"settings": vars(settings_of(task))}
        done = json.loads(path.read_text()) if path.exists() else {}
        if done.get("plan") != plan:
            if time.perf_counter() - began > arguments.stop_after_s:
                complete = False
                continue
            done = {"plan": plan, "row": estimate(task)}
            path.write_text(json.dumps(done))
        row = done["row"]
        rows.append(row)
        print(
            name, {k: round(row[k], 4) for k in ("mean_distortion", "rate_bits", "excess_bits")}, flush=True
        )
    summary = summarise(rows)
    settings = {"own": vars(SMALL), "sequences": vars(SEQUENCES), "paper": vars(PAPER), "game": vars(GAME)}
    run = describe_run(began) | {"training_and_measuring_s": sum(r["seconds"] for r in rows)}
    write_result(
        arguments.output,
        {"run": run, "complete": complete, "settings": settings, "summary": summary, "rows": rows},
    )
    draw(summary, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
