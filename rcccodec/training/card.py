"""The card of a trained model: what it was trained on, how, and what it reaches, for people."""

from __future__ import annotations

import math
from typing import Any


def write_card(model: dict[str, Any]) -> str:
    """Markdown for the ``README.md`` of a bundle, from the fields of ``model.json``."""
    lines = [
        f"# {model['name']}",
        "",
        f"- data: `{model['source']}`, training split; figures below are from the test split",
        f"- command: `{model['command']}`",
        f"- training: {model['training_seconds']} s in all, last start",
        f"- default: rung {model['default_rung']}, N = {model['default_num_candidates']}, "
        f"seed {model['default_seed']}",
        "- the bundle's hash is the SHA-256 of `model.json`; `rcc models` prints it",
        "",
        "R and D are NERD's held-out estimates of one block (bits; summed squared error in [0, 1] pixels),",
        "with standard errors over blocks; a later stage's are those of the residual it codes.",
        "",
        "| rung | stage | block | beta | R (bits) | D | Lagrangian (bits) | log2 N - R | saturated |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r, rung in enumerate(model["rungs"]):
        for s, stage in enumerate(rung["stages"]):
            height, width = stage["block"]
            room = (stage["num_candidates"].bit_length() - 1) - stage["rate_bits"]
            lines.append(
                f"| {r} | {s} | {height}x{width} | {stage['beta']:g} "
                f"| {stage['rate_bits']:.2f} ± {stage['rate_se_bits']:.2f} "
                f"| {stage['distortion']:.4g} ± {stage['distortion_se']:.2g} "
                f"| {stage['lagrangian_bits']:.3f} ± {stage['lagrangian_se_codebooks_bits']:.3f} "
                f"| {room:.1f} | {'yes' if stage['saturated'] else 'no'} |"
            )
    return "\n".join(lines) + "\n"
