"""bench/photo_gap.py: gaps to published curves, by hand."""

import sys
from pathlib import Path

import pytest

from rcccodec.errors import InputError

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def photo_gap(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import photo_gap

    yield photo_gap
    for name in ("photo_gap", "comparison_table", "metadata"):
        sys.modules.pop(name, None)


def test_a_codec_of_half_the_rate_has_a_gap_of_minus_half(photo_gap):
    published = {"half": [(2.0 * r, q) for r, q in CURVE], "far": [(r, q + 50) for r, q in CURVE]}
    near, far = photo_gap.gaps([_curve("rcc")], published)
    assert near["bd_rate_percent"] == pytest.approx(-50)
    assert near["bd_psnr_db"] == pytest.approx(1)
    assert near["psnr_range_db"] == [30, 33]
    assert far["bd_rate_percent"] is None
    assert "BD-rate -50.0 % from 30.00 to 33.00 dB, BD-PSNR +1.00 dB" in photo_gap.line(near)
    assert "no common range" in photo_gap.line(far)


def test_what_is_not_learned_has_no_gap(photo_gap):
    jpeg = {**_curve("reference"), "sha256": None}
    assert photo_gap.gaps([jpeg, {**_curve("bound")}], {"same": CURVE}) == []
    assert len(photo_gap.gaps([_curve("reference")], {"same": CURVE})) == 1


def test_only_results_of_kodak_are_held_against_kodak(photo_gap):
    result = {"images": "first 4 of the test split of kodak, 768x512", "image_sha256": ["x"] * 4}
    assert photo_gap.check_images(result, Path("r.json")) == 4
    with pytest.raises(InputError, match="not Kodak"):
        photo_gap.check_images({**result, "images": "first 4 of the test split of bsds500"}, Path("r.json"))


def test_a_published_curve_moves_with_webp(photo_gap):
    published = {photo_gap.SAME_SETTINGS: CURVE, "other": [(0.7 * r, q + 0.6) for r, q in CURVE]}
    moved = photo_gap.moved(published, [(3 * r, q) for r, q in CURVE])
    (points,) = moved.values()
    assert list(moved) == ["other, moved to these images"]
    assert points == [pytest.approx((2.1 * r, q + 0.6)) for r, q in CURVE[:-1]]
    near = {**published, "other": [(r, q + 0.4) for r, q in CURVE]}
    assert all(len(curve) == len(CURVE) for curve in photo_gap.moved(near, CURVE).values())
    assert photo_gap.moved(published, [(r, q + 50) for r, q in CURVE]) == {}


def test_the_published_curves_are_read(photo_gap):
    curves = photo_gap.published_curves()
    assert "bmshj2018-factorized" in curves
    assert all(len(curve) >= 3 and curve == sorted(curve) for curve in curves.values())


CURVE = [(2.0**k, 30.0 + k) for k in range(4)]


def _curve(kind: str) -> dict:
    rates, quality = map(list, zip(*CURVE, strict=True))
    return {"name": "x", "kind": kind, "sha256": "ab", "results": {"bpp": rates, "psnr-rgb": quality}}
