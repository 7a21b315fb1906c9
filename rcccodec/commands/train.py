"""``rcc train``: a source to a model bundle."""

import math
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from click.core import ParameterSource

from rcccodec.commands import console
from rcccodec.errors import InputError, OutputError
from rcccodec.model_search import model_path

CHECKPOINTS = ("checkpoint-0.safetensors", "checkpoint-ntc.safetensors")  # of generators, of transforms
MNIST_SLOPES = "0.15,0.2,0.25,0.3,0.4,0.5,0.7,1"


def slopes_option(_context: click.Context, _option: click.Parameter, text: str | None) -> list[float] | None:
    """``0.2,0.4`` as [0.2, 0.4]."""
    if text is None:
        return None
    try:
        slopes = [float(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter("give numbers separated by commas") from None
    if not all(0 < a < b for a, b in zip(slopes, [*slopes[1:], math.inf], strict=True)):
        raise click.BadParameter("slopes must be positive and rise")
    return slopes


def _whole_numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> list[int] | None:
    """``8000,4000`` as [8000, 4000]."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isdigit() for part in parts):
        raise click.BadParameter("give whole numbers separated by commas")
    return [int(part) for part in parts]


@click.command(
    epilog=console.examples(
        f"rcc train mnist -o models/mnist --stage 32:{MNIST_SLOPES}@0.14-1.05",
        "rcc train pictures/ -o models/mine --stage 32:0.8 --stage 16:3,6 --stage 8:10,16,24",
        "rcc train pictures/ -o models/mine --arch latent --lambda 0.002,0.01,0.05 --minutes 60 --bfloat16",
        "rcc train mnist -o models/paper --arch dcgan --method nerd --stage 32:0.4 --nerd-steps 20000",
        "rcc train gaussian:m=20,decay=0.5 -o models/gauss --arch fc --distortion 2",
        f"rcc train mnist -o models/mnist --stage 32:{MNIST_SLOPES}@0.14-1.05 --resume",
    )
)
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Model bundle to write.")
@click.option("--data-root", envvar="RCC_DATA", help="Where the standard data sets are. Default: $RCC_DATA.")
@click.option(
    "--stage",
    "stages",
    multiple=True,
    metavar="SIDE:SLOPE[,SLOPE...][@LOW-HIGH]",
    help="A stage: side of its blocks, slopes of its rungs, slopes it is trained for. Later stages code the "
    "residual that the last slope of the stage before leaves. Default: 32:0.4 for images of one size, 8:10 "
    "for photographs, 1:1 for vectors.",
)
@click.option(
    "--arch",
    type=click.Choice(["patches", "mlp", "dcgan", "fc", "latent"]),
    help="Generator. Default: patches for images of one size, mlp for all else. latent, for photographs: no "
    "generator but learned transforms around a Gaussian channel, one network for all slopes.",
)
@click.option(
    "--lambda",
    "lambdas",
    callback=slopes_option,
    metavar="L[,L...]",
    help="Of --arch latent: weights of 255^2 times the mean squared error against bits a pixel, as in "
    "CompressAI. [0.00053,0.0015,0.004,0.0107,0.028,0.073]",
)
@click.option(
    "--beta",
    "betas",
    callback=slopes_option,
    metavar="SLOPE[,SLOPE...]",
    help="Of --arch latent, instead: the slopes, in nats per unit of squared error.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Of --arch latent. [16000]")
@click.option(
    "--bfloat16",
    is_flag=True,
    help="Of --arch latent: 16 bits until the last phase, twice as fast where the processor can.",
)
@click.option("--method", type=click.Choice(["vae+nerd", "nerd"]), default="vae+nerd", show_default=True)
@click.option(
    "--distortion", type=float, help="Train, from scratch, for this distortion and solve for the slope."
)
@click.option(
    "--metric",
    default="mse",
    show_default=True,
    help="mse, or lp:P for the squared l^p distance, from scratch. Codecs need mse.",
)
@click.option(
    "--vae-steps",
    default="20000",
    show_default=True,
    callback=_whole_numbers,
    metavar="STEPS[,STEPS...]",
    help="Steps of the beta-VAE warm start, of all stages or of each.",
)
@click.option(
    "--nerd-steps",
    default="8000",
    show_default=True,
    callback=_whole_numbers,
    metavar="STEPS[,STEPS...]",
    help="Steps of NERD, likewise.",
)
@click.option(
    "--start-from",
    metavar="CHECKPOINT",
    help="Begin with the networks of this checkpoint instead of the warm start.",
)
@click.option(
    "--extend",
    metavar="MODEL",
    help="Keep this model's stages and rungs; the new stages code what its last one leaves.",
)
@click.option(
    "--jitter",
    type=click.FloatRange(0, 3),
    default=0.0,
    show_default=True,
    help="Strength of small random affine maps of training images; 1 turns by 4 degrees or so.",
)
@click.option(
    "--minutes", type=float, help="Scale both so that training takes about this long on this machine."
)
@click.option(
    "--candidates",
    type=click.IntRange(16, 1 << 24),
    help="N of the model. [32768; of an extended one, its own]",
)
@click.option("--step-candidates", type=click.IntRange(min=2), default=8192, help="N of a NERD step. [8192]")
@click.option("--latent-dim", type=click.IntRange(min=1), help="Latents of a candidate. [24; paper's: 128]")
@click.option("--width", type=click.IntRange(min=1), help="Hidden width, or c_d of dcgan. [512; 32; m]")
@click.option(
    "--coordinates",
    callback=_whole_numbers,
    metavar="COUNT[,COUNT...]",
    help="KLT coordinates of each stage, as 160,256,192. Default: all.",
)
@click.option(
    "--default-rung",
    type=click.IntRange(min=0),
    help="Rung that compress takes. Default: the last; of an extended model, its own.",
)
@click.option(
    "--blocks", type=click.IntRange(min=2), default=60_000, help="Blocks cut from photographs. [60000]"
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoints in FOLDER; give the same options.")
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="Of the training."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def train(
    context: click.Context,
    source: str,
    output: str,
    data_root: str | None,
    stages: tuple[str, ...],
    arch: str | None,
    lambdas: list[float] | None,
    betas: list[float] | None,
    steps: int | None,
    bfloat16: bool,
    method: str,
    distortion: float | None,
    metric: str,
    vae_steps: list[int],
    nerd_steps: list[int],
    start_from: str | None,
    extend: str | None,
    jitter: float,
    minutes: float | None,
    candidates: int | None,
    step_candidates: int,
    latent_dim: int | None,
    width: int | None,
    coordinates: list[int] | None,
    default_rung: int | None,
    blocks: int,
    device: str,
    resume: bool,
    seed: int,
    threads: int | None,
    quiet: bool,
) -> None:
    """Train a model on SOURCE: a data set by name, a folder of images, or a synthetic source such as
    gaussian:m=20,decay=0.5.

    A beta-VAE at the same slopes comes first (it needs no 2^R samples), then NERD. Interrupting leaves
    checkpoints that --resume takes up; the bundle is written at the end, with its card.

    torchrun --nproc-per-node 2 -m rcccodec train ... trains with two processes (or GPUs): each draws batches
    of its own, so that a step's batch is twice as large.
    """
    if minutes is not None and not 0 < minutes < math.inf:
        raise click.UsageError("--minutes must be a positive number")
    if not math.isfinite(jitter):
        raise click.UsageError("--jitter must be a number")
    if extend is not None and Path(output).resolve() == model_path(extend).resolve():
        raise OutputError(f"{output}: is the model to extend, which stays as it is; name another folder")
    if min(nerd_steps) < 1 or (coordinates and min(coordinates) < 1):
        raise click.UsageError("--nerd-steps and --coordinates are at least 1")

    console.num_processes()

    earlier = [name for name in (*CHECKPOINTS, "model.json") if os.path.exists(Path(output) / name)]
    if earlier and not resume:
        raise OutputError(
            f"{output}: holds an earlier run ({earlier[0]}); go on with --resume or name another folder"
        )

    if arch != "latent" and (lambdas or betas or steps or bfloat16):
        raise click.UsageError("--lambda, --beta, --steps and --bfloat16 are of --arch latent")
    if arch == "latent":
        from rcccodec.commands.train_latent import train_latents

        train_latents(context)
        return

    import torch

    from rcccodec.ranks import joined
    from rcccodec.training.plan import make_plan, parse_stage
    from rcccodec.training.run import RunPlan, train_model

    for word in stages:
        try:
            parse_stage(word)
        except InputError as error:
            raise click.UsageError(str(error)) from error
    if threads:
        torch.set_num_threads(threads)
    root = Path(data_root) if data_root else None

    def planned() -> RunPlan:
        return make_plan(
            source,
            Path(output).resolve().name,
            data_root=root,
            stages=stages,
            arch=arch,
            from_scratch=method == "nerd",
            distortion=distortion,
            metric=metric,
            vae_steps=vae_steps,
            nerd_steps=nerd_steps,
            minutes=minutes,
            candidates=candidates,
            step_candidates=step_candidates,
            latent_dim=latent_dim,
            width=width,
            coordinates=coordinates,
            jitter=jitter,
            start_from=Path(start_from) if start_from else None,
            extend=model_path(extend) if extend else None,
            default_rung=default_rung,
            blocks=blocks,
            seed=seed,
            device=place,
            checkpoints=Path(output) if resume else None,
        )

    with joined() as ranks:
        place = console.resolve_device(device)
        plan = ranks.first_of(planned() if ranks.is_first else None)
        quiet = quiet or not ranks.is_first
        with interruptible() as interrupted, console.training_progress(quiet) as (report, say):
            folder = train_model(
                plan,
                Path(output),
                data_root=root,
                device=place,
                resume=resume,
                command=command_line(context),
                report=report,
                say=say,
                stop=lambda: bool(interrupted),
                ranks=ranks,
            )
    if folder is None:
        if ranks.is_first:
            click.echo(f"rcc: interrupted; go on with the same command and --resume ({output})", err=True)
        raise SystemExit(interrupted[0] if interrupted else console.INTERRUPTED)


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM put their exit code in the list, so that the step in hand ends and its checkpoint is
    written; a second one aborts.
    """
    interrupted: list[int] = []

    def note(number: int, frame: object) -> None:
        if interrupted and number == signal.SIGTERM:
            console.terminate(number, frame)
        elif interrupted:
            raise KeyboardInterrupt
        interrupted.append(console.TERMINATED if number == signal.SIGTERM else console.INTERRUPTED)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def command_line(context: click.Context) -> str:
    """The command that was given, for the card, less what changes nothing or holds on this machine only."""
    words = ["rcc", context.command.name or ""]
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in ("resume", "quiet", "data_root", "output") or (
            context.get_parameter_source(name) != ParameterSource.COMMANDLINE
        ):
            continue
        given = context.params[name]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(parameter.opts[-1])
            continue
        for value in given if isinstance(given, tuple) else (given,):
            word = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            if name in ("start_from", "extend", "model"):
                word = Path(word).name
            words += [word] if isinstance(parameter, click.Argument) else [parameter.opts[-1], word]
    return shlex.join([*words, "-o", Path(context.params["output"]).name])
