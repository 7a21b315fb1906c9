"""MNIST through real files: R(D) of a model, then payload bits and D of every coder and index code.

    python bench/mnist_rcc.py --images 2000 --candidates 30000 --json --plot
    python bench/mnist_rcc.py --source sample-digits --images 64 --candidates 2000 --seeds 2     # no data set

The images of the test split in index order make one file for each codebook; it is packed, unpacked, decoded
and compared with what the encoder said. With beta in nats per unit of summed squared error,

    excess_bits = (payload + beta D / ln 2) - (R + beta D_est / ln 2)          bits an image

so a shift in D is paid for. R and D_est are the NERD estimate over the very codebooks (seeds) that are then
used to code, which cancels much of a codebook's luck. ``distortion`` is that of the decoded 8-bit images.

Standard errors: ``*_codebooks`` over seeds; ``*_images`` over parts of the images, with ideal code lengths
in place of the payload, which is one for all. Those of the excess are of the difference, not of its terms.

Rows of index code "prior" use the one codebook that the model ships priors for, at the model's own N. Rows
"prior_refitted" (--refit-priors) learn a prior again for each seed, on training images, by the same
procedure; they show what "prior" reaches on average over codebooks. PFR and ORC choose the same indices under
any index code: a prior makes them cheaper and leaves the law alone.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metadata import RESULTS, describe_run, write_result
from mnist_rows import (
    GOAL_RATES_BITS,
    HEADER,
    Estimate,
    Row,
    Trial,
    closing_lines,
    estimate_record,
    line,
    make_row,
    read_reference,
    summarise,
)
from rcc_files import image_bits, payload_bits, read_indices, with_index_code

from rcccodec import codec
from rcccodec.bundle import Model, Stage, load_model
from rcccodec.channel import candidates_at
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.sources import load_source
from rcccodec.training.index_codes import fit_channel_priors, fit_codebook_prior

PUBLISHED = Path(__file__).resolve().parent / "published"
PARTS = 20  # of the images, for standard errors over images
CODERS = (("pfr", ("fitted", "zipf")), ("orc", ("fitted", "zipf")), ("mincost", ("fitted",)))


class Codebook(GeneratorProposal):
    """A proposal that makes each chunk of candidates once, however many parts of the images look at it."""

    def __init__(self, stage: Stage, device: str) -> None:
        super().__init__(stage.generator.at_slope(stage.beta), device)
        self._made: dict[bytes, torch.Tensor] = {}

    def candidates(self, z: torch.Tensor) -> torch.Tensor:
        key = z[0].cpu().numpy().tobytes()  # a chunk is known by its first latent
        if key not in self._made:
            self._made[key] = super().candidates(z)
        return self._made[key]


def flat_pixels(images: np.ndarray) -> torch.Tensor:
    """Images uint8 (n, h, w) as float32 (n, h * w) in units of pixel / 255."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32) / 255)


def part_means(values: np.ndarray, parts: int) -> np.ndarray:
    """Means of ``values`` (n,) over equal parts of the images, in order: (parts,)."""
    return np.array([part.mean() for part in np.array_split(values, parts)])


def estimate(
    images: np.ndarray, stage: Stage, seeds: range, num_candidates: int, parts: int, device: str
) -> Estimate:
    """R and D of every part of the images uint8 (n, h, w) under every codebook."""
    pieces = torch.tensor_split(flat_pixels(images), parts)
    found = []
    for seed in seeds:
        codebook = Codebook(stage, device)
        for x in pieces:
            point = estimate_nerd(
                x, codebook, beta=stage.beta, num_candidates=num_candidates, seeds=(seed,), device=device
            )
            found.append((point.rate_bits, point.distortion))
    rate, distortion = np.array(found).T.reshape(2, len(seeds), parts)
    return Estimate(rate, distortion, np.array([len(x) for x in pieces]) / len(images))


