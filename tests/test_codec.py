"""Codec: images there and back, against brute force, and everything that can be wrong with a file."""

import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import CANDIDATES, SEED

import rcccodec
from rcccodec import codec, container, decoder, stages
from rcccodec.bundle import Model, load_model
from rcccodec.channel import candidates_at, log_weights
from rcccodec.errors import FormatError, InputError, LimitError, ModelError, RccError
from rcccodec.images import from_float, psnr_db, to_channels
from rcccodec.index_code import decode_segments, encode_segments
from rcccodec.index_code.fitted import FittedCode
from rcccodec.layout import Layout
from rcccodec.randomness import standard_normals
from rcccodec.settings import choose_settings, read_settings
from rcccodec.tiles import from_blocks, pad_to_multiple, to_blocks

pytestmark = pytest.mark.usefixtures("tiny")

SIZES = [(1, 1), (1, 9), (7, 3), (8, 8), (16, 8), (17, 33), (40, 24)]


def picture(height: int, width: int, colour: bool = False, seed: int = 0) -> np.ndarray:
    """A smooth ramp with noise: uint8 (height, width) or (height, width, 3)."""
    rng = np.random.default_rng(seed)
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 100, width))
    x = ramp[..., None] + rng.normal(0, 12, (height, width, 3 if colour else 1))
    return np.clip(x if colour else x[..., 0], 0, 255).astype(np.uint8)


def indices_in(data: bytes, model: Model) -> list[list[np.ndarray]]:
    """The indices of every group and stage of a file."""
    header, groups = container.unpack(data)
    chosen = read_settings(header, model)
    layouts = [
        Layout(g.count, g.height, g.width, container.MODES[g.mode] == "rgb", chosen.tile) for g in groups
    ]
    return [
        decode_segments(
            group.payload,
            [(c, lay.num_blocks(s.block)) for c, s in zip(chosen.codes(), chosen.step.stages, strict=True)],
        )
        for group, lay in zip(groups, layouts, strict=True)
    ]


def all_candidates(model: Model, rung: int, stage: int, count: int, seed: int = SEED) -> np.ndarray:
    proposal = model.rungs[rung].stages[stage].proposal()
    return proposal.synthesise(candidates_at(proposal, torch.arange(count), seed=seed, stage=stage)).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colour", [False, True])
def test_any_size_decodes_to_what_the_encoder_said(size: tuple[int, int], colour: bool):
    x = picture(*size, colour)
    encoded = codec.compress(x, "colour")
    (x_hat,) = codec.decompress(encoded.data)
    assert x_hat.shape == x.shape
    assert x_hat.dtype == np.uint8
    np.testing.assert_array_equal(x_hat, encoded.images[0])


@pytest.mark.parametrize("index_code", ["zipf", "fitted", "prior"])
@pytest.mark.parametrize("coder", ["pfr", "orc", "mincost"])
def test_every_coder_goes_with_every_index_code(coder: str, index_code: str):
    if (coder, index_code) == ("orc", "prior"):  # the one that the model has no table for
        with pytest.raises(ModelError, match="no index prior for coder orc"):
            codec.compress(picture(20, 30), "grey", coder=coder, index_code=index_code)
        return
    encoded = codec.compress(picture(20, 30), "grey", coder=coder, index_code=index_code)
    np.testing.assert_array_equal(codec.decompress(encoded.data)[0], encoded.images[0])
    header, _ = container.unpack(encoded.data)
    assert (container.CODERS[header.coder], container.INDEX_CODES[header.index_code]) == (coder, index_code)
    assert (encoded.report.certified_fraction is not None) == (coder == "pfr")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.booleans()), min_size=1, max_size=5),
    rung=st.integers(0, 2),
    num_candidates=st.integers(1, 500),
    seed=st.integers(0, 2**64 - 1),
)
def test_archives_keep_number_order_and_shape(shapes: list, rung: int, num_candidates: int, seed: int):
    images = [picture(h, w, colour, i) for i, (h, w, colour) in enumerate(shapes)]
    encoded = codec.compress(
        images, "colour", rung=rung, num_candidates=num_candidates, seed=seed, index_code="zipf"
    )
    decoded = codec.decompress(encoded.data)
    assert [x.shape for x in decoded] == [x.shape for x in images]
    for x_hat, said in zip(decoded, encoded.images, strict=True):
        np.testing.assert_array_equal(x_hat, said)


def test_an_image_codes_alike_alone_and_in_an_archive():
    images = [picture(16, 8, True, i) for i in range(3)] + [picture(30, 20, False, 7)]
    together = codec.compress(images, "colour", coder="pfr", joint=False).images
    for x, x_hat in zip(images, together, strict=True):
        alone = codec.compress(x, "colour", coder="pfr", joint=False).images[0]
        np.testing.assert_array_equal(alone, x_hat)


