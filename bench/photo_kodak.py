"""Kodak through whole files: bytes and PSNR of every rung of a model of pixels beside JPEG and WebP.

    RCC_DATA=... python bench/photo_kodak.py                    # bench/results/photo_kodak.{json,png} and
                                                                # photo_kodak_pictures.png
    python bench/photo_kodak.py --source sample-photos --rungs 0 -o /tmp/trial         # no data set

Every number is of a file that was written to disk, read back and decoded: `rcccodec.compress` and
`rcccodec.decompress` on one side, Pillow on the other. ``bpp`` is 8 * file bytes / pixels, ``psnr_db`` over
all RGB samples of the decoded 8-bit image; rows hold means over images, with standard errors. Bits by stage
are the ideal lengths of the stage's indices, ``container_bits`` the rest of the file. Seconds are wall clock
an image, the model loaded. JPEG at the same rate is read off the line between Pillow's mean points in
(log bpp, dB). Models of latents, which have no stages, are measured by ``rcc bench``.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from metadata import RESULTS, describe_run, write_result
from PIL import Image
from rcc_files import block_bits
from standard_error import standard_error

import rcccodec
from rcccodec.bundle import Model, load_one_shot
from rcccodec.images import psnr_db
from rcccodec.sources import load_source

Row = dict[str, Any]
GOAL = {"bpp": 0.141, "psnr_db": 23.85, "what": "JPEG, Pillow quality 5, mean of all 24 Kodak images"}
JPEG_QUALITIES = (1, 3, 5, 8, 10, 15, 20)
WEBP_QUALITIES = (0, 1, 5, 10, 20)
OTHERS: tuple[tuple[str, tuple[int, ...], Row], ...] = (
    ("jpeg", JPEG_QUALITIES, {"format": "JPEG"}),
    ("jpeg optimize", JPEG_QUALITIES, {"format": "JPEG", "optimize": True}),
    ("webp method 6", WEBP_QUALITIES, {"format": "WEBP", "method": 6}),
)


def through_file(
    image: np.ndarray,
    path: Path,
    encode: Callable[[np.ndarray], bytes],
    decode: Callable[[bytes], np.ndarray],
) -> tuple[Row, bytes, np.ndarray]:
    """Write one image's file, read it back and decode it.

    Returns:
        what it cost and kept (file_bytes, bpp, psnr_db, encode_s, decode_s), the file, the decoded image.
    """
    began = time.perf_counter()
    path.write_bytes(encode(image))
    encoded = time.perf_counter()
    data = path.read_bytes()
    decoded = decode(data)
    ended = time.perf_counter()
    if decoded.shape != image.shape:
        raise AssertionError(f"{path.name} decodes to {decoded.shape}, not {image.shape}")
    size = path.stat().st_size
    row = {
        "file_bytes": size,
        "bpp": 8 * size / (image.shape[0] * image.shape[1]),
        "psnr_db": psnr_db(image, decoded),
        "encode_s": encoded - began,
        "decode_s": ended - encoded,
    }
    return row, data, decoded


def rcc_file(image: np.ndarray, path: Path, model: Model, **options: Any) -> tuple[Row, bytes, np.ndarray]:
    """`through_file` by this codec, with the bits of every stage and of the container in the row."""
    row, data, decoded = through_file(
        image,
        path,
        lambda x: rcccodec.compress(x, model, **options),
        lambda b: rcccodec.decompress(b, model),
    )
    (stages,) = block_bits(data, model)
    row["stage_bits"] = [float(bits.sum()) for bits in stages]
    row["container_bits"] = 8 * row["file_bytes"] - sum(row["stage_bits"])
    return row, data, decoded


def pillow_bytes(image: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()


def pillow_pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def average(rows: Sequence[Row]) -> Row:
    """Means over images, standard errors of rate and PSNR, and the images' own rows."""

    def mean(name: str) -> float:
        return float(np.mean([row[name] for row in rows]))

    result: Row = {name: mean(name) for name in ("bpp", "psnr_db", "file_bytes", "encode_s", "decode_s")}
    for name in ("bpp", "psnr_db"):
        result[f"{name}_se"] = standard_error([row[name] for row in rows])
    if "stage_bits" in rows[0]:
        result["stage_bits"] = np.mean([row["stage_bits"] for row in rows], axis=0).tolist()
        result["container_bits"] = mean("container_bits")
    result["images"] = list(rows)
    return result


def psnr_at(bpp: float, curve: Sequence[Row]) -> float | None:
    """PSNR at a rate on the line through mean points in (log bpp, dB); None outside them."""
    points = sorted((row["bpp"], row["psnr_db"]) for row in curve)
    if len(points) < 2 or not points[0][0] <= bpp <= points[-1][0]:
        return None
    rates, qualities = zip(*points, strict=True)
    return float(np.interp(np.log(bpp), np.log(rates), qualities))


def measure_others(images: Sequence[np.ndarray], folder: Path) -> list[Row]:
    """Every setting of the codecs in OTHERS, a row each."""
    rows = []
    for name, qualities, options in OTHERS:
        for quality in qualities:
            settings = {**options, "quality": quality}
            each = [
                through_file(
                    x, folder / f"{i}.other", lambda y, s=settings: pillow_bytes(y, **s), pillow_pixels
                )
                for i, x in enumerate(images)
            ]
            rows.append({"codec": name, "quality": quality, **average([row for row, _, _ in each])})
    return rows