def code_images(
    images: np.ndarray, model: Model, parts: int, names: tuple[str, ...], **options: Any
) -> list[Trial]:
    """Compress once, decode, compare; one Trial for each index code of ``names``, all of the same indices.

    Args:
        images: uint8 (n, h, w), each one block of the model's only stage.
        options: ``seed`` and others of `rcccodec.codec.compress`.
    """
    encoded = codec.compress(list(images), model, index_code=names[0], joint=False, **options)
    ((indices,),) = read_indices(encoded.data, model)
    stage = model.rungs[encoded.report.rung].stages[0]
    errors = np.square((np.stack(encoded.images) - images.astype(np.float64)) / 255).sum((1, 2))
    unrounded = unrounded_distortion(images, stage, indices, options["seed"])
    trials = []
    for name in names:
        data = with_index_code(encoded.data, model, name)
        check_decodes(data, model, encoded.images)
        trials.append(
            Trial(
                payload_bits=payload_bits(data) / len(images),
                file_bits=8 * len(data) / len(images),
                lengths_bits=part_means(image_bits(data, model), parts),
                distortion=part_means(errors, parts),
                distortion_unrounded=unrounded,
                certified=encoded.report.certified_fraction,
            )
        )
    return trials


def check_decodes(data: bytes, model: Model, said: list[np.ndarray]) -> None:
    """Decode a file and hold every pixel against what the encoder said it would decode to."""
    decoded = codec.decompress(data, model)
    if len(decoded) != len(said) or not all(map(np.array_equal, decoded, said)):
        raise AssertionError("a file does not decode to what its encoder said")


def unrounded_distortion(images: np.ndarray, stage: Stage, indices: np.ndarray, seed: int) -> float:
    """Mean summed squared error of the chosen candidates themselves, before rounding to 8 bits."""
    unique, inverse = np.unique(indices, return_inverse=True)
    proposal = stage.proposal()
    y = proposal.synthesise(candidates_at(proposal, torch.from_numpy(unique), seed=seed)).numpy()
    return float(np.square(images.reshape(len(images), -1) / 255 - y[inverse]).sum(1).mean())


def with_priors(
    model: Model,
    rung: int,
    training: np.ndarray,
    seed: int,
    num_candidates: int,
    device: str,
    coders: tuple[str, ...] = ("mincost", "pfr", "orc"),
) -> Model:
    """The model with priors for another codebook, learnt on training images (n, h, w); its hash stays."""
    stage = model.rungs[rung].stages[0]
    proposal = stage.proposal(device)
    coordinates = proposal.analyse(flat_pixels(training).to(device)).cpu()
    options: dict[str, Any] = {
        "beta": stage.beta, "num_candidates": num_candidates, "stage": 0, "seed": seed, "device": device
    }  # fmt: skip
    levels = {}
    if "mincost" in coders:
        levels["mincost"] = fit_codebook_prior(coordinates, proposal, **options)
    if {"pfr", "orc"} & set(coders):
        levels |= fit_channel_priors(coordinates, proposal, fitted=stage.fitted, **options)
    priors = {coder: CodebookPrior(levels[coder]) for coder in coders}
    rungs = list(model.rungs)
    rungs[rung] = replace(rungs[rung], stages=(replace(stage, priors=priors),))
    return replace(model, rungs=tuple(rungs), default_seed=seed, default_num_candidates=num_candidates)


