"""``rcc train``: a source to a model bundle."""

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from rcccodec.commands import console

MNIST_SLOPES = "0.15,0.2,0.25,0.3,0.4,0.5,0.7,1"


@click.command(
    epilog=console.examples(
        f"rcc train mnist -o models/mnist --stage 32:{MNIST_SLOPES}@0.14-1.05",
        "rcc train pictures/ -o models/mine --stage 32:0.8 --stage 16:3,6 --stage 8:10,16,24",
        "rcc train mnist -o models/paper --arch dcgan --method nerd --stage 32:0.4 --nerd-steps 20000",
        "rcc train gaussian:m=20,decay=0.5 -o models/gauss --arch fc --method nerd --distortion 2 --metric lp:1",
        "rcc train mnist -o models/mnist --resume",
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
    "residual that the last slope of the stage before leaves. Default: one stage at slope 0.4 for 32x32 images.",
)
@click.option("--arch", type=click.Choice(["mlp", "dcgan", "fc"]), default="mlp", show_default=True)
@click.option("--method", type=click.Choice(["vae+nerd", "nerd"]), default="vae+nerd", show_default=True)
@click.option("--distortion", type=float, help="Train at this distortion and solve for the slope instead.")
@click.option("--metric", default="mse", show_default=True, help="mse, or lp:P for the squared l^p distance.")
@click.option("--vae-steps", type=click.IntRange(min=0), help="Steps of the beta-VAE warm start. [20000]")
@click.option("--nerd-steps", type=click.IntRange(min=1), default=8000, show_default=True, help="Steps of NERD.")
@click.option("--minutes", type=float, help="Scale both so that the run takes about this long on this machine.")
@click.option("--candidates", type=click.IntRange(min=16), default=1 << 15, help="N of the model. [32768]")
@click.option("--step-candidates", type=click.IntRange(min=2), default=8192, help="N of a NERD step. [8192]")
@click.option("--latent-dim", type=click.IntRange(min=1), help="Latents of a candidate. [24; paper's: 128]")
@click.option("--width", type=click.IntRange(min=1), help="Hidden width, or c_d of dcgan. [512; 32; m]")
@click.option("--coordinates", help="KLT coordinates of each stage, as 160,256,192. Default: all.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoints in FOLDER; give the same options.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--quiet", is_flag=True, help="No progress.")
def train(
    source: str,
    output: str,
    data_root: str | None,
    stages: tuple[str, ...],
    arch: str,
    method: str,
    distortion: float | None,
    metric: str,
    vae_steps: int | None,
    nerd_steps: int,
    minutes: float | None,
    candidates: int,
    step_candidates: int,
    latent_dim: int | None,
    width: int | None,
    coordinates: str | None,
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
    """
    if minutes is not None and minutes <= 0:
        raise click.UsageError("--minutes must be positive")
    if coordinates is not None and not all(part.isdigit() and int(part) for part in coordinates.split(",")):
        raise click.UsageError("--coordinates takes whole numbers separated by commas")

    import torch

    from rcccodec.training.plan import make_plan
    from rcccodec.training.run import train_model

    if threads:
        torch.set_num_threads(threads)
    root = Path(data_root) if data_root else None
    plan = make_plan(
        source,
        Path(output).name,
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
        coordinates=[int(n) for n in coordinates.split(",")] if coordinates else None,
        seed=seed,
        checkpoints=Path(output) if resume else None,
    )
    with _interruptible() as interrupted, console.training_progress(quiet) as (report, say):
        folder = train_model(
            plan,
            Path(output),
            data_root=root,
            device=console.resolve_device(device),
            resume=resume,
            command=shlex.join(["rcc", *_without(sys.argv[1:], "--resume", "--quiet")]),
            report=report,
            say=say,
            stop=lambda: bool(interrupted),
        )
    if folder is None:
        click.echo(f"interrupted; go on with the same command and --resume ({output})", err=True)
        raise SystemExit(130)


@contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Ctrl-C fills the list, so that the step in hand ends and its checkpoint is written; a second one aborts."""
    interrupted: list[bool] = []

    def note(_signal: int, _frame: object) -> None:
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _without(words: list[str], *flags: str) -> list[str]:
    return [word for word in words if word not in flags]
