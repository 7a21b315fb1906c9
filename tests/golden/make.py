"""Made the golden files, and makes those that recipes.py has gained. Golden files are never remade.

python tests/golden/make.py
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from frozen_models import write_models
from recipes import RECIPES

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import golden_files

from rcccodec import codec, container
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import chunks_of, sent_rates
from rcccodec.latent.trellis import schedule
from rcccodec.latent.windows import grid_of, tiles_of
from rcccodec.layout import Layout
from rcccodec.settings import read_settings

HERE = Path(__file__).resolve().parent


def numbers(count: int, below: int, kind: str) -> list[int]:
    """Indices below ``below``: zeros, or of all magnitudes, with the last one first."""
    if kind == "zero":
        return [0] * count
    some = [int(hashlib.sha256(str(i).encode()).hexdigest(), 16) for i in range(count)]
    return [below - 1, *(number % below >> number % 41 for number in some)][:count]


def integers_by_hand(fact: dict, kind: str, measure: int, one_class: int | None) -> list:
    """Integers for every group, in the form of golden.json."""
    model, header = golden_files.package_model(fact["model"]), golden_files.header_of(fact)
    if not isinstance(model, LatentModel):
        settings, parts = read_settings(header, model), []
        for _, count, width, height in fact["groups"]:
            layout = Layout(count, height, width, False, settings.tile)
            row = []
            for size, one in zip(settings.joint_sizes(), settings.step.stages, strict=True):
                blocks = layout.num_blocks(one.block)
                shared = blocks // size if size > 1 else 0
                all_of_them = numbers(shared + blocks - size * shared, fact["num_candidates"], kind)
                row.append([all_of_them[:shared], all_of_them[shared:]])
            parts.append(row)
        return parts
    prior, parts = model.priors[header.rung], []
    for _, count, width, height in fact["groups"]:
        images = []
        for image in range(count):
            tiles = []
            for *_, rows, columns in tiles_of(*grid_of(height, width)):
                classes = (np.arange(rows * columns) * 7 + image).reshape(rows, columns) % model.spec.classes
                classes = classes if one_class is None else np.full_like(classes, one_class)
                sent = sent_rates(prior, classes)
                tile = {"measure": measure, "classes": classes.tolist()}
                if fact["coder"] == "trellis":
                    count_bits = schedule(sent, measure).num_bits
                    tile["path"] = "".join(str(n % 2) for n in numbers(count_bits, 2**40, kind))
                else:
                    starts, _ = chunks_of(sent, measure)
                    tile["indices"] = numbers(len(starts) - 1, fact["num_candidates"], kind)
                tiles.append(tile)
            images.append(tiles)
        parts.append(images)
    return parts


def make(name: str, one: dict) -> tuple[bytes, dict]:
    """A file and its facts."""
    if "by_hand" in one:
        default = {"rung": 0, "indices": "any", "measure": 64, "one_class": None}
        said = {**default, **one["by_hand"], "model": one["model"]}
        kind, measure, one_class = (said.pop(key) for key in ("indices", "measure", "one_class"))
        said["integers"] = integers_by_hand(said, kind, measure, one_class)
        data = golden_files.pack_again(said)
        fact = {"model": one["model"], "made": "by hand"}
    else:
        model, pictures = golden_files.package_model(one["model"]), golden_files.sources(one)
        data = codec.compress(pictures, model, **one["options"]).data
        header, groups = container.unpack(data)
        if one["groups"]:
            assert header.records, f"{name}: not several groups"
            data = container.pack(replace(header, records=False), groups)
        fact = {
            "model": one["model"],
            "made": "by the encoder",
            "sources": one["sources"],
            "options": one["options"],
        }
    fact |= golden_files.header_facts(data)
    fact["integers"], z = golden_files.package_integers(fact, data)
    images = codec.decompress(data, golden_files.package_model(one["model"]))
    kept = {f"image{i}": x for i, x in enumerate(images)}
    np.savez_compressed(HERE / f"{name}.npz", z=z, **kept)
    return data, fact


def main() -> None:
    write_models(HERE / "models")
    table = HERE / "golden.json"
    known = json.loads(table.read_text()) if table.exists() else {}
    for name, one in RECIPES.items():
        if name in known or (HERE / f"{name}.rcc").exists():
            print(f"{name}: there already, left as it is", file=sys.stderr)
            continue
        data, known[name] = make(name, one)
        (HERE / f"{name}.rcc").write_bytes(data)
        print(f"{name}: version {known[name]['version']}, {len(data)} bytes", file=sys.stderr)
        lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in known.items()]
        table.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
