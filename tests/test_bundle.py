"""Model bundles: what is written is what is loaded, and nothing that is not a bundle gets through."""

import hashlib
import json
import math
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tiny_models import CANDIDATES, SEED

from rcccodec import bundle, model_search
from rcccodec.bundle import (
    bundle_files,
    find_model,
    list_models,
    load_model,
    model_path,
    read_card,
    rounded,
)
from rcccodec.errors import ModelError, RccError
from rcccodec.index_code import encode_segments
from rcccodec.index_code.codebook_prior import block_sums
from rcccodec.proposals.generator import GeneratorSpec, build_generator
from rcccodec.randomness import standard_normals


@pytest.fixture
def grey(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle ``grey`` that a test may spoil."""
    folder = tmp_path / "grey"
    folder.mkdir()
    for file in (model_folder / "grey").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def rewrite(folder: Path, change: Callable[[dict, dict], object]) -> None:
    """Change model.json's fields and the tensors, and put the hash right again."""
    card = json.loads((folder / "model.json").read_bytes())
    tensors = load((folder / "weights.safetensors").read_bytes())
    change(card, tensors)
    weights = save(tensors)
    card["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "model.json").write_text(json.dumps(card))


def refused(folder: Path, **options: bool) -> str:
    """The message of the ModelError that loading ends in, within bounds of length and time."""
    started = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_model(folder, **options)
    message = str(caught.value)
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))
    assert time.monotonic() - started < 5
    return message


def test_a_bundle_loads_as_it_was_written(grey: Path):
    model = load_model(grey)
    assert (model.name, model.channels, model.distortion) == ("grey", 1, "mse")
    assert (model.default_seed, model.default_num_candidates, model.default_rung) == (SEED, CANDIDATES, 0)
    assert model.sha256 == hashlib.sha256((grey / "model.json").read_bytes()).hexdigest()
    assert [rung.beta for rung in model.rungs] == [0.5, 2.0]
    first, second = (rung.stages[0] for rung in model.rungs)
    assert (first.block, first.rate_bits, first.distortion) == ((8, 8), 2.5, 10.0)
    assert list(first.priors) == ["mincost", "pfr"]
    tensors = load((grey / "weights.safetensors").read_bytes())
    for coder, name in (("mincost", "first"), ("pfr", "second")):
        np.testing.assert_array_equal(first.priors[coder].levels, tensors[f"priors.{name}"].numpy())
    assert second.priors == {}
    assert set(first.fitted) == {"pfr", "orc", "mincost"}
    assert not any(p.requires_grad for p in first.generator.parameters())