@pytest.mark.parametrize("coder", ["pfr", "orc", "mincost"])
def test_both_stages_choose_what_brute_force_chooses(coder: str):
    model, rung, n = load_model("colour"), 1, 300
    x = picture(20, 12, True)
    encoded = codec.compress(x, model, rung=rung, coder=coder, num_candidates=n, joint=False)
    (group,) = indices_in(encoded.data, model)
    rest = pad_to_multiple(x.astype(np.float64) / 255, 16, 8)
    total = np.zeros_like(rest)
    codes = choose_settings(model, rung=rung, coder=coder, num_candidates=n).codes()
    for s, stage in enumerate(model.rungs[rung].stages):
        y = all_candidates(model, rung, s, n)
        blocks = to_blocks(rest, stage.block)
        distances = np.square(blocks[:, None] - y[None]).sum(axis=2)
        if coder == "mincost":
            offsets = math.log(2) * codes[s].lengths_bits(np.arange(n))
        else:
            offsets = torch.cat([w for _, w in log_weights(coder, n, seed=SEED, stage=s)]).numpy()
        np.testing.assert_array_equal(group[s], np.argmin(stage.beta * distances + offsets, axis=1))
        made = from_blocks(y[group[s]], stage.block, rest.shape[:2], 3)
        rest, total = rest - made, total + made
    np.testing.assert_array_equal(encoded.images[0], from_float(total[:20, :12], grey=False))


def test_a_grey_picture_from_a_colour_model_is_the_mean_of_its_channels():
    model = load_model("colour")
    encoded = codec.compress(picture(8, 8), model, num_candidates=1, index_code="zipf")
    y = all_candidates(model, 0, 0, 1)[0].reshape(16, 8, 3)[:8]
    y = y + all_candidates(model, 0, 1, 1)[0].reshape(8, 8, 3)
    assert encoded.images[0].shape == (8, 8)
    np.testing.assert_array_equal(encoded.images[0], from_float(y, grey=True))


def test_a_colour_picture_for_a_grey_model_becomes_luma_with_a_note():
    x = picture(9, 9, True)
    encoded = codec.compress(x, "grey")
    luma, notes = to_channels(x, 1)
    assert encoded.notes == notes != []
    np.testing.assert_array_equal(encoded.images[0], codec.compress(luma[:, :, 0], "grey").images[0])


def test_payload_bits_are_the_code_lengths_and_less_than_a_byte():
    model = load_model("grey")
    for index_code in ("zipf", "fitted"):
        encoded = codec.compress(picture(80, 80), model, coder="pfr", index_code=index_code, joint=False)
        ((indices,),) = indices_in(encoded.data, model)
        (code,) = choose_settings(model, coder="pfr", index_code=index_code).codes()
        ideal_bits = code.lengths_bits(indices).sum()
        assert encoded.report.payload_bits == 8 * len(container.unpack(encoded.data)[1][0].payload)
        assert -1 < encoded.report.payload_bits - ideal_bits < 17


def test_the_report_agrees_with_the_file_and_the_pictures():
    x = picture(33, 20, True)
    encoded = codec.compress(x, "colour", rung=2)
    report = encoded.report
    x_hat = codec.decompress(encoded.data)[0]
    assert report.file_bytes == len(encoded.data)
    assert report.bpp == pytest.approx(8 * len(encoded.data) / (33 * 20))
    assert report.psnr_db == pytest.approx(psnr_db(x, x_hat))
    assert report.blocks == 3 * 3 + 6 * 3  # tiles of 16x8, then twice as many blocks of 8x8
    error = np.square((x.astype(float) - x_hat) / 255).sum()
    assert report.distortion == pytest.approx(error / 27)
    assert report.rate_bits_per_block == report.payload_bits / 27
    rates = [4.0, 6.0]  # tiny_models: 2 + slope, of 9 and 18 blocks
    assert report.rd_estimate_bits == pytest.approx((9 * rates[0] + 18 * rates[1]) / 27)
    bounds = [r + math.log2(r + 1) + 5 for r in rates]
    assert report.guarantee_bits == pytest.approx((9 * bounds[0] + 18 * bounds[1]) / 27)
    assert report.margin_bits == pytest.approx(8 - 6)
    assert report.saturated
    assert not codec.compress(x, "colour", rung=2, num_candidates=1024).report.saturated
    assert list(report.as_json()) == [
        "file_bytes", "payload_bits", "bpp", "psnr_db", "distortion", "blocks", "rate_bits_per_block",
        "rd_estimate_bits", "guarantee_bits", "certified_fraction", "log2_num_candidates", "encode_s",
        "model", "rung", "beta",
    ]  # fmt: skip


