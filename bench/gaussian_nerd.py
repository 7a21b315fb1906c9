"""NERD on Gaussian sources (nerd-rcc figs. 2, 9, 15, 19): R(D) beside its closed form, and coding with it.

    python bench/gaussian_nerd.py                      # bench/results/gaussian_nerd.{json,png}

Sources: independent components of variance 4 exp(-k / 2), m = 20, and 4 exp(-k / 4), m = 40; rotating them
would change no distance. The generators are the paper's fully connected ones, as wide as the source.

    exact Q_Y     independent N(0, sigma_k^2 - lambda) where positive (the paper prints sigma_k^2 + lambda)
    fixed slope   a beta-VAE warm start, then NERD at one slope (this project's way)
    fixed D       Algorithm 1: from scratch, candidates from the prior, the slope solved at every step

Every estimate is on test vectors and fresh candidates; the fixed-D ones are taken at the slope that the
closed form has at the wanted D, so they are points of their own Q_Y's curve all the same. ``excess_bits`` is
over R(D) at the own distortion, in closed form. Then PFR and ORC code vectors into real payloads, decoded,
with the exact Q_Y and the learned one of the same slope, and Zipf-Huffman set to each one's own R, as the
paper does.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gaussian_rcc import SOURCE_STREAM, payload_bits
from metadata import RESULTS, describe_run, write_result
from standard_error import standard_error
from tqdm import tqdm

from rcccodec.channel import candidates_at, select_channel, squared_distances
from rcccodec.index_code import ZipfHuffman
from rcccodec.proposals import Proposal
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.proposals.generator import GeneratorProposal, GeneratorSpec
from rcccodec.randomness import standard_normals
from rcccodec.rd.gaussian import gaussian_point_at_distortion, gaussian_point_at_slope
from rcccodec.rd.nerd import estimate_nerd
from rcccodec.report import guarantee_bits
from rcccodec.sources import load_source
from rcccodec.sources.synthetic import gaussian_variances
from rcccodec.training.trainer import TrainingPlan, train

PUBLISHED = Path(__file__).resolve().parent / "published"
DECAYS = {20: 0.5, 40: 0.25}
BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
FIXED_D_BETAS = (0.5, 2.0, 8.0)  # Algorithm 1 is given the D of these slopes
ESTIMATE_SEEDS = ((1 << 32) + 11, (1 << 32) + 12)
TRAINING_VECTORS = 60_000


def learn(x: torch.Tensor, beta: float, distortion: float | None, steps: int) -> GeneratorProposal:
    """A learned Q_Y for vectors x (n, m): at slope beta, or for a wanted distortion by Algorithm 1."""
    m = x.shape[1]
    spec = GeneratorSpec("fc", (m,), m, m, 2, "linear", None, (beta, beta))
    common: dict[str, Any] = {"generator": spec, "slopes": (beta, beta)}
    if distortion is None:
        plan = TrainingPlan(
            **common, vae_steps=steps, nerd_steps=max(1, steps // 3), batch_size=128, nerd_batch_size=128,
            pool_prior_draws=256, encoder_width=64, learning_rate=3e-3, nerd_learning_rate=1e-3,
        )  # fmt: skip
    else:
        plan = TrainingPlan(
            **common, vae_steps=0, nerd_steps=max(1, steps // 4), target_distortion=distortion,
            nerd_batch_size=256, num_candidates=2048, nerd_learning_rate=2e-3,
        )  # fmt: skip
    return GeneratorProposal(train(x, plan).generator.at_slope(beta))


def estimate(
    x: torch.Tensor, variances: np.ndarray, proposal: Proposal, beta: float, num_candidates: int
) -> dict[str, Any]:
    """The NERD estimate of a Q_Y on test vectors x (n, m), beside the closed form at its own D."""
    point = estimate_nerd(x, proposal, beta=beta, num_candidates=num_candidates, seeds=ESTIMATE_SEEDS)
    true_bits = gaussian_point_at_distortion(variances, point.distortion).rate_bits
    return {
        "beta": beta,
        "rate_bits": point.rate_bits,
        "distortion": point.distortion,
        "rd_at_own_distortion_bits": true_bits,
        "excess_bits": point.rate_bits - true_bits,
        "excess_se_bits": point.lagrangian_se_bits,  # R + beta D / ln 2: to first order the same thing
        "num_candidates": num_candidates,
        "saturated": point.saturated,
    }


def code(
    variances: np.ndarray,
    proposal: Proposal,
    beta: float,
    rate_bits: float,
    coder: str,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Payload and D of real segments, each seed a codebook, arrival times and fresh vectors."""
    zipf = ZipfHuffman(args.candidates, round(1000 * rate_bits))
    scale = torch.as_tensor(np.sqrt(variances), dtype=torch.float32)
    found = []
    for seed in range(args.seeds):
        x = standard_normals(seed, torch.arange(args.blocks), len(variances), SOURCE_STREAM) * scale
        chosen = select_channel(
            x, proposal, beta=beta, coder=coder, seed=seed, num_candidates=args.candidates
        )
        y = candidates_at(proposal, chosen.indices, seed=seed)
        found.append((payload_bits(zipf, chosen.indices), float(squared_distances(x, y).mean())))
    bits, distortion = np.array(found).T
    true_bits = gaussian_point_at_distortion(variances, float(distortion.mean())).rate_bits
    return {
        "beta": beta,
        "coder": coder,
        "index_code": "zipf-huffman",
        "index_code_rate_bits": rate_bits,
        "payload_bits_per_block": float(bits.mean()),
        "distortion": float(distortion.mean()),
        "rd_at_own_distortion_bits": true_bits,
        "excess_bits": float(bits.mean()) - true_bits,
        "excess_se_bits": standard_error(bits + beta * distortion / math.log(2)),
        "guarantee_bits": guarantee_bits(true_bits),
        "seeds": args.seeds,
    }


