"""Files of latents: what is written comes back, targets are met, regions are crops, damage is refused."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_latent import smooth_picture

from rcccodec import codec, container, decoder
from rcccodec.bundle import load_model
from rcccodec.container import CODERS, Group, Header, unpack
from rcccodec.errors import FormatError, LimitError, ModelError, RccError
from rcccodec.latent import bands
from rcccodec.latent import file as latent_file
from rcccodec.latent.bands import read_picture
from rcccodec.latent.codec import decode_picture, encode_picture, make_target, trellis_bytes
from rcccodec.latent.file import (
    DEFAULT_GAIN,
    LEAST_GAIN,
    MOST_GAIN,
    TRELLIS_EFFORT,
    LatentSettings,
    choose_settings,
    compress,
    compress_to_bits,
    compress_to_psnr,
)
from rcccodec.latent.model import LatentModel
from rcccodec.latent.payload import Channel, Reader
from rcccodec.latent.report import psnr_db


def settings_of(model: LatentModel, **options: object) -> LatentSettings:
    few = (
        {}
        if "effort" in options
        else {"num_candidates": 64 if options.get("coder") in (None, "trellis") else 256}
    )
    return choose_settings(model, **{"slope": 0, **few, **options})


def grey(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x[:, :, 1])


PICTURES = {
    "colour": [smooth_picture(40, 60, 1)],
    "grey": [grey(smooth_picture(33, 47, 2))],
    "one pixel": [smooth_picture(1, 1, 3)],
    "one grey pixel": [np.array([[7]], np.uint8)],
    "wide": [smooth_picture(17, 300, 4)],
    "tall": [smooth_picture(290, 5, 5)],
    "several": [
        smooth_picture(20, 20, 6), smooth_picture(20, 20, 7), grey(smooth_picture(20, 20, 8)),
        smooth_picture(270, 20, 9), smooth_picture(20, 20, 10),
    ],
    "flat": [np.full((50, 50, 3), 128, np.uint8)],
    "extreme": [np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)],
}  # fmt: skip


@pytest.mark.parametrize("coder", ["trellis", "pfr", "orc", "mincost"])
@pytest.mark.parametrize("kind", PICTURES)
def test_the_images_that_the_encoder_names_come_back(latent_model, kind: str, coder: str) -> None:
    sources = PICTURES[kind]
    made = compress(sources, settings_of(latent_model, coder=coder))
    found = codec.decompress(made.data, latent_model)
    assert [x.shape for x in found] == [x.shape for x in sources]
    assert all(np.array_equal(a, b) and a.dtype == np.uint8 for a, b in zip(found, made.images, strict=True))
    header, groups = unpack(made.data)
    assert (header.version, CODERS[header.coder], header.rung) == (3 if len(sources) == 1 else 6, coder, 0)
    assert sum(group.count for group in groups) == len(sources)
    report = made.report
    assert report.file_bytes == len(made.data)
    assert report.payload_bits == 8 * sum(len(group.payload) for group in groups)
    assert report.class_bits + report.dimension_bits + report.framing_bits == 8 * len(made.data)
    assert report.bpp == pytest.approx(8 * len(made.data) / sum(x.shape[0] * x.shape[1] for x in sources))
    assert report.psnr_db == pytest.approx(psnr_db(sources, found))
    assert report.positions == sum(-(-x.shape[0] // 16) * -(-x.shape[1] // 16) for x in sources)


def test_pictures_are_recognisable_and_better_at_the_steeper_slope(latent_model) -> None:
    sources = [smooth_picture(100, 120, 20)]
    low, high = (compress(sources, settings_of(latent_model, slope=slope)).report for slope in (0, 1))
    other = psnr_db(sources, [smooth_picture(100, 120, 21)])
    assert other + 5 < low.psnr_db < high.psnr_db - 1
    assert low.file_bytes < 0.8 * high.file_bytes
    assert low.dimension_bits == pytest.approx(DEFAULT_GAIN * low.divergence_bits, rel=0.05)
    assert low.expected_bits == pytest.approx(low.divergence_bits, rel=0.3)


def test_more_effort_is_better_at_the_same_size(latent_model) -> None:
    sources = [smooth_picture(128, 128, seed) for seed in (22, 23)]
    poor, good = (compress(sources, settings_of(latent_model, slope=1, effort=e)) for e in (1, 5))
    assert len(poor.data) == len(good.data)
    assert good.report.psnr_db > poor.report.psnr_db + 0.05
    assert good.report.log2_num_candidates == TRELLIS_EFFORT[4]


def test_another_seed_is_another_file_and_the_same_one_the_same(latent_model) -> None:
    sources = [smooth_picture(40, 60, 1)]
    first, again, other = (compress(sources, settings_of(latent_model, seed=seed)).data for seed in (4, 4, 5))
    assert first == again != other


@pytest.mark.parametrize("coder", ["trellis", "pfr", "orc", "mincost"])
def test_a_picture_that_sends_nothing_is_its_classes(latent_model, coder: str) -> None:
    priors = tuple(replace(p, rates_millibits=np.zeros_like(p.rates_millibits)) for p in latent_model.priors)
    model, sources = replace(latent_model, priors=priors), [smooth_picture(40, 300, 1)]
    made = compress(sources, settings_of(model, coder=coder))
    assert made.report.dimension_bits == made.report.expected_bits == 0
    assert np.array_equal(codec.decompress(made.data, model)[0], made.images[0])
    assert psnr_db(sources, made.images) > 10


def test_progress_rises_to_the_whole(latent_model) -> None:
    told: list[tuple[int, int]] = []
    sources = [smooth_picture(100, 100, seed) for seed in (1, 2)]
    compress(sources, settings_of(latent_model, coder="pfr"), progress=lambda *share: told.append(share))
    assert told
    assert all(0 <= done <= total for done, total in told)
    shares = [done / total for done, total in told]
    assert shares == sorted(shares)
    assert shares[-1] > 0.9


def test_a_larger_gain_takes_more_bytes_and_keeps_more(latent_model) -> None:
    sources = [smooth_picture(160, 200, 30)]
    made = [compress(sources, replace(settings_of(latent_model), gain=g)) for g in (0.5, 0.75, 1.0, 1.3, 1.6)]
    sizes, psnr = [len(one.data) for one in made], [one.report.psnr_db for one in made]
    assert sizes == sorted(set(sizes))
    assert psnr == sorted(psnr)


@pytest.mark.parametrize(
    "sources", [[smooth_picture(256, 256, 31)], [smooth_picture(150, 300, 32)] * 2], ids=len
)
@pytest.mark.parametrize("share", [0.9, 1.1, 1.7])
def test_a_file_made_to_a_size_is_never_larger_and_little_smaller(
    latent_model, sources, share: float
) -> None:
    settings = settings_of(latent_model)
    target_bits = round(8 * share * len(compress(sources, settings).data))
    made = compress_to_bits(sources, settings, target_bits)
    assert 0.97 * target_bits < 8 * len(made.data) <= target_bits
    assert np.array_equal(codec.decompress(made.data, latent_model)[0], made.images[0])


def test_any_target_from_the_smallest_file_on_is_kept(latent_model) -> None:
    sources, settings = (
        [smooth_picture(70, 70, 33), grey(smooth_picture(20, 20, 34))],
        settings_of(latent_model),
    )
    smallest = 8 * len(compress(sources, replace(settings, gain=LEAST_GAIN)).data)
    largest = 8 * len(compress(sources, replace(settings, slope=1, gain=MOST_GAIN)).data)
    for target_bits in (
        *range(smallest, smallest + 100, 24),
        (smallest + largest) // 2,
        largest,
        10 * largest,
    ):
        assert 8 * len(compress_to_bits(sources, settings, target_bits).data) <= target_bits
    assert 8 * len(compress_to_bits(sources, settings, 10 * largest).data) == pytest.approx(largest, rel=0.03)
    most = compress_to_bits(sources, settings, 1 << 40)
    assert compress_to_bits(sources, settings, 10**400).data == most.data
    for target_bits in (smallest - 1, 1, 0):
        with pytest.raises(LimitError, match=f"the smallest file this model makes of it has {smallest}"):
            compress_to_bits(sources, settings, target_bits)


def test_the_size_is_known_before_the_search(latent_model) -> None:
    sources = [smooth_picture(20, 20, 6), smooth_picture(20, 20, 7), smooth_picture(270, 20, 9)]
    for slope, gain in ((0, 0.7), (1, 1.2)):
        settings = replace(settings_of(latent_model, slope=slope), gain=gain)
        latents = [latent_file._analyse(x, settings) for x in sources]
        assert latent_file._size(sources, latents, settings) == len(compress(sources, settings).data)


def test_the_size_of_many_bytes_of_classes_is_known_too(latent_model) -> None:
    settings = settings_of(latent_model)
    latents = latent_file._analyse(smooth_picture(256, 256, 1), settings)
    latents = replace(latents, classes=(np.random.default_rng(0).integers(0, 16, (16, 16)),))
    made = encode_picture(latent_model, latents, settings.channel)
    assert made.class_bytes > 128  # whose length takes two bytes
    assert trellis_bytes(latent_model, latents, 1.0) == len(made.data)


def test_what_is_searched_for_is_the_posterior_and_nothing_where_it_is_wider_than_the_prior(
    latent_model,
) -> None:
    settings = settings_of(latent_model)
    latents = latent_file._analyse(smooth_picture(32, 32, 1), settings)
    log_noise = latents.log_noise.clone()
    log_noise[:, 0, 0] = 5.0
    latents, (classes,) = replace(latents, log_noise=log_noise), latents.classes
    prior = latent_model.priors[0]
    target = make_target(prior, latents, (0, 0, 2, 2), classes, settings.channel, 1.0)
    row, sent = 0, 0
    for position, c in enumerate(classes.ravel()):
        for channel in np.flatnonzero(prior.rates_millibits[c]):
            mean, noise = (v.flatten(1)[channel, position].item() for v in (latents.mean, log_noise.exp()))
            centre, scale = prior.centre[c, channel].item(), prior.scale[c, channel].item()
            noise = min(noise, scale)
            assert target.quadratic[row] == pytest.approx((scale**2 / noise**2 - 1) / 2, rel=1e-3, abs=1e-5)
            assert target.linear[row] == pytest.approx(
                -scale * (mean - centre) / noise**2, rel=1e-3, abs=1e-4
            )
            assert target.rates[row] == prior.rates_millibits[c, channel]
            row += 1
            sent += position == 0
    assert row == len(target.linear) > 4 * sent / 2 > 0
    assert np.abs(target.quadratic[:sent]).max() < 1e-5


def test_only_a_trellis_is_made_to_a_size(latent_model) -> None:
    with pytest.raises(LimitError, match="only files of a trellis"):
        compress_to_bits([smooth_picture(20, 20, 6)], settings_of(latent_model, coder="mincost"), 10_000)


def test_a_quality_asked_for_is_reached_at_about_the_least_size(latent_model) -> None:
    sources, settings = [smooth_picture(160, 160, 40)], settings_of(latent_model)
    low, high = (compress(sources, replace(settings, slope=slope)).report for slope in (0, 1))
    for target_db in (low.psnr_db - 0.5, (low.psnr_db + high.psnr_db) / 2, high.psnr_db):
        made = compress_to_psnr(sources, settings, target_db)
        assert made.report.psnr_db >= target_db
        assert made.report.psnr_db == psnr_db(sources, codec.decompress(made.data, latent_model))
        assert made.report.file_bytes <= high.file_bytes
    assert compress_to_psnr(sources, settings, 1.0).report.file_bytes < 0.8 * low.file_bytes
    with pytest.raises(LimitError, match="the best this model reaches on it is"):
        compress_to_psnr(sources, settings, 70.0)


REGIONS = [
    (0, 0, 300, 290),
    (0, 0, 1, 1),
    (299, 289, 1, 1),
    (250, 200, 12, 80),
    (100, 30, 60, 17),
    (200, 0, 100, 290),
]


@pytest.mark.parametrize("coder", ["trellis", "orc"])
def test_a_region_is_the_crop_of_the_whole(latent_model, coder: str) -> None:
    for x in (smooth_picture(300, 290, 50), grey(smooth_picture(300, 290, 51))):
        made = compress([x], settings_of(latent_model, coder=coder))
        for top, left, height, width in REGIONS:
            (found,) = codec.decompress(made.data, latent_model, region=(top, left, height, width))
            whole = made.images[0][top : top + height, left : left + width]
            assert found.shape == whole.shape
            assert np.array_equal(found, whole)


def test_a_region_makes_no_more_tiles_than_it_needs(latent_model, monkeypatch) -> None:
    made = compress([smooth_picture(600, 800, 50)], settings_of(latent_model, effort=1))
    tiles, plain = [], bands.tile_latents
    monkeypatch.setattr(bands, "tile_latents", lambda *args: tiles.append(1) or plain(*args))
    # the windows that a region is in, and the tiles around those
    for region, count in (((0, 0, 100, 100), 4), ((0, 0, 300, 10), 6), ((280, 280, 5, 5), 9), (None, 12)):
        tiles.clear()
        codec.decompress(made.data, latent_model, region=region)
        assert len(tiles) == count


def test_regions_outside_and_of_several_images_are_refused(latent_model) -> None:
    one = compress([smooth_picture(30, 40, 1)], settings_of(latent_model)).data
    several = compress([smooth_picture(30, 40, 1)] * 2, settings_of(latent_model)).data
    for region in ((-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (0, 0, 31, 5), (0, 39, 5, 2)):
        with pytest.raises(LimitError, match="region"):
            codec.decompress(one, latent_model, region=region)
    for region in ((0, 0, 5), (0, 0, 5, 5, 5), (0.0, 0, 5, 5), "0055"):
        with pytest.raises(LimitError, match="region"):
            codec.decompress(one, latent_model, region=region)  # type: ignore[arg-type]
    with pytest.raises(LimitError, match="several"):
        codec.decompress(several, latent_model, region=(0, 0, 5, 5))


def checksummed(data: bytes) -> bytes:
    """A file of one group, with the checksum that belongs to it."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def flipped(data: bytes) -> Iterator[bytes]:
    for place in range(len(data)):
        for change in (0x01, 0x08, 0x80, 0xFF):
            yield bytes([*data[:place], data[place] ^ change, *data[place + 1 :]])


