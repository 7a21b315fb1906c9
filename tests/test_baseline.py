"""Baselines: bytes and back for any number of images, bundles, and what damage does to them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_baselines import SPECS, write_tiny_baselines

from rcccodec.baselines import list_baselines, load_baseline
from rcccodec.baselines.bundle import load_bundle
from rcccodec.baselines.coding import code_parts, part_bits
from rcccodec.baselines.compressai import import_compressai
from rcccodec.baselines.networks import (
    build_network,
    coding_tensors,
    loaded_tensors,
    round_to_stored,
    stored_tensors,
)
from rcccodec.baselines.spec import NtcSpec
from rcccodec.errors import FormatError, InputError, LimitError, ModelError
from rcccodec.model_search import list_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baselines")
    write_tiny_baselines(path)
    return path


def _items(name: str, count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(count)
    spec = SPECS[name]
    if spec.kind == "vector":
        return list(generator.normal(size=(count, *spec.shape)))
    if spec.photographs:
        sizes = [(70, 33, 3), (70, 33, 3), (16, 64), (1, 1, 3)]
        return [generator.integers(0, 256, sizes[i % 4], np.uint8) for i in range(count)]
    images = generator.integers(0, 256, (count, *spec.shape), np.uint8)
    return [image[:, :, 0] if spec.shape[2] == 1 else image for image in images]


@pytest.mark.parametrize("string_each", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_any_number_of_items_comes_back_in_number_shape_and_type(folder, name, string_each):
    baseline = load_baseline(folder / name)
    for count in (1, 3, 4, 6):
        items = _items(name, count)
        for beta in baseline.betas:
            data = baseline.compress(items, beta, string_each=string_each)
            decoded = baseline.decompress(data)
            assert [d.shape for d in decoded] == [i.shape for i in items]
            wanted = np.float32 if baseline.kind == "vector" else np.uint8
            assert all(d.dtype == wanted for d in decoded)
            assert 0 < baseline.payload_bits(data) <= 8 * len(data)


@pytest.mark.parametrize("name", SPECS)
def test_decoding_is_the_same_every_time_and_needs_only_the_bundle(folder, name):
    items = _items(name, 4)
    baseline = load_baseline(folder / name)
    data = baseline.compress(items, baseline.betas[1])
    first, second = baseline.decompress(data), load_baseline(folder / name).decompress(data)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert data == load_baseline(folder / name).compress(items, baseline.betas[1])


def test_the_decoder_makes_what_the_synthesis_makes_of_the_rounded_latents(folder):
    items = _items("image", 5)
    baseline, bundle = load_baseline(folder / "image"), load_bundle(folder / "image")
    x = torch.from_numpy(np.stack(items)).reshape(5, -1).float() / 255
    slope = torch.full((5,), 1)
    y = bundle.network.analysis(x, slope).round()
    assert len(torch.unique(y)) > 3  # latents that say something
    made = bundle.network.synthesis(y, slope)
    decoded = np.stack(baseline.decompress(baseline.compress(items, baseline.betas[1], search_passes=0)))
    assert np.abs(decoded.reshape(5, -1) / 255 - made.numpy()).max() < 0.51 / 255
    other = bundle.network.synthesis(y.flip(0), slope)  # control: of other latents it would be another
    assert np.abs(decoded.reshape(5, -1) / 255 - other.numpy()).max() > 0.51 / 255


def test_one_string_for_all_costs_its_ideal_length_and_a_string_each_whole_words(folder):
    items = _items("image", 400)
    baseline, bundle = load_baseline(folder / "image"), load_bundle(folder / "image")
    x = torch.from_numpy(np.stack(items)).reshape(400, -1).float() / 255
    ideal = part_bits(code_parts(bundle.network, bundle.tables, x, 0))
    one = baseline.payload_bits(baseline.compress(items, 0.2, search_passes=0))
    each = baseline.payload_bits(baseline.compress(items, 0.2, string_each=True, search_passes=0))
    assert ideal < one < 1.01 * ideal + 64
    assert each >= 400 * 32
    assert each > one + 400 * 8


def test_a_block_code_repeats_the_last_image_to_fill_its_last_code(folder):
    baseline = load_baseline(folder / "block")
    items = _items("block", 4)
    whole = baseline.decompress(baseline.compress([*items[:2], items[1], items[1]], 0.2))
    part = baseline.decompress(baseline.compress(items[:2], 0.2))
    assert all(np.array_equal(a, b) for a, b in zip(part, whole[:2], strict=True))


@pytest.mark.parametrize("name", ["image", "block", "vector"])
def test_a_search_lowers_every_lagrangian_and_nothing_else_changes(folder, name):
    bundle, count = load_bundle(folder / name), 12
    items = _items(name, count * SPECS[name].images_per_code)
    x = torch.from_numpy(np.stack(items)).reshape(count, -1).float() / (1 if name == "vector" else 255)

    def lagrangians(passes: int) -> np.ndarray:
        ((symbols, rows, tables),) = code_parts(bundle.network, bundle.tables, x, 1, passes)
        bits = tables.bits(symbols, rows).reshape(count, -1).sum(1)
        y = torch.from_numpy(symbols.reshape(count, -1)).float()
        distortions = (x - bundle.network.synthesis(y, torch.full((count,), 1))).square().sum(1)
        return bits * np.log(2) + bundle.spec.betas[1] * distortions.numpy()

    plain, once, often = lagrangians(0), lagrangians(1), lagrangians(9)
    assert (once <= plain + 1e-4).all()
    assert (often <= once + 1e-4).all()
    assert once.mean() < plain.mean() - 0.1  # control: there was something to find
    baseline = load_baseline(folder / name)
    beta = baseline.betas[1]
    assert len(baseline.decompress(baseline.compress(items, beta, search_passes=2))) == len(items)
    assert baseline.compress(items, beta, search_passes=2) != baseline.compress(items, beta, search_passes=0)
    assert baseline.compress(items, beta, search_passes=1) == baseline.compress(items, beta)


def test_what_it_cannot_code_is_refused_in_one_line(folder):
    image, photo = load_baseline(folder / "image"), load_baseline(folder / "factorized")
    vector = load_baseline(folder / "vector")
    good = np.zeros((8, 8), np.uint8)
    with pytest.raises(LimitError, match=r"not trained for slope 0\.3, but for 0\.2, 1"):
        image.compress([good], 0.3)
    with pytest.raises(LimitError, match="no search"):
        photo.compress([good], 3.0, search_passes=1)
    for call in (
        lambda: image.compress([], 0.2),
        lambda: image.compress([np.zeros((8, 9), np.uint8)], 0.2),
        lambda: image.compress([np.zeros((8, 8))], 0.2),
        lambda: image.compress([np.zeros((8, 8, 3), np.uint8)], 0.2),
        lambda: photo.compress([np.zeros((0, 8, 3), np.uint8)], 3.0),
        lambda: photo.compress([np.zeros((8, 8, 4), np.uint8)], 3.0),
        lambda: vector.compress([np.array([1.0, np.nan, 0.0])], 0.5),
        lambda: vector.compress([np.zeros(4)], 0.5),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_file_of_another_baseline_is_refused(folder):
    image, colour = load_baseline(folder / "image"), load_baseline(folder / "colour")
    data = image.compress([np.zeros((8, 8), np.uint8)], 0.2)
    with pytest.raises(ModelError, match=r"made with baseline .*, not "):
        colour.decompress(data)
    assert len(image.decompress(data)) == 1  # control


@pytest.mark.parametrize("name", ["patches", "block", "vector", "hyperprior"])
def test_a_damaged_file_is_one_line_of_error_and_never_reaches_the_coder(folder, name, monkeypatch):
    baseline = load_baseline(folder / name)
    data = baseline.compress(_items(name, 2), baseline.betas[1])
    assert len(baseline.decompress(data)) == 2  # control
    reached = []
    monkeypatch.setattr("rcccodec.baselines.baseline.Reader", lambda string: reached.append(string))
    generator = np.random.default_rng(0)
    damaged = [data[:n] for n in (0, 3, 12, len(data) - 4, len(data) - 1)] + [data + b"\0" * 4]
    for at in generator.integers(0, len(data), 40):
        damaged.append(data[:at] + bytes([data[at] ^ 1 << generator.integers(8)]) + data[at + 1 :])
    for bad in damaged:
        with pytest.raises(FormatError) as caught:
            baseline.decompress(bad)
        assert "\n" not in str(caught.value)
    assert not reached


def test_baselines_are_found_by_name_and_are_no_models(folder, monkeypatch):
    monkeypatch.setenv("RCC_MODELS", str(folder))
    before = list_models()
    assert set(SPECS) <= set(list_baselines())
    assert not set(SPECS) & set(before)
    baseline = load_baseline("image")
    assert (baseline.name, baseline.kind, baseline.betas) == ("image", "image", (0.2, 1.0))
    assert len(baseline.sha256) == 64
    with pytest.raises(ModelError, match="no such baseline"):
        load_baseline("nothing")


def _damaged(folder: Path, tmp_path: Path, name: str = "image") -> Path:
    for file in ("baseline.json", "weights.safetensors"):
        (tmp_path / file).write_bytes((folder / name / file).read_bytes())
    return tmp_path


def _rewrite(path: Path, change) -> None:
    """Change the tensors and put their new hash into the description."""
    import hashlib

    tensors = load_file(path / "weights.safetensors")
    change(tensors)
    save_file(tensors, path / "weights.safetensors")
    card = json.loads((path / "baseline.json").read_text())
    card["weights_sha256"] = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    (path / "baseline.json").write_text(json.dumps(card))


def test_damaged_bundles_end_in_one_line_of_model_error(folder, tmp_path):
    path = _damaged(folder, tmp_path)
    load_bundle(path)  # control
    for change in (
        lambda t: t.pop("tables.latents.cdfs"),
        lambda t: t.pop("network.whiten"),
        lambda t: t.update(extra=torch.zeros(1)) or t.update({"network.extra": torch.zeros(1)}),
        lambda t: t["network.mean"].fill_(float("nan")),
        lambda t: t.update({"network.mean": torch.zeros(3)}),
        lambda t: t["tables.latents.cdfs"].fill_(0),
        lambda t: t.update({"tables.latents.offsets": torch.zeros(2, dtype=torch.int32)}),
    ):
        _rewrite(_damaged(folder, tmp_path), change)
        with pytest.raises(ModelError) as caught:
            load_bundle(path)
        assert "\n" not in str(caught.value)
    weights = _damaged(folder, tmp_path) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="hash"):
        load_bundle(path)
    weights.unlink()
    with pytest.raises(ModelError):
        load_bundle(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"baseline_version": 2}', '{"baseline_version": 1}', "[" * 100_000]
)
def test_damaged_descriptions_end_in_model_error(folder, tmp_path, text):
    path = _damaged(folder, tmp_path)
    (path / "baseline.json").write_text(text)
    with pytest.raises(ModelError):
        load_bundle(path)


def test_compact_weights_come_back_as_they_were_rounded():
    torch.manual_seed(0)
    spec = NtcSpec("image", (8, 8, 1), (0.2, 1.0), 5, 120, 1, 20)
    network = build_network(spec)
    exact = {name: value.clone() for name, value in coding_tensors(network).items()}
    round_to_stored(network, compact=True)
    stored = stored_tensors(network, compact=True)
    loaded = loaded_tensors(stored)
    name = "synthesis_network.layers.1.weight"
    assert stored[name].dtype == torch.int8
    for name, value in coding_tensors(network).items():
        assert torch.allclose(loaded[name], value, atol=1e-6)
        assert (value - exact[name]).abs().max() <= exact[name].abs().max() / 250 + 1e-7
    half = sum(t.nbytes for t in stored_tensors(network).values())
    assert sum(t.nbytes for t in stored.values()) < 0.75 * half
    with pytest.raises(ValueError, match="scales"):
        loaded_tensors({n: t for n, t in stored.items() if not n.startswith("scale.")})


def test_sizes_that_would_ask_for_too_much_are_refused():
    fields = SPECS["image"].to_json()
    assert NtcSpec.from_json(fields) == SPECS["image"]
    for change in (
        {"kind": "other"}, {"width": 10**6}, {"depth": 0}, {"latent_dim": 10**6}, {"betas": []},
        {"betas": [1.0, 0.5]}, {"betas": [0.0, 1.0]}, {"shape": [8, 8]}, {"shape": [10**4, 10**4, 1]},
        {"images_per_code": 2}, {"kind": "factorized", "shape": [64, 64, 3], "width": 5000},
        {"kind": "factorized"}, {"betas": [1.0, float("inf")]}, {"maps": -1}, {"maps": 10**4}, {"maps": 2.0},
        {"maps": 2, "shape": [8, 9, 1]}, {"maps": 2, "kind": "vector", "shape": [8]},
    ):  # fmt: skip
        with pytest.raises(ValueError):  # noqa: PT011
            NtcSpec.from_json(fields | change)


def test_importing_the_package_and_the_help_load_no_torch():
    code = "import sys, rcccodec.cli, rcccodec.baselines; sys.exit(any(m in sys.modules for m in {}))"
    code = code.format(("torch", "compressai"))
    assert subprocess.run([sys.executable, "-c", f"import torch; {code}"], check=False).returncode == 1
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_loading_says_what_to_install(folder, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "compressai"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "compressai", None)
    for name in ("image", "factorized"):
        with pytest.raises(InputError, match=r"pip install 'rcccodec\[bench\]'"):
            load_baseline(folder / name)
    monkeypatch.undo()
    assert import_compressai()