def measure(m: int, args: argparse.Namespace, bar: tqdm) -> tuple[list[dict], list[dict]]:
    """Estimates and rows of coding of one source."""
    spec, variances = f"gaussian:m={m},decay={DECAYS[m]}", gaussian_variances(m, DECAYS[m])
    x = torch.from_numpy(load_source(spec, "train", limit=TRAINING_VECTORS).flattened())
    test = torch.from_numpy(load_source(spec, "test", limit=args.test_vectors).flattened())
    estimates, rows = [], []

    def note(beta: float, form: str, proposal: Proposal, wanted: float | None = None) -> dict[str, Any]:
        found = estimate(test, variances, proposal, beta, args.candidates)
        estimates.append({"source": spec, "form": form, "wanted_distortion": wanted, **found})
        bar.write(
            f"{spec} beta {beta:g} {form}: R {found['rate_bits']:.2f}, D {found['distortion']:.3f}, "
            f"{found['excess_bits']:+.2f} +- {found['excess_se_bits']:.2f} bits over R(D)"
        )
        bar.update()
        return found

    for beta in args.betas:
        exact = GaussianProposal(variances, beta)
        point = gaussian_point_at_slope(variances, beta)
        note(beta, "exact Q_Y", exact)
        learned = learn(x, beta, None, args.steps)
        proposals = {"exact": (exact, point.rate_bits)}
        proposals["learned"] = learned, note(beta, "fixed slope", learned)["rate_bits"]
        if beta in args.fixed_d:
            note(beta, "fixed D", learn(x, beta, point.distortion, args.steps), point.distortion)
        for name, (proposal, rate_bits) in proposals.items():
            for coder in ("pfr", "orc"):
                row = code(variances, proposal, beta, rate_bits, coder, args)
                rows.append({"source": spec, "q_y": name, **row})
                bar.write(
                    f"{spec} beta {beta:g} {coder} {name} Q_Y: {row['payload_bits_per_block']:.2f} bits, "
                    f"D {row['distortion']:.3f}, excess {row['excess_bits']:.2f}"
                )
    return estimates, rows


