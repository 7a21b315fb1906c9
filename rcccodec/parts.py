"""The search of an archive in parts: several processes, and an interrupted one goes on where it was.

    images -> runs of images, no index shared across their ends -> stages.choose of each -> put together

A block's choice depends on the common randomness and on the block alone, or on those that share its index, so
cutting where no index is shared changes nothing: the file is that of one search. What it costs is that every
part makes all the candidates again.
"""

import hashlib
import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

import rcccodec
from rcccodec.atomic import make_folder, short_name, sweep, write_bytes
from rcccodec.bundle import load_model
from rcccodec.errors import ModelError, OutputError
from rcccodec.jobs import run_jobs
from rcccodec.layout import group_images
from rcccodec.proposals.generator import GeneratorProposal
from rcccodec.settings import Settings
from rcccodec.stages import Progress, choose

Chosen = tuple[list[np.ndarray], float]  # int64 addresses per stage, certified share

PART_BLOCKS = 1 << 15  # about as many at most: smaller parts make an interruption cheap and the search dear
LEAST_BLOCKS = 1 << 10  # that are worth a process: below, making the candidates is most of the work
_HASH_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Part:
    """A run of images: from ``first`` up to ``last``, and the blocks of every group and stage in it."""

    first: int
    last: int
    counts: list[list[int]]


