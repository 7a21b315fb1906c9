"""The arithmetic of mnist_rcc.py: from what files cost and kept to rows, excess and standard errors."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from standard_error import standard_error

from rcccodec.report import SATURATION_BITS, guarantee_bits

GOAL_RATES_BITS = (4.0, 11.0)  # rungs the goals below are averaged over
GOALS_BITS = {
    ("pfr", "fitted"): 2.4,
    ("mincost", "fitted"): 2.0,
    ("mincost", "prior"): 1.4,
    ("mincost", "prior_refitted"): 1.4,
}
LN2 = math.log(2)
Row = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """The NERD estimate of one rung.

    rate_bits, distortion: float64 (codebooks, parts), means over the images of a part. shares: (parts,),
    the share of all images that a part holds.
    """

    rate_bits: np.ndarray
    distortion: np.ndarray
    shares: np.ndarray

    def lagrangian_bits(self, beta: float) -> np.ndarray:
        """R + beta D / ln 2, (codebooks, parts)."""
        return self.rate_bits + beta * self.distortion / LN2

    def mean(self, values: np.ndarray) -> float:
        """Mean over codebooks and images of ``values`` (codebooks, parts)."""
        return float((values @ self.shares).mean())


@dataclass(frozen=True)
class Trial:
    """What one codebook's file cost and kept, an image; ``lengths_bits`` and ``distortion`` are (parts,)."""

    payload_bits: float
    file_bits: float
    lengths_bits: np.ndarray
    distortion: np.ndarray
    distortion_unrounded: float
    certified: float | None


def make_row(
    beta: float,
    found: Estimate,
    trials: list[Trial],
    *,
    coder: str,
    index_code: str,
    seeds: list[int],
    num_candidates: int,
) -> Row:
    """One row of the result: means over codebooks, the excess, its standard errors.

    As many trials as the estimate has codebooks are paired with them in order; a single one is held against
    the estimate's mean.
    """
    ideal = found.lagrangian_bits(beta)
    rate, shares = found.mean(found.rate_bits), found.shares
    payload = np.array([t.payload_bits for t in trials])
    distortion = np.array([t.distortion @ shares for t in trials])
    paired = ideal @ shares if len(trials) == len(ideal) else found.mean(ideal)
    excess = payload + beta * distortion / LN2 - paired
    by_part = np.mean([t.lengths_bits + beta * t.distortion / LN2 for t in trials], axis=0) - ideal.mean(0)
    certified = [t.certified for t in trials if t.certified is not None]
    margin = math.log2(num_candidates) - rate
    return {
        "beta": beta,
        "rd_rate_bits": rate,
        "rd_distortion": found.mean(found.distortion),
        "coder": coder,
        "index_code": index_code,
        "payload_bits_per_image": float(payload.mean()),
        "distortion": float(distortion.mean()),
        "excess_bits": float(excess.mean()),
        "certified_fraction": float(np.mean(certified)) if certified else None,
        "seeds": len(seeds),
        "codebook_seeds": seeds,
        "num_candidates": num_candidates,
        "excess_bits_by_codebook": excess.tolist(),
        "excess_se_codebooks_bits": standard_error(excess),
        "excess_se_images_bits": standard_error(by_part),
        "payload_se_codebooks_bits": standard_error(payload),
        "payload_se_images_bits": standard_error(np.mean([t.lengths_bits for t in trials], axis=0)),
        "distortion_se_codebooks": standard_error(distortion),
        "distortion_se_images": standard_error(np.mean([t.distortion for t in trials], axis=0)),
        "distortion_unrounded": float(np.mean([t.distortion_unrounded for t in trials])),
        "code_length_bits_per_image": float(np.mean([t.lengths_bits @ shares for t in trials])),
        "file_bits_per_image": float(np.mean([t.file_bits for t in trials])),
        "guarantee_bits": guarantee_bits(rate),
        "log2_candidates_less_rate": margin,
        "saturated": margin < SATURATION_BITS,
    }


