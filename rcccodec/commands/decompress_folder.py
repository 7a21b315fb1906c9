"""``rcc decompress FOLDER -o FOLDER``: every file below one to a picture, or a folder, below the other."""

import os
from pathlib import Path, PurePosixPath

from rcccodec.commands import console
from rcccodec.commands.decompress import decompress_file, decompress_intact
from rcccodec.errors import OutputError, RccError


def decompress_folder(
    source: Path,
    output: Path,
    model: str | None,
    max_pixels: int | None,
    *,
    overwrite: bool,
    quiet: bool,
    keep_going: bool,
) -> None:
    """Every .rcc file below ``source`` to its place below ``output``; what cannot be read is passed over.

    Raises:
        OutputError: at once. The kind of the first file's failure: at the end.
    """
    from rcccodec import container
    from rcccodec.atomic import make_folder, sweep
    from rcccodec.folder import list_files

    names = list_files(source, [".rcc"])
    failures: list[RccError] = []
    archives, readable = set(), []
    for name in names:
        try:
            with console.about(str(source / name)):
                data = console.read_input(str(source / name))
                if keep_going:
                    num_images = container.salvage(data).num_images
                    count = 2 if num_images is None else num_images  # an archive, whatever is left of it
                else:
                    count = sum(group.count for group in container.unpack(data)[1])
        except RccError as error:
            console.remark(f"error: {error}", quiet=False)
            failures.append(error)
            continue
        readable.append(name)
        if count > 1:
            archives.add(name)
    targets = _targets(names, archives)
    sweep(output / target for target in targets.values())
    for name in readable:
        try:
            target = output / targets[name]
            make_folder(target.parent)
            end = os.sep if name in archives else ""
            if keep_going:
                decompress_intact(str(source / name), f"{target}{end}", model, max_pixels, overwrite, True)
                continue
            options = {"max_pixels": max_pixels} if max_pixels else {}
            decompress_file(str(source / name), f"{target}{end}", model, options, overwrite, True)
        except OutputError:
            raise
        except RccError as error:
            console.remark(f"error: {error}", quiet=False)
            failures.append(error)
    if not quiet:
        whole = " whole" if keep_going else ""
        console.say(f"{output}: {len(names) - len(failures)} of {len(names)} files{whole}")
    if failures:
        left = f"{len(failures)} of {len(names)} files could not be decompressed; the others are"
        if keep_going:
            left = f"{len(failures)} of {len(names)} files are not whole; what is intact of them is there"
        raise type(failures[0])(left)


def _targets(names: list[str], archives: set[str]) -> dict[str, str]:
    """Where each file goes: a picture, or a folder that holds nothing else for an archive."""
    from rcccodec.folder import mirrored

    folders = {str(above).casefold() for name in names for above in PurePosixPath(name).parents}

    def full(name: str) -> str:
        return name if name in archives else f"{name}.png"

    def short(name: str) -> str:
        stem = name[:-4].removesuffix(".png")
        target = stem if name in archives else f"{stem}.png"
        return full(name) if target.casefold() in folders else target

    return mirrored(names, short, full)