@pytest.mark.parametrize(
    "spec",
    [
        GeneratorSpec("mlp", (4, 4, 1), 3, 8, 1, "linear", 6, (0.2, 2.0)),
        GeneratorSpec("dcgan", (32, 32, 1), 4, 2, 4),
        GeneratorSpec("fc", (4, 4, 1), 3, 8),
    ],
)
def test_a_reader_has_the_rounded_weights_to_the_bit(spec: GeneratorSpec, tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        generator = build_generator(spec)
        if hasattr(generator, "basis"):
            generator.start_from(torch.rand(16), torch.linalg.qr(torch.randn(16, 6)).Q.T, torch.rand(6))
    side = spec.shape[0]
    stage = {"block": [side, side], "beta": 1.0, "rate_bits": 1.0, "distortion": 1.0,
             "zipf_rate_millibits": 9, "fitted": {}, "prior": None, "generator": 0}  # fmt: skip
    card = {"name": "m", "channels": 1, "default_rung": 0, "default_num_candidates": 8, "default_seed": 0,
            "rungs": [{"beta": 1.0, "stages": [stage]}]}  # fmt: skip
    for name, data in bundle_files(card, [generator], {}, "# card\n").items():
        (tmp_path / name).write_bytes(data)
    loaded, stored = load_model(tmp_path).rungs[0].stages[0].generator, rounded(generator)
    for name, value in stored.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
        if value.is_floating_point() and name not in ("mean", "basis"):
            assert torch.equal(value, value.half().float())  # float16 on disk
    tensors = load((tmp_path / "weights.safetensors").read_bytes())
    assert {t.dtype for n, t in tensors.items() if n.endswith((".mean", ".basis"))} <= {torch.float32}
    z = standard_normals(0, torch.arange(4), spec.latent_dim, 0).double()
    assert torch.equal(loaded.at_slope(1.0)(z), stored.at_slope(1.0)(z))
    assert (tmp_path / "README.md").read_text() == "# card\n"


def test_the_same_content_has_the_same_hash_and_other_content_another(grey: Path):
    before = load_model(grey).sha256
    rewrite(grey, lambda card, tensors: None)
    same = load_model(grey).sha256
    rewrite(grey, lambda card, tensors: tensors["generators.0.last.bias"].add_(1))
    assert load_model(grey).sha256 not in (before, same)


def test_a_bundle_without_sums_of_its_priors_gets_them(grey: Path):
    def forget(_card: dict, tensors: dict) -> None:
        for name in ("first", "second"):
            stored = tensors.pop(f"prior_sums.{name}").numpy()
            np.testing.assert_array_equal(stored, block_sums(tensors[f"priors.{name}"].numpy()))

    indices = np.arange(CANDIDATES)
    (with_sums,) = load_model(grey).rungs[0].stages
    rewrite(grey, forget)
    (without,) = load_model(grey).rungs[0].stages
    for coder, prior in with_sums.priors.items():
        segment = [(prior, indices)]
        assert encode_segments(segment) == encode_segments([(without.priors[coder], indices)])


def test_a_sum_that_is_not_its_blocks_is_found_when_it_is_met(grey: Path):
    rewrite(grey, lambda _card, tensors: tensors[SUMS][0].add_(1))
    prior = load_model(grey).rungs[0].stages[0].priors["mincost"]
    encode_segments([(prior, np.array([CANDIDATES - 1]))])
    with pytest.raises(ModelError, match="stored sum"):
        encode_segments([(prior, np.array([0]))])


def test_a_bundle_with_one_prior_a_stage_has_it_for_mincost(grey: Path):
    def as_before(card: dict, _tensors: dict) -> None:
        for rung in card["rungs"]:
            names = rung["stages"][0].pop("priors", {})
            rung["stages"][0]["prior"] = names.get("mincost")

    wanted = load_model(grey).rungs[0].stages[0].priors["mincost"].levels
    rewrite(grey, as_before)
    first, second = (rung.stages[0].priors for rung in load_model(grey).rungs)
    assert (list(first), list(second)) == (["mincost"], [])
    np.testing.assert_array_equal(first["mincost"].levels, wanted)
    for name in ("third", 1):
        rewrite(grey, put(STAGE + "prior", name))
        assert f"priors.{name} is missing" in refused(grey)


def test_weights_that_float16_cannot_hold_are_not_written():
    generator = build_generator(GeneratorSpec("fc", (2,), 2, 2, 2, "linear"))
    generator.body[0].weight.data.fill_(1e6)
    with pytest.raises(ModelError, match="float16"):
        bundle_files({}, [generator], {}, "")


def test_loading_and_using_leave_the_global_random_state_alone(grey: Path):
    before = torch.get_rng_state()
    load_model(grey).rungs[0].stages[0].proposal()
    assert torch.equal(torch.get_rng_state(), before)


def put(path: str, value: object) -> Callable[[dict, dict], None]:
    """A change of one field of model.json, by a path such as rungs.0.beta."""

    def change(card: dict, _tensors: dict) -> None:
        *parents, last = path.split(".")
        place = card
        for key in parents:
            place = place[int(key) if isinstance(place, list) else key]
        place[int(last) if isinstance(place, list) else last] = value

    return change


STAGE = "rungs.0.stages.0."
SPEC = "generators.0."
BAD_FIELDS = [
    ("channels", 2), ("channels", 3), ("channels", True), ("channels", "1"), ("channels", None),
    ("default_rung", 2), ("default_rung", -1), ("default_rung", 0.0), ("default_seed", -1),
    ("default_seed", 1 << 64), ("default_num_candidates", 0), ("default_num_candidates", 1 << 50),
    ("default_num_candidates", 255), ("default_num_candidates", "256"),
    ("rungs", []), ("rungs", {}), ("rungs", [3]), ("rungs", None), ("rungs", [{}] * 1000),
    ("rungs.0.stages", []),
    ("rungs.0.stages", [[]]), ("rungs.0.beta", 0), ("rungs.0.beta", math.nan), ("rungs.0.beta", math.inf),
    (STAGE + "beta", -1.0), (STAGE + "beta", "1"), (STAGE + "rate_bits", math.inf),
    (STAGE + "rate_bits", None), (STAGE + "rate_bits", -1), (STAGE + "beta", 1e200),
    (STAGE + "distortion", math.nan), (STAGE + "zipf_rate_millibits", -1),
    (STAGE + "block", [-8, -8]), (STAGE + "block", [8]), (STAGE + "block", [4, 8]), (STAGE + "block", 8),
    (STAGE + "block", [1, 64.0]), (STAGE + "generator", 1), (STAGE + "generator", -1),
    (STAGE + "generator", "0"),
    (STAGE + "priors", {"mincost": "third"}), (STAGE + "priors", 1), (STAGE + "priors", None),
    (STAGE + "priors", {"pfr": ["first"]}), (STAGE + "fitted", []), (STAGE + "fitted", {"pfr": 3}),
    (STAGE + "fitted", {"pfr": ["x"]}), (STAGE + "fitted", {"pfr": [0.5] * 80}),
    ("generators", []), ("generators", [1]), ("generators", None), ("generators", [{}] * 1000),
    (SPEC + "arch", "gan"), (SPEC + "arch", ["mlp"]), (SPEC + "depth", 60), (SPEC + "depth", 1 << 30),
    (SPEC + "width", 1 << 40), (SPEC + "width", 17), (SPEC + "latent_dim", 1 << 40), (SPEC + "latent_dim", 0),
    (SPEC + "shape", [1 << 20, 1 << 20, 3]), (SPEC + "shape", [8, 8]), (SPEC + "shape", "8"),
    (SPEC + "output", "linear"), (SPEC + "slope_range", [0, 1]), (SPEC + "slope_range", [1, math.nan]),
    (SPEC + "slope_range", [1]), ("weights_sha256", None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), BAD_FIELDS, ids=lambda part: str(part)[:30])
def test_a_wrong_field_is_one_line(grey: Path, path: str, value: object):
    rewrite(grey, put(path, value))
    if path == "weights_sha256":
        (grey / "weights.safetensors").write_bytes(b"")
    refused(grey)


@pytest.mark.parametrize(
    "key",
    ["channels", "rungs", "generators", "default_rung", "default_seed", "default_num_candidates",
     "weights_sha256"],
)  # fmt: skip
def test_a_missing_field_is_named(grey: Path, key: str):
    card = json.loads((grey / "model.json").read_bytes())
    del card[key]
    (grey / "model.json").write_text(json.dumps(card))
    assert key in refused(grey)


BIAS, PRIOR, SUMS = "generators.0.last.bias", "priors.first", "prior_sums.first"
BAD_TENSORS = {
    "missing": lambda t: t.pop(BIAS),
    "of another shape": lambda t: t.update({BIAS: torch.zeros(3)}),
    "of integers": lambda t: t.update({BIAS: torch.zeros(64, dtype=torch.uint8)}),
    "complex": lambda t: t.update({BIAS: torch.zeros(64, dtype=torch.complex64)}),
    "of truth values": lambda t: t.update({BIAS: torch.zeros(64, dtype=torch.bool)}),
    "not a number": lambda t: t[BIAS].fill_(math.nan),
    "infinite": lambda t: t[BIAS].fill_(math.inf),
    "too many": lambda t: t.update({"generators.0.more": torch.zeros(1)}),
    "prior missing": lambda t: t.pop(PRIOR),
    "prior of floats": lambda t: t.update({PRIOR: t[PRIOR].float()}),
    "prior signed": lambda t: t.update({PRIOR: t[PRIOR].to(torch.int8)}),
    "prior too short": lambda t: t.update({PRIOR: t[PRIOR][:-1].clone()}),
    "prior too long": lambda t: t.update({PRIOR: torch.cat([t[PRIOR], t[PRIOR]])}),
    "prior sums too short": lambda t: t.update({SUMS: t[SUMS][:-1].clone()}),
    "prior sums of floats": lambda t: t.update({SUMS: t[SUMS].double()}),
    "prior sums of nothing": lambda t: t[SUMS].zero_(),
    "prior square": lambda t: t.update({PRIOR: t[PRIOR].view(16, 16).clone()}),
}


@pytest.mark.parametrize("fault", BAD_TENSORS)
def test_a_wrong_tensor_is_one_line(grey: Path, fault: str):
    rewrite(grey, lambda _card, tensors: BAD_TENSORS[fault](tensors))
    message = refused(grey)
    assert "prior" in message or "generators.0." in message


def test_blocks_that_would_make_enormous_tiles_are_refused(grey: Path):
    def primes(card: dict, tensors: dict) -> None:
        stage = card["rungs"][0]["stages"][0]
        stages = []
        for g, side in enumerate((61, 59, 53, 47)):
            generator = build_generator(GeneratorSpec("fc", (side, 1, 1), 1, 1))
            card["generators"].append(generator.spec.to_json())
            tensors.update({f"generators.{g + 1}.{k}": v for k, v in generator.state_dict().items()})
            stages.append({**stage, "block": [side, 1], "generator": g + 1, "priors": {}})
        card["rungs"][0]["stages"] = stages

    rewrite(grey, primes)
    assert "do not fit together" in refused(grey)


def test_files_of_other_kinds_are_refused(grey: Path, monkeypatch: pytest.MonkeyPatch):
    whole = {file.name: file.read_bytes() for file in grey.iterdir()}

    def spoil(name: str, data: bytes) -> str:
        for file, content in whole.items():
            (grey / file).unlink(missing_ok=True)
            (grey / file).write_bytes(content)
        (grey / name).write_bytes(data)
        return refused(grey)

    weights, card = whole["weights.safetensors"], whole["model.json"]
    flipped = bytearray(weights)
    flipped[-1] ^= 1
    for data in (b"", weights[:-1], weights + b"\0", bytes(flipped)):
        assert "its hash is not the one" in spoil("weights.safetensors", data)
    for data in (b"", card[:-9], b"\xff\xfe", b"[]", b"null", b'{"bundle_version": 4}', b"[" * 100_000):
        assert "not a model description" in spoil("model.json", data)
    monkeypatch.setattr(bundle, "MAX_WEIGHTS_BYTES", 100)
    assert "more than the 100" in spoil("model.json", card)
    monkeypatch.setattr(model_search, "MAX_JSON_BYTES", 100)
    assert "more than the 100" in spoil("model.json", card)


def test_a_pickle_is_never_opened(grey: Path):
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(grey / "exploded"),)

    for data in (pickle.dumps(Bomb()), b"\x80\x02" + b"x" * 100):
        card = json.loads((grey / "model.json").read_bytes())
        card["weights_sha256"] = hashlib.sha256(data).hexdigest()
        (grey / "model.json").write_text(json.dumps(card))
        (grey / "weights.safetensors").write_bytes(data)
        assert "not readable" in refused(grey)
    assert not (grey / "exploded").exists()


