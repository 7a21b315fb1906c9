"""Colour images of 32x32 (nerd-rcc figs. 3, 11): a small model beside a scalar quantiser, JPEG and WebP.

    python bench/colour_32.py                               # CIFAR-10; bench/results/colour_32.*
    python bench/colour_32.py --source svhn -o bench/results/colour_32_svhn

Without a model in runs/ the project's trainer makes one first, small and short: some minutes of a core. The
test images are one file for each codec and slope, decoded and compared, as in ``rcc bench``, whose JSON
layout this is. JPEG and WebP get them as one mosaic, so that headers are paid once and not for every image;
the tiles lie on the grids of both.
"""

import argparse
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
from metadata import RESULTS
from PIL import Image
from tqdm import tqdm

from rcccodec.bundle import load_model
from rcccodec.comparison import figure, results, run
from rcccodec.comparison.codec_curve import codec_curve
from rcccodec.comparison.image_set import ImageSet, load_image_set
from rcccodec.comparison.measured import Curve, measure_point
from rcccodec.comparison.summary import bjontegaard_deltas
from rcccodec.training.plan import make_plan
from rcccodec.training.run import train_model
from rcccodec.training.trainer import Progress

RUNS = Path(__file__).resolve().parents[1] / "runs"
STAGES = {"cifar10": "32:0.05,0.1,0.2@0.04-0.25", "svhn": "32:0.1,0.2,0.4@0.08-0.5"}
COLUMNS = 20  # of the mosaic
QUALITIES = {"JPEG": (1, 2, 4, 7), "WEBP": (0, 2, 6, 14)}
OPTIONS = {"JPEG": {"optimize": True}, "WEBP": {"method": 6}}
NAMES = {"JPEG": "JPEG, one mosaic", "WEBP": "WebP, one mosaic"}


def train_small(
    source: str, folder: Path, stage: str, vae_steps: int, nerd_steps: int, candidates: int
) -> None:
    """Write the model that this bench codes with, as ``rcc train`` would with these options."""
    plan = make_plan(
        source, folder.name, data_root=None, stages=[stage], vae_steps=[vae_steps], nerd_steps=[nerd_steps],
        candidates=candidates,
    )  # fmt: skip
    words = f"--vae-steps {vae_steps} --nerd-steps {nerd_steps} --candidates {candidates}"
    with tqdm(total=vae_steps + nerd_steps, unit="step") as bar:

        def report(_stage: int, progress: Progress) -> None:
            bar.set_postfix(bits=f"{progress.rate_bits:.2f}", D=f"{progress.distortion:.1f}", refresh=False)
            bar.update(progress.step - bar.n)

        command = f"rcc train {source} --stage {stage} {words} -o {folder.name}"
        train_model(plan, folder, command=command, report=report, say=bar.write)


def mosaic(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images uint8 (h, w, 3) side by side, COLUMNS a row, the last row filled with the last image."""
    filled = [*images, *[images[-1]] * (-len(images) % COLUMNS)]
    rows = [np.concatenate(filled[i : i + COLUMNS], axis=1) for i in range(0, len(filled), COLUMNS)]
    return np.concatenate(rows, axis=0)


def mosaic_curve(images: ImageSet, kind: str) -> Curve:
    """JPEG or WebP of the mosaic at every quality; the whole file is the payload."""
    height, width = images.images[0].shape[:2]
    curve = Curve(kind.lower(), NAMES[kind], f"Pillow, the mosaic's whole file, {OPTIONS[kind]}", ())
    points = []
    for quality in QUALITIES[kind]:

        def encode(job: list[np.ndarray], quality: int = quality) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(mosaic(job)).save(buffer, format=kind, quality=quality, **OPTIONS[kind])
            return buffer.getvalue()

        def decode(data: bytes) -> list[np.ndarray]:
            with Image.open(io.BytesIO(data)) as picture:
                x = np.asarray(picture.convert("RGB"))
            places = (divmod(i, COLUMNS) for i in range(len(images.images)))
            return [x[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places]

        points.append(
            measure_point(
                images, f"quality {quality}", encode, decode, payload_bits=lambda data: 8 * len(data)
            )
        )
    return replace(curve, points=tuple(points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="cifar10", help="a source of small colour images, such as svhn")
    parser.add_argument("--model", type=Path, help="default: runs/SOURCE, trained if it is not there")
    parser.add_argument("--stage", help="of the training, as rcc train takes it")
    parser.add_argument("--vae-steps", type=int, default=1200)
    parser.add_argument("--nerd-steps", type=int, default=120)
    parser.add_argument("--candidates", type=int, default=4096)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3, help="codebooks of pfr with the fitted code")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "colour_32", help="path without suffix"
    )
    args = parser.parse_args()
    images = load_image_set(args.source, args.images)
    folder = args.model or RUNS / args.source
    if not (folder / "model.json").exists():
        stage = args.stage or STAGES[args.source]
        train_small(args.source, folder, stage, args.vae_steps, args.nerd_steps, args.candidates)
    model = load_model(folder)
    plan = run.make_plan(
        images, [str(folder)], ["ecsq"], coders=["mincost"], index_code=None, num_candidates=None,
        num_seeds=args.seeds, device=args.device, remark=print,
    )  # fmt: skip

    def bar(_what: str) -> AbstractContextManager[None]:
        return nullcontext()

    made = run.compare(plan, print, bar)
    exact = codec_curve(
        images, model, "pfr", seeds=plan.seeds(model), index_code="fitted", device=args.device, bar=bar
    )
    mosaics = [mosaic_curve(images, kind) for kind in QUALITIES]
    comparison = replace(made, curves=(made.curves[0], exact, *made.curves[1:], *mosaics))
    for curve in (exact, *mosaics):
        for point in curve.points:
            bits, error = point.payload_bits.mean(), point.squared_error.mean()
            print(f"{curve.name}, {point.setting}: {bits:.2f} bits an image, squared error {error:.2f}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    results.write_results(Path(f"{args.output}.json"), comparison, bjontegaard_deltas(comparison))
    Path(f"{args.output}.png").write_bytes(figure.figure_bytes(comparison, "png"))


if __name__ == "__main__":
    main()
