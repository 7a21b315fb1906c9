"""``rcc compress``: images to one ``.rcc`` file, or to a folder with a file for each."""

import json
import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rcccodec.atomic import check_target, sweep
from rcccodec.commands import console
from rcccodec.errors import LimitError

if TYPE_CHECKING:
    from rcccodec.codec import Encoded


@click.command(
    epilog=console.examples(
        "rcc compress photo.png -o photo.rcc",
        "rcc compress photo.png -o photo.rcc --quality 80",
        "rcc compress photo.png -o photo.rcc --target-bpp 0.25 -e 7",
        "rcc compress photo.png -o photo.rcc --target-psnr 30",
        "rcc compress digits/*.png -o digits.rcc --model mnist --coder pfr --json",
        "rcc compress pictures -o pictures.rcc --jobs 4",
        "rcc compress pictures -o small/ --jobs 0",
        "rcc compress *.jpg -o small/",
        "cat photo.jpg | rcc compress - -o - | rcc decompress - -o copy.png",
    )
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    callback=console.output_name,
    help="File to write; - is standard output; a folder (with / at the end, if it is not there yet) for one "
    "file an image.",
)
@click.option("-m", "--model", default="photo", show_default=True, help="Name or folder of a model.")
@click.option(
    "--beta",
    type=float,
    help="Slope: nats per unit of squared error. The rung nearest to it is taken, the deepest of several.",
)
@click.option("--quality", type=float, help="0 (first rung) to 100 (last) of the model's ladder.")
@click.option(
    "--target-bits", type=click.IntRange(min=1), help="Whole file of at most these bits, the best there is."
)
@click.option("--target-bpp", type=float, help="The same in bits a pixel.")
@click.option("--target-psnr", type=float, help="Cheapest file that reaches these dB.")
@click.option(
    "-e",
    "--effort",
    type=click.IntRange(1, 9),
    help="How long to search, for models of latents such as photo; see above. --candidates overrides it. [5]",
)
@click.option(
    "--coder",
    type=click.Choice(["trellis", "pfr", "orc", "mincost"]),
    help="pfr simulates the channel exactly as N grows, orc is its fixed-N form; mincost takes the candidate "
    "that costs least; trellis, of models of latents, the best of all paths. "
    "Default: trellis if the model has it, else mincost.",
)
@click.option(
    "--index-code",
    type=click.Choice(["zipf", "fitted", "prior"]),
    help="How indices become bits. Default: prior where the model has one for the coder, else fitted. "
    "Indices that blocks share take the model's codes for such, if it has any, else a fitted one of about "
    "their rate.",
)
@click.option(
    "--candidates", type=int, help="N, 1 to 2^24; states of a trellis. Default: the model's, or the effort's."
)
@click.option("--seed", type=int, help="Common randomness, 0 to 2^64 - 1. Default: the model's.")
@click.option(
    "--joint/--no-joint",
    default=None,
    help="Let blocks of low rate, or images of one block each, share indices where N allows it. "
    "Default: unless mincost has a prior for single blocks alone, which saves more.",
)
@click.option(
    "--apart/--no-apart",
    default=None,
    help="Give every image of an archive a payload and a checksum of its own, some 14 bytes, so that damage "
    "to one loses no other. Images of more than one tile have them always. Default: for models of latents.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--jobs",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Processes, of one thread each, that share several images; 0 is one a core. Files are the same.",
)
@click.option(
    "--no-overwrite", is_flag=True, help="Fail if OUT exists, or a file in it that is not as asked."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors and what --json asks for.")
def compress(
    inputs: tuple[str, ...],
    output: str,
    model: str,
    beta: float | None,
    quality: float | None,
    target_bits: int | None,
    target_bpp: float | None,
    target_psnr: float | None,
    effort: int | None,
    coder: str | None,
    index_code: str | None,
    candidates: int | None,
    seed: int | None,
    joint: bool | None,
    apart: bool | None,
    device: str,
    jobs: int,
    no_overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Compress one image, or several into one archive or a file each.

    INPUT is any 8- or 16-bit image file; - is standard input. The report goes to standard output, or to
    standard error when the file itself goes to standard output.

    INPUT may be one folder: all images below it, sorted by path, make one archive; one that cannot be read
    ends it with exit code 3, and nothing is written.

    An archive that was interrupted goes on when the same command is run again: finished parts of the search
    (single pictures for a model of latents, else up to about 32768 blocks each) lie in .OUT.parts beside OUT
    until the end, and only what is smaller than one part begins anew. Parts of another run for OUT, with
    other images or options, stay there.

    Where OUT is a folder, each image makes a file of its own: b.png OUT/b.rcc, and a/b.png below an INPUT
    folder OUT/a/b.rcc (b.png.rcc where two would clash). Interrupted, the same command goes on: it keeps what
    OUT/.rcc-folder.jsonl says was made of the same image (by SHA-256), model and options. Images that cannot
    be read are named and passed over, with exit code 3.

    With a model of latents -e says how many states (2^L) the search for the best path goes through at every
    bit:

    \b
      -e        1     2     3     4     5     6     7     8     9
      L         8     9    10    11    12    13    14    15    16
      steps  1/16   1/8   1/4   1/2     1     2     4     8    16

    The file's size does not depend on L, its quality does: each level gains less than the one before.
    Decoding takes no longer.

    torchrun --nproc-per-node 2 -m rcccodec compress ... makes one file with two processes (or GPUs) that
    share the candidates of every search. The file is the same. (Models of latents gain nothing by it.)
    """
    if sum(value is not None for value in (beta, quality, target_bits, target_bpp, target_psnr)) > 1:
        raise click.UsageError(
            "give at most one of --beta, --quality, --target-bits, --target-bpp and --target-psnr"
        )
    if target_bpp is not None and not 0 < target_bpp < math.inf:
        raise click.UsageError("--target-bpp must be a positive number")
    if target_psnr is not None and math.isnan(target_psnr):
        raise click.UsageError("--target-psnr must be a number")
    if not all(inputs):
        raise click.UsageError("INPUT: an empty file name")
    if inputs.count(console.STANDARD_STREAM) > 1:
        raise click.UsageError("standard input can be read only once")
    folder = Path(inputs[0]) if os.path.isdir(inputs[0]) else None
    if len(inputs) > 1 and any(map(os.path.isdir, inputs)):
        raise click.UsageError("a folder is compressed alone: give no other INPUT beside it")
    mirrors = output.endswith(os.sep) or os.path.isdir(output)
    if mirrors and console.STANDARD_STREAM in inputs:
        raise click.UsageError("standard input has no name for a file in a folder OUT: name a file with -o")
    if mirrors and len({Path(name).name for name in inputs}) < len(inputs):
        raise click.UsageError("several INPUTs of one name for a folder OUT: compress them one by one")
    if output != console.STANDARD_STREAM and not mirrors:
        check_target(output, overwrite=not no_overwrite)
        sweep([output])

    from rcccodec.folder import PICTURES, list_files
    from rcccodec.jobs import count_jobs
    from rcccodec.request import Request

    processes = count_jobs(jobs)

    def request() -> Request:
        return Request(
            model, beta, quality, target_bits, target_bpp, target_psnr, coder, effort, index_code, candidates,
            seed, joint, apart, console.resolve_device(device),
        )  # fmt: skip

    if console.num_processes() > 1 and (mirrors or processes > 1 or "-" in inputs):
        raise click.UsageError("torchrun shares the search of one file: no --jobs, no folder OUT, no -")
    if mirrors:
        from rcccodec.commands.compress_folder import compress_folder

        if folder is not None:
            sources = {name: folder / name for name in list_files(folder, PICTURES)}
        else:
            sources = {Path(name).name: Path(name) for name in inputs}
        compress_folder(
            sources, Path(output), request(), jobs=processes, overwrite=not no_overwrite, as_json=as_json,
            quiet=quiet,
        )  # fmt: skip
        return
    if folder is not None:
        inputs = tuple(str(folder / name) for name in list_files(folder, PICTURES))
    images = _read_images(inputs, quiet)

    from rcccodec.bundle import Model, load_model
    from rcccodec.latent.parts import encode_in_parts
    from rcccodec.latent.report import LatentReport
    from rcccodec.parts import choose_in_parts, forget_parts, parts_folder
    from rcccodec.ranks import joined, shared_search
    from rcccodec.report import Report

    bundle = load_model(model)
    to_stderr = output == console.STANDARD_STREAM
    unit = "candidates" if isinstance(bundle, Model) else "bits"
    with joined() as ranks, shared_search(ranks):
        quiet = quiet or not ranks.is_first
        keep = None
        used: dict[Path, bool] = {}
        is_file = os.path.isfile(output) or not os.path.exists(output)  # beside a pipe is no place for parts
        if len(images) > 1 and not to_stderr and is_file and ranks.size == 1:
            keep = parts_folder(Path(output))
        try:
            encoded = request().encode(
                images,
                bundle,
                progress=partial(console.progress_bar, "compress", quiet, unit=unit),
                search=partial(choose_in_parts, model=model, jobs=processes, keep=keep, used=used),
                encode_pictures=partial(encode_in_parts, model=model, jobs=processes, keep=keep, used=used),
            )
        except LimitError:  # as it will be the next time
            if keep is not None:
                forget_parts(keep, [file for file, is_made in used.items() if is_made])
            raise
    if not ranks.is_first:
        return
    for note in encoded.notes:
        console.remark(f"note: {note}", quiet)
    report = encoded.report
    if isinstance(report, Report) and report.saturated:
        console.remark(
            f"warning: saturated: log2 N - R is {report.margin_bits:.1f} bits, below 3; raise --candidates",
            quiet,
        )
    console.write_output(output, encoded.data, not no_overwrite)
    if keep is not None:
        forget_parts(keep, used)
    if as_json:
        console.say(json.dumps(report.as_json(), indent=2), to_stderr=to_stderr)
    elif not quiet:
        if isinstance(report, LatentReport):
            text = _latent_summary(encoded, bundle.name, output)
        else:
            text = _summary(encoded, bundle.name, coder or "mincost", output)
        console.say(text, to_stderr=to_stderr)


def _read_images(inputs: tuple[str, ...], quiet: bool) -> list:
    from rcccodec.images import read_image

    images = []
    for name in inputs:
        source = console.read_input(name) if name == console.STANDARD_STREAM else name
        image, notes = read_image(source, name=console.shown(name))
        for note in notes:
            console.remark(f"note: {console.shown(name)}: {note}", quiet)
        images.append(image)
    return images


def _first_line(encoded: "Encoded", output: str) -> str:
    report, count = encoded.report, len(encoded.images)
    psnr = "no loss" if report.psnr_db is None else f"PSNR {report.psnr_db:.2f} dB"
    return (
        f"{output}: {count} image{'s' if count > 1 else ''}, {report.file_bytes} bytes, "
        f"{report.bpp:.4f} bpp, {psnr}"
    )


def _latent_summary(encoded: "Encoded", model_name: str, output: str) -> str:
    report = encoded.report
    per_cent = [
        100 * bits / (8 * report.file_bytes)
        for bits in (report.dimension_bits, report.class_bits, report.framing_bits)
    ]
    exact = "an exact simulation as N grows" if report.coder in ("pfr", "orc") else "not an exact simulation"
    searched = "states" if report.coder == "trellis" else "candidates a chunk"
    return "\n".join(
        [
            _first_line(encoded, output),
            f"  file       latents {per_cent[0]:.1f} %, classes {per_cent[1]:.1f} %, "
            f"all else {per_cent[2]:.1f} %",
            f"  model      {model_name}, rung {report.rung}, beta {report.beta:g}, "
            f"divergence {report.divergence_bits / report.positions:.1f} bits for each 16x16 pixels",
            f"  coder      {report.coder}, 2^{report.log2_num_candidates:g} {searched}: {exact}",
        ]
    )


def _summary(encoded: "Encoded", model_name: str, coder: str, output: str) -> str:
    report = encoded.report
    lines = [
        _first_line(encoded, output),
        f"  payload    {report.payload_bits} bits, {report.rate_bits_per_block:.2f} a block "
        f"({report.blocks} block{'s' if report.blocks > 1 else ''}, "
        f"squared error {report.distortion:.3f} a block)",
        f"  model      {model_name}, rung {report.rung}, beta {report.beta:g}, "
        f"R {report.rd_estimate_bits:.2f} bits a block on average, "
        f"least log2 N - R {report.margin_bits:.1f} bits",
        f"  guarantee  {report.guarantee_bits:.2f} bits a block expected over seeds, "
        "for pfr and orc with the zipf code",
    ]
    if report.certified_fraction is not None:
        lines.append(
            f"  certified  {100 * report.certified_fraction:.1f} % of the choices are certain: "
            "no further candidate could change them"
        )
    if coder == "mincost":
        lines.append("  coder      mincost: fewest bits at this slope, not an exact channel simulation")
    return "\n".join(lines)
