"""``rcc rd``: how many bits the best possible code needs, and how far a codec is from it."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rcccodec.atomic import check_target, output_error, write_bytes
from rcccodec.commands import console
from rcccodec.errors import InputError
from rcccodec.rd.settings import Settings, describe, with_setting
from rcccodec.rd.slopes import parse_slopes

if TYPE_CHECKING:
    from rcccodec.rd.envelope import Envelope
    from rcccodec.rd.point import RatePoint
    from rcccodec.rd.problem import Problem
    from rcccodec.rd.results import Codec, Methods

PLOT_ENDINGS = (".png", ".svg")
DEFAULT_METHODS = "exact,ba,nerd,wgd,sandwich"
DEFAULT_SLOPES = "0.1:10:log8"


def _output(context: click.Context, option: click.Parameter, name: str | None) -> Path | None:
    return None if name is None else Path(console.output_name(context, option, name))


@click.command(
    epilog="\b\nSettings and their defaults (--set METHOD.NAME=VALUE):\n"
    + "\n".join(f"  {line}" for line in describe())
    + "\n\n"
    + console.examples(
        "rcc rd gaussian:m=20,decay=0.5 --method exact,nerd,wgd,sandwich --plot gauss.png",
        "rcc rd bernoulli:p=0.3 --method exact,ba,dba --beta 1,2,4",
        "rcc rd mnist --json rd.json --plot rd.png --codec bench/results/mnist_comparison.json",
        "rcc rd mnist --method nerd --set nerd.model=mnist --beta 0.15:1:log5",
        "rcc rd mnist --method ais --set ais.model=gan --set ais.latents=100 --set ais.chains=40",
        "rcc rd my-images/ --train 20000 --test 500 --json mine.json",
    )
)
@click.argument("source")
@click.option(
    "--method",
    "methods_text",
    default=DEFAULT_METHODS,
    show_default=True,
    metavar="NAMES",
    help="With commas: exact (closed forms), ba (Blahut-Arimoto), nerd, wgd (Wasserstein gradient descent), "
    "vae (beta-VAE), sandwich (beta-VAE above, dual bound below), dba (energy network), rdgen (generator "
    "and discriminator), ais (annealed importance sampling), or all. What does not fit SOURCE is left out.",
)
@click.option(
    "--beta",
    "slopes_text",
    default=DEFAULT_SLOPES,
    show_default=True,
    metavar="SLOPES",
    help="-dR/dD in nats per unit of summed distortion: 0.5; 0.1,0.5,2; LOW:HIGH:log8; LOW:HIGH:lin5.",
)
@click.option(
    "--distortion",
    metavar="D",
    help="mse (summed squared error), l1, lp:P (squared norm), hamming. Default: mse; hamming if binary.",
)
@click.option("--train", "num_train", type=click.IntRange(min=2), help="Source vectors to learn from.")
@click.option("--test", "num_test", type=click.IntRange(min=2), help="Held-out ones. Default: at most 1000.")
@click.option("--set", "changes", multiple=True, metavar="METHOD.NAME=VALUE", help="A setting; repeatable.")
@click.option("--codec", "codec_names", multiple=True, metavar="FILE.json", help="Of rcc bench; repeatable.")
@click.option("--json", "json_path", metavar="OUT", callback=_output, help="Results; a later run goes on.")
@click.option("--plot", "plot_path", metavar="OUT", callback=_output, help="Figure, .svg or .png.")
@click.option("--fresh", is_flag=True, help="Start over instead of going on from --json OUT.")
@click.option("--seed", type=click.IntRange(0, (1 << 62) - 1), default=0, show_default=True)
@click.option("--data-root", envvar="RCC_DATA", help="Where the standard data sets are. Default: $RCC_DATA.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def rd(
    source: str,
    methods_text: str,
    slopes_text: str,
    distortion: str | None,
    num_train: int | None,
    num_test: int | None,
    changes: tuple[str, ...],
    codec_names: tuple[str, ...],
    json_path: Path | None,
    plot_path: Path | None,
    fresh: bool,
    seed: int,
    data_root: str | None,
    device: str,
    quiet: bool,
) -> None:
    """Estimate the rate-distortion function R(D) of a SOURCE: data, images of one size, .npy, law.

    Upper bounds, lower bounds and exact values come out in bits a source vector (an image, a sequence), each
    measured on held-out vectors. "upper" and "exact" points are on or above the curve, "lower" lines below;
    an "estimate" promises neither. A rate marked saturated has too few samples to be trusted.

    With --json, every point is written when it is there; the same command goes on where it was stopped, and
    other methods or slopes add to the file.
    """
    if plot_path and plot_path.suffix.lower() not in PLOT_ENDINGS:
        raise click.UsageError(f"--plot {plot_path}: the name must end in {' or '.join(PLOT_ENDINGS)}")
    for path in filter(None, (json_path, plot_path)):
        check_target(path)
    slopes = parse_slopes(slopes_text)
    settings = Settings()
    for change in changes:
        settings = with_setting(settings, change)

    from rcccodec.comparison.figure import require_matplotlib
    from rcccodec.comparison.provenance import describe_run
    from rcccodec.rd import results
    from rcccodec.rd.envelope import envelope
    from rcccodec.rd.estimate import METHODS
    from rcccodec.rd.problem import load_problem, zero_rate_distortion

    names = list(METHODS) if methods_text == "all" else [n.strip() for n in methods_text.split(",")]
    unknown = [n for n in names if n not in METHODS]
    if unknown:
        raise click.UsageError(f"--method {unknown[0]!r}: there are {', '.join(METHODS)} and all")
    if plot_path:
        require_matplotlib()
    codecs = [results.read_codec(Path(name)) for name in codec_names]
    problem = load_problem(
        source,
        distortion=distortion,
        data_root=Path(data_root) if data_root else None,
        num_train=num_train,
        num_test=num_test,
        seed=seed,
    )
    for note in problem.notes:
        console.remark(f"note: {note}", quiet)
    request = {
        "source": source,
        "distortion": problem.distortion,
        "seed": seed,
        "train": len(problem.train),
        "test": len(problem.test),
        "dim": problem.dim,
    }
    methods = results.read_results(json_path, request) if json_path and not fresh else {}
    constant = zero_rate_distortion(problem)
    began = time.perf_counter()

    def keep() -> None:
        if json_path:
            bounds = envelope(results.all_points(methods), constant)
            more = {
                "zero_rate_distortion": constant,
                "envelope": results.envelope_json(bounds),
                "codecs": _codec_gaps(codecs, bounds),
                **describe_run(began, device_name),
            }
            results.write_results(json_path, request, methods, more)

    def say(line: str) -> None:
        if not quiet:
            console.say(line)

    device_name = console.resolve_device(device)
    say(
        f"{source}: {len(problem.train)} vectors of {problem.dim} values to learn from, {len(problem.test)} "
        f"held out; distortion {problem.distortion}, {constant:.4g} at rate 0"
    )
    with _checkpoints(json_path, fresh) as folder:
        asked = (problem, slopes, settings, methods, keep, say, quiet, seed, device_name, folder)
        fitted = [name for name in names if _estimate(name, *asked)]
    if not fitted:
        raise InputError(f"{source}: none of the methods {', '.join(names)} fits it")
    keep()
    bounds = envelope(results.all_points(methods), constant)
    for line in (*_bound_lines(bounds), *_gap_lines(codecs, bounds)):
        say(line)
    if plot_path:
        from rcccodec.rd.figure import figure_bytes

        points = results.all_points(methods)
        kind = plot_path.suffix.lower()[1:]
        write_bytes(plot_path, figure_bytes(source, problem.distortion, points, bounds, codecs, kind))
    for path in filter(None, (json_path, plot_path)):
        say(f"written: {path}")


def _estimate(
    name: str,
    problem: Problem,
    slopes: Sequence[float],
    settings: Settings,
    methods: Methods,
    keep: Callable[[], None],
    say: Callable[[str], None],
    quiet: bool,
    seed: int,
    device: str,
    folder: Path,
) -> bool:
    """Add a method's missing slopes to ``methods``; False if it does not fit the source."""
    from rcccodec.comparison.provenance import describe_run
    from rcccodec.errors import OutputError
    from rcccodec.rd.estimate import WHOLE_CURVE, settings_of, trace
    from rcccodec.rd.results import MethodResult
    from rcccodec.rd.run import Run

    wanted = settings_of(name, settings)
    result = methods.get(name, MethodResult(wanted))
    if result.settings != wanted:
        raise OutputError(
            f"--json holds points of {name} with other settings; name another file, or take --fresh"
        )
    left = [beta for beta in slopes if beta not in result.betas]
    for point in sorted(result.points, key=lambda p: p.beta):
        if point.beta in slopes:
            say(f"{_point_line(point)}  (from the file)")
    for some in [left] if name in WHOLE_CURVE and left else [[beta] for beta in left]:
        began = time.perf_counter()
        with _progress(quiet) as progress:
            run = Run(seed=seed, device=device, folder=folder, progress=progress)
            try:
                points = []
                for point in trace(name, problem, some, settings, run):
                    points.append(point)
                    say(_point_line(point))
            except InputError as error:
                console.remark(f"{name} is left out: {error}", quiet)
                return False
        result.points += points
        result.betas += some
        result.run = describe_run(began, device)
        methods[name] = result
        keep()
    return True