@pytest.mark.parametrize("coder", ["trellis", "mincost"])
def test_damage_anywhere_is_refused_in_one_line(latent_model, coder: str) -> None:
    data = compress([smooth_picture(20, 30, 1)], settings_of(latent_model, coder=coder)).data
    for damaged in (*flipped(data), *(data[:end] for end in range(len(data))), data + b"\0", data + data):
        with pytest.raises(FormatError) as caught:
            codec.decompress(damaged, latent_model)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("coder", ["trellis", "mincost"])
def test_damage_with_a_checksum_that_fits_ends_in_images_or_in_one_line(latent_model, coder: str) -> None:
    data = compress([smooth_picture(20, 30, 1)], settings_of(latent_model, coder=coder)).data
    cut = [data[:end] + data[-4:] for end in range(20, len(data) - 4)]
    longer = [data[:-4] + more + data[-4:] for more in (b"\0", b"\1", data)]
    refused = accepted = 0
    for damaged in (*flipped(data[:-4]), *cut, *longer):
        damaged = checksummed(damaged if damaged in cut or damaged in longer else damaged + b"....")
        try:
            images = codec.decompress(damaged, latent_model, max_pixels=1 << 20)
        except RccError as error:
            refused += "\n" not in str(error)
            continue
        accepted += 1
        _, groups = unpack(damaged)
        assert [x.shape[:2] for x in images] == [(g.height, g.width) for g in groups for _ in range(g.count)]
    for damaged in longer:
        with pytest.raises(FormatError):
            codec.decompress(checksummed(damaged), latent_model)
    assert refused + accepted == 4 * (len(data) - 4) + len(cut) + len(longer)
    assert refused >= len(cut) + len(longer) + 20