def test_pipes_devices_and_folders_in_place_of_files_are_refused_at_once(grey: Path):
    weights = grey / "weights.safetensors"
    weights.unlink()
    assert "No such file" in refused(grey)
    os.mkfifo(weights)
    assert "not a plain file" in refused(grey)
    weights.unlink()
    weights.symlink_to("/dev/zero")
    assert "not a plain file" in refused(grey)
    weights.unlink()
    weights.mkdir()
    assert "not a plain file" in refused(grey)


@pytest.mark.parametrize("name", ["", "nothing", "../nothing", "a\0b", "x" * 5000, "grey/../..", "."])
def test_names_that_lead_nowhere_list_what_there_is(tiny: Path, name: str):
    with pytest.raises(ModelError, match=r"found: .*colour, grey"):
        model_path(name)


def test_models_are_found_by_name_path_and_hash(tiny: Path, grey: Path):
    assert set(list_models()) >= {"colour", "grey"}
    assert model_path("grey") == tiny / "grey"
    assert model_path(grey) == model_path(str(grey)) == grey
    sha256 = hashlib.sha256((tiny / "colour" / "model.json").read_bytes()).digest()
    assert find_model(sha256[:6]) == tiny / "colour"
    with pytest.raises(ModelError, match=r"000000000000.*colour, grey"):
        find_model(bytes(6))


