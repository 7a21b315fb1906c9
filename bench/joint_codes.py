"""Codes of their own for shared indices: what they save over a borrowed table, digit by digit, at any N.

    python bench/joint_codes.py --candidates 32768                    # bench/results/joint_codes.json
    python bench/joint_codes.py --candidates 262144 --coders pfr --rungs 0 3

The codes of shared indices are fitted on training digits, as ``rcc refit`` does, for each N, slope and
codebook asked for. Then MNIST test digits go through real files, decoded and compared, with shared indices in
the ``borrowed`` fitted table of the model's stage of the nearest rate, in the ``fitted`` table of just so
many digits, and in a ``prior`` of this codebook. ``excess_bits`` is that of shared_indices.py, over the NERD
estimate with the same codebook and N.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from rcc_files import payload_bits, with_index_code
from standard_error import standard_error

from rcccodec import codec
from rcccodec.bundle import JointCodes, Model, load_model
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.joint import joint_size
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.sources import load_source
from rcccodec.training.joint_codes import fit_joint_codes

Row = dict[str, Any]
CODES = ("borrowed", "fitted", "prior")


def flat_pixels(images: np.ndarray) -> torch.Tensor:
    """Images uint8 (n, h, w) as float32 (n, h * w) in units of pixel / 255."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)


def with_joint(
    model: Model, rung: int, training: np.ndarray | None, *, seed: int, num_candidates: int, **options: Any
) -> Model:
    """The model for another codebook, its codes of shared indices at ``rung`` fitted on training images.

    ``training`` uint8 (n, h, w); None: without any, as older bundles are. The prior of digits left over is
    made up, for there are none.
    """
    stage = model.rungs[rung].stages[0]
    joint = None
    if training is not None:
        proposal = stage.proposal(options.get("device", "cpu"))
        size = joint_size(num_candidates, stage.zipf_rate_millibits)
        made = fit_joint_codes(
            proposal.analyse(flat_pixels(training)), proposal, size=size, beta=stage.beta, stage=0,
            num_candidates=num_candidates, seed=seed, **options,
        )  # fmt: skip
        priors = {coder: CodebookPrior(levels) for coder, levels in made.levels.items()}
        joint = JointCodes(size, made.fitted, priors)
    flat = CodebookPrior(np.full(num_candidates, min(255, 8 * num_candidates.bit_length()), np.uint8))
    rungs = list(model.rungs)
    alone = replace(stage, joint=joint, priors=dict.fromkeys(("pfr", "orc", "mincost"), flat))
    rungs[rung] = replace(rungs[rung], stages=(alone,))
    return replace(model, rungs=tuple(rungs), default_seed=seed, default_num_candidates=num_candidates)


def files(images: list[np.ndarray], models: dict[str, Model], coder: str, rung: int) -> Iterator[bytes]:
    """The file of every code of CODES; PFR and ORC choose once for all, min-cost anew for each."""
    data, before = b"", models[CODES[0]]
    for code in CODES:
        model, index_code = models[code], "prior" if code == "prior" else "fitted"
        if coder == "mincost" or not data:
            encoded = codec.compress(
                images, model, rung=rung, coder=coder, index_code=index_code, joint=True,
                seed=model.default_seed, num_candidates=model.default_num_candidates,
            )  # fmt: skip
            data, said = encoded.data, encoded.images
        else:
            data = with_index_code(data, before, index_code, codes_of=model)
        before = model
        if not all(map(np.array_equal, codec.decompress(data, model), said)):
            raise AssertionError("a file does not decode to what its encoder said")
        yield data


def measure(
    images: list[np.ndarray],
    training: np.ndarray,
    model: Model,
    rung: int,
    *,
    num_candidates: int,
    seeds: range,
    coders: tuple[str, ...],
    device: str = "cpu",
) -> list[Row]:
    """The rows of one rung and N, means over codebooks: one a coder and code; none if none share."""
    stage = model.rungs[rung].stages[0]
    size = joint_size(num_candidates, stage.zipf_rate_millibits)
    if size == 1:
        return []
    images = images[: len(images) // size * size]
    x, found, fit_s = flat_pixels(np.stack(images)), {}, 0.0
    for seed in seeds:
        options: dict[str, Any] = {"seed": seed, "num_candidates": num_candidates, "device": device}
        old = with_joint(model, rung, None, **options)
        began = time.process_time()
        new = with_joint(model, rung, training, coders=coders, **options)
        fit_s += (time.process_time() - began) / len(seeds)
        point = estimate_nerd(
            x,
            stage.proposal(device),
            beta=stage.beta,
            num_candidates=num_candidates,
            seeds=(seed,),
            device=device,
        )
        models = {"borrowed": old, "fitted": new, "prior": new}
        for coder in coders:
            for code, data in zip(CODES, files(images, models, coder, rung), strict=True):
                kept = codec.decompress(data, models[code])
                error = np.square((np.stack(images).astype(float) - np.stack(kept)) / 255).sum((1, 2)).mean()
                bits = payload_bits(data) / len(images)
                excess = bits + stage.beta * error / math.log(2) - point.lagrangian_bits
                found.setdefault((coder, code), []).append((bits, error, excess, point.rate_bits))
    rows = []
    for (coder, code), trials in found.items():
        bits, errors, excesses, rates = np.array(trials).T
        rows.append(
            {
                "rung": rung,
                "beta": stage.beta,
                "rd_rate_bits": float(rates.mean()),
                "num_candidates": num_candidates,
                "images_per_index": size,
                "coder": coder,
                "code": code,
                "payload_bits_per_image": float(bits.mean()),
                "distortion": float(errors.mean()),
                "excess_bits": float(excesses.mean()),
                "excess_se_codebooks_bits": standard_error(excesses),
                "codebook_seeds": list(seeds),
                "fit_cpu_s": fit_s,
            }
        )
        row = rows[-1]
        print(
            f"rung {rung} R {row['rd_rate_bits']:6.2f}  N {num_candidates} {size} an index  {coder:<8}"
            f"{code:<9}{row['payload_bits_per_image']:7.3f} bits  D {row['distortion']:6.2f}  "
            f"excess {row['excess_bits']:.3f}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist", help="name or folder")
    parser.add_argument("--source", default="mnist", help="of images as large as the model's block")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--training-images", type=int, help="default: all")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1 << 15])
    parser.add_argument("--rungs", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--coders", nargs="+", default=["pfr", "mincost"], choices=["pfr", "orc", "mincost"])
    parser.add_argument("--seed", type=int, default=0, help="the first codebook")
    parser.add_argument("--seeds", type=int, default=1, help="how many codebooks")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "joint_codes.json")
    args = parser.parse_args()

    began = time.perf_counter()
    model = load_model(args.model)
    images = load_source(args.source, "test", limit=args.images).images()
    training = np.stack(load_source(args.source, "train", limit=args.training_images).images())
    rows: list[Row] = []
    for n in args.candidates:
        for rung in args.rungs:
            rows += measure(
                images, training, model, rung, num_candidates=n, coders=tuple(args.coders),
                seeds=range(args.seed, args.seed + args.seeds), device=args.device,
            )  # fmt: skip
    result = {
        "what": "bits a digit of real payloads of shared indices, by where the index code is from",
        "images": f"first {len(images)} of the test split of {args.source}, less those that fill no group",
        "training_images": len(training),
        "model": model.name,
        "model_sha256": model.sha256,
        **describe_run(began, args.device),
        "rows": rows,
    }
    write_result(args.output, result)
    print(f"written: {args.output}")


if __name__ == "__main__":
    main()
