"""Writes "How it compares" of README.md from a result of ``rcc bench``: bits an image at equal squared error.

    rcc bench --data mnist --images 1000 --against ntc --against ntc-plain --against ntc-block \
        --against ecsq \
        --json bench/results/mnist_comparison.json --plot bench/results/mnist_comparison.png
    python bench/comparison_table.py

Between two points of a codec the rate is read off the straight line; a dash where a codec has none. A star
marks a rate that is lower than that of every learned baseline.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from metadata import RESULTS

README = RESULTS.parents[1] / "README.md"
TABLE = re.compile(r"(?<=<!-- comparison -->\n).*?(?=<!-- end of comparison -->)", re.DOTALL)
DISTORTIONS = (40.0, 35.0, 30.0, 25.0, 20.0, 18.0)


def read_curves(path: Path) -> list[dict[str, Any]]:
    """This codec's first curve and those of the files beside it."""
    main = json.loads(path.read_text())
    return [main, *(json.loads(path.with_name(name).read_text()) for name in main["files"].values())]


def bits_at(curve: dict[str, Any], distortion: float) -> float | None:
    """Bits an image at a squared error, None outside the curve."""
    points = sorted(zip(curve["results"]["distortion"], curve["results"]["bits_per_image"], strict=True))
    errors, bits = zip(*points, strict=True)
    if not errors[0] <= distortion <= errors[-1]:
        return None
    return float(np.interp(distortion, errors, bits))


def table(curves: list[dict[str, Any]], limits: list[dict[str, Any]]) -> str:
    """Markdown: a row a codec and one for R(D)."""
    codecs = [curve for curve in curves if curve["kind"] != "bound"]
    lines = [
        "| bits an image at squared error | " + " | ".join(f"{d:g}" for d in DISTORTIONS) + " |",
        "|---|" + "---|" * len(DISTORTIONS),
    ]
    rate = {
        "distortion": [x["distortion"] for x in limits],
        "bits_per_image": [x["rate_bits"] for x in limits],
    }
    for curve in [{"name": "R(D), NERD upper bound", "results": rate, "kind": "bound"}, *codecs]:
        cells = []
        for d in DISTORTIONS:
            bits = bits_at(curve, d)
            learned = [bits_at(c, d) for c in codecs if c["kind"] == "reference" and c["sha256"]]
            known = [b for b in learned if b is not None]
            star = curve["kind"] == "rcc" and bits is not None and known and bits < min(known)
            cells.append("-" if bits is None else f"{bits:.2f}{'*' if star else ''}")
        lines.append(f"| {curve['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path, nargs="?", default=RESULTS / "mnist_comparison.json")
    args = parser.parse_args()
    result = json.loads(args.result.read_text())
    (limits,) = list(result["theory"].values())[:1]
    made = table(read_curves(args.result), limits)
    README.write_text(TABLE.sub(lambda _: made, README.read_text()))
    print(made, end="")


if __name__ == "__main__":
    main()
