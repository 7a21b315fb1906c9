"""Golden files: are they read as they were, here and from the document alone; is each flipped bit seen?"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import golden_files
import independent_reader
from golden_mutants import mutants, take_apart
from independent_codes import Rejected

from rcccodec import codec, container
from rcccodec.errors import FormatError, RccError


def measure_golden(altered: int = 20_000, seed: int = 0) -> dict[str, Any]:
    """Read all golden files, and files altered from them whose checksums were set right again.

    Returns:
        ``files``; how many were ``decoded`` to the committed indices and within one grey level; ``written``
        again as the same bytes, and ``encoded`` so, of ``by_encoder``; ``read`` rightly by the independent
        reader; ``samples`` and how many of them differ by a level; ``failures``. ``alterations``: of so many
        ``files``, how many ``both_refused``, ``both_read`` as the same integers, ``disagreed`` about.
    """
    began = time.perf_counter()
    facts = golden_files.facts()
    names = ("decoded", "written", "encoded", "read", "by_encoder", "samples", "differing_samples")
    counts: dict[str, Any] = {"files": len(facts), **dict.fromkeys(names, 0)}
    failures: list[str] = []
    for place, (name, fact) in enumerate(facts.items()):
        data, model = golden_files.file_bytes(name), golden_files.package_model(fact["model"])
        images, z = golden_files.pixels(name)
        by_encoder = fact["made"] == "by the encoder"
        counts["by_encoder"] += by_encoder
        try:
            apart = [
                np.abs(x.astype(int) - before)
                for x, before in zip(codec.decompress(data, model), images, strict=True)
            ]
            counts["samples"] += sum(one.size for one in apart)
            counts["differing_samples"] += sum(np.count_nonzero(one) for one in apart)
            near = max(one.max() for one in apart) <= 1
            checks = {
                "decoded": near and _same(golden_files.package_integers(fact, data), fact, z),
                "written": golden_files.pack_again(fact) == data,
                "read": _same(golden_files.reader_integers(fact, data), fact, z),
            }
            if by_encoder:
                checks["encoded"] = golden_files.encode_again(fact) == data
        except (RccError, Rejected) as error:
            checks = {f"refused ({error})": False}
        for what, right in checks.items():
            counts[what] = counts.get(what, 0) + right
            failures += [] if right else [f"{name}: not {what}"]
        _tell(f"golden file {place + 1} of {len(facts)}")
    counts["alterations"] = measure_agreement(altered, seed)
    return {**counts, "failures": failures, "seconds": round(time.perf_counter() - began, 1)}


def measure_agreement(altered: int, seed: int) -> dict[str, Any]:
    """Altered files with right checksums: package and document must refuse the same, and read the same."""
    facts, rng = golden_files.facts(), random.Random(seed)
    own = {name: fact for name, fact in facts.items() if fact["model"] not in golden_files.SHIPPED}
    streams = {name: mutants(take_apart(golden_files.file_bytes(name)), rng) for name in own}
    counts = {"files": altered, "both_refused": 0, "both_read": 0, "disagreed": 0}
    failures: list[str] = []
    for trial in range(altered):
        name = rng.choice(list(own))
        fact, data = own[name], next(streams[name])
        package, document = _package(fact, data), _document(fact, data)
        if package == document:
            counts["both_refused" if package is None else "both_read"] += 1
        else:
            counts["disagreed"] += 1
            failures.append(f"{name}: {data.hex()}")
        if trial % 500 == 499:
            _tell(f"altered file {trial + 1} of {altered}")
    return {**counts, "failures": failures[:20]}


def measure_flips(of_each: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Flip every bit of every golden file (or ``of_each`` of it, drawn), one at a time.

    Returns:
        ``flips`` tried; ``by_unpack`` and ``by_document``, refused by the container and by the independent
        reader; ``by_decoding``, refused only when decoded; ``unnoticed``; ``failures``: file and bit.
    """
    began = time.perf_counter()
    facts, rng = golden_files.facts(), random.Random(seed)
    counts = dict.fromkeys(("files", "flips", "by_unpack", "by_document", "by_decoding", "unnoticed"), 0)
    failures: list[str] = []
    for name, fact in facts.items():
        data = bytearray(golden_files.file_bytes(name))
        bits = range(8 * len(data))
        counts["files"] += 1
        for bit in bits if of_each is None else sorted(rng.sample(bits, min(of_each, len(bits)))):
            data[bit // 8] ^= 1 << bit % 8
            damaged = bytes(data)
            data[bit // 8] ^= 1 << bit % 8
            counts["flips"] += 1
            try:
                independent_reader.parse(damaged)
            except Rejected:
                counts["by_document"] += 1
            try:
                container.unpack(damaged)
            except FormatError:
                counts["by_unpack"] += 1
                continue
            try:
                codec.decompress(damaged, golden_files.package_model(fact["model"]))
                counts["unnoticed"] += 1
                failures.append(f"{name}: bit {bit}")
            except RccError:
                counts["by_decoding"] += 1
        _tell(f"{counts['files']} of {len(facts)} golden files, {counts['flips']} flipped bits")
    return {**counts, "failures": failures, "seconds": round(time.perf_counter() - began, 1)}


def _same(read: tuple[list, np.ndarray], fact: dict, z: np.ndarray) -> bool:
    integers = json.loads(json.dumps(read[0]))
    return integers == fact["integers"] and np.allclose(read[1], z, rtol=0, atol=1e-6)


def _package(fact: dict, data: bytes) -> list | None:
    try:
        codec.decompress(data, golden_files.package_model(fact["model"]))
        return json.loads(json.dumps(golden_files.package_integers(fact, data)[0]))
    except RccError:
        return None


def _document(fact: dict, data: bytes) -> list | None:
    try:
        return json.loads(json.dumps(golden_files.reader_integers(fact, data)[0]))
    except Rejected:
        return None


def _tell(line: str) -> None:
    print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
