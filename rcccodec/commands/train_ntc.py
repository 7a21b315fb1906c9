"""``rcc train-ntc``: a source to a baseline of learned transform coding."""

import os
from pathlib import Path

import click

from rcccodec.commands import console
from rcccodec.commands.train import command_line, interruptible, slopes_option
from rcccodec.errors import OutputError


@click.command(
    name="train-ntc",
    epilog=console.examples(
        "rcc train-ntc mnist -o models/mnist-ntc --jitter 0.5",
        "rcc train-ntc mnist -o models/four --kind block --start-from models/one/checkpoint-ntc.safetensors",
        "rcc train-ntc bsds500 -o models/photo-ntc-hyperprior --kind hyperprior --minutes 25",
        "rcc train-ntc gaussian:m=20,decay=0.5 -o models/gauss-ntc",
        "rcc train-ntc mnist -o models/mnist-ntc --jitter 0.5 --resume",
    ),
)
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Baseline to write.")
@click.option("--data-root", envvar="RCC_DATA", help="Where the standard data sets are. Default: $RCC_DATA.")
@click.option(
    "--kind",
    type=click.Choice(["image", "block", "vector", "factorized", "hyperprior"]),
    help="One code an image, four images a code, vectors; or CompressAI's bmshj2018 architectures for "
    "photographs. Default: the first that fits the source.",
)
@click.option(
    "--beta",
    "betas",
    callback=slopes_option,
    metavar="SLOPE[,SLOPE...]",
    help="Slopes, in nats per unit of squared error. One network serves all.",
)
@click.option(
    "--steps", type=click.IntRange(min=1), help="Of training. [15000 image, 8000 others, 20000 vector]"
)
@click.option("--minutes", type=float, help="Instead: as many steps as take about this long on this machine.")
@click.option(
    "--latent-dim", type=click.IntRange(min=1), help="Latents of a code, or M. [32; 128 block; 96; m]"
)
@click.option("--width", type=click.IntRange(min=1), help="Hidden width, or N. [640; 64; 4 m]")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Highest. [0.003; 0.0015 block; 0.001 others]",
)
@click.option(
    "--start-from",
    metavar="CHECKPOINT",
    help="Begin with the networks of this checkpoint; block codes also take those of a one-shot run, "
    "hyperpriors the transforms of a factorised one.",
)
@click.option("--compact", is_flag=True, help="Store large matrices in 8 bits.")
@click.option(
    "--jitter",
    type=click.FloatRange(0, 3),
    default=0.0,
    show_default=True,
    help="Strength of small random affine maps of training images; 1 turns by 4 degrees or so.",
)
@click.option(
    "--bfloat16",
    is_flag=True,
    help="Transforms in 16 bits until the last phase of training: twice as fast where the processor can.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in FOLDER; give the same options.")
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="Of the training."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def train_ntc(
    context: click.Context,
    source: str,
    output: str,
    data_root: str | None,
    kind: str | None,
    betas: list[float] | None,
    steps: int | None,
    minutes: float | None,
    latent_dim: int | None,
    width: int | None,
    learning_rate: float | None,
    start_from: str | None,
    compact: bool,
    jitter: float,
    bfloat16: bool,
    device: str,
    resume: bool,
    seed: int,
    threads: int | None,
    quiet: bool,
) -> None:
    """Train nonlinear transform coding on SOURCE, to compare the codec with: the codec's own transforms, but
    rounded latents, and CompressAI's entropy model and range coder. Needs pip install 'rcccodec[bench]'.

    Interrupting leaves a checkpoint that --resume takes up; the baseline is written at the end, with a card.
    """
    if minutes is not None and not 0 < minutes < float("inf"):
        raise click.UsageError("--minutes must be positive")
    if minutes is not None and steps is not None:
        raise click.UsageError("--minutes and --steps: give one of them")
    checkpoint = Path(output) / "checkpoint-ntc.safetensors"
    earlier = [
        p.name
        for p in (checkpoint, Path(output) / "baseline.json", Path(output) / "model.json")
        if os.path.exists(p)
    ]
    if earlier and not resume:
        raise OutputError(
            f"{output}: holds an earlier run ({earlier[0]}); go on with --resume or name another folder"
        )

    import torch

    from rcccodec.baselines.compressai import import_compressai
    from rcccodec.baselines.run import make_run, train_baseline

    import_compressai()
    if threads:
        torch.set_num_threads(threads)
    place = console.resolve_device(device)
    root = Path(data_root) if data_root else None
    run = make_run(
        source,
        Path(output).resolve().name,
        data_root=root,
        kind=kind,
        betas=tuple(betas) if betas else None,
        steps=steps,
        minutes=minutes,
        latent_dim=latent_dim,
        width=width,
        learning_rate=learning_rate,
        start_from=Path(start_from) if start_from else None,
        compact=compact,
        jitter=jitter,
        bfloat16=bfloat16,
        seed=seed,
        device=place,
        checkpoint=checkpoint if resume else None,
    )
    with interruptible() as interrupted, console.training_progress(quiet) as (report, say):
        folder = train_baseline(
            run,
            Path(output),
            data_root=root,
            device=place,
            resume=resume,
            command=command_line(context),
            report=lambda progress: report(0, progress),
            say=say,
            stop=lambda: bool(interrupted),
        )
    if folder is None:
        click.echo(f"rcc: interrupted; go on with the same command and --resume ({output})", err=True)
        raise SystemExit(interrupted[0])