def measure(
    images: np.ndarray,
    model: Model,
    rung: int,
    *,
    seeds: range,
    num_candidates: int,
    training: np.ndarray | None = None,
    refit: tuple[str, ...] = ("mincost", "pfr", "orc"),
    device: str = "cpu",
    reference: list[Row] | None = None,
    done: Callable[[Row], None] = lambda _: None,
) -> tuple[Row, list[Row]]:
    """Everything about one rung: the estimate's record and the rows, each given to ``done`` when ready.

    Raises:
        ValueError: the model is not one of a single stage whose block is the image.
    """
    step = model.rungs[rung]
    stage, n, parts = step.stages[0], num_candidates, min(PARTS, len(images))
    if len(step.stages) != 1 or stage.block != images.shape[1:]:
        raise ValueError("this bench takes models of one stage whose block is the image")
    found = estimate(images, stage, seeds, n, parts, device)
    record = estimate_record(step.beta, found, n, reference or [])

    def files(coder: str, names: tuple[str, ...], m: Model, seed: int, count: int) -> list[Trial]:
        options = {"rung": rung, "coder": coder, "seed": seed, "num_candidates": count, "device": device}
        return code_images(images, m, parts, names, **options)

    def rows() -> Iterator[Row]:
        common: dict[str, Any] = {"seeds": list(seeds), "num_candidates": n}
        for coder, names in CODERS:
            by_seed = [files(coder, names, model, seed, n) for seed in seeds]
            for name, trials in zip(names, zip(*by_seed, strict=True), strict=True):
                yield make_row(step.beta, found, list(trials), coder=coder, index_code=name, **common)
        own_n, own_seed = model.default_num_candidates, model.default_seed
        if stage.priors:
            at_own = found if own_n == n else estimate(images, stage, seeds, own_n, parts, device)
        for coder in stage.priors:
            trials = files(coder, ("prior",), model, own_seed, own_n)
            own: dict[str, Any] = {"seeds": [own_seed], "num_candidates": own_n}
            yield make_row(step.beta, at_own, trials, coder=coder, index_code="prior", **own)
        if training is not None and GOAL_RATES_BITS[0] <= record["rate_bits"] <= GOAL_RATES_BITS[1]:
            refitted: dict[str, list[Trial]] = {coder: [] for coder in refit}
            for seed in seeds:
                fitted = with_priors(model, rung, training, seed, n, device, refit)
                for coder, trials in refitted.items():
                    trials += files(coder, ("prior",), fitted, seed, n)
            for coder, trials in refitted.items():
                yield make_row(step.beta, found, trials, coder=coder, index_code="prior_refitted", **common)

    made = []
    for row in rows():
        made.append(row)
        done(row)
    return record, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist", help="name or folder")
    parser.add_argument("--source", default="mnist", help="of 32x32 grey images; its test split is taken")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=30000)
    parser.add_argument("--seeds", type=int, default=5, help="codebooks: seeds 0, 1, ...")
    parser.add_argument("--rungs", type=int, nargs="+", help="default: all")
    parser.add_argument(
        "--refit-priors", nargs="?", const="mincost", choices=["mincost", "all"],
        help="learn a prior for each codebook, of min-cost or of all coders (slow)",
    )  # fmt: skip
    parser.add_argument("--training-images", type=int, help="for --refit-priors; default: all")
    parser.add_argument("--reference", type=Path, default=PUBLISHED / "mnist_reference.json")
    parser.add_argument("--device", default="cpu")
    for name, ending in (("--json", "json"), ("--plot", "png")):
        default = RESULTS / f"mnist_rcc.{ending}"
        parser.add_argument(name, type=Path, nargs="?", const=default, help=f"write it (to {default.name})")
    args = parser.parse_args()

    began = time.perf_counter()
    model = load_model(args.model)
    images = np.stack(load_source(args.source, "test", limit=args.images).images())
    training = None
    if args.refit_priors:
        training = np.stack(load_source(args.source, "train", limit=args.training_images).images())
    reference = read_reference(args.reference)
    print(HEADER, flush=True)
    estimates: list[Row] = []
    rows: list[Row] = []
    for rung in args.rungs or range(len(model.rungs)):
        record, made = measure(
            images,
            model,
            rung,
            seeds=range(args.seeds),
            num_candidates=args.candidates,
            training=training,
            refit=("mincost", "pfr", "orc") if args.refit_priors == "all" else ("mincost",),
            device=args.device,
            reference=reference,
            done=lambda row: print(line(row), flush=True),
        )
        estimates.append(record)
        rows += made
    summary = summarise(rows)
    print("\n".join(closing_lines(estimates, summary)))
    result = {
        "what": "bits an image of real payloads, decoded and compared; distortion is summed squared error",
        "images": f"first {len(images)} of the test split of {args.source}, in index order",
        "notes": {
            "prior": "the one codebook whose prior the model ships, at the model's own seed and N; its "
            "errors are over images alone, and one codebook's luck does not average out",
            "prior_refitted": "the same procedure once more for each codebook, on training images; only "
            f"for R from {GOAL_RATES_BITS[0]:g} to {GOAL_RATES_BITS[1]:g} bits",
            "mincost": "not an exact channel simulation: no law and no rate guarantee",
            "seeds": "number of codebooks; the estimate uses the same ones",
        },
        "model": model.name,
        "model_sha256": model.sha256,
        "num_candidates": args.candidates,
        "codebook_seeds": list(range(args.seeds)),
        "training_images_of_refitted_priors": None if training is None else len(training),
        **describe_run(began, args.device),
        "summary": summary,
        "estimates": estimates,
        "rows": rows,
    }
    if args.json:
        write_result(args.json, result)
        print(f"written: {args.json}")
    if args.plot:
        from mnist_plot import plot

        plot(result, reference, args.plot)
        print(f"written: {args.plot}")


if __name__ == "__main__":
    main()
