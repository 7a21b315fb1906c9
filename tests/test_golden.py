"""Files of earlier versions of this program: they decode as they did, and are written as they were."""

import hashlib
from itertools import product

import golden_files
import numpy as np
import pytest
from golden_files import FOLDER, file_bytes, package_model

from rcccodec import codec, container
from rcccodec.container import CODERS, INDEX_CODES, MODES, ONE_SHOT_CODERS
from rcccodec.errors import FormatError

FACTS = golden_files.facts()
BY_ENCODER = [name for name, fact in FACTS.items() if fact["made"] == "by the encoder"]
EDGE = 1  # grey levels that floating point may move a pixel by


@pytest.mark.parametrize("name", FACTS)
def test_a_golden_file_decodes_to_what_it_always_did(name: str) -> None:
    fact, data = FACTS[name], file_bytes(name)
    assert hashlib.sha256(data).hexdigest() == fact["sha256"], "the golden file itself was changed"
    said = golden_files.header_facts(data)
    assert said == {key: fact[key] for key in said}
    integers, z = golden_files.package_integers(fact, data)
    assert integers == fact["integers"]
    images, z_before = golden_files.pixels(name)
    np.testing.assert_allclose(z, z_before, rtol=0, atol=1e-6)
    decoded = codec.decompress(data, package_model(fact["model"]))
    assert [x.shape for x in decoded] == [x.shape for x in images]
    for x, before in zip(decoded, images, strict=True):
        apart = np.abs(x.astype(int) - before)
        assert apart.max() <= EDGE, f"{np.count_nonzero(apart)} of {apart.size} samples differ"


@pytest.mark.parametrize("name", FACTS)
def test_the_same_integers_are_written_as_the_same_bytes(name: str) -> None:
    assert golden_files.pack_again(FACTS[name]) == file_bytes(name), (
        "the same indices are written as other bytes: that needs a new version of the format (FORMAT.md, 11)"
    )


@pytest.mark.parametrize("name", BY_ENCODER)
def test_the_encoder_makes_the_same_file_again(name: str) -> None:
    fact, before = FACTS[name], file_bytes(name)
    data = golden_files.encode_again(fact)
    if data == before:
        return
    same = golden_files.header_facts(data)["version"] == fact["version"]
    same = same and golden_files.package_integers(fact, data)[0] == fact["integers"]
    assert not same, (
        "other bytes for the same indices: that needs a new version of the format (FORMAT.md, 11)"
    )
    pytest.fail(
        "the encoder chose other indices or settings than when this file was made. That is no change of the "
        "format, but must be meant: say so in the commit, and in golden.json that this file is made by hand. "
        "(On another machine floating point may tip a choice between two that are nearly equal.)"
    )


@pytest.mark.parametrize("name", FACTS)
def test_every_flipped_bit_is_seen(name: str) -> None:
    data = bytearray(file_bytes(name))
    missed = []
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        try:
            container.unpack(bytes(data))
            missed.append(bit)
        except FormatError:
            pass
        data[bit // 8] ^= 1 << bit % 8
    assert container.unpack(bytes(data))  # the control: unharmed, it is read
    assert not missed


def test_golden_files_are_of_every_version_coder_index_code_and_mode() -> None:
    known = set()
    for version in range(256):  # what this program reads, from its reader: a new one must bring golden files
        data = bytearray(file_bytes("v1-pfr-zipf"))
        data[3] = version
        try:
            container.unpack(bytes(data))
            known.add(version)
        except FormatError as error:
            known |= set() if "format version" in str(error) else {version}
    assert known == {1, 2, 3, 4, 5, 6}
    have = {(fact["version"], fact["coder"], fact["index_code"]) for fact in FACTS.values()}
    assert {version for version, _, _ in have} == known
    wanted = set(product((1,), ONE_SHOT_CODERS, INDEX_CODES)) | set(product((3, 6), CODERS, INDEX_CODES[:1]))
    assert not wanted - have
    for version in (2, 4, 5):
        assert {coder for v, coder, _ in have if v == version} == set(ONE_SHOT_CODERS)
        assert {code for v, _, code in have if v == version} == set(INDEX_CODES)
    for version in sorted(known):
        modes = {
            group[0] for fact in FACTS.values() if fact["version"] == version for group in fact["groups"]
        }
        assert modes == set(range(len(MODES))), f"images of version {version}"


def test_golden_files_have_every_form_of_the_fields() -> None:
    facts = list(FACTS.values())
    for version in (1, 2, 3):
        groups = [fact["groups"] for fact in facts if fact["version"] == version]
        assert any(len(one) == 1 and one[0][1] == 1 for one in groups)
        assert any(count > 1 for one in groups for _, count, _, _ in one)
        assert any(len(one) > 1 for one in groups)
    for version in (4, 5, 6):
        counts = [[group[1] for group in fact["groups"]] for fact in facts if fact["version"] == version]
        assert any(max(one) > 1 for one in counts)
        assert any(max(one) == 1 and len(one) > 1 for one in counts)
    sizes = {n for fact in facts for n in (fact["num_candidates"], fact["seed"])}
    assert {1, 300, 2**20, 2**40 - 1, 2**40, 0, 127, 128, 2**64 - 1} <= sizes
    shapes = [group[1:] for fact in facts for group in fact["groups"]]
    assert all(any(shape[i] >= 128 for shape in shapes) for i in range(3))
    assert {fact["rung"] for fact in facts} >= {0, 1, 2}
    assert {fact["model"] for fact in facts} == {"grey", "colour", "latent", *golden_files.SHIPPED}
    versions = [
        package_model(name) and _card(name)["bundle_version"] for name in ("grey", "colour", "latent")
    ]
    assert versions == [1, 2, 3]


def _card(name: str) -> dict:
    return golden_files.reader_model(name)[0]


def test_nothing_but_the_facts_lies_there_and_files_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from recipes import RECIPES

    assert set(RECIPES) == set(FACTS)
    assert {path.stem for path in FOLDER.glob("*.rcc")} == {path.stem for path in FOLDER.glob("*.npz")}
    assert {path.stem for path in FOLDER.glob("*.rcc")} == set(FACTS)
    assert max(fact["bytes"] for fact in FACTS.values()) < 4096


def test_making_them_again_leaves_them_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import make

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}

    def never(*_: object) -> None:
        raise AssertionError("a golden file was made again")

    before = files()
    monkeypatch.setattr(make, "make", never)
    make.main()
    assert files() == before
