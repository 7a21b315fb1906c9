"""Pictures of an archive of latents one by one: several processes, and an interrupted one goes on.

    picture -> analysis and search, by whichever process is free -> payload, kept when finished -> archive

Nothing of a picture depends on the others, so the file is that of one process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import rcccodec
from rcccodec.errors import FormatError
from rcccodec.jobs import run_jobs
from rcccodec.latent import bands
from rcccodec.latent.codec import Coded, Latents, Progress
from rcccodec.latent.file import LatentSettings, encode_picture
from rcccodec.latent.payload import Channel, Reader
from rcccodec.parts import hash_pictures, model_of_task, note_parts, read_part, tell_part, write_part

FACTS = ("class_bytes", "dimension_bytes", "divergence_bits", "expected_bits")  # of `Coded`, kept as they are


def encode_in_parts(
    sources: Sequence[NDArray[np.uint8]],
    latents: Sequence[Latents] | None,
    settings: LatentSettings,
    device: str,
    progress: Progress | None,
    *,
    model: str,
    jobs: int = 1,
    keep: Path | None = None,
    used: dict[Path, bool] | None = None,
) -> list[Coded]:
    """What `rcccodec.latent.file.encode_pictures` returns, of pictures that ``jobs`` processes share.

    Args:
        model: name or folder that every process loads the model of ``settings`` from.
        keep: folder where finished pictures are put, each under the hash of all that its payload depends on,
            and looked for; made when the first is finished. None keeps none.
        used: as in `rcccodec.parts.choose_in_parts`.
        others: as in `rcccodec.latent.file.encode_pictures`.

    Raises:
        OutputError: a picture cannot be kept. ModelError: ``model`` has become another one meanwhile.
    """
    names = [_name(x, settings) for x in sources]
    found = [
        None if keep is None else _restore(read_part(keep / name), settings, x)
        for name, x in zip(names, sources, strict=True)
    ]
    missing = [p for p, coded in enumerate(found) if coded is None]
    note_parts(used, keep, names, found)
    done = len(sources) - len(missing)

    def search_here() -> Iterator[tuple[int, Coded]]:
        for p in missing:
            told = None if progress is None else partial(tell_part, progress, done, len(sources))
            given = None if latents is None else latents[p]
            yield p, encode_picture(sources[p], given, settings, device, told)

    if jobs > 1 and len(missing) > 1:
        tasks = [
            _Task(p, sources[p], settings.slope, settings.channel, settings.gain, device, model,
                  settings.model.sha256)
            for p in missing
        ]  # fmt: skip
        results = (
            (p, _decoded(data, facts, settings, sources[p]))
            for p, data, facts in run_jobs(_search_task, tasks, jobs)
        )
    else:
        results = search_here()
    for p, coded in results:
        found[p] = coded
        if keep is not None:
            write_part(keep / names[p], _content(coded))
        done += 1
        if progress is not None:
            bits = 8 * sum(len(one.data) for one in found if one is not None)
            progress(bits, max(bits, 1) * len(sources) // done)  # those to come are guessed alike
    return [coded for coded in found if coded is not None]


@dataclass(frozen=True)
class _Task:
    """A picture for another process, and its settings with the model's hash for the model."""

    number: int
    source: NDArray[np.uint8]
    slope: int
    channel: Channel
    gain: float
    device: str
    model: str
    model_sha256: str


def _search_task(task: _Task) -> tuple[int, bytes, dict[str, float]]:
    """Number, payload and facts; latents would be many times as large, and reading makes them again."""
    model = model_of_task(task.model, task.model_sha256)
    settings = LatentSettings(model, task.slope, task.channel, task.gain)
    coded = encode_picture(task.source, None, settings, task.device, None)
    return task.number, coded.data, _facts(coded)


def _facts(coded: Coded) -> dict[str, float]:
    return {name: getattr(coded, name) for name in FACTS}


def _name(x: NDArray[np.uint8], settings: LatentSettings) -> str:
    made_by = f"{rcccodec.__version__} {settings.model.sha256} {settings.header()} gain {settings.gain!r}"
    return f"{hash_pictures(made_by, [x])}.latents"


def _content(coded: Coded) -> bytes:
    return json.dumps(_facts(coded)).encode() + b"\n" + coded.data


def _restore(content: bytes | None, settings: LatentSettings, x: NDArray[np.uint8]) -> Coded | None:
    """A picture that was kept, or None if it is not there whole."""
    if content is None:
        return None
    head, _, data = content.partition(b"\n")
    try:
        facts = json.loads(head)
        return _decoded(data, {name: facts[name] for name in FACTS}, settings, x)
    except (FormatError, ValueError, KeyError, TypeError):  # kept by another program
        return None


def _decoded(data: bytes, facts: dict[str, float], settings: LatentSettings, x: NDArray[np.uint8]) -> Coded:
    reader = Reader(data)
    y = bands.read_latents(settings.model, settings.slope, settings.channel, reader, x.shape[:2])
    reader.finish()
    return Coded(data, y, **facts)  # type: ignore[arg-type]  # bytes are whole numbers in JSON too