def test_a_payload_too_short_for_its_tiles_is_refused_before_memory_is_taken(latent_model) -> None:
    header = settings_of(latent_model).header()
    data = container.pack(header, [Group(1, 1, 16_000, 16_000, b"\1\0" * 100)])
    with pytest.raises(FormatError, match="at the least"):
        codec.decompress(data, latent_model)


def test_the_file_of_another_model_or_kind_of_model_is_refused(latent_model, model_folder: Path) -> None:
    x = smooth_picture(20, 20, 1)
    latent, one_shot = compress([x], settings_of(latent_model)).data, load_model(model_folder / "colour")
    other = codec.compress(x, one_shot).data
    for data, model in (
        (latent, one_shot), (other, latent_model), (latent, replace(latent_model, sha256="ab" * 32))
    ):  # fmt: skip
        with pytest.raises(ModelError, match=r"made with model .*, not "):
            codec.decompress(data, model)


def test_the_same_model_id_does_not_make_another_kind_of_file_readable(
    latent_model, model_folder: Path
) -> None:
    x = smooth_picture(20, 20, 1)
    one_shot = load_model(model_folder / "colour")
    data = codec.compress(x, one_shot).data
    with pytest.raises(ModelError):
        codec.decompress(data, replace(latent_model, sha256=one_shot.sha256))
    latent = compress([x], settings_of(latent_model)).data
    with pytest.raises(ModelError):
        codec.decompress(latent, replace(one_shot, sha256=latent_model.sha256))


