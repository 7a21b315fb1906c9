"""Writes the parts of README.md that are measured: the transcript and the table of models.

python bench/readme.py          rewrite README.md
python bench/readme.py --check  say what differs, exit 1 if anything does
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rcccodec.bundle import list_models, read_card

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
TRANSCRIPT = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
TABLE = re.compile(r"(?<=<!-- models -->\n).*?(?=<!-- end of models -->)", re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def rerun(transcript: str) -> str:
    """Run the ``$ rcc`` lines of a transcript in a folder that has only the samples; return a fresh one."""
    lines = []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rcccodec").mkdir()
        (Path(folder) / "rcccodec" / "samples").symlink_to(ROOT / "rcccodec" / "samples")
        for line in transcript.splitlines():
            if line.startswith("$ rcc "):
                command = [sys.executable, "-m", "rcccodec.cli", *shlex.split(line)[2:]]
                done = subprocess.run(
                    command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                lines += [line, *done.stdout.splitlines()]
    return "\n".join(lines) + "\n"


def model_table() -> str:
    """One row for every rung of every model."""
    rows = ["| model | rung | beta | held out |", "|---|---|---|---|"]
    for name in list_models():
        card = read_card(name)
        rungs = card["held_out"] if card.get("kind") == "latent" else card["rungs"]
        for number, rung in enumerate(rungs):
            default = " (default)" if number == card["default_rung"] else ""
            rows.append(f"| `{name}` | {number}{default} | {rung['beta']:g} | {_held_out(rung)} |")
    return "\n".join(rows) + "\n"


def _held_out(rung: dict[str, Any]) -> str:
    """Stages: block, R in bits, D a block; of latents payload bits a pixel and PSNR."""
    if "stages" not in rung:
        return f"{rung['rate_bpp']:.3f} bpp, {rung['psnr_db']:.2f} dB"
    return "; ".join(
        "{}x{}, {:.2f}, {:.3f}".format(*stage["block"], stage["rate_bits"], stage["distortion"])
        for stage in rung["stages"]
    )


def differences(old: str, new: str, tolerance: float = 0.02) -> list[str]:
    """Lines whose words differ, or whose numbers differ by more than ``tolerance`` in ratio."""
    found = []
    old_lines, new_lines = old.splitlines(), new.splitlines()
    if len(old_lines) != len(new_lines):
        found.append(f"{len(old_lines)} lines became {len(new_lines)}")
    for a, b in zip(old_lines, new_lines, strict=False):
        numbers = list(zip(map(float, NUMBER.findall(a)), map(float, NUMBER.findall(b)), strict=False))
        same_words = NUMBER.sub("#", a) == NUMBER.sub("#", b)
        if not same_words or any(abs(x - y) > tolerance * max(abs(x), abs(y)) for x, y in numbers):
            found.append(f"- {a}\n+ {b}")
    return found


def main() -> int:
    """Rewrite or check the README."""
    text = README.read_text()
    old_transcript, old_table = TRANSCRIPT.search(text), TABLE.search(text)
    if not old_transcript or not old_table:
        raise SystemExit("README.md has lost its markers")
    transcript, table = rerun(old_transcript[0]), model_table()
    if "--check" in sys.argv:
        found = differences(old_transcript[0], transcript) + differences(old_table[0], table, 0)
        print("\n".join(found) or "README.md is up to date")
        return 1 if found else 0
    text = TABLE.sub(lambda _: table, TRANSCRIPT.sub(lambda _: transcript, text))
    README.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