@contextmanager
def _checkpoints(json_path: Path | None, fresh: bool) -> Iterator[Path]:
    """A folder for checkpoints: beside OUT.json until all is done, else a temporary one."""
    if json_path is None:
        with tempfile.TemporaryDirectory(prefix="rcc-rd-") as name:
            yield Path(name)
        return
    folder = json_path.with_name(f"{json_path.name}.checkpoints")
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, told (what, done, total); a line a minute elsewhere."""
    with console.progress_bar("", quiet, unit="steps") as tell:
        last_s = time.monotonic()

        def lines(what: str, done: int, total: int) -> None:
            nonlocal last_s
            if not quiet and time.monotonic() - last_s > 60:
                last_s = time.monotonic()
                console.remark(f"{what} {done}/{total}", quiet)

        if tell is None:
            yield lines
        else:
            yield lambda _what, done, total: tell(done, total)


def _point_line(point: RatePoint) -> str:
    words = [f"{point.method:<16} {point.kind:<8} beta {point.beta:<8g}"]
    if math.isfinite(point.rate_bits):
        words.append(f"R {point.rate_bits:8.3f}{_error(point.rate_se_bits)} bits")
    if math.isfinite(point.distortion):
        words.append(f"D {point.distortion:9.4g}{_error(point.distortion_se)}")
    words.append(f"R + beta D / ln 2 {point.lagrangian_bits:8.3f}{_error(point.lagrangian_se_bits)}")
    if point.saturated:
        words.append("saturated")
    return "  ".join(words)


def _error(value: float) -> str:
    return f" +-{value:.2g}" if math.isfinite(value) else ""


def _bound_lines(bounds: Envelope) -> list[str]:
    """At each corner of the upper hull, what the lower bound says."""
    import numpy as np

    lines = []
    for d, upper in bounds.corners:
        lower = float(bounds.lower(np.array([d]))[0])
        if math.isnan(lower):
            lines.append(f"R({d:.4g}) <= {upper:.3f} bits")
        else:
            lines.append(f"{lower:.3f} <= R({d:.4g}) <= {upper:.3f} bits")
    return lines


def _gap_lines(codecs: Sequence[Codec], bounds: Envelope) -> list[str]:
    from rcccodec.rd.envelope import gaps

    lines = []
    for codec in codecs:
        for gap in gaps(codec.points, bounds):
            words = [
                f"{away:+.2f} from the best {side} bound"
                for side, away in (("upper", gap.above_upper_bits), ("lower", gap.above_lower_bits))
                if away is not None
            ]
            said = ", ".join(words) or "no bound there"
            lines.append(f"{codec.name}: {gap.rate_bits:.2f} bits at {gap.distortion:.4g}: {said}")
    return lines


def _codec_gaps(codecs: Sequence[Codec], bounds: Envelope) -> dict[str, Any]:
    from rcccodec.rd.envelope import gaps
    from rcccodec.rd.results import gap_json

    return {codec.name: [gap_json(gap) for gap in gaps(codec.points, bounds)] for codec in codecs}