def estimate_record(beta: float, found: Estimate, num_candidates: int, reference: list[Row]) -> Row:
    """One point of the model's rate-distortion curve, beside the reference weights' where they have one."""
    lagrangian = found.lagrangian_bits(beta)
    record = {
        "beta": beta,
        "num_candidates": num_candidates,
        "rate_bits": found.mean(found.rate_bits),
        "distortion": found.mean(found.distortion),
        "lagrangian_bits": found.mean(lagrangian),
        "lagrangian_se_codebooks_bits": standard_error(lagrangian @ found.shares),
        "lagrangian_se_images_bits": standard_error(lagrangian.mean(0)),
    }
    row = next((r for r in reference if math.isclose(r["beta"], beta, rel_tol=1e-6)), None)
    if row:
        ideal = row["R_nerd"] + beta * row["D_nerd"] / LN2
        record["reference_rate_bits"], record["reference_distortion"] = row["R_nerd"], row["D_nerd"]
        record["reference_lagrangian_bits"] = ideal
        record["no_higher_than_reference"] = record["lagrangian_bits"] <= ideal
        for coder in ("pfr", "orc"):
            spent = row[f"{coder}_zipf_huffman_bits"] + beta * row[f"{coder}_D"] / LN2
            record[f"reference_{coder}_zipf_excess_bits"] = spent - ideal
    return record


def summarise(rows: list[Row]) -> list[Row]:
    """Mean excess of every coder and index code over the rungs with R in GOAL_RATES_BITS, beside its goal.

    The same codebooks and images serve all rungs: the error over codebooks is that of their means over rungs,
    the one over images the mean of the rungs' own, as if they were one.
    """
    low, high = GOAL_RATES_BITS
    within = [r for r in rows if low <= r["rd_rate_bits"] <= high]
    summary = []
    for key in dict.fromkeys((r["coder"], r["index_code"]) for r in within):
        chosen = [r for r in within if (r["coder"], r["index_code"]) == key]
        excess, goal = float(np.mean([r["excess_bits"] for r in chosen])), GOALS_BITS.get(key)
        by_codebook = np.mean([r["excess_bits_by_codebook"] for r in chosen], axis=0)
        over_images = [r["excess_se_images_bits"] for r in chosen]
        summary.append(
            {
                "coder": key[0],
                "index_code": key[1],
                "betas": [r["beta"] for r in chosen],
                "codebooks": chosen[0]["seeds"],
                "excess_bits": excess,
                "excess_se_codebooks_bits": standard_error(by_codebook),
                "excess_se_images_bits": None if None in over_images else float(np.mean(over_images)),
                "goal_bits": goal,
                "reached": None if goal is None else excess <= goal,
            }
        )
    return summary


def read_reference(path: Path) -> list[Row]:
    """Rows of a reference table (``columns`` and ``rows``) as objects by column."""
    table = json.loads(path.read_text())
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


HEADER = "beta        R   D_est  coder   index code      payload        D  excess  +- cb  +- img  certified"


def line(row: Row) -> str:
    """One row of the printed table, below HEADER."""

    def short(name: str, form: str) -> str:
        return "-" if row[name] is None else format(row[name], form)

    return (
        f"{row['beta']:<6g} {row['rd_rate_bits']:6.2f} {row['rd_distortion']:7.3f}  {row['coder']:<7} "
        f"{row['index_code']:<14} {row['payload_bits_per_image']:8.3f} {row['distortion']:8.3f} "
        f"{row['excess_bits']:7.3f} {short('excess_se_codebooks_bits', '.3f'):>6} "
        f"{short('excess_se_images_bits', '.3f'):>7} {short('certified_fraction', '.3f'):>10}"
        f"{'  saturated' if row['saturated'] else ''}"
    )


def closing_lines(estimates: list[Row], summary: list[Row]) -> list[str]:
    """What the table amounts to: Lagrangians beside the reference, mean excess beside its goal."""
    lines = []
    for e in estimates:
        beside = ""
        if "reference_lagrangian_bits" in e:
            beside = f", reference weights {e['reference_lagrangian_bits']:.3f}"
        lines.append(f"beta {e['beta']:g}: R + beta D / ln 2 = {e['lagrangian_bits']:.3f} bits{beside}")
    for mean in summary:
        goal = "" if mean["goal_bits"] is None else f", goal {mean['goal_bits']}"
        lines.append(
            f"mean excess, {mean['coder']} {mean['index_code']}: {mean['excess_bits']:.3f} bits over "
            f"{len(mean['betas'])} slopes and {mean['codebooks']} codebooks{goal}"
        )
    return lines
