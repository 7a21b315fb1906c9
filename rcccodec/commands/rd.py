"""``rcc rd``: how many bits the best possible code needs, and how far a codec is from it."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rcccodec.atomic import check_target, make_folder, sweep, write_bytes
from rcccodec.commands import console
from rcccodec.errors import InputError, LimitError
from rcccodec.rd.settings import Settings, describe, with_setting
from rcccodec.rd.slopes import parse_slopes

if TYPE_CHECKING:
    from rcccodec.rd.envelope import Envelope
    from rcccodec.rd.problem import Problem
    from rcccodec.rd.results import Methods

PLOT_ENDINGS = (".png", ".svg")
DEFAULT_METHODS = "exact,ba,nerd,wgd,sandwich"
DEFAULT_SLOPES = "0.1:10:log8"
FLAT, STEEP = 1.0, 1000.0  # slope times the distortion at rate 0, nats: a source shows itself between
MAX_STEEP = 1e5  # of the same product: distances are float32
LAWS = (
    "gaussian:m=20,decay=0.5,variance=4   component k has variance * exp(-decay k); decay=0: i.i.d.",
    "laplacian:m=1,b=1                    density exp(-|x| / b) / (2 b) in every component",
    "sphere:m=2,noise=0.1                 uniform on the unit sphere, plus noise of that variance",
    "sawbridge:n=1024                     a ramp with one drop at a uniform place",
    "bernoulli:m=1,p=0.5                  independent bits, P(1) = p",
    "markov:n=100,p=0.25,q=0.25           bits, P(0 -> 1) = q, P(1 -> 0) = p; one alone: symmetric",
)


def _output(context: click.Context, option: click.Parameter, name: str | None) -> Path | None:
    return None if name is None else Path(console.output_name(context, option, name))


@click.command(
    epilog="\b\nSettings and their defaults (--set METHOD.NAME=VALUE):\n"
    + "\n".join(f"  {line}" for line in describe())
    + "\nnerd and sandwich start from a beta-VAE (vae.steps, vae.width); rdgen has the settings of dba.\n"
    + "\n\b\nLaws and their defaults:\n"
    + "\n".join(f"  {line}" for line in LAWS)
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
    help="mse (summed squared error), l1, lp:P (squared norm), hamming. Default: mse; hamming for "
    "bernoulli: and markov:.",
)
@click.option("--train", "num_train", type=click.IntRange(min=2), help="Source vectors to learn from.")
@click.option("--test", "num_test", type=click.IntRange(min=2), help="Held-out ones. Default: at most 1000.")
@click.option("--set", "changes", multiple=True, metavar="METHOD.NAME=VALUE", help="A setting; repeatable.")
@click.option("--codec", "codec_names", multiple=True, metavar="FILE.json", help="Of rcc bench; repeatable.")
@click.option("--at", multiple=True, type=float, metavar="D", help="Print the bounds on R(D); repeatable.")
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
    at: tuple[float, ...],
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
    an "estimate" promises neither. A point marked saturated is limited by its number of samples: an upper
    bound stays one but is loose, an estimate means little.

    With --json, every point is written when it is there; the same command goes on where it was stopped, and
    other methods or slopes add to the file.
    """
    if plot_path and plot_path.suffix.lower() not in PLOT_ENDINGS:
        raise click.UsageError(f"--plot {plot_path}: the name must end in {' or '.join(PLOT_ENDINGS)}")
    if json_path and json_path == plot_path:
        raise click.UsageError("--json and --plot name the same file")
    for path in filter(None, (json_path, plot_path)):
        check_target(path)
        sweep([path])
    settings = Settings()
    try:
        slopes = parse_slopes(slopes_text)
        for change in changes:
            settings = with_setting(settings, change)
    except InputError as error:
        raise click.UsageError(str(error)) from error
    if not all(0 <= d < math.inf for d in at):
        raise click.UsageError("--at: a distortion must be finite and not negative")

    from rcccodec.comparison.figure import require_matplotlib
    from rcccodec.comparison.provenance import describe_run
    from rcccodec.rd import results
    from rcccodec.rd.envelope import CONFIDENCE_ERRORS, envelope
    from rcccodec.rd.estimate import METHODS
    from rcccodec.rd.exact import closed_curve
    from rcccodec.rd.lines import bound_lines, error_text, gap_lines
    from rcccodec.rd.problem import load_problem, zero_rate_distortion

    names = list(METHODS) if methods_text == "all" else [n.strip() for n in methods_text.split(",")]
    unknown = [n for n in names if n not in METHODS]
    if unknown:
        raise click.UsageError(f"--method {unknown[0]!r}: there are {', '.join(METHODS)} and all")
    if plot_path:
        require_matplotlib()
    codecs = [results.read_codec(Path(name)) for name in codec_names]
    for codec in codecs:
        results.check_codec(codec, source)
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
        "data": problem.digest,
    }
    methods = results.read_results(json_path, request) if json_path and not fresh else {}
    constant, constant_se = zero_rate_distortion(problem)
    if slopes[-1] * constant > MAX_STEEP:
        raise LimitError(
            f"slope {slopes[-1]:g}: too steep for single precision; at most {MAX_STEEP / constant:.3g} here"
        )
    closed = closed_curve(problem, slopes[0] / 8, slopes[-1] * 8) if "exact" in names else []
    began = time.perf_counter()

    def bounds_now(errors: float) -> Envelope:
        curve = closed if "exact" in methods else []
        return envelope([*results.all_points(methods), *curve], (constant, constant_se), errors=errors)

    def keep() -> None:
        if json_path:
            bounds, measured = bounds_now(CONFIDENCE_ERRORS), bounds_now(0)
            more = {
                "zero_rate_distortion": constant,
                "zero_rate_distortion_se": constant_se,
                "envelope": results.envelope_json(bounds),
                "codecs": results.codec_gaps(codecs, measured),
                **describe_run(began, device_name),
            }
            results.write_results(json_path, request, methods, more)

    def say(line: str) -> None:
        if not quiet:
            console.say(line)

    device_name = console.resolve_device(device)
    say(
        f"{source}: {len(problem.train)} vectors of {problem.dim} values to learn from, {len(problem.test)} "
        f"held out; {problem.distortion} at rate 0 is {constant:.4g}{error_text(constant_se or math.nan)}"
    )
    if problem.law:
        law = ", ".join(f"{key} {value:g}" for key, value in problem.law[1].items())
        say(f"law: {problem.law[0]}, {law}")
    if slopes[0] * constant > STEEP or slopes[-1] * constant < FLAT:
        low, high = (float(f"{x / constant:.1g}") for x in (FLAT, STEEP)) if constant else (1, 1)
        console.remark(f"note: slopes that show this source are about --beta {low:g}:{high:g}:log8", quiet)
    with _checkpoints(json_path, fresh) as folder:
        asked = (problem, slopes, settings, methods, keep, say, quiet, seed, device_name, folder)
        fitted = [name for name in names if _estimate(name, *asked)]
    if not fitted:
        raise InputError(f"{source}: none of the methods {', '.join(names)} fits it")
    keep()
    bounds, measured = bounds_now(CONFIDENCE_ERRORS), bounds_now(0)
    say("+- is one standard error over the held-out vectors, which all methods share: differences are surer.")
    for line in (
        *bound_lines(bounds, at, "exact" in methods and bool(closed)),
        *gap_lines(codecs, measured),
    ):
        say(line)
    if plot_path:
        from rcccodec.rd.figure import figure_bytes

        points = results.all_points(methods)
        kind = plot_path.suffix.lower()[1:]
        write_bytes(
            plot_path, figure_bytes(source, problem.distortion, points, (bounds, measured), codecs, kind)
        )
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
    from rcccodec.rd.lines import point_line
    from rcccodec.rd.results import MethodResult
    from rcccodec.rd.run import Run

    wanted = settings_of(name, settings)
    result = methods.get(name, MethodResult(wanted))
    if result.settings != wanted:
        raise OutputError(
            f"--json holds points of {name} with other settings ({_differences(result.settings, wanted)}); "
            "name another file, or take --fresh"
        )
    left = [beta for beta in slopes if beta not in result.betas]
    for point in sorted(result.points, key=lambda p: p.beta):
        if point.beta in slopes:
            say(f"{point_line(point)}  (from the file)")
    for some in [left] if name in WHOLE_CURVE and left else [[beta] for beta in left]:
        began = time.perf_counter()
        with _progress(quiet) as progress:
            run = Run(seed=seed, data=problem.digest, device=device, folder=folder, progress=progress)
            try:
                points = []
                for point in trace(name, problem, some, settings, run):
                    points.append(point)
                    say(point_line(point))
            except InputError as error:
                console.remark(f"{name} is left out: {str(error).removeprefix(f'{name}: ')}", quiet)
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
        _remove_checkpoints(folder)
    make_folder(folder)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()  # if nothing was saved yet
        raise
    _remove_checkpoints(folder)


def _remove_checkpoints(folder: Path) -> None:
    """What this command saved; a foreign file keeps the folder."""
    for pattern in ("*.safetensors", ".*.safetensors.*.tmp"):  # the second: left by a process that was killed
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, told (what, done, total); a line a minute elsewhere."""
    if quiet:
        yield lambda _what, _done, _total: None
    elif console.is_terminal():
        from tqdm import tqdm

        with tqdm(leave=False, file=sys.stderr) as bar:

            def tell(what: str, done: int, total: int) -> None:
                bar.total = total
                bar.set_description_str(what, refresh=False)
                bar.update(done - bar.n)

            yield tell
    else:
        last_s = time.monotonic()

        def say_line(what: str, done: int, total: int) -> None:
            nonlocal last_s
            if time.monotonic() - last_s > 60:
                last_s = time.monotonic()
                console.remark(f"{what} {done}/{total}", quiet)

        yield say_line


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """``vae.steps 3000, not 200``, for what differs between two groups of settings."""
    return ", ".join(
        f"{group}.{key} {old.get(group, {}).get(key)}, not {value}"
        for group, values in new.items()
        for key, value in values.items()
        if old.get(group, {}).get(key) != value
    )
