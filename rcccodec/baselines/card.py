"""The card of a baseline, for people."""

from __future__ import annotations

from typing import Any

_METHODS = {
    "image": "one-shot nonlinear transform coding (factorised prior)",
    "block": "nonlinear transform coding of several images jointly (factorised prior)",
    "vector": "one-shot nonlinear transform coding (factorised prior)",
    "factorized": "bmshj2018-factorized as CompressAI builds it, a gain for each slope",
    "hyperprior": "bmshj2018-hyperprior as CompressAI builds it, a gain for each slope",
}


def write_card(card: dict[str, Any], sha256: str) -> str:
    """Markdown for the ``README.md`` of a bundle, from the fields of ``baseline.json`` and its hash."""
    spec = card["spec"]
    item = card["item"]
    lines = [
        f"# {card['name']}",
        "",
        f"A baseline that the codec is measured against: {_METHODS[spec['kind']]},",
        "with CompressAI's entropy coder. It needs the extra: `pip install 'rcccodec[bench]'`.",
        "",
        f"- data: `{card['source']}`, training split; figures below are from the test split",
        f"- command: `{card['command']}`",
        f"- training: {card['training_seconds']} s, {card['training']['steps']} steps",
        f"- width {spec['width']}, {spec['latent_dim']} latents",
        f"- hash: `{sha256}`",
        "",
        f"R (ideal code length of the rounded latents, bits) and D (summed squared error) of one {item},",
        "with standard errors. Both are measured with the stored weights and integer tables.",
        "",
        *_table(card["held_out"]),
    ]
    if card["held_out_searched"]:
        lines += [
            "",
            "The same decoder after an encoder that tries each latent's neighbours once (the default),",
            "on items spread evenly over these:",
            "",
            *_table(card["held_out_searched"]),
        ]
    return "\n".join(lines) + "\n"


def _table(points: list[dict[str, float]]) -> list[str]:
    return [
        "| beta | R (bits) | D | R + beta D (bits) |",
        "|---|---|---|---|",
        *(
            f"| {row['beta']:g} | {row['rate_bits']:.2f} ± {row['rate_se_bits']:.2g} "
            f"| {row['distortion']:.2f} ± {row['distortion_se']:.2g} | {row['lagrangian_bits']:.2f} |"
            for row in points
        ),
    ]
