"""``rcc decompress``: a ``.rcc`` file to an image, or to a folder of them."""

import os

import click

from rcccodec.commands import console
from rcccodec.errors import OutputError


@click.command(
    epilog=console.examples(
        "rcc decompress photo.rcc -o photo.png",
        "rcc decompress digits.rcc -o digits/",
        "rcc decompress - -o - < photo.rcc > photo.png",
    )
)
@click.argument("source", metavar="INPUT")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    callback=console.output_name,
    help="Image to write, its ending names the format; a folder for an archive; - is PNG on standard output.",
)
@click.option("-m", "--model", help="Name or folder of the model. Default: found by the hash in the file.")
@click.option("--no-overwrite", is_flag=True, help="Fail if a file to write exists.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def decompress(source: str, output: str, model: str | None, no_overwrite: bool, quiet: bool) -> None:
    """Decompress a .rcc file.

    An archive of several images becomes a folder of PNG files numbered in order. It does not matter on which
    device, or with how many threads, the file was made.
    """
    data = console.read_input(source)

    from rcccodec import atomic, codec
    from rcccodec.images import image_bytes, write_image

    with console.about(source):
        images = codec.decompress(data, model)
    overwrite = not no_overwrite
    into_folder = len(images) > 1 or output.endswith(os.sep) or os.path.isdir(output)
    if output == console.STANDARD_STREAM:
        if len(images) > 1:
            raise OutputError(f"{len(images)} images cannot go to standard output: name a folder with -o")
        atomic.write_stdout(image_bytes(images[0], ".png"))
        return
    if into_folder:
        if os.path.lexists(output.rstrip(os.sep)) and not os.path.isdir(output):
            raise OutputError(f"{output}: {len(images)} images need a folder, and this is a file")
        digits = max(4, len(str(len(images) - 1)))
        files = {f"{i:0{digits}}.png": image_bytes(x, ".png") for i, x in enumerate(images)}
        atomic.write_folder(output, files, overwrite=overwrite)
    else:
        write_image(output, images[0], overwrite=overwrite)
    if not quiet:
        x = images[0]
        count = f"{len(images)} images, the first " if len(images) > 1 else ""
        console.say(f"{output}: {count}{x.shape[1]}x{x.shape[0]} {'rgb' if x.ndim == 3 else 'grey'}")
