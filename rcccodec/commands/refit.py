"""``rcc refit``: other index codes for a finished model."""

import os
from pathlib import Path

import click

from rcccodec.commands import console
from rcccodec.commands.train import command_line
from rcccodec.errors import ModelError, OutputError
from rcccodec.model_search import model_path, read_card


@click.command(
    epilog=console.examples(
        "rcc refit photo-pixels -o models/photo-pixels-20 --candidates 1048576",
        "rcc refit mnist -o models/mnist-b --seed 1",
        "rcc refit mnist -o models/mnist-c --shared-only",
    )
)
@click.argument("model")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="Model bundle to write.")
@click.option("--data-root", envvar="RCC_DATA", help="Where the standard data sets are. Default: $RCC_DATA.")
@click.option("--candidates", type=click.IntRange(16, 1 << 24), help="N to fit for. Default: the model's.")
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), help="Codebook of the priors. Default: the model's."
)
@click.option(
    "--shared-only",
    is_flag=True,
    help="Fit the codes of indices that blocks share and leave all else as it is, N and codebook too.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.pass_context
def refit(
    context: click.Context,
    model: str,
    output: str,
    data_root: str | None,
    candidates: int | None,
    seed: int | None,
    shared_only: bool,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Fit the index codes of MODEL anew, on the data it was trained on: for more candidates, for another
    codebook, or because fitting has become better. Its generators stay as they are. Where N has room for
    several blocks an index, what they share gets codes of its own.

    It takes a minute or more for each slope, longer with N and with blocks an index, and tells of each as it
    begins. The folder is written at the end.
    """
    if os.path.exists(Path(output) / "model.json"):
        raise OutputError(f"{output}: holds a model; name another folder")
    if read_card(model).get("kind") == "latent":
        raise ModelError(
            f"{model}: a model of latents has no index codes to fit anew; rcc train makes all of it"
        )

    import torch

    from rcccodec.training.extension import keep
    from rcccodec.training.refit import refit_model, refit_plan

    if threads:
        torch.set_num_threads(threads)
    place = console.resolve_device(device)
    kept = keep(model_path(model))
    name = Path(output).resolve().name
    plan = refit_plan(kept, name, candidates=candidates, seed=seed, shared_only=shared_only)
    with console.training_progress(quiet) as (_, say):
        refit_model(
            kept,
            plan,
            Path(output),
            data_root=Path(data_root) if data_root else None,
            device=place,
            command=command_line(context),
            say=say,
        )