def test_a_rung_or_a_coder_that_the_model_does_not_have_is_refused(latent_model) -> None:
    settings = settings_of(latent_model)
    header, groups = unpack(compress([smooth_picture(20, 20, 1)], settings).data)
    with pytest.raises(FormatError, match="rung 2, but model tiny has 2"):
        codec.decompress(container.pack(replace(header, rung=2), groups), latent_model)
    bare = replace(latent_model, chunk_codes={})
    with pytest.raises(ModelError, match="no index code for coder pfr"):
        codec.decompress(container.pack(replace(header, coder=0), groups), bare)
    with pytest.raises(ModelError, match="no index code for coder orc"):
        choose_settings(bare, coder="orc")


@pytest.mark.parametrize(
    "options",
    [
        {"slope": 2}, {"slope": -1}, {"coder": "huffman"}, {"effort": 0}, {"effort": 10}, {"seed": -1},
        {"seed": 1 << 64}, {"num_candidates": 0}, {"num_candidates": -64}, {"num_candidates": 63},
        {"num_candidates": 32}, {"num_candidates": 1 << 21}, {"num_candidates": 100},
        {"num_candidates": 1 << 25, "coder": "pfr"}, {"num_candidates": 64.0}, {"effort": "5"},
        {"slope": 0.5}, {"seed": 1.5},
    ],
    ids=str,
)  # fmt: skip
def test_settings_out_of_their_limits_are_refused(latent_model, options: dict[str, object]) -> None:
    with pytest.raises(LimitError):
        settings_of(latent_model, **options)


