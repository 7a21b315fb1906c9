"""Reading, writing, blocks and the colour rule: every row of the table in rcccodec/images.py."""

import contextlib
import io
import math
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from rcccodec import images
from rcccodec.errors import InputError, LimitError, OutputError

RNG = np.random.Generator(np.random.PCG64(1))
GREY = RNG.integers(0, 256, (3, 5), dtype=np.uint8)
RGB = RNG.integers(0, 256, (3, 5, 3), dtype=np.uint8)
TRANSPARENT = "transparency composited over white"
DEEP = "16 bits a sample reduced to 8"


def encoded(image, kind="PNG", **options):
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, raw, extra=b""):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + extra + body


def png16(samples, colour):
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(samples.shape[1], samples.shape[0], 16, colour, raw)


# --- what is kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image", [GREY, RGB, GREY[:1, :1], RGB[:1, :1], GREY[:1], RGB[:, :1]], ids=lambda i: str(i.shape)
)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey_and_rgb_are_kept_exactly(image, kind):
    result, notes = images.read_image(encoded(image, kind))
    assert result.dtype == np.uint8
    assert notes == []
    np.testing.assert_array_equal(result, image)


def test_one_bit_becomes_black_and_white():
    result, notes = images.read_image(encoded(Image.fromarray(GREY > 127)))
    np.testing.assert_array_equal(result, np.where(GREY > 127, 255, 0))
    assert notes == []


def test_a_path_and_its_bytes_read_the_same(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(RGB))
    np.testing.assert_array_equal(images.read_image(path)[0], images.read_image(path.read_bytes())[0])
    np.testing.assert_array_equal(images.read_image(str(path))[0], RGB)


# --- what is flattened --------------------------------------------------------------------------------------


def test_palette_becomes_rgb():
    picture = Image.fromarray(RGB).quantize(4)
    result, notes = images.read_image(encoded(picture))
    np.testing.assert_array_equal(result, np.asarray(picture.convert("RGB")))
    assert notes == ["palette expanded to RGB"]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_white(kind):
    picture = Image.new("P", (4, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1, 0, 1])
    result, notes = images.read_image(encoded(picture, kind, transparency=1))
    np.testing.assert_array_equal(result[0], [[10, 20, 30], [255] * 3] * 2)
    assert TRANSPARENT in notes


def test_alpha_is_composited_over_white():
    rgba = np.dstack([RGB, RNG.integers(0, 256, GREY.shape, dtype=np.uint8)])
    result, notes = images.read_image(encoded(rgba))
    alpha = rgba[:, :, 3:] / 255
    np.testing.assert_allclose(result, RGB * alpha + 255 * (1 - alpha), atol=0.51)
    assert notes == [TRANSPARENT]


def test_grey_with_alpha_stays_grey():
    picture = Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (5, 3), 0)])
    result, notes = images.read_image(encoded(picture))
    np.testing.assert_array_equal(result, np.full((3, 5), 255))
    assert notes == [TRANSPARENT]


def test_full_alpha_changes_no_pixel():
    result, _ = images.read_image(encoded(np.dstack([RGB, np.full_like(GREY, 255)])))
    np.testing.assert_array_equal(result, RGB)


@pytest.mark.parametrize(("image", "clear"), [(GREY, int(GREY[0, 0])), (RGB, tuple(map(int, RGB[0, 0])))])
def test_a_transparent_colour_becomes_white(image, clear):
    result, notes = images.read_image(encoded(image, transparency=clear))
    assert (result[0, 0] == 255).all()
    np.testing.assert_array_equal(result[1:], image[1:])
    assert notes == [TRANSPARENT]


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2)])
def test_sixteen_bits_keep_the_high_byte(channels, colour):
    samples = RNG.integers(0, 65536, (3, 5, channels))
    result, notes = images.read_image(png16(samples, colour))
    np.testing.assert_array_equal(result, (samples >> 8)[:, :, 0] if channels == 1 else samples >> 8)
    assert notes == [DEEP]


@pytest.mark.parametrize(("channels", "colour"), [(2, 4), (4, 6)])
def test_sixteen_bits_with_alpha_are_reduced_and_composited(channels, colour):
    samples = np.full((2, 2, channels), 40000)
    samples[0, :, -1] = 0
    result, notes = images.read_image(png16(samples, colour))
    assert (result[0] == 255).all()
    assert notes == [DEEP, TRANSPARENT]


def test_sixteen_bit_tiff_and_netpbm_are_reduced():
    deep = (GREY.astype(np.uint16) << 8) + 7
    for data in (encoded(deep, "TIFF"), b"P5 5 3 65535\n" + deep.astype(">u2").tobytes()):
        result, notes = images.read_image(data)
        np.testing.assert_array_equal(result, GREY)
        assert notes == [DEEP]
    assert images.read_image(b"P6 1 1 65535\n" + bytes(6))[1] == [DEEP]
    assert images.read_image(b"P6 1 1 255\n" + bytes(3))[1] == []


