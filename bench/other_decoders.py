"""How far other decoders and other processors are from this one, in samples and in grey levels.

Another decoder is that of tests/numpy_decoder.py, which shares no code with the package and works in float64.
Another processor is this one, kept from its newer instructions. bench/determinism.py runs these.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rcccodec import codec
from rcccodec.bundle import AnyModel, load_model, model_path
from rcccodec.latent.model import LatentModel
from rcccodec.latent.windows import analyse, synthesise
from rcccodec.settings import choose_settings
from rcccodec.stages import blocks_at

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import numpy_decoder
from numpy_philox import normals

Row = dict[str, Any]
PROCESSORS: tuple[dict[str, str], ...] = (  # with AVX2 at the most, with SSE4 at the most
    {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
)
ON_ANOTHER = """
import json, sys
from pathlib import Path
import numpy as np
from rcccodec import codec
work, model, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
np.savez(work / "out.npz", *codec.decompress((work / "in.rcc").read_bytes(), model))
with np.load(work / "in.npz") as images:
    images = [images[name] for name in images.files]
(work / "out.rcc").write_bytes(codec.compress(images, model, **options).data)
"""


def compare_blocks(model_name: str, count: int, seed: int) -> Row:
    """Random candidates of every stage of a one-shot model, torch against NumPy, both in float64."""
    model, bundle = load_model(model_name), numpy_decoder.read_bundle(model_path(model_name))
    random = np.random.default_rng(seed)
    samples = apart = 0
    largest = 0.0
    for number, rung in enumerate(model.rungs):
        for s, stage in enumerate(choose_settings(model, rung=number).step.stages):
            proposal, k = stage.proposal(), random.integers(0, 1 << 40, count)
            ours = blocks_at(proposal, 16 * k, seed, s)
            generator = bundle.card["rungs"][number]["stages"][s]["generator"]
            theirs = numpy_decoder.generate(
                bundle, generator, rung.stages[s].beta, normals(seed, k, 0, proposal.latent_dim, s)
            )
            largest = max(largest, float(np.abs(ours - theirs).max()))
            rounded = (np.rint(255 * np.clip(y, 0, 1)) for y in (ours, theirs))
            samples, apart = samples + ours.size, apart + int(np.not_equal(*rounded).sum())
    return {
        "what": "another decoder", "model": model_name, "samples": samples, "samples_apart": apart,
        "largest_error_grey_levels": 255 * largest,
    }  # fmt: skip


def compare_photographs(images: Sequence[np.ndarray], model: LatentModel) -> Row:
    """Pictures of noisy latents of every slope, torch in float32 against NumPy in float64."""
    samples = apart = most = 0
    largest, random = 0.0, torch.Generator().manual_seed(0)
    for slope in range(len(model.spec.betas)):
        for x in images:
            mean, log_noise = analyse(model.network, torch.from_numpy(np.array(x)), slope)
            y = mean + log_noise.exp() * torch.randn(mean.shape, generator=random)
            folder, size = model_path(model.name), x.shape[:2]
            exact = numpy_decoder.latent_values(folder, slope, y.double().numpy(), size)
            with torch.inference_mode():
                made = model.network.synthesis(y[None], torch.tensor([slope]))[0].permute(1, 2, 0)
            largest = max(largest, float(np.abs(made[: size[0], : size[1]].numpy() - exact).max()))
            theirs = np.rint(255 * np.clip(exact, 0, 1))
            off = np.abs(synthesise(model.network, y, slope, size).numpy() - theirs)
            samples, apart = samples + off.size, apart + int((off > 0).sum())
            most = max(most, int(off.max()))
    return {
        "what": "another decoder", "model": model.name, "samples": samples, "samples_apart": apart,
        "largest_difference_grey_levels": most, "largest_error_grey_levels": 255 * largest,
    }  # fmt: skip


def compare_processors(images: Sequence[np.ndarray], model: AnyModel, work: Path, **options: Any) -> Row:
    """A file decoded, and made once more, by processes kept from this processor's newer instructions."""
    made = codec.compress(list(images), model, **options)
    expected = [x.astype(int) for x in codec.decompress(made.data, model)]
    (work / "in.rcc").write_bytes(made.data)
    np.savez(work / "in.npz", *images)
    apart = most = same_files = 0
    for processor in PROCESSORS:
        subprocess.run(
            [sys.executable, "-c", ON_ANOTHER, str(work), str(model_path(model.name)), json.dumps(options)],
            check=True, env={**os.environ, **processor},
        )  # fmt: skip
        with np.load(work / "out.npz") as found:
            off = [np.abs(found[f"arr_{i}"] - x) for i, x in enumerate(expected)]
        apart += sum(int((x > 0).sum()) for x in off)
        most = max(most, *(int(x.max()) for x in off))
        same_files += (work / "out.rcc").read_bytes() == made.data
    return {
        "what": "another processor", "model": model.name, **options, "processors": len(PROCESSORS),
        "samples": len(PROCESSORS) * sum(x.size for x in images), "samples_apart": apart,
        "largest_difference_grey_levels": most, "same_files": same_files,
    }  # fmt: skip