def plot(result: dict[str, Any], path: Path) -> None:
    """Above: estimates of R(D). Below: payloads. A column for each source."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sources = list(dict.fromkeys(e["source"] for e in result["estimates"]))
    figure, axes = plt.subplots(
        2, len(sources), figsize=(6.5 * len(sources), 10), squeeze=False, constrained_layout=True
    )
    limit = math.log2(result["num_candidates"])
    for source, (upper, lower) in zip(sources, axes.T, strict=True):
        m = int(source.partition("m=")[2].partition(",")[0])
        curve = [
            gaussian_point_at_slope(gaussian_variances(m, DECAYS[m]), b) for b in np.geomspace(0.13, 40, 200)
        ]
        rate, d = np.array([p.rate_bits for p in curve]), [p.distortion for p in curve]
        for ax in (upper, lower):
            ax.plot(rate, d, "k-", label="R(D), closed form")
            ax.set(ylabel="summed squared error", xlim=(0, limit + 5), ylim=(0, None))
            ax.grid(alpha=0.3)
        for form, mark in (("exact Q_Y", "k+"), ("fixed slope", "C0o"), ("fixed D", "C1s")):
            made = [e for e in result["estimates"] if (e["source"], e["form"]) == (source, form)]
            for hollow in (False, True):
                some = [e for e in made if e["saturated"] == hollow]
                upper.plot(
                    [e["rate_bits"] for e in some], [e["distortion"] for e in some], mark, linestyle="",
                    markerfacecolor="white" if hollow else None, label=None if hollow else f"NERD, {form}",
                )  # fmt: skip
        upper.axvline(limit, color="0.5", linestyle=":", label=f"log2 N = {limit:g}")
        lower.plot([guarantee_bits(r) for r in rate], d, color="0.5", linestyle="--", label="guarantee")
        for coder, colour in (("pfr", "C0"), ("orc", "C2")):
            for q_y, mark in (("exact", "+-"), ("learned", "o:")):
                made = [
                    r for r in result["rows"] if (r["source"], r["coder"], r["q_y"]) == (source, coder, q_y)
                ]
                lower.plot(
                    [r["payload_bits_per_block"] for r in made], [r["distortion"] for r in made], mark,
                    color=colour, markersize=5, label=f"{coder.upper()}, {q_y} Q_Y",
                )  # fmt: skip
        if m == 20:
            theirs = json.loads((PUBLISHED / "gaussian_published.json").read_text())
            upper.plot(theirs["nerd_R"], theirs["nerd_D"], "rx", label="published NERD")
            lower.plot(
                theirs["one_shot_dnn_R"], theirs["one_shot_dnn_D"], "m*", label="published one-shot DNN"
            )
            lower.plot(theirs["pfr_zipf_huffman_R"], theirs["pfr_D"], "rx", label="published PFR, exact Q_Y")
        upper.set(title=source, xlabel="R, bits a vector (hollow: log2 N - R below 3)")
        lower.set(xlabel=f"payload, bits a vector ({result['rows'][0]['seeds']} codebooks)")
        upper.legend(fontsize=8)
        lower.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", choices=list(DECAYS), default=list(DECAYS))
    parser.add_argument("--betas", type=float, nargs="+", default=list(BETAS))
    parser.add_argument("--fixed-d", type=float, nargs="*", default=list(FIXED_D_BETAS))
    parser.add_argument("--steps", type=int, default=2000, help="of the warm start; NERD takes a third, "
                        "Algorithm 1 a quarter")  # fmt: skip
    parser.add_argument("--candidates", type=int, default=65536)
    parser.add_argument("--test-vectors", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=10, help="codebooks of the coding")
    parser.add_argument("--blocks", type=int, default=200, help="vectors a codebook")
    parser.add_argument(
        "-o", "--output", type=Path, default=RESULTS / "gaussian_nerd", help="path without suffix"
    )
    args = parser.parse_args()
    began = time.perf_counter()
    estimates: list[dict] = []
    rows: list[dict] = []
    trainings = len(args.dims) * (2 * len(args.betas) + len(set(args.fixed_d) & set(args.betas)))
    with tqdm(total=trainings, unit="estimate") as bar:
        for m in args.dims:
            found, coded = measure(m, args, bar)
            estimates, rows = estimates + found, rows + coded
    result = {
        "what": "NERD estimates and real payloads of Gaussian vectors, beside R(D) in closed form",
        "num_candidates": args.candidates,
        "training": {"vectors": TRAINING_VECTORS, "seed": 0, "steps": args.steps},
        "test_vectors": args.test_vectors,
        "blocks_per_seed": args.blocks,
        **describe_run(began),
        "estimates": estimates,
        "rows": rows,
    }
    write_result(Path(f"{args.output}.json"), result)
    plot(result, Path(f"{args.output}.png"))


if __name__ == "__main__":
    main()
