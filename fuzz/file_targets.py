"""Targets of what is read from files and is no ``.rcc``: bundles, checkpoints, pictures, data sets."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from fuzz import data_files, pictures
from fuzz.codec_targets import MAX_PIXELS, TESTS, write_models
from fuzz.json_values import mutate_text
from fuzz.target import Scratch, Target, digest, expect
from fuzz.tensors import edit_bundle, edit_tensors, join, split
from rcccodec import codec
from rcccodec.baselines import file as baseline_file
from rcccodec.baselines.bundle import load_bundle
from rcccodec.bundle import load_model
from rcccodec.checkpoint import load_checkpoint, save_checkpoint
from rcccodec.errors import ModelError
from rcccodec.folder import JOURNAL, Journal
from rcccodec.images import read_image
from rcccodec.sources.archive import load_images
from rcccodec.sources.array import load_array
from rcccodec.sources.colour32 import load_svhn, parse_python_batch
from rcccodec.sources.idx import load_idx_images

IMAGE_PIXELS = 1 << 16


def file_targets(folder: Path) -> list[Target]:
    """The targets; they write what they read below ``folder``."""
    scratch = Scratch(folder / "scratch")
    return [
        *_bundle_targets(folder, scratch),
        Target("checkpoint", partial(_checkpoint, scratch), _checkpoints(scratch), edit_tensors,
               is_guarded=True),
        Target("baseline-file", _baseline_file, _baseline_files(), _edit_baseline_file, is_guarded=True,
               count_share=2),
        Target("image", _image, tuple(pictures.picture_files()), pictures.edit, count_share=5),
        Target("array", partial(_array, scratch), tuple(data_files.array_files()), data_files.edit_array),
        Target("idx", partial(_idx, scratch), tuple(data_files.idx_files()), data_files.edit_idx),
        Target("tar", partial(_tar, scratch), tuple(data_files.tar_files()), data_files.edit_tar),
        Target("batch", _batch, tuple(data_files.batch_files()), count_share=0.5),
        Target("mat", partial(_mat, scratch), tuple(data_files.mat_files()) or (b"",), count_share=0.3),
        Target("journal", partial(_journal, scratch), _journals(scratch), _edit_journal, count_share=0.5),
    ]  # fmt: skip


def _bundle_targets(folder: Path, scratch: Scratch) -> list[Target]:
    models = write_models(folder)
    x = np.arange(8 * 8, dtype=np.uint8).reshape(8, 8)
    targets = []
    for kind, names in (("bundle", ("grey", "colour")), ("bundle-latent", ("latent",))):
        seeds = tuple(join(*_bundle(models[name], "model.json")) for name in names)
        files = [codec.compress(x, load_model(models[name])).data for name in names]
        targets.append(Target(kind, partial(_model, scratch, files), seeds, edit_bundle, is_guarded=True))
    baselines = _tiny_baselines(folder / "baselines")
    seeds = tuple(join(*_bundle(path, "baseline.json")) for path in baselines)
    targets.append(Target("bundle-baseline", partial(_baseline, scratch), seeds, edit_bundle))
    return targets


def _bundle(path: Path, description: str) -> tuple[bytes, bytes]:
    return (path / description).read_bytes(), (path / "weights.safetensors").read_bytes()


def _tiny_baselines(folder: Path) -> list[Path]:
    """None without CompressAI."""
    try:
        sys.path.insert(0, str(TESTS))
        from tiny_baselines import SPECS, write_tiny_baselines

        if not folder.is_dir():
            write_tiny_baselines(folder)
    except Exception:
        return []
    return [folder / name for name in SPECS if name not in ("factorized", "hyperprior")]


def _model(scratch: Scratch, files: list[bytes], data: bytes) -> str:
    """The images that a loaded model makes of the files made with the sound ones, and others of its own."""
    description, weights = split(data)
    scratch.put("model.json", description)
    scratch.put("weights.safetensors", weights)
    model = load_model(scratch.folder)
    images = []
    for file in files:
        try:
            images += codec.decompress(file, model, max_pixels=MAX_PIXELS)
        except ModelError:  # made with another
            continue
    if not images:  # a stranger: what it makes must be within bounds, but compares with nothing
        random = Random(len(data))
        codec.draw_samples(model, random.randrange(len(model.rungs)), 1, None)
        raise ModelError("a model of its own")
    return digest(images)


def _baseline(scratch: Scratch, data: bytes) -> Any:
    from rcccodec.baselines.baseline import Baseline

    description, weights = split(data)
    scratch.put("baseline.json", description)
    scratch.put("weights.safetensors", weights)
    baseline = Baseline(load_bundle(scratch.folder))
    return baseline.sha256


def _checkpoints(scratch: Scratch) -> tuple[bytes, ...]:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "weights": torch.randn(5, 4, generator=generator),
        "step": torch.tensor(7.0),
        "none": torch.zeros(0),
    }
    files = []
    for values in ({"step": 3, "plan": {"slopes": [0.1, 1.0]}, "name": "ä"}, {}):
        path = scratch.folder / "checkpoint"
        save_checkpoint(path, tensors, values)
        files.append(path.read_bytes())
    return tuple(files)


def _checkpoint(scratch: Scratch, data: bytes) -> str:
    tensors, values = load_checkpoint(scratch.put("checkpoint", data))
    flat = {name: t.reshape(-1).contiguous().view(torch.uint8).numpy() for name, t in sorted(tensors.items())}
    return digest(flat.values()) + repr((sorted(tensors), values))


def _baseline_files() -> tuple[bytes, ...]:
    files = [
        baseline_file.NtcFile(b"abcd", 1, False, (baseline_file.Group(3, (8, 8, 1)),), (bytes(8),)),
        baseline_file.NtcFile(
            b"abcd", 0, True, (baseline_file.Group(1, (300, 20, 3)), baseline_file.Group(1, (5, 1, 0))),
            (b"abcd", b"efghijkl"),
        ),
    ]  # fmt: skip
    return tuple(map(baseline_file.pack, files))


def _baseline_file(data: bytes) -> Any:
    found = baseline_file.unpack(data)
    expect(baseline_file.unpack(baseline_file.pack(found)) == found, "pack does not keep what unpack read")
    return found


def _edit_baseline_file(random: Random, data: bytes, seeds: Any) -> bytes:
    from fuzz.mutate import mutate
    from fuzz.rcc_files import mend

    return mend(mutate(random, data, seeds))


def _image(data: bytes) -> str:
    image, notes = read_image(data, max_pixels=IMAGE_PIXELS)
    expect(image.dtype == np.uint8 and image.shape[2:] in ((), (3,)), f"an image {image.dtype} {image.shape}")
    expect(all("\n" not in note for note in notes), "a note of several lines")
    return digest([image])


def _array(scratch: Scratch, data: bytes) -> str:
    source = load_array(scratch.put("a.npy", data), "a.npy", "train", None)
    return digest([np.asarray(source.x)])


def _idx(scratch: Scratch, data: bytes) -> str:
    return digest([np.asarray(load_idx_images(scratch.put("idx", data), "idx", None).x)])


def _tar(scratch: Scratch, data: bytes) -> str:
    return digest(load_images(scratch.put("a.tar", data), "train", 10).arrays)


def _batch(data: bytes) -> str:
    return digest([parse_python_batch(data, "batch")])


def _mat(scratch: Scratch, data: bytes) -> str:
    return digest([np.asarray(load_svhn(scratch.put("train_32x32.mat", data), "svhn", None).x)])


def _journals(scratch: Scratch) -> tuple[bytes, ...]:
    path = scratch.folder / JOURNAL
    path.unlink(missing_ok=True)
    journal = Journal(scratch.folder)
    source, made = scratch.put("source.png", b"source"), scratch.put("made.rcc", b"made")
    journal.begin()
    for name in ("made.rcc", "b/ä.rcc"):
        journal.add(name, _sha256(source.read_bytes()), "request", made.read_bytes(), {"file_bytes": 4})
    return (path.read_bytes(),)


def _sha256(data: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(data).digest()


def _edit_journal(random: Random, data: bytes, _: Any) -> bytes:
    """Lines changed, and hashed anew as the journal does."""
    import json

    from rcccodec.folder import _line

    lines = []
    for line in data.splitlines():
        try:
            entry = json.loads(mutate_text(random, line))
            entry.pop("line_sha256", None)
            lines.append(_line(entry).encode())
        except (ValueError, TypeError, AttributeError, RecursionError):
            lines.append(line + b"\n")
    return b"".join(lines)


def _journal(scratch: Scratch, data: bytes) -> Any:
    scratch.put(JOURNAL, data)
    kept = Journal(scratch.folder).kept("made.rcc", scratch.folder / "source.png", "request")
    expect(kept is None or isinstance(kept["file_bytes"], int), "a report without the size of its file")
    return repr(kept)