def cut(sources: Sequence[np.ndarray], settings: Settings, blocks: int) -> list[Part]:
    """Runs of images of ``blocks`` blocks (of all stages) or a little more; no end cuts a shared index."""
    stages = settings.step.stages
    parts: list[Part] = []
    first, last = 0, 0
    counts: list[list[int]] = []
    for layout in group_images(sources, settings.tile, apart=settings.apart):
        own = [replace(layout, count=1).num_blocks(stage.block) for stage in stages]
        # images that fill whole shared indices of every stage
        unit = math.lcm(*(g // math.gcd(g, n) for g, n in zip(settings.joint_sizes(), own, strict=True)))
        left = layout.count
        while left:
            wanted = max(1, blocks - sum(map(sum, counts)))
            taken = min(left, -(-wanted // (sum(own) * unit)) * unit)
            counts.append([taken * n for n in own])
            last, left = last + taken, left - taken
            if sum(map(sum, counts)) >= blocks:
                parts.append(Part(first, last, counts))
                first, counts = last, []
    return [*parts, Part(first, last, counts)] if counts else parts


def choose_in_parts(
    sources: list[np.ndarray],
    counts: list[list[int]],
    settings: Settings,
    decoders: list[GeneratorProposal],
    device: str,
    progress: Progress | None,
    *,
    model: str,
    jobs: int = 1,
    keep: Path | None = None,
    used: dict[Path, bool] | None = None,
) -> tuple[list[np.ndarray], float]:
    """What `rcccodec.stages.choose` returns, from parts of the images that ``jobs`` processes share.

    Args:
        model: name or folder that every process loads the model of ``settings`` from.
        keep: folder where finished parts are put, each under the hash of all that it depends on, and looked
            for; made when the first is finished. None keeps none.
        used: is told the file of every part, and whether it is this call that makes it.
        others: as in `rcccodec.stages.choose`.

    Raises:
        OutputError: a part cannot be kept. ModelError: ``model`` has become another one meanwhile.
    """
    shared_out = max(LEAST_BLOCKS, math.ceil(sum(map(sum, counts)) / jobs))
    parts = cut(sources, settings, min(PART_BLOCKS, shared_out))
    pieces = [sources[part.first : part.last] for part in parts]
    names = [_name(piece, settings) for piece in pieces]
    found = [
        None if keep is None else _load(keep / name, part) for name, part in zip(names, parts, strict=True)
    ]
    missing = [p for p, chosen in enumerate(found) if chosen is None]
    note_parts(used, keep, names, found)
    done = len(parts) - len(missing)

    def search(p: int) -> tuple[int, Chosen]:
        told = None if progress is None else partial(tell_part, progress, done, len(parts))
        return p, choose(pieces[p], parts[p].counts, settings, decoders, device, told)

    if jobs > 1 and len(missing) > 1:
        values = {field.name: getattr(settings, field.name) for field in fields(settings)}
        values["model"] = settings.model.sha256
        tasks = [_Task(p, pieces[p], parts[p].counts, values, device, model) for p in missing]
        results = run_jobs(_search_task, tasks, jobs)
    else:
        results = map(search, missing)
    for p, chosen in results:
        found[p] = chosen
        if keep is not None:
            _save(keep / names[p], chosen)
        done += 1
        if progress is not None:
            progress(done * settings.num_candidates, len(parts) * settings.num_candidates)
    whole = [chosen for chosen in found if chosen is not None]
    addresses = [np.concatenate(stage) for stage in zip(*(one for one, _ in whole), strict=True)]
    blocks = [sum(map(sum, part.counts)) for part in parts]
    return addresses, float(np.average([certified for _, certified in whole], weights=blocks))


def tell_part(progress: Progress, part: int, parts: int, done: int, total: int) -> None:
    """Tell what is done of all parts, each as large as this one."""
    progress(part * total + done, parts * total)


@dataclass(frozen=True)
class _Task:
    """A part for another process; ``settings`` has the model's hash for the model."""

    number: int
    sources: list[np.ndarray]
    counts: list[list[int]]
    settings: dict[str, Any]
    device: str
    model: str


def _search_task(task: _Task) -> tuple[int, Chosen]:
    model = model_of_task(task.model, task.settings["model"])
    settings = Settings(**{**task.settings, "model": model})
    decoders = [stage.proposal() for stage in settings.step.stages]
    return task.number, choose(task.sources, task.counts, settings, decoders, task.device, None)


def model_of_task(name: str, sha256: str) -> Any:
    """The model of a task, loaded once for all tasks of a process.

    Raises:
        ModelError: it has another hash than in the process that gave the task; else as `load_model`.
    """
    model = _loaded(name)
    if model.sha256 != sha256:
        raise ModelError(f"{name}: changed while it was in use")
    return model


_loaded = lru_cache(maxsize=1)(load_model)


def hash_pictures(made_by: str, sources: Sequence[np.ndarray]) -> str:
    """SHA-256 of pictures and of all else that a part depends on: its name."""
    hashed = hashlib.sha256(made_by.encode())
    for x in sources:
        hashed.update(f"{x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return hashed.hexdigest()


def read_part(file: Path) -> bytes | None:
    """What `write_part` put there, or None if it is not there whole."""
    try:
        kept = file.read_bytes()
    except OSError:
        return None
    content = kept[_HASH_BYTES:]
    return content if kept[:_HASH_BYTES] == _seal(file, content) else None


def write_part(file: Path, content: bytes) -> None:
    """Keep a finished part, behind a hash of it and of its name, in a folder that is made if missing.

    Raises:
        OutputError: it cannot be written.
    """
    for is_last in (False, True):
        make_folder(file.parent)
        try:
            write_bytes(file, _seal(file, content) + content)
            return
        except OutputError as error:
            if not is_last and isinstance(error.__cause__, FileNotFoundError):
                continue  # another run for the same OUT ended and took the empty folder away
            with suppress(OSError):
                file.parent.rmdir()  # if this is the first
            raise


def parts_folder(output: Path) -> Path:
    """Where the parts of an archive are kept until it is whole."""
    return output.with_name(f".{short_name(output.name)}.parts")


def note_parts(
    used: dict[Path, bool] | None, keep: Path | None, names: Sequence[str], found: Sequence[object]
) -> None:
    """Tell ``used`` of parts: False for those that were ``found``, True for those that are to be made."""
    if used is not None and keep is not None:
        for name, one in zip(names, found, strict=True):
            used[keep / name] = used.get(keep / name, False) or one is None


def forget_parts(keep: Path, files: Iterable[Path]) -> None:
    """Remove these parts, what killed processes left of them, and the folder ``keep`` if nothing else is in
    it: parts of another run, which may go on or be taken up again, stay."""
    files = list(files)
    sweep(files)
    for file in files:
        with suppress(OSError):
            file.unlink()
    with suppress(OSError):
        keep.rmdir()


def _seal(file: Path, content: bytes) -> bytes:
    return hashlib.sha256(f"{file.name}\n".encode() + content).digest()


def _name(sources: Sequence[np.ndarray], settings: Settings) -> str:
    made_by = f"{rcccodec.__version__} {settings.model.sha256} {settings.header()} {settings.apart}"
    return f"{hash_pictures(made_by, sources)}.npz"


def _load(file: Path, part: Part) -> Chosen | None:
    """A part that was kept, or None if it is not there whole."""
    content = read_part(file)
    if content is None:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            addresses = [kept[f"stage{s}"] for s in range(len(kept.files) - 1)]
            certified = float(kept["certified"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # kept by another program
        return None
    sizes = [sum(stage) for stage in zip(*part.counts, strict=True)]
    fits = [one.dtype == np.int64 and one.shape == (n,) for one, n in zip(addresses, sizes, strict=False)]
    return (addresses, certified) if len(addresses) == len(sizes) and all(fits) else None


def _save(file: Path, chosen: Chosen) -> None:
    addresses, certified = chosen
    content = io.BytesIO()
    np.savez(content, certified=certified, **{f"stage{s}": one for s, one in enumerate(addresses)})
    write_part(file, content.getvalue())