def measure_rung(
    images: Sequence[np.ndarray], model: Model, rung: int, folder: Path, others: list[Row], **options: Any
) -> Row:
    """One rung of the model on all images, with JPEG's PSNR at its rate."""
    each = [rcc_file(x, folder / f"{i}.rcc", model, rung=rung, **options)[0] for i, x in enumerate(images)]
    row = {"codec": "rcc", "rung": rung, "beta": model.rungs[rung].beta, **average(each)}
    row["jpeg_psnr_db_at_same_bpp"] = psnr_at(row["bpp"], [o for o in others if o["codec"] == "jpeg"])
    return row


def beside_goal(rows: list[Row], others: list[Row]) -> Row:
    """The goal, what this codec reaches at its rate, and the same for JPEG quality 5 on these very images."""
    here = next(o for o in others if (o["codec"], o["quality"]) == ("jpeg", 5))
    at_goal = psnr_at(GOAL["bpp"], rows)
    return {
        **GOAL,
        "rcc_psnr_db_at_its_bpp": at_goal,
        "reached": None if at_goal is None else at_goal >= GOAL["psnr_db"],
        "jpeg_quality_5_on_these_images": {"bpp": here["bpp"], "psnr_db": here["psnr_db"]},
        "rcc_psnr_db_at_that_bpp": psnr_at(here["bpp"], rows),
    }


def nearest_jpeg(image: np.ndarray, size: int) -> bytes:
    """The JPEG of Pillow (optimize=True) whose file is closest to ``size`` bytes."""
    tried = (pillow_bytes(image, format="JPEG", optimize=True, quality=q) for q in range(1, 96))
    return min(tried, key=lambda data: abs(len(data) - size))


def line(row: Row) -> str:
    """One row of the printed table."""
    which = f"rung {row['rung']} (beta {row['beta']:g})" if row["codec"] == "rcc" else f"q {row['quality']}"
    text = (
        f"{row['codec']:<14} {which:<22} {row['bpp']:.4f} +- {row['bpp_se'] or 0:.4f} bpp  "
        f"{row['psnr_db']:.2f} +- {row['psnr_db_se'] or 0:.2f} dB  "
        f"{row['encode_s']:.2f} s / {row['decode_s']:.2f} s"
    )
    if row["codec"] == "rcc":
        text += "  bits " + " + ".join(f"{bits:.0f}" for bits in (*row["stage_bits"], row["container_bits"]))
        beside = row["jpeg_psnr_db_at_same_bpp"]
        text += "" if beside is None else f"  JPEG {beside:.2f} dB"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="photo-pixels", help="name or folder")
    parser.add_argument("--source", default="kodak", help="photographs; the test split is taken")
    parser.add_argument("--limit", type=int, help="images; default: all")
    parser.add_argument("--rungs", type=int, nargs="+", help="default: all")
    parser.add_argument("--coder", default="mincost", choices=("pfr", "orc", "mincost"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--pictures", type=int, nargs=2, default=(2, 11), help="numbers of two images to show"
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "photo_kodak", help="path, no suffix")
    args = parser.parse_args()

    began = time.perf_counter()
    model = load_one_shot(args.model)
    images = load_source(args.source, "test", limit=args.limit).images()
    options = {"coder": args.coder, "device": args.device}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = measure_others(images, folder)
        print("\n".join(line(row) for row in others), flush=True)
        rows = []
        for rung in args.rungs or range(len(model.rungs)):
            rows.append(measure_rung(images, model, rung, folder, others, **options))
            print(line(rows[-1]), flush=True)
        pictures = []
        for number in args.pictures:
            x = images[min(number, len(images) - 1)]
            row, _, decoded = rcc_file(x, folder / "picture.rcc", model, **options)
            jpeg = nearest_jpeg(x, row["file_bytes"])
            pictures.append((x, (decoded, row["file_bytes"]), (pillow_pixels(jpeg), len(jpeg))))
    sizes = sorted({f"{x.shape[1]}x{x.shape[0]}" for x in images})
    result = {
        "what": "whole files written, read back and decoded; means over images of bpp and RGB PSNR",
        "images": f"{len(images)} images of {args.source}, {', '.join(sizes)}",
        "model": model.name,
        "model_sha256": model.sha256,
        "num_candidates": model.default_num_candidates,
        "codebook_seeds": [model.default_seed],
        "coder": args.coder,
        **describe_run(began, args.device),
        "goal": beside_goal(rows, others),
        "rows": rows,
        "others": others,
    }
    write_result(Path(f"{args.output}.json"), result)

    from photo_plot import picture_grid, plot

    published = json.loads((RESULTS.parent / "published" / "kodak_published.json").read_text())
    plot(result, published, Path(f"{args.output}.png"))
    picture_grid(pictures, Path(f"{args.output}_pictures.png"))
    print(f"written: {args.output}.json, {args.output}.png, {args.output}_pictures.png")


if __name__ == "__main__":
    main()
