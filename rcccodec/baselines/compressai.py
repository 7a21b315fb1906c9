"""CompressAI beside a CPU build of torch: the one place that imports it, and says so when it is missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from rcccodec.errors import InputError

_EXTRA = "pip install 'rcccodec[bench]'"
_OPERATOR = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[object] = []  # torch drops a library's operators with the object


def import_compressai(name: str = "compressai") -> ModuleType:
    """CompressAI or one of its modules, such as ``compressai.entropy_models``.

    torchvision's wheels carry CUDA operators that do not load beside a CPU torch; its import then fails on
    schemas that are not there. Declaring these lets it through, and CompressAI needs no more of it.

    Raises:
        InputError: CompressAI is not installed, or does not load.
    """
    try:
        _declare_missing_operators()
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"learned transform coding needs CompressAI: {_EXTRA} ({cause:.120})") from error


def _declare_missing_operators() -> None:
    if _declared:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # "operator torchvision::nms does not exist"
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}{_OPERATOR}")
        _declared.append(library)
