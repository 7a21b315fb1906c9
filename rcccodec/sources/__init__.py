"""What is compressed: data sets, folders and archives of images, laws with a known R(D), shipped samples.

mnist, fashion-mnist          idx files                      -> images (n, 32, 32, 1)
svhn, cifar10                 .mat; batches or image files   -> images (n, 32, 32, 3)
bsds500, kodak, a path        folder, tar archive, image     -> photographs of any sizes
gaussian: laplacian: sphere: ...   parameters, a seed        -> vectors (n, m)
a path ending in .npy         NumPy array, mapped            -> images or vectors
sample-digits, sample-photos  shipped with the package       -> images, photographs
"""

import os
from pathlib import Path

from rcccodec.errors import InputError
from rcccodec.sources import synthetic
from rcccodec.sources.archive import Images, load_images
from rcccodec.sources.array import ENDING as ARRAY_ENDING
from rcccodec.sources.array import load_array
from rcccodec.sources.blocks import grid_blocks, random_blocks
from rcccodec.sources.colour32 import load_cifar_folder, load_svhn
from rcccodec.sources.download import download_with_torchvision
from rcccodec.sources.idx import file_name, load_idx_images
from rcccodec.sources.samples import NAMES as SAMPLE_NAMES
from rcccodec.sources.samples import load_samples
from rcccodec.sources.source import Source

__all__ = ["Images", "Source", "grid_blocks", "load_images", "load_source", "random_blocks", "source_names"]

_IDX_FOLDERS = {  # the last two are where torchvision puts its files
    "mnist": ("mnist", "mnist/MNIST/raw", "MNIST/raw"),
    "fashion-mnist": ("fashion-mnist", "fashion-mnist/FashionMNIST/raw", "FashionMNIST/raw"),
}
_PHOTO_FILES = {
    "bsds500": ("bsds500/images.tar", "bsds500/images.tar.gz", "bsds500/BSR_bsds500.tgz", "bsds500"),
    "kodak": ("kodak",),
}
_WHAT_GOES_WHERE = {
    "mnist": "{idx}.gz into {root}/mnist",
    "fashion-mnist": "{idx}.gz into {root}/fashion-mnist",
    "svhn": "{split}_32x32.mat into {root}/svhn",
    "cifar10": "cifar-10-python.tar.gz, or images.tar.gz with train and test folders, into {root}/cifar10",
    "bsds500": "images.tar with images/train, val and test, or that folder itself, into {root}/bsds500",
    "kodak": "the images (kodim01.png, ...) into {root}/kodak",
}


def source_names() -> list[str]:
    """Every name `load_source` knows, paths aside."""
    return [*_WHAT_GOES_WHERE, *synthetic.NAMES, *SAMPLE_NAMES]


def load_source(
    spec: str,
    split: str,
    data_root: Path | None = None,
    limit: int | None = None,
    *,
    seed: int = 0,
    download: bool = True,
) -> Source:
    """Load one split of a source.

    Args:
        spec: one of `source_names`, a synthetic source with parameters (``gaussian:m=20,decay=0.5``), or the
            path of a folder, tar archive, image or .npy array, looked for from here, then under the data
            root. Names come first.
        split: "train" or "test".
        data_root: the folder that holds the data sets; the RCC_DATA environment variable when None.
        limit: how many items, from the start of the source's order; None for all (10,000 of a law).
        seed: of a synthetic source; others ignore it.
        download: whether a missing data set may be fetched into the data root, if torchvision is installed.

    Returns:
        Source; the kind is in the table at the head of this package.

    Raises:
        InputError: unknown, missing or damaged; the message says which file goes where.
        LimitError: an image or a sample is too large.
    """
    if split not in ("train", "test"):
        raise InputError(f"{spec}: the split is train or test, not {split!r}")
    if (limit is not None and limit < 1) or seed < 0:
        raise InputError(f"{spec}: the limit is at least 1 and the seed at least 0")
    if spec in SAMPLE_NAMES:
        return load_samples(spec, split, limit)
    root = data_root or (Path(os.environ["RCC_DATA"]) if os.environ.get("RCC_DATA") else None)
    if spec in _WHAT_GOES_WHERE:
        source = _load_standard(spec, split, root, limit)
        if source is None and download and root and download_with_torchvision(spec, root):
            source = _load_standard(spec, split, root, limit)
        if source is None:
            raise InputError(_missing(spec, split, root))
        return source
    if spec.partition(":")[0] in synthetic.NAMES:
        return synthetic.load_synthetic(spec, split, limit, seed)
    for path in (Path(spec).expanduser(), *([root / spec] if root else [])):
        if spec and path.suffix == ARRAY_ENDING and path.is_file():
            return load_array(path, spec, split, limit)
        if spec and path.exists():
            images = load_images(path, split, limit)
            return Source(spec, images.arrays, notes=images.notes)
    raise InputError(f"{spec}: no such file or folder, nor one of {', '.join(source_names())}")


def _load_standard(name: str, split: str, root: Path | None, limit: int | None) -> Source | None:
    """The data set from its files under ``root``, None if they are not there."""
    if name == "kodak" and split == "train":
        raise InputError("kodak: these images are for tests only; train on others")
    if root is None:
        return None
    if name in _IDX_FOLDERS:
        for folder in _IDX_FOLDERS[name]:
            for ending in (".gz", ""):
                path = root / folder / f"{file_name(split)}{ending}"
                if path.is_file():
                    return load_idx_images(path, name, limit)
    elif name == "cifar10":
        return load_cifar_folder(root / name, name, split, limit)
    elif name == "svhn":
        path = root / name / f"{split}_32x32.mat"
        return load_svhn(path, name, limit) if path.is_file() else None
    else:
        for place in _PHOTO_FILES[name]:
            if (root / place).exists():
                images = load_images(root / place, None if name == "kodak" else split, limit)
                return Source(name, images.arrays, notes=images.notes)
    return None


def _missing(name: str, split: str, root: Path | None) -> str:
    where = _WHAT_GOES_WHERE[name].format(idx=file_name(split), split=split, root=root or "DATA")
    how = "or name another data root" if root else "and name DATA"
    return f"{name}: its {split} files are missing: put {where}, {how} with --data-root or RCC_DATA"