def test_sixteen_bit_transparent_grey_becomes_white():
    samples = np.array([[[300], [40000]]])
    raw = b"\0" + samples.astype(">u2").tobytes()
    result, notes = images.read_image(png(2, 1, 16, 0, raw, png_chunk(b"tRNS", struct.pack(">H", 300))))
    np.testing.assert_array_equal(result, [[255, 40000 >> 8]])
    assert notes == [DEEP, TRANSPARENT]


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")])
def test_other_colour_spaces_become_rgb_with_a_note(mode, kind):
    result, notes = images.read_image(
        encoded(Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).convert(mode), kind)
    )
    assert result.shape == (8, 8, 3)
    np.testing.assert_allclose(result, 90, atol=3)
    assert notes == [f"{mode} converted to RGB"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_exif_orientation_is_honoured(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(RGB, kind, exif=exif)
    result, notes = images.read_image(data)
    np.testing.assert_array_equal(result, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))))
    assert result.shape[:2] == ((3, 5) if orientation < 5 else (5, 3))
    assert bool(notes) == (orientation != 1)


def test_damaged_exif_does_not_cost_the_picture(monkeypatch):
    monkeypatch.setattr(Image.Image, "getexif", lambda self: 1 / 0)
    result, notes = images.read_image(encoded(RGB))
    np.testing.assert_array_equal(result, RGB)
    assert notes == ["damaged EXIF data ignored"]


def test_a_colour_profile_is_dropped_with_a_note():
    assert images.read_image(encoded(RGB, icc_profile=b"x" * 200))[1] == ["colour profile dropped"]


def test_the_first_picture_of_an_mpo_is_kept():
    data = encoded(RGB, "MPO", save_all=True, append_images=[Image.new("RGB", (5, 3))])
    result, notes = images.read_image(data)
    assert result.shape == RGB.shape
    assert "only the first" in notes[0]


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(kind):
    data = encoded(RGB, kind, save_all=True, append_images=[Image.new("RGB", (5, 3), "red")])
    with pytest.raises(InputError, match="several frames"):
        images.read_image(data)


@pytest.mark.parametrize(("mode", "reason"), [("F", "floating-point"), ("I", "32-bit"), ("LAB", "LAB")])
def test_sample_kinds_without_a_rule_are_refused(mode, reason):
    with pytest.raises(InputError, match=f"photo.tif: refused: {reason}"):
        images.read_image(encoded(Image.new(mode, (3, 2)), "TIFF"), name="photo.tif")


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty"),
        (b"hello " * 20, "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image|unreadable"),
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
            "not an image",
        ),  # would start an interpreter
    ],
)
def test_foreign_bytes_are_refused_in_one_line(data, cause):
    with pytest.raises(InputError, match=f"^image: .*({cause})") as caught:
        images.read_image(data)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match=f"^{path}: cannot read: "):
            images.read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_refused(kind):
    picture = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(picture, kind)
    with pytest.raises(InputError):
        images.read_image(data[: len(data) // 2])


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 200), st.integers(1, 255))
def test_any_flipped_byte_of_a_png_is_noticed_or_harmless(at, change):
    data = bytearray(encoded(RGB))
    data[at % len(data)] ^= change
    try:
        result, _ = images.read_image(bytes(data))
    except (InputError, LimitError):
        return
    np.testing.assert_array_equal(result, RGB)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA"]), st.data())
def test_every_failure_is_documented_whatever_the_bytes_are(kind, data):
    content = bytearray(encoded(RGB, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        result, _ = images.read_image(bytes(content), max_pixels=1 << 16)
    except (InputError, LimitError) as error:
        message = str(error)
    else:
        message = ""
        assert result.dtype == np.uint8
        assert result.ndim == 2 or result.shape[2] == 3
    assert "\n" not in message


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (60_000, 60_000), (70_000, 1)])
def test_sizes_are_checked_before_any_pixel_is_decoded(width, height):
    with pytest.raises(LimitError):
        images.read_image(png(width, height, 8, 2, b""))


def test_max_pixels_is_a_limit_on_width_times_height():
    assert images.read_image(encoded(GREY), max_pixels=15)[0].shape == (3, 5)
    with pytest.raises(LimitError, match="5x3 pixels"):
        images.read_image(encoded(GREY), max_pixels=14)


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".PNG"])
@pytest.mark.parametrize("image", [GREY, RGB, GREY[:1, :1]], ids=["grey", "rgb", "1x1"])
def test_what_is_written_is_read_back(tmp_path, image, ending):
    path = tmp_path / f"out{ending}"
    images.write_image(path, image)
    result = images.read_image(path)[0]
    expected = np.dstack([image] * 3) if result.ndim > image.ndim else image  # WebP knows no grey
    np.testing.assert_array_equal(result, expected)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_lossy_and_unknown_endings_are_refused(tmp_path):
    for name in ("out.jpg", "out", "out.gif"):
        with pytest.raises(OutputError, match="without loss"):
            images.write_image(tmp_path / name, GREY)
    assert list(tmp_path.iterdir()) == []