def test_whole_numbers_of_numpy_are_as_good(latent_model) -> None:
    made = settings_of(latent_model, num_candidates=np.int64(64), seed=np.uint64((1 << 64) - 1))
    assert made == settings_of(latent_model, num_candidates=64, seed=(1 << 64) - 1)


def test_defaults_are_the_model_s_and_the_trellis(latent_model) -> None:
    settings = choose_settings(latent_model)
    assert (settings.slope, settings.channel.coder, settings.channel.seed) == (1, "trellis", 3)
    assert settings.channel.log2_states == TRELLIS_EFFORT[latent_file.DEFAULT_EFFORT - 1]


def test_options_of_the_other_kind_of_model_are_refused(latent_model, model_folder: Path) -> None:
    x = smooth_picture(20, 20, 1)
    for options in ({"index_code": "zipf"}, {"joint": True}):
        with pytest.raises(LimitError, match="nothing to choose"):
            codec.compress(x, latent_model, **options)
    with pytest.raises(LimitError, match="effort"):
        codec.compress(x, load_model(model_folder / "colour"), effort=3)
    with pytest.raises(LimitError):
        codec.compress([], latent_model)


HEADER = Header(b"abcdef", 1, CODERS.index("trellis"), 0, 1 << 12, 77, latent=True)
GROUP = Group(1, 1, 20, 30, b"payload")


