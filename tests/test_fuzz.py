"""Hostile input: the corpus and a short run of mutations through every reader; planted faults are seen."""

import contextlib
import io
import os
import sys
import time
import warnings
import zlib
from pathlib import Path
from random import Random

import pytest
from click import Option
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # fuzz/ is beside tests/

from fuzz import rcc_files, tensors  # noqa: E402
from fuzz.codec_targets import _index_code, _range_coder, _tile, codec_targets  # noqa: E402
from fuzz.command_target import DOCUMENTED, captured, command_targets  # noqa: E402
from fuzz.file_targets import file_targets  # noqa: E402
from fuzz.inputs import CORPUS, attack, corpus  # noqa: E402
from fuzz.mutate import mutate, number, varint  # noqa: E402
from fuzz.target import Target  # noqa: E402
from fuzz.watch import Watch  # noqa: E402
from rcccodec import cli, container  # noqa: E402
from rcccodec.container import Group, Header  # noqa: E402
from rcccodec.errors import FormatError, InputError, RccError  # noqa: E402

NAMES = (
    "container", "decode", "decode-latent", "salvage", "prefix", "index-code", "range-coder", "tile",
    "chunk-code", "bundle", "bundle-latent", "bundle-baseline", "checkpoint", "baseline-file", "image",
    "array", "idx", "tar", "batch", "mat", "journal", "command-file", "command-image",
)  # fmt: skip
HANG_S = 30.0  # generous: the full run has the real bound
COUNT = 120  # mutations of a target, times its share
HEADER = Header(bytes.fromhex("0badcafe2025"), 2, 2, 0, 1 << 16, 0)
anything = st.binary(max_size=300)


class Targets(dict[str, Target]):
    """By name; short where a failure shows its arguments."""

    def __repr__(self) -> str:
        return "targets"


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Targets:
    folder = tmp_path_factory.mktemp("fuzz")
    made = [*codec_targets(folder), *file_targets(folder), *command_targets(folder)]
    return Targets({target.name: target for target in made})


def test_every_target_is_listed_and_every_folder_of_the_corpus_is_one(targets) -> None:
    assert tuple(targets) == NAMES
    assert {path.name for path in CORPUS.iterdir()} <= set(NAMES)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_and_mutations_of_it_end_in_a_result_or_one_documented_error(
    targets, name, tmp_path
) -> None:
    target = targets[name]
    if not target.seeds:
        pytest.skip("needs CompressAI")
    tally = attack(target, round(COUNT * target.count_share), 0, keep=tmp_path, time_s=HANG_S)
    assert tally.failures == []
    assert tally.refused > 0 or name.startswith(("journal", "command"))  # whose outcome is a report or a code


@pytest.mark.parametrize("name", [name for name in NAMES if (CORPUS / name).is_dir()])
def test_the_corpus_holds_no_fault(targets, name) -> None:
    with Watch(time_s=HANG_S, spare_bytes=targets[name].spare_bytes).watching() as watch:
        faults = [watch.attempt(targets[name].run, data).fault for data in corpus(name)]
    assert faults == [None] * len(faults)
    assert faults


# --- controls: planted faults are seen


def _hang(_: bytes) -> None:
    while True:
        time.sleep(0.01)


def _work(_: bytes) -> None:
    while True:
        pass


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (lambda data: 1 / len(data[9:]), "ZeroDivisionError"),
        (lambda data: _raise(ValueError("x")), "ValueError: x"),
        (lambda data: _raise(SystemExit(3)), "SystemExit"),
        (lambda data: _raise(FormatError("two\nlines")), "not one line"),
        (lambda data: _raise(FormatError("")), "not one line"),
        (lambda data: warnings.warn("overflow", RuntimeWarning, stacklevel=1), "a warning: RuntimeWarning"),
        (lambda data: os.write(2, b"libtiff: bad\n") and None, "on standard error: libtiff: bad"),
        (lambda data: print("bad", file=sys.stderr), "on standard error"),
        (lambda data: len(b"x" * (100 << 20)), "MiB of memory"),
        (lambda data: bytearray(1 << 50), "MemoryError"),
        (_work, " s for "),
        (_hang, " s for "),
    ],
)
def test_planted_faults_are_seen(planted, said, capfd) -> None:
    with capfd.disabled(), Watch(time_s=0.1).watching() as watch:
        assert watch.attempt(lambda data: None, b"").fault is None
        assert said in str(watch.attempt(planted, b"").fault)
        assert (
            watch.attempt(lambda data: _raise(InputError("no")), b"").fault is None
        )  # and the next is clean


def test_without_checksums_damage_is_counted_as_undetected(targets, tmp_path, monkeypatch) -> None:
    assert attack(targets["container"], 400, 1, time_s=HANG_S).undetected == 0
    monkeypatch.setattr(zlib, "crc32", lambda data, start=0: 0)
    blind = Target("blind", targets["container"].run, _with_sums_of_0(targets["container"]), is_guarded=True)
    assert attack(blind, 400, 1, keep=tmp_path, time_s=HANG_S).undetected > 10
    assert list(tmp_path.glob("blind-*"))


def _with_sums_of_0(target: Target) -> tuple[bytes, ...]:
    """A file that a reader takes whose every checksum is 0."""
    return (container.pack(HEADER, [Group(0, 1, 8, 8, b"payload"), Group(0, 2, 9, 9, b"another")]),)