def test_a_size_the_format_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.webp"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=str(path)):
        images.write_image(path, np.zeros((1, 20_000), np.uint8))
    assert path.read_bytes() == b"old"


def test_existing_files_are_kept_when_asked(tmp_path):
    path = tmp_path / "out.png"
    images.write_image(path, GREY)
    with pytest.raises(OutputError):
        images.write_image(path, RGB, overwrite=False)
    np.testing.assert_array_equal(images.read_image(path)[0], GREY)


@pytest.mark.parametrize("image", [GREY.astype(float), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8)])
def test_only_uint8_images_are_written(image):
    with pytest.raises(ValueError, match="uint8"):
        images.image_bytes(image)


# --- PSNR and the side-by-side picture ----------------------------------------------------------------------


def test_psnr_of_known_differences():
    assert images.psnr_db(GREY, GREY) == math.inf
    assert images.psnr_db(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)) == 0
    one_off = images.psnr_db(np.full((4, 4, 3), 7, np.uint8), np.full((4, 4, 3), 8, np.uint8))
    assert one_off == pytest.approx(20 * math.log10(255))
    with pytest.raises(ValueError, match="shapes differ"):
        images.psnr_db(GREY, RGB)


@pytest.mark.parametrize("image", [GREY, RGB, np.zeros((300, 200), np.uint8)])
def test_side_by_side_shows_both_pictures_whole(image):
    factor = max(1, 256 // max(image.shape[:2]))
    canvas = images.side_by_side(image, 255 - image, ("original", "reconstruction, 0.123 bpp, 23.4 dB"))
    big = np.kron(images.to_channels(image, 3)[0], np.ones((factor, factor, 1), np.uint8))
    height, width = big.shape[:2]
    np.testing.assert_array_equal(canvas[8 : 8 + height, 8 : 8 + width], big)
    right = canvas[8 : 8 + height, 16 + width :]
    assert any((right[:, x : x + width] == 255 - big).all() for x in range(right.shape[1] - width))
    assert canvas.shape[0] > height + 16  # room for the captions
    assert (canvas[8 + height :] < 128).any()


# --- colours ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_survives_a_model_of_any_channels(channels):
    planes, notes = images.to_channels(GREY, channels)
    assert planes.shape == (3, 5, channels)
    assert notes == []
    np.testing.assert_array_equal(images.from_float(planes / 255, grey=True), GREY)


def test_rgb_is_luma_for_a_grey_model_with_a_note():
    planes, notes = images.to_channels(RGB, 1)
    np.testing.assert_array_equal(planes[:, :, 0], np.asarray(Image.fromarray(RGB).convert("L")))
    assert notes == ["colour reduced to luma for a grey model"]
    assert images.from_float(planes / 255, grey=True).shape == (3, 5)


def test_rgb_survives_a_colour_model():
    planes, notes = images.to_channels(RGB, 3)
    assert notes == []
    np.testing.assert_array_equal(images.from_float(planes / 255, grey=False), RGB)


def test_grey_from_three_channels_is_their_mean_clipped_and_rounded():
    pixels = np.array([[[0.0, 0.3, 0.9], [1.0, 1.5, 2.0], [-1.0, -0.5, 0.1]]])
    np.testing.assert_array_equal(images.from_float(pixels, grey=True), [[102, 255, 0]])
    np.testing.assert_array_equal(images.from_float(pixels, grey=False)[0, 1:], [[255] * 3, [0, 0, 26]])


def test_models_have_one_or_three_channels():
    with pytest.raises(ValueError, match="1 or 3"):
        images.to_channels(GREY, 2)


# --- blocks -------------------------------------------------------------------------------------------------

SIDES = st.integers(1, 9)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), SIDES, SIDES, st.sampled_from([1, 3]))
def test_from_blocks_gives_the_image_back_over_uneven_sizes(height, width, h, w, channels):
    image = np.arange(height * width * channels, dtype=np.float64).reshape(height, width, channels)
    padded = images.pad_to_multiple(image, h, w)
    blocks = images.to_blocks(padded, (h, w))
    assert blocks.shape == (-(-height // h) * -(-width // w), h * w * channels)
    back = images.from_blocks(blocks, (h, w), padded.shape[:2], channels)
    np.testing.assert_array_equal(back, padded)
    np.testing.assert_array_equal(back[:height, :width], image)


@given(st.integers(1, 20), st.integers(1, 20), SIDES, SIDES)
def test_padding_repeats_the_edge_and_adds_less_than_a_block(height, width, h, w):
    image = np.arange(height * width).reshape(height, width)
    padded = images.pad_to_multiple(image, h, w)
    assert padded.shape[0] % h == padded.shape[1] % w == 0
    assert padded.shape[0] - height < h
    assert padded.shape[1] - width < w
    rows, columns = np.arange(padded.shape[0]), np.arange(padded.shape[1])
    expected = image[np.minimum(rows, height - 1)][:, np.minimum(columns, width - 1)]
    np.testing.assert_array_equal(padded, expected)


def test_blocks_run_row_major_and_are_flattened_as_height_width_channel():
    image = np.arange(4 * 6 * 3).reshape(4, 6, 3)
    blocks = images.to_blocks(image, (2, 3))
    np.testing.assert_array_equal(blocks[1], image[:2, 3:].ravel())
    np.testing.assert_array_equal(blocks[2], image[2:, :3].ravel())


def test_uneven_sizes_are_not_cut_silently():
    with pytest.raises(ValueError, match="whole number"):
        images.to_blocks(np.zeros((4, 5, 1)), (2, 2))
    for blocks, size in ((np.zeros((3, 4)), (4, 4)), (np.zeros((4, 3)), (4, 4)), (np.zeros((4, 4)), (5, 4))):
        with pytest.raises(ValueError, match="is not a"):
            images.from_blocks(blocks, (2, 2), size, 1)


def test_images_and_sources_do_not_import_torch():
    code = (
        "import sys, rcccodec.images, rcccodec.sources; sys.exit(bool({'torch', 'scipy'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- hostile pictures


def test_what_libraries_print_of_a_damaged_file_is_kept_from_the_terminal(capfd, monkeypatch):
    damaged = [path.read_bytes() for path in (Path(__file__).parent / "corpus" / "image").glob("tiff-*")]

    def said() -> str:
        for data in damaged:
            with contextlib.suppress(InputError):
                images.read_image(data)
        return capfd.readouterr().err

    assert said() == ""
    monkeypatch.setattr(images, "silent_libraries", contextlib.nullcontext)
    assert "Decode" in said()  # the control


@pytest.mark.parametrize("band_pixels", [1, 50, 1 << 20])
def test_compositing_and_reducing_in_bands_is_what_it_is_at_once(band_pixels, monkeypatch):
    monkeypatch.setattr(images, "_BAND_PIXELS", band_pixels)
    rng = np.random.default_rng(0)
    layers = rng.integers(0, 256, (9, 13, 4), np.uint8)
    colours, alpha = layers[..., :3].astype(int), layers[..., 3:].astype(int)
    wanted = np.floor((colours * alpha + 255 * (255 - alpha)) / 255 + 0.5)
    assert np.abs(images._over_white(layers) - wanted).max() == 0
    deep = rng.integers(0, 1 << 16, (9, 13), np.uint16)
    clear = int(deep[3, 4])
    assert np.array_equal(images._high_bytes(deep, None), deep >> 8)
    assert np.array_equal(images._high_bytes(deep, clear), np.where(deep == clear, 255, deep >> 8))


def test_a_transparent_picture_takes_little_more_than_its_pixels():
    buffer = io.BytesIO()
    Image.new("RGBA", (3000, 2000), (1, 2, 3, 4)).save(buffer, "PNG")
    tracemalloc.start()
    try:
        images.read_image(buffer.getvalue())
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20 * 3000 * 2000  # with all of it in 32 bits it was 40


def scans(count):
    """A progressive JPEG of that many scans in all."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 128).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    more = count - data.count(b"\xff\xda")
    return data[:-2] + (b"\xff\xda" + struct.pack(">H6B", 8, 1, 1, 0, 1, 63, 0)) * more + data[-2:]


def comments(count):
    return b"P2 2 2 255\n" + b"#\n" * count + b"1 2 3 4"


@pytest.mark.parametrize(("make", "most", "what"), [(scans, 100, "scans"), (comments, 10_000, "comments")])
def test_few_bytes_must_not_ask_for_many_passes(make, most, what):
    images.read_image(make(most))
    with pytest.raises(InputError, match=rf"{most + 1} {what}"):
        images.read_image(make(most + 1))


def test_marks_are_counted_where_parts_of_a_file_meet_and_not_among_samples(monkeypatch):
    monkeypatch.setattr("rcccodec.pillow_guards._READ_BYTES", 7)
    with pytest.raises(InputError, match="101 scans"):
        images.read_image(scans(101))
    images.read_image(b"P5 200 200 255\n" + b"#" * 40_000)
