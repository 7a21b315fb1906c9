"""The card of a trained model: what it was trained on, how, and what it reaches, for people."""

from __future__ import annotations

import math
from typing import Any


def write_card(model: dict[str, Any], sha256: str | None = None) -> str:
    """Markdown for the ``README.md`` of a bundle, from the fields of ``model.json`` and its hash."""
    unit = "summed squared error" if model.get("distortion", "mse") == "mse" else model["distortion"]
    pixels = " in [0, 1] pixels" if model["channels"] else ""
    lines = [
        f"# {model['name']}",
        "",
        f"- data: `{model['source']}`, training split; figures below are from the test split",
        f"- command: `{model['command']}`",
        f"- training: {model['training_seconds']} s",
        f"- default: rung {model['default_rung']}, N = {model['default_num_candidates']}, "
        f"seed {model['default_seed']}",
        *_shared(model),
        f"- hash: `{sha256}`" if sha256 else "- hash: the SHA-256 of `model.json`, printed by `rcc models`",
        "",
        f"R and D are NERD's held-out estimates of one block (bits; {unit}{pixels}), with standard errors",
        "over blocks, for the Lagrangian over codebooks; a later stage's are those of the residual it codes.",
        "",
        "| rung | stage | block | beta | R (bits) | D | Lagrangian (bits) | log2 N - R | saturated |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r, rung in enumerate(model["rungs"]):
        for s, stage in enumerate(rung["stages"]):
            height, width = stage["block"]
            room = math.log2(stage["num_candidates"]) - stage["rate_bits"]
            lines.append(
                f"| {r} | {s} | {height}x{width} | {stage['beta']:g} "
                f"| {stage['rate_bits']:.2f}{_error(stage['rate_se_bits'], '.2f')} "
                f"| {stage['distortion']:.4g}{_error(stage['distortion_se'], '.2g')} "
                f"| {stage['lagrangian_bits']:.3f}{_error(stage['lagrangian_se_codebooks_bits'], '.3f')} "
                f"| {room:.1f} | {'yes' if stage['saturated'] else 'no'} |"
            )
    return "\n".join(lines) + "\n"


def _shared(model: dict[str, Any]) -> list[str]:
    """A line on the stages whose blocks share indices with codes of their own; none if there is no such."""
    sizes = [
        f"rung {r} stage {s} by {stage['joint']['blocks']}"
        for r, rung in enumerate(model["rungs"])
        for s, stage in enumerate(rung["stages"])
        if stage.get("joint") and s + 1 == len(rung["stages"])
    ]
    return [f"- codes of shared indices: {', '.join(sizes)} blocks"] if sizes else []


def _error(standard_error: float | None, form: str) -> str:
    return "" if standard_error is None else f" ± {standard_error:{form}}"
