"""``rcc demo``: a photograph and a digit that ship with the package, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rcccodec import codec
from rcccodec.atomic import check_target, sweep
from rcccodec.bundle import AnyModel, Model, load_model
from rcccodec.commands import console
from rcccodec.images import read_image, side_by_side, write_image
from rcccodec.latent.report import LatentReport
from rcccodec.report import Report, guarantee_bits

SAMPLES = Path(__file__).parent / "samples"
PAIRS = (("coffee.png", "photo"), ("digit.png", "mnist"))  # picture, model


def run(output: str) -> None:
    """Compress and decompress every pair, print what it cost and kept, and write the pictures side by side.

    Raises:
        ModelError: a shipped model is missing. OutputError: ``output`` cannot be written.
    """
    check_target(output)
    sweep([output])
    panels = []
    for picture, model_name in PAIRS:
        x, _ = read_image(SAMPLES / picture)
        model = load_model(model_name)
        with console.progress_bar(picture, False) as progress:
            encoded = codec.compress(x, model, progress=progress)
        (x_hat,) = codec.decompress(encoded.data, model)
        if not np.array_equal(x_hat, encoded.images[0]):
            raise AssertionError(f"{picture} decodes to something else than the encoder said")
        console.say(_describe(picture, x, encoded, model))
        caption = f"{encoded.report.file_bytes} bytes, {encoded.report.bpp:.3f} bpp"
        if encoded.report.psnr_db is not None:
            caption += f", {encoded.report.psnr_db:.2f} dB"
        panels.append(side_by_side(x, x_hat, (f"{picture}, {x.nbytes} bytes", caption)))
    write_image(output, _stack(panels))
    console.say(f"pictures: {output} (original left, decoded right)")


def _describe(picture: str, x: np.ndarray, encoded: codec.Encoded, model: AnyModel) -> str:
    costs = encoded.report
    psnr = "no loss" if costs.psnr_db is None else f"PSNR {costs.psnr_db:.2f} dB"
    head = [
        f"{picture}: {x.shape[1]}x{x.shape[0]}, model {model.name}, rung {costs.rung} (beta {costs.beta:g})",
        f"  file     {8 * costs.file_bytes} bits = {costs.file_bytes} bytes, {costs.bpp:.4f} bpp, {psnr}",
    ]
    return "\n".join(head + (_stages(costs, model) if isinstance(costs, Report) else _latents(costs)))


def _stages(costs: Report, model: Model) -> list[str]:
    lines = [
        f"  payload  {costs.payload_bits} bits, {costs.rate_bits_per_block:.2f} for each of the "
        f"{costs.blocks} indices"
    ]
    for number, stage in enumerate(model.rungs[costs.rung].stages):
        height, width = stage.block
        rate = stage.rate_bits
        lines.append(
            f"  stage {number}  {height}x{width} blocks: R {rate:.2f} bits, "
            f"guarantee R + log2(R + 1) + 5 = {guarantee_bits(rate):.2f} bits a block"
        )
    return lines


def _latents(costs: LatentReport) -> list[str]:
    return [
        f"  payload  {costs.payload_bits} bits: {costs.dimension_bits} of latents, "
        f"{costs.class_bits} of classes",
        f"  channel  divergence {costs.divergence_bits:.0f} bits, "
        f"{costs.divergence_bits / costs.positions:.1f} for each 16x16 pixels; "
        f"{costs.coder}, 2^{costs.log2_num_candidates:g} states",
    ]


def _stack(panels: list[np.ndarray]) -> np.ndarray:
    """RGB pictures below each other on white."""
    width = max(panel.shape[1] for panel in panels)
    rows = [
        np.pad(panel, ((0, 0), (0, width - panel.shape[1]), (0, 0)), constant_values=255) for panel in panels
    ]
    return np.concatenate(rows, axis=0)


if __name__ == "__main__":
    from rcccodec.cli import run as run_command

    raise SystemExit(run_command(["demo"]))
