"""``rcc train --arch latent``, for `rcccodec.commands.train`."""

from pathlib import Path

import click
from click.core import ParameterSource

from rcccodec.commands import console

TAKEN = (
    "source", "output", "data_root", "arch", "lambdas", "betas", "steps", "bfloat16", "minutes", "latent_dim",
    "width", "start_from", "device", "resume", "seed", "threads", "quiet",
)  # fmt: skip


def train_latents(context: click.Context) -> None:
    """Train what the options of ``rcc train`` say.

    Raises:
        UsageError: an option that is not for latents.
    """
    given = context.params
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in TAKEN and context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[-1]} is not for --arch latent")
    if given["lambdas"] and given["betas"]:
        raise click.UsageError("give --lambda or --beta, not both")

    import torch

    from rcccodec.commands.train import command_line, interruptible
    from rcccodec.training.latent import CHECKPOINT, make_run, train_latent

    if given["threads"]:
        torch.set_num_threads(given["threads"])
    root = Path(given["data_root"]) if given["data_root"] else None
    output = Path(given["output"])
    device = console.resolve_device(given["device"])
    run = make_run(
        given["source"],
        output.resolve().name,
        data_root=root,
        lambdas=tuple(given["lambdas"]) if given["lambdas"] else None,
        betas=tuple(given["betas"]) if given["betas"] else None,
        steps=given["steps"],
        minutes=given["minutes"],
        latent_dim=given["latent_dim"],
        width=given["width"],
        start_from=Path(given["start_from"]) if given["start_from"] else None,
        bfloat16=given["bfloat16"],
        seed=given["seed"],
        device=device,
        checkpoint=output / CHECKPOINT if given["resume"] else None,
    )
    with interruptible() as interrupted, console.training_progress(given["quiet"]) as (report, say):
        folder = train_latent(
            run,
            output,
            data_root=root,
            device=device,
            resume=given["resume"],
            command=command_line(context),
            report=lambda progress: report(0, progress),
            say=say,
            stop=lambda: bool(interrupted),
        )
    if folder is None:
        click.echo(f"rcc: interrupted; go on with the same command and --resume ({output})", err=True)
        raise SystemExit(interrupted[0] if interrupted else console.INTERRUPTED)