def test_a_single_image_costs_at_most_24_bytes_beside_the_payload():
    encoded = codec.compress(picture(300, 200, True), "colour")
    assert encoded.report.file_bytes - encoded.report.payload_bits // 8 <= 24


def test_a_coder_takes_its_prior_only_where_it_holds():
    def code_of(**options: object) -> str:
        header, _ = container.unpack(codec.compress(picture(8, 8), "grey", **options).data)
        return container.INDEX_CODES[header.index_code]

    assert code_of(coder="orc") == "fitted"
    for coder in ("mincost", "pfr"):
        assert code_of(coder=coder) == "prior"
        assert code_of(coder=coder, seed=SEED + 1) == "fitted"
        assert code_of(coder=coder, num_candidates=CANDIDATES // 2) == "fitted"
        assert code_of(coder=coder, rung=1) == "fitted"
    with pytest.raises(ModelError, match="prior"):
        code_of(index_code="prior", seed=SEED + 1)


def test_a_prior_changes_the_bits_of_a_channel_simulation_and_not_its_choices():
    x, model = picture(80, 80), load_model("grey")
    options = {"model": model, "coder": "pfr", "joint": False}
    files = {code: codec.compress(x, index_code=code, **options).data for code in ("fitted", "prior")}
    indices = {code: indices_in(data, model)[0][0] for code, data in files.items()}
    np.testing.assert_array_equal(indices["prior"], indices["fitted"])
    assert container.unpack(files["prior"])[1] != container.unpack(files["fitted"])[1]
    priors = model.rungs[0].stages[0].priors
    payload = container.unpack(files["prior"])[1][0].payload
    assert payload == encode_segments([(priors["pfr"], indices["prior"])])
    assert payload != encode_segments([(priors["mincost"], indices["prior"])])  # the control


def test_decoding_makes_the_winning_candidates_only(monkeypatch: pytest.MonkeyPatch):
    made = []
    monkeypatch.setattr(
        stages,
        "standard_normals",
        lambda seed, k, *rest: (made.append(k), standard_normals(seed, k, *rest))[1],
    )
    x = picture(24, 24)
    for n in (1 << 6, 1 << 14):
        data = codec.compress(x, "grey", num_candidates=n).data
        made.clear()
        codec.decompress(data)
        assert sum(k.numel() for k in made) <= 9


@pytest.mark.parametrize("band_pixels", [1, 300, 2000])
def test_bands_of_images_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch, band_pixels: int):
    x = [picture(90, 70, True), *(picture(13, 5, True, seed) for seed in range(7))]
    whole = codec.compress(x, "colour")
    monkeypatch.setattr(decoder, "_BAND_PIXELS", band_pixels)
    for x_hat, said in zip(codec.decompress(whole.data), whole.images, strict=True):
        np.testing.assert_array_equal(x_hat, said)


def test_progress_reaches_its_total_once_and_never_falls():
    told: list[tuple[int, int]] = []
    codec.compress(picture(8, 8, True), "colour", num_candidates=6000, progress=lambda *a: told.append(a))
    done = [d for d, _ in told]
    assert {total for _, total in told} == {12000}
    assert done == sorted(done)
    assert done[-1] == 12000


@pytest.mark.parametrize(
    ("images", "error"),
    [
        ([], LimitError),
        (np.zeros((0, 5), np.uint8), LimitError),
        (np.zeros((70000, 1), np.uint8), LimitError),
        (np.zeros((5, 5), np.float32), InputError),
        (np.zeros((5, 5, 4), np.uint8), InputError),
        (np.zeros(5, np.uint8), InputError),
        ([[1, 2]], InputError),
    ],
)
def test_what_is_no_image_is_refused(images: object, error: type[RccError]):
    with pytest.raises(error):
        codec.compress(images, "grey")


@pytest.mark.parametrize(
    "options",
    [
        {"rung": 2}, {"rung": -1}, {"num_candidates": 0}, {"num_candidates": (1 << 24) + 1}, {"seed": -1},
        {"seed": 1 << 64}, {"coder": "best"}, {"index_code": "gzip"},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(options: dict):
    with pytest.raises(LimitError):
        codec.compress(picture(8, 8), "grey", **options)


def test_every_truncation_and_every_flipped_byte_is_a_format_or_model_error():
    data = codec.compress([picture(8, 8), picture(20, 9)], "grey", index_code="fitted").data
    for length in range(len(data)):
        with pytest.raises(FormatError):
            codec.decompress(data[:length])
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        with pytest.raises((FormatError, ModelError)):
            codec.decompress(damaged)
    with pytest.raises(FormatError):
        codec.decompress(data + b"\0")


def repacked(data: bytes, **changes: object) -> bytes:
    """The file with other header fields or another first group, its checksum made right again."""
    header, groups = container.unpack(data)
    fields, group = (
        asdict(one) | {name: value for name, value in changes.items() if name in asdict(one)}
        for one in (header, groups[0])
    )
    return container.pack(container.Header(**fields), [container.Group(**group), *groups[1:]])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rung": 9}, FormatError),
        ({"mode": 1}, FormatError),
        ({"model_id": b"nobody"}, ModelError),
        ({"payload": b"\xff" * 9}, FormatError),
        ({"width": 16384, "height": 16384}, FormatError),
        ({"width": 65535, "height": 65535}, LimitError),
        ({"count": 1 << 20}, FormatError),
        ({"count": 1 << 24}, LimitError),
        ({"index_code": 2, "seed": 99}, ModelError),
    ],
)
def test_lies_behind_a_right_checksum_are_caught(changes: dict, error: type[RccError]):
    data = codec.compress(picture(8, 8), "grey", index_code="fitted").data
    with pytest.raises(error):
        codec.decompress(repacked(data, **changes))


