"""``rcc decompress``: a ``.rcc`` file to an image, or to a folder of them; and a folder of such files."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rcccodec.atomic import sweep
from rcccodec.commands import console
from rcccodec.errors import FormatError, OutputError

if TYPE_CHECKING:
    from rcccodec.container import Group
    from rcccodec.latent.file import Region


def _region(_context: click.Context, _option: click.Parameter, text: str | None) -> "Region | None":
    """(top, left, height, width) of "X,Y,W,H"."""
    if text is None:
        return None
    if not re.fullmatch(r"\s*-?\d{1,9}\s*(,\s*-?\d{1,9}\s*){3}", text, re.ASCII):
        raise click.BadParameter(f"{text!r:.60} is not X,Y,W,H: four whole numbers of pixels")
    left, top, width, height = (int(part) for part in text.split(","))
    return top, left, height, width


@click.command(
    epilog=console.examples(
        "rcc decompress photo.rcc -o photo.png",
        "rcc decompress digits.rcc -o digits/",
        "rcc decompress small/ -o pictures/",
        "rcc decompress - -o - < photo.rcc > photo.png",
        "rcc decompress photo.rcc -o corner.png --region 0,0,320,200",
        "rcc decompress half-loaded.rcc -o photo.png --partial",
        "rcc decompress damaged.rcc -o pictures/ --keep-going",
    )
)
@click.argument("source", metavar="INPUT")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    callback=console.output_name,
    help="Image to write, its ending names the format; a folder for an archive or a folder; - is PNG on "
    "standard output.",
)
@click.option("-m", "--model", help="Name or folder of the model. Default: found by the hash in the file.")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    help="Refuse a file whose images have more in all. Default: 2^28.",
)
@click.option(
    "--region",
    metavar="X,Y,W,H",
    callback=_region,
    help="Only this part of the only image: left, top, width, height, in pixels. Of models of latents no "
    "more is made than it needs.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Take a file that was cut short, of one image and a model of latents: its tiles of 256x256 "
    "pixels that are whole, and the mean colour elsewhere. Checksums are not verified.",
)
@click.option(
    "--keep-going",
    is_flag=True,
    help="Of a damaged archive, write every image that is intact and name the lost ones, with exit code 4.",
)
@click.option("--no-overwrite", is_flag=True, help="Fail if a file to write exists.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def decompress(
    source: str,
    output: str,
    model: str | None,
    max_pixels: int | None,
    region: "Region | None",
    partial: bool,
    keep_going: bool,
    no_overwrite: bool,
    quiet: bool,
) -> None:
    """Decompress a .rcc file.

    An archive of several images becomes a folder of PNG files numbered in order. It does not matter on which
    device, or with how many threads, the file was made.

    If INPUT is a folder, every .rcc file below it becomes OUT/its/path.png, or a folder OUT/its/path if it is
    an archive (path.rcc.png and path.rcc where two would clash); files that cannot be read are named and
    passed over, with the exit code of the first.
    """
    if keep_going and (region is not None or partial):
        raise click.UsageError("--keep-going is for archives, --region and --partial are for one image")
    if output != console.STANDARD_STREAM:
        sweep([output])
    if os.path.isdir(source):
        if output == console.STANDARD_STREAM:
            raise click.UsageError("a folder cannot go to standard output: name a folder with -o")
        if region is not None or partial:
            raise click.UsageError("--region and --partial are for one file, not for a folder")
        from rcccodec.commands.decompress_folder import decompress_folder

        decompress_folder(
            Path(source), Path(output), model, max_pixels,
            overwrite=not no_overwrite, quiet=quiet, keep_going=keep_going,
        )  # fmt: skip
    elif keep_going:
        decompress_intact(source, output, model, max_pixels, not no_overwrite, quiet)
    else:
        options = {"region": region} | ({"max_pixels": max_pixels} if max_pixels else {})
        decompress_file(source, output, model, options, not no_overwrite, quiet, partial=partial)


def decompress_file(
    source: str,
    output: str,
    model: str | None,
    options: dict[str, Any],
    overwrite: bool,
    quiet: bool,
    *,
    partial: bool = False,
) -> None:
    """``options``: those of `rcccodec.codec.decompress`."""
    from rcccodec import container

    data = console.read_input(source)
    with console.about(source):
        groups = [container.unpack_prefix(data)[1]] if partial else _unpack(data)
    count = sum(group.count for group in groups)
    into_folder = _check_output(output, count, overwrite)

    from rcccodec import atomic, codec
    from rcccodec.images import image_bytes, write_image

    with console.about(source):
        if partial:
            found = codec.decompress_prefix(data, model, **options)
            images = [found.image]
            is_whole = found.whole_tiles == found.tiles
            rest = "" if is_whole else "; the rest is filled with the mean"
            if not _is_whole(data):
                rest += "; no checksum vouches for what is shown"
            console.remark(
                f"note: {console.shown(source)}: {found.whole_tiles} of {found.tiles} tiles are there{rest}",
                quiet,
            )
        else:
            images = codec.decompress(data, model, **options)
    if output == console.STANDARD_STREAM:
        atomic.write_stdout(image_bytes(images[0], ".png"))
        return
    if into_folder:
        files = {_numbered(i, count): image_bytes(x, ".png") for i, x in enumerate(images)}
        atomic.write_folder(output, files, overwrite=overwrite)
    else:
        write_image(output, images[0], overwrite=overwrite)
    if not quiet:
        x = images[0]
        several = f"{count} images, the first " if count > 1 else ""
        console.say(f"{output}: {several}{x.shape[1]}x{x.shape[0]} {'rgb' if x.ndim == 3 else 'grey'}")


def _is_whole(data: bytes) -> bool:
    from rcccodec import container

    try:
        container.unpack(data)
    except FormatError:
        return False
    return True


def _unpack(data: bytes) -> list["Group"]:
    """The groups of a file; the error of a damaged archive says what can be had of it."""
    from rcccodec import container

    try:
        return container.unpack(data)[1]
    except FormatError as error:
        try:
            found = container.salvage(data)
        except FormatError:
            raise error from None
        intact = sum(group.count for _, group in found.groups)
        if not intact:
            raise
        of = "" if found.num_images is None else f" of {found.num_images}"
        hint = f"{intact}{of} images are intact: --keep-going gives them"
        raise FormatError(f"{error}; {hint}") from None


def decompress_intact(
    source: str, output: str, model: str | None, max_pixels: int | None, overwrite: bool, quiet: bool
) -> None:
    """Every intact image of a file to ``output``; a FormatError that names the lost ones."""
    from rcccodec import container

    data = console.read_input(source)
    with console.about(source):
        found = container.salvage(data)
        if not found.groups:
            raise FormatError(f"no image of it is intact: {found.faults[0]}")
    into_folder = _check_output(output, 2 if found.num_images is None else found.num_images, overwrite)

    from rcccodec import atomic, codec
    from rcccodec.images import image_bytes, write_image

    with console.about(source):
        made = codec.decompress_intact(found, model, max_pixels=max_pixels or codec.MAX_PIXELS)
        if not made.images:
            raise FormatError(f"no image of it is intact: {made.faults[0]}")
    count = len(made.images) if made.num_images is None else made.num_images
    if output == console.STANDARD_STREAM:
        atomic.write_stdout(image_bytes(made.images[0], ".png"))
    elif into_folder:
        files = {_numbered(i, count): image_bytes(x, ".png") for i, x in made.images.items()}
        atomic.write_folder(output, files, overwrite=overwrite)
    else:
        write_image(output, made.images[0], overwrite=overwrite)
    of = "" if made.num_images is None else f" of {made.num_images}"
    if not quiet and output != console.STANDARD_STREAM:
        console.say(f"{output}: {len(made.images)}{of} images")
    if not made.faults:
        return
    for fault in made.faults:
        console.remark(f"{console.shown(source)}: {fault}", quiet)
    ends = [[_numbered(i, count) for i in run] for run in made.lost]
    lost = [first if first == last else f"{first} to {last}" for first, last in ends]
    if made.num_images is None:
        lost.append(f"all from {_numbered(max(made.images) + 1, count)} on")
    kept = f"{len(made.images)}{of} images are intact"
    named = f", lost: {', '.join(lost)}" if lost else ""
    raise FormatError(f"{console.shown(source)}: damaged; {kept}{named}")


def _numbered(image: int, num_images: int) -> str:
    """The name of one image of an archive."""
    return f"{image:0{max(4, len(str(num_images - 1)))}}.png"


def _check_output(output: str, count: int, overwrite: bool) -> bool:
    """Whether ``output`` is a folder to write to; an OutputError now for a name that could not be written."""
    from rcccodec.atomic import check_target
    from rcccodec.images import check_ending, names_a_picture

    if output == console.STANDARD_STREAM:
        if count > 1:
            raise OutputError(f"{count} images cannot go to standard output: name a folder with -o")
        return False
    if os.path.isdir(output):
        return True
    path = output.rstrip(os.sep)
    if count > 1 or path != output:
        is_file = os.path.lexists(path)
        if is_file or (path == output and names_a_picture(path)):
            folder = os.path.splitext(path)[0]
            free = "FOLDER" if os.path.isfile(folder) else folder
            images = f"{count} images need" if count > 1 else "1 image needs"
            what = "is a file" if is_file else "names a file"
            raise OutputError(f"{output} {what}: {images} a folder here, as in -o {free}{os.sep}")
        check_target(path)
        return True
    check_ending(output)
    check_target(output, overwrite=overwrite)
    return False
