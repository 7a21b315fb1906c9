"""Bundles of latent models: round trips, and damage of every kind in one line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tiny_latent import BETAS, SPEC, haar_network, rewrite, smooth_picture
from torch import Tensor

from rcccodec import bundle, codec
from rcccodec.bundle import load_model, load_one_shot
from rcccodec.errors import ModelError
from rcccodec.latent import model as model_module
from rcccodec.latent.fit import fit_tables
from rcccodec.latent.model import MAX_RATE_MILLIBITS, LatentModel, assemble, bundle_files, stored_network


@pytest.fixture
def folder(latent_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(latent_folder, tmp_path / "copy"))


def tamper(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Other weights, whose hash is right."""
    tensors = load((folder / "weights.safetensors").read_bytes())
    change(tensors)
    data = save({name: t.contiguous() for name, t in tensors.items()})
    (folder / "weights.safetensors").write_bytes(data)
    rewrite(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def refused(folder: Path, match: str | None = None) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_bundle_comes_back_as_it_was_assembled(latent_model: LatentModel, latent_folder: Path) -> None:
    network = stored_network(haar_network())
    pictures = torch.from_numpy(np.stack([smooth_picture(256, 256, seed) for seed in range(2)]))
    tables = fit_tables(network, pictures, classes=5)
    made = assemble(network, tables)
    card = json.loads((latent_folder / "model.json").read_bytes())
    files = bundle_files(card, made, tables)
    folder = latent_folder.parent / "again"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    loaded = load_model(folder)
    assert isinstance(loaded, LatentModel)
    assert loaded.name == "again"
    assert loaded.sha256 == hashlib.sha256(files["model.json"]).hexdigest()
    assert loaded.spec == made.spec
    assert loaded.spec.classes == 5
    assert (loaded.spec.betas, loaded.spec.latent_dim) == (SPEC.betas, SPEC.latent_dim)
    state = made.network.state_dict()
    assert loaded.network.state_dict().keys() == state.keys()
    assert all(torch.equal(t, state[name]) for name, t in loaded.network.state_dict().items())
    for prior, other in zip(loaded.priors, made.priors, strict=True):
        assert torch.equal(prior.centre, other.centre)
        assert torch.equal(prior.scale, other.scale)
        assert prior.rates_millibits.dtype == np.int64
        assert np.array_equal(prior.rates_millibits, other.rates_millibits)
        assert np.array_equal(prior.code.left, other.code.left)
        assert np.array_equal(prior.code.up, other.code.up)
    assert [rung.beta for rung in loaded.rungs] == list(BETAS)
    assert [rung.rate_bpp for rung in loaded.rungs] == pytest.approx([0.1 * beta for beta in BETAS])
    assert (loaded.default_rung, loaded.default_seed) == (1, 3)
    assert loaded.chunk_codes == latent_model.chunk_codes
    assert not any(p.requires_grad for p in loaded.network.parameters())


def test_stored_weights_are_what_float16_keeps_of_them() -> None:
    network = haar_network()
    stored = stored_network(network)
    for (name, mine), theirs in zip(network.named_parameters(), stored.parameters(), strict=True):
        coded = name.startswith(model_module.CODING)
        assert torch.equal(theirs, mine.to(torch.float16).float() if coded else mine)
    assert not torch.equal(network.g_a[0].weight, stored.g_a[0].weight)


def test_weights_that_float16_cannot_hold_are_refused(latent_folder: Path) -> None:
    network = haar_network()
    network.g_s[0].weight[0, 0, 0, 0] = 1e6
    tables = {
        "centre": torch.zeros(2, 1, 24, dtype=torch.float16),
        "log_scale": torch.zeros(2, 1, 24, dtype=torch.float16),
        "rates_millibits": torch.zeros(2, 1, 24, dtype=torch.int32),
        "left": torch.zeros(2, 2, 1, dtype=torch.int16),
        "up": torch.zeros(2, 2, 1, dtype=torch.int16),
    }
    with pytest.raises(ModelError, match=r"network\.g_s\.0\.weight holds values that float16 cannot"):
        bundle_files({}, assemble(network, tables), tables)


BROKEN_SPECS: list[dict[str, Any]] = [
    {"width": 0}, {"width": 10**9}, {"latent_dim": 25}, {"classes": 8}, {"classes": "16"}, {"betas": [8, 8]},
    {"betas": [8, 60, 70]}, {"betas": None}, {"shape": 3}, {"shape": [32, 32, 3.5]}, {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"bundle_version": 4}, {"spec": None}, {"spec": []}, {"spec": {}},
        *({"spec": {**SPEC.to_json(), "classes": 16} | changed} for changed in BROKEN_SPECS),
        {"weights_sha256": "00"}, {"weights_sha256": None},
        {"held_out": []}, {"held_out": [{"rate_bpp": 1}]}, {"held_out": [{"rate_bpp": 1}, {}]},
        {"held_out": [{"rate_bpp": 1}, {"rate_bpp": 0}]}, {"held_out": [{"rate_bpp": 1}, {"rate_bpp": "2"}]},
        {"held_out": [{"rate_bpp": 1}, {"rate_bpp": float("nan")}]}, {"held_out": 7}, {"held_out": [1, 2]},
        {"default_rung": 2}, {"default_rung": -1}, {"default_rung": 0.5}, {"default_rung": True},
        {"default_seed": -1}, {"default_seed": 1 << 64}, {"default_seed": "1"},
        {"chunk_codes": []}, {"chunk_codes": {"pfr": []}}, {"chunk_codes": {"pfr": {"x": [1]}}},
        {"chunk_codes": {"pfr": {"41": [1]}}}, {"chunk_codes": {"pfr": {"8": [0]}}},
        {"chunk_codes": {"pfr": {"8": 5}}}, {"chunk_codes": {"pfr": {"8": [1.5]}}}, {"chunk_codes": None},
        {"channels": 0}, {"distortion": "lpips"},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_description_is_refused(folder: Path, fields: dict[str, Any]) -> None:
    rewrite(folder, **fields)
    refused(folder)


@pytest.mark.parametrize(
    "name", ["spec", "weights_sha256", "held_out", "default_rung", "default_seed", "chunk_codes"]
)
def test_a_field_that_is_not_there_is_named(folder: Path, name: str) -> None:
    card = json.loads((folder / "model.json").read_bytes())
    del card[name]
    (folder / "model.json").write_text(json.dumps(card))
    refused(folder, name)


def _set(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def apply(tensors: dict[str, Tensor]) -> None:
        tensors[name] = change(tensors[name])

    return apply


def _one(value: float) -> Callable[[Tensor], Tensor]:
    def apply(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return apply


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("network.g_a.0.weight", _one(float("nan"))), ("network.g_s.6.bias", _one(float("inf"))),
        ("network.g_a.0.weight", lambda t: t[:-1]), ("network.log_gain", lambda t: t.to(torch.int32)),
        ("network.noise_bias", lambda t: t.T),
        ("network.log_gain", lambda t: _one(1e300)(t.double())),
        ("centre", lambda t: _one(1e300)(t.double())),
        ("centre", _one(float("inf"))), ("centre", lambda t: _one(7e4)(t.float())),
        ("log_scale", _one(float("nan"))), ("log_scale", _one(21.0)),
        ("log_scale", _one(-21.0)), ("centre", lambda t: t[:, :-1]), ("log_scale", lambda t: t[:1]),
        ("rates_millibits", _one(-1)), ("rates_millibits", _one(MAX_RATE_MILLIBITS + 1)),
        ("rates_millibits", lambda t: t.long()), ("rates_millibits", lambda t: t.float()),
        ("rates_millibits", lambda t: t[:, :, 1:]),
        ("left", _one(32_000)), ("up", _one(-32_768)), ("left", lambda t: t.int()),
        ("up", lambda t: t.half()),
        ("up", lambda t: t[:, :-1]), ("left", lambda t: t.transpose(1, 2)),
    ],
)  # fmt: skip
def test_a_damaged_tensor_is_refused(folder: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    tamper(folder, _set(name, change))
    refused(folder, "damaged model bundle")


def test_latents_that_overflow_are_the_model_s_fault(folder: Path) -> None:
    for gain in (60_000, 60):  # beyond all numbers, and such as only its square is
        tamper(folder, _set("network.log_gain", lambda t, gain=gain: torch.full_like(t, gain)))
        with pytest.raises(ModelError, match="not finite"):
            codec.compress(smooth_picture(20, 20, 1), load_model(folder))


@pytest.mark.parametrize(
    "name", ["network.g_a.1.gamma", "centre", "log_scale", "rates_millibits", "left", "up"]
)
def test_a_tensor_that_is_not_there_is_named(folder: Path, name: str) -> None:
    tamper(folder, lambda tensors: tensors.pop(name))
    refused(folder, name)


def test_weights_of_another_hash_of_another_format_and_none_are_refused(folder: Path, monkeypatch) -> None:
    file = folder / "weights.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(folder, "hash")
    file.write_bytes(data[:100])
    rewrite(folder, weights_sha256=hashlib.sha256(data[:100]).hexdigest())
    refused(folder, "not readable")
    monkeypatch.setattr(model_module, "MAX_WEIGHTS_BYTES", 99)
    refused(folder, "more than the 99")
    file.unlink()
    refused(folder, "No such file")


def test_a_model_that_changes_is_another_model(folder: Path, latent_model: LatentModel) -> None:
    rewrite(folder, note="changed")
    assert load_model(folder).sha256 != latent_model.sha256


def test_what_works_with_generators_alone_says_so(latent_folder: Path) -> None:
    with pytest.raises(ModelError, match="a model of latents"):
        load_one_shot(latent_folder)
    assert bundle.read_card(latent_folder)["kind"] == "latent"