def test_more_pixels_than_allowed_are_refused_before_anything_is_made(monkeypatch: pytest.MonkeyPatch):
    data = codec.compress([picture(9, 5), picture(9, 5), picture(20, 3)], "grey").data
    assert len(codec.decompress(data, max_pixels=150)) == len(rcccodec.decompress(data, max_pixels=150)) == 3
    with pytest.raises(LimitError, match="150 pixels"):
        rcccodec.decompress(data, max_pixels=149)
    monkeypatch.setattr(decoder, "load_model", None)
    monkeypatch.setattr(decoder, "decode_segments", None)
    with pytest.raises(LimitError, match="150 pixels"):
        codec.decompress(data, max_pixels=149)


def test_padding_counts_against_the_limit_too():
    data = codec.compress([picture(1, 1)] * 80, "grey").data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "MAX_PIXELS", 64 * 80 - 1)
        with pytest.raises(LimitError, match="5120 pixels with padding"):
            codec.decompress(data, max_pixels=80)
        assert len(codec.decompress(data, max_pixels=5120)) == 80


def test_many_groups_count_as_the_work_they_are():
    data = codec.compress([picture(1, 1), picture(2, 1)], "grey").data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "MAX_PIXELS", 2 * decoder.LEAST_WORK_PIXELS)
        assert len(codec.decompress(data, max_pixels=3)) == 2
        patch.setattr(decoder, "MAX_PIXELS", 2 * decoder.LEAST_WORK_PIXELS - 1)
        with pytest.raises(LimitError, match="with padding"):
            codec.decompress(data, max_pixels=3)


def test_a_file_is_not_decoded_with_another_model(tiny: Path):
    data = codec.compress(picture(8, 8), "grey").data
    with pytest.raises(ModelError, match=r"made with model grey \(.*, not colour "):
        codec.decompress(data, "colour")
    assert codec.decompress(data, str(tiny / "grey"))[0].shape == (8, 8)


def test_a_damaged_or_missing_model_is_a_model_error(tiny: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="nothing"):
        codec.compress(picture(8, 8), "nothing")
    broken = tmp_path / "grey"
    broken.mkdir()
    for name in ("model.json", "weights.safetensors"):
        (broken / name).write_bytes((tiny / "grey" / name).read_bytes())
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="hash"):
        codec.compress(picture(8, 8), str(broken))


def test_samples_are_the_first_candidates():
    model = load_model("grey")
    tiles = codec.draw_samples(model, 1, 5, 17)
    expected = all_candidates(model, 1, 0, 5, seed=17).reshape(5, 8, 8, 1)
    for tile, y in zip(tiles, expected, strict=True):
        np.testing.assert_array_equal(tile, from_float(y, grey=True))
    assert codec.draw_samples(load_model("colour"), 0, 2, 0)[1].shape == (16, 8, 3)


def test_the_package_level_functions_go_from_array_to_bytes_and_back():
    x = picture(10, 10, True)
    data = rcccodec.compress(x, "colour", coder="pfr")
    assert isinstance(data, bytes)
    np.testing.assert_array_equal(rcccodec.decompress(data), codec.decompress(data)[0])
    several = rcccodec.decompress(rcccodec.compress([x, x], rcccodec.load_model("colour")))
    assert isinstance(several, list)
    assert len(several) == 2


def test_min_cost_asks_for_code_lengths_a_range_at_a_time(monkeypatch: pytest.MonkeyPatch):
    asked, lengths_bits = [], FittedCode.lengths_bits
    monkeypatch.setattr(
        FittedCode,
        "lengths_bits",
        lambda code, indices: asked.append(indices.size) or lengths_bits(code, indices),
    )
    codec.compress(picture(8, 8, False), "grey", num_candidates=1 << 16, index_code="fitted")
    assert sum(asked) == 1 << 16
    assert max(asked) < 1 << 15