def test_a_fault_planted_in_a_decoder_is_found_behind_right_checksums(targets, monkeypatch) -> None:
    """Only mended files get that far: a payload that begins as no seed's does."""
    plain, original = targets["decode-latent"], container.unpack
    begins = {original(data)[1][0].payload[0] for data in [*plain.seeds, *corpus(plain.name)]}

    def planted(data: bytes):
        found = original(data)
        if found[1][0].payload and found[1][0].payload[0] not in begins:
            raise KeyError("planted")
        return found

    monkeypatch.setattr(container, "unpack", planted)
    assert attack(plain, 600, 3, time_s=HANG_S).crashes > 0


# --- the mutations themselves


def test_mutations_are_the_same_for_a_seed_and_all_kinds_of_sizes() -> None:
    seeds = [b"abcdefgh" * 9, varint(300) * 20]
    made = [[mutate(Random(i), seeds[i % 2], seeds) for i in range(300)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 250
    assert min(map(len, made[0])) < 5
    assert max(map(len, made[0])) > 2 * 72
    assert len(mutate(Random(1), bytes(1 << 17), seeds)) <= 1 << 17


def test_edits_of_rcc_files_have_right_checksums(targets) -> None:
    seeds = targets["container"].seeds
    assert {data[3] for data in seeds} >= {1, 2, 3, 4, 6}
    for data in seeds[:-1]:
        fields = rcc_files.read(data)
        assert fields is not None
        assert fields.write() == data
    edited = [rcc_files.edit(Random(i), seeds[i % len(seeds)], seeds) for i in range(400)]
    refusals = [_refusal(data) for data in edited]
    assert sum(reason is None for reason in refusals) > 100
    assert sum("checksum" in (reason or "") for reason in refusals) < 60


def _refusal(data: bytes) -> str | None:
    try:
        container.unpack(data)
    except FormatError as error:
        return str(error)
    return None


def test_edits_of_bundles_keep_the_hash_of_the_weights_right(targets) -> None:
    import hashlib

    target = targets["bundle"]
    for i in range(60):
        description, weights = tensors.split(target.edits(Random(i), target.seeds[0], target.seeds))
        if description.count(b'"weights_sha256"') == 1 and b"generators" in description:
            assert hashlib.sha256(weights).hexdigest().encode() in description or b"[" * 99 in description


@given(st.integers(0, 1 << 70), st.randoms(use_true_random=False))
def test_numbers_are_never_negative(value: int, random: Random) -> None:
    assert number(random, value) >= 0


# --- properties


@settings(max_examples=150, deadline=None)
@given(anything)
def test_any_bytes_are_the_code_of_indices_or_refused(data: bytes) -> None:
    _never_crash(_index_code, data)
    _never_crash(_range_coder, data)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(anything, st.integers(0, 7), st.integers(0, 255))
def test_any_bytes_are_a_tile_or_refused(latent_model, data: bytes, kind: int, size: int) -> None:
    _never_crash(lambda data: _tile(latent_model, data), bytes([kind, size]) + data)


@settings(max_examples=150, deadline=None)
@given(anything, st.sampled_from(NAMES[:-2]))
def test_any_bytes_at_all_are_read_or_refused(targets, data: bytes, name: str) -> None:
    _never_crash(targets[name].run, data)


def _never_crash(run, data: bytes) -> None:
    with contextlib.suppress(RccError):
        run(data)


# --- the command line

COMMANDS = ("info", "decompress", "compress", "verify", "models", "samples")
VALUES = (
    "", "-", "x", "0", "1", "-1", "16", "1e9", "nan", "-inf", "99999999999999999999", "0,0,3,2", "1,2",
    "ä\udcff", "\x1b[31m", "in.rcc", "in.png", "cut.rcc", "folder", "missing", "out.png", "out", "out/",
    "out.rcc", "grey", "latent", "/dev/null", "/dev/null/x", "cpu", "cuda", "pfr", "trellis", "zipf",
    "a" * 300,
)  # fmt: skip


def _arguments(command: str) -> st.SearchStrategy[list[str]]:
    options = [o.opts[-1] for o in cli.rcc.commands[command].params if isinstance(o, Option)]
    slow = {"--jobs", "--count", "--candidates", "--target-psnr", "--effort"}
    flags = st.sampled_from([*sorted(set(options) - slow), "--nonsense", "-o"])
    words = st.one_of(st.sampled_from(VALUES), flags, st.tuples(flags, st.sampled_from(VALUES)))
    return st.lists(words, max_size=6).map(
        lambda some: [command, *(w for one in some for w in ((one,) if isinstance(one, str) else one))]
    )


@pytest.fixture(scope="module")
def place(targets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind."""
    folder = tmp_path_factory.mktemp("arguments")
    (folder / "in.rcc").write_bytes(targets["decode"].seeds[0])
    (folder / "cut.rcc").write_bytes(targets["decode"].seeds[0][:-3])
    (folder / "in.png").write_bytes(targets["command-image"].seeds[0])
    (folder / "folder").mkdir()
    return folder


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(COMMANDS).flatmap(_arguments))
def test_any_arguments_end_in_a_documented_code(targets, place, monkeypatch, arguments: list[str]) -> None:
    if arguments[0] == "compress":
        arguments = [*arguments, "-m", "grey", "--candidates", "16"]
    models = targets["command-file"].run.args[0]
    with monkeypatch.context() as patch, captured(models) as (_, err):
        patch.chdir(place)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"RCC")))
        code = cli.run(arguments)
    said = err.getvalue()
    assert code in DOCUMENTED, said
    assert "Traceback" not in said
    assert "error: unexpected" not in said
    if code not in (0, 2):
        assert len([line for line in said.splitlines() if line.startswith("rcc: error: ")]) >= 1
    assert not list(place.glob(".*.tmp"))