def test_a_folder_named_like_a_description_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "odd" / "model.json").mkdir(parents=True)
    monkeypatch.setenv("RCC_MODELS", str(tmp_path))
    assert "odd" not in list_models()


def test_a_folder_of_models_that_cannot_be_looked_at_is_passed_over(
    grey: Path, monkeypatch: pytest.MonkeyPatch
):
    shipped = list_models()
    real = os.stat

    def refuse(path: object, *args: object, **options: object) -> os.stat_result:
        if str(path).startswith(str(grey.parent)):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setenv("RCC_MODELS", "x" * 6000)
    assert set(list_models()) <= set(shipped)
    monkeypatch.setenv("RCC_MODELS", str(grey.parent))
    assert "grey" in list_models()
    monkeypatch.setattr(os, "stat", refuse)
    assert "grey" not in list_models()


def test_an_unreadable_neighbour_does_not_hide_a_model(grey: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RCC_MODELS", str(grey.parent))
    (grey.parent / "a").mkdir()
    (grey.parent / "a" / "model.json").mkdir()
    assert find_model(hashlib.sha256((grey / "model.json").read_bytes()).digest()) == grey


def test_the_card_is_read_without_torch_or_weights(grey: Path):
    (grey / "weights.safetensors").unlink()
    assert read_card(grey)["name"] == "grey"
    with pytest.raises(RccError):
        load_model(grey)


def test_a_model_that_no_codec_can_use_says_so(grey: Path):
    rewrite(grey, lambda card, _: card.update(distortion="lp:1"))
    assert "trained for distortion lp:1" in refused(grey)
    assert load_model(grey, for_images=False).distortion == "lp:1"
    rewrite(grey, lambda card, _: card.update(distortion="mse", channels=0))
    assert "vectors" in refused(grey)
    assert load_model(grey, for_images=False).channels == 0


def test_a_model_is_called_as_its_folder_is(grey: Path, monkeypatch: pytest.MonkeyPatch):
    sha256 = load_model(grey).sha256
    renamed = grey.rename(grey.with_name("other"))
    assert read_card(renamed)["name"] == "grey"
    assert (load_model(renamed).name, load_model(renamed).sha256) == ("other", sha256)
    monkeypatch.chdir(renamed)
    assert load_model(".").name == load_model("../other/").name == "other"
    rewrite(renamed, lambda card, _: card.pop("name"))
    assert load_model(renamed).name == "other"


def test_control_characters_in_a_name_do_not_reach_the_terminal(grey: Path):
    renamed = grey.rename(grey.with_name("a\x1b[31m\nb" + os.fsdecode(b"\xff")))
    assert load_model(renamed).name == "a?[31m?b?"