def test_headers_of_version_3_come_back() -> None:
    for coder, log2 in ((3, 6), (3, 20), (0, 6), (1, 24), (2, 40)):
        header = replace(HEADER, coder=coder, num_candidates=1 << log2)
        assert unpack(container.pack(header, [GROUP])) == (header, [GROUP])
    assert container.pack(HEADER, [GROUP])[3] == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"index_code": 1}, {"index_code": 2}, {"num_candidates": 1 << 5}, {"num_candidates": 1 << 21},
        {"num_candidates": 1}, {"num_candidates": 96}, {"coder": 0, "num_candidates": 1000},
        {"coder": 2, "num_candidates": 32}, {"coder": 4}, {"rung": 16},
    ],
    ids=str,
)  # fmt: skip
def test_headers_out_of_the_limits_of_version_3_are_not_written(fields: dict[str, int]) -> None:
    with pytest.raises(LimitError):
        container.pack(replace(HEADER, **fields), [GROUP])


@pytest.mark.parametrize(
    ("place", "value"),
    [(10, 1 << 4 | 1 << 2 | 3), (10, 1 << 4 | 3 << 2 | 3), (11, 5), (11, 21), (11, 41), (11, 0)],
)
def test_headers_out_of_the_limits_of_version_3_are_not_read(place: int, value: int) -> None:
    data = bytearray(container.pack(HEADER, [GROUP]))
    assert unpack(checksummed(bytes(data)))[0] == HEADER
    data[place] = value
    with pytest.raises(FormatError, match=r"index code|candidates"):
        unpack(checksummed(bytes(data)))


def test_the_trellis_is_a_coder_of_version_3_alone_and_n_no_other_number_than_a_power_of_two() -> None:
    data = bytearray(container.pack(HEADER, [GROUP]))
    for version in (1, 2, 4, 0):
        data[3] = version
        with pytest.raises(FormatError, match=r"unknown coder|version"):
            unpack(checksummed(bytes(data)))
    data[3] = 3
    explicit = bytes(data[:11]) + b"\xff" + container.varint(96) + bytes(data[12:])
    with pytest.raises(FormatError, match="candidates 96"):
        unpack(checksummed(explicit))


def test_a_picture_is_read_from_where_the_last_one_ended(latent_model) -> None:
    settings = settings_of(latent_model)
    channel: Channel = settings.channel
    parts = []
    for seed in (1, 2):
        latents = latent_file._analyse(smooth_picture(40, 300, seed), settings)
        parts.append(encode_picture(latent_model, latents, channel))
    reader = Reader(parts[0].data + parts[1].data)
    for part in parts:
        pixels, tiles = read_picture(latent_model, 0, channel, reader, (40, 300))
        assert np.array_equal(pixels, decode_picture(latent_model, 0, part.y, (40, 300)))
        assert tiles == 2
    reader.finish()


def test_many_tiny_images_count_as_the_work_they_are(latent_model, monkeypatch) -> None:
    made = compress([smooth_picture(16, 16, 1)] * 3, settings_of(latent_model, effort=1))
    monkeypatch.setattr(decoder, "MAX_PIXELS", 3 * decoder.LEAST_WORK_PIXELS)
    assert len(codec.decompress(made.data, latent_model, max_pixels=3 * 256)) == 3
    monkeypatch.setattr(decoder, "MAX_PIXELS", 3 * decoder.LEAST_WORK_PIXELS - 1)
    with pytest.raises(LimitError, match="with padding"):
        codec.decompress(made.data, latent_model, max_pixels=3 * 256)
