"""What the codec is measured against: nonlinear transform coding on CompressAI (the extra ``bench``).

    spec       sizes                      ntc, photo   networks
    rounding   noise, soft, hard          tables       integer frequency tables, CompressAI's rANS coder
    training   R + beta D at all slopes   coding       codes to symbols and back
    bundle     folders with weights       file         the bytes a baseline writes
    baseline   compress and decompress    refine       an encoder that searches
    run        what ``rcc train-ntc`` does

Importing this package loads neither torch nor CompressAI.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rcccodec.baselines.baseline import Baseline

__all__ = ["list_baselines", "load_baseline"]


def load_baseline(name_or_path: str | os.PathLike[str]) -> Baseline:
    """The baseline of this name, looked for where models are, or in this folder.

    Raises:
        ModelError: missing or damaged. InputError: CompressAI is not installed.
    """
    from rcccodec.baselines.baseline import Baseline
    from rcccodec.baselines.bundle import load_bundle
    from rcccodec.baselines.compressai import import_compressai

    bundle = load_bundle(name_or_path)
    import_compressai()
    return Baseline(bundle)


def list_baselines() -> list[str]:
    """Names of the baselines that can be found, sorted."""
    from rcccodec.baselines.bundle import list_bundles

    return list_bundles()
