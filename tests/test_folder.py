"""Folders of images: archives and mirrored files, by several processes, interrupted and taken up again."""

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rcccodec import cli, codec, parts
from rcccodec.bundle import load_model
from rcccodec.commands import compress_folder, console, decompress_folder
from rcccodec.errors import OutputError
from rcccodec.folder import JOURNAL, Journal, list_files, mirrored
from rcccodec.images import read_image
from rcccodec.request import Request
from rcccodec.settings import choose_settings

GREY = ["-m", "grey", "--coder", "pfr", "--index-code", "fitted", "--joint"]  # pairs of blocks share indices
COUNT = 7


@pytest.fixture
def work(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with 7 images of one block and one of more in pics/ and below it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "c.bmp", "sub/a.png", "sub/deep/z.png", "sub/m.png", "x.png"):
        Path("pics", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(Path("pics", name))
    Image.fromarray(rng.integers(0, 256, (24, 17), np.uint8)).save("pics/big.png")
    Path("pics/notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def rcc(capfd: pytest.CaptureFixture[str]):
    """Run rcc in this process: (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        before = signal.signal(signal.SIGTERM, console.terminate)
        try:
            code = cli.run(list(arguments))
        finally:
            signal.signal(signal.SIGTERM, before)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def tree(folder: str) -> dict[str, bytes]:
    """Contents of all files below a folder but the journal."""
    files = (p for p in Path(folder).rglob("*") if p.is_file() and p.name != JOURNAL)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def expected_archive() -> bytes:
    images = [read_image(Path("pics", name))[0] for name in list_files(Path("pics"), [".png", ".bmp"])]
    return codec.compress(images, "grey", coder="pfr", index_code="fitted", joint=True).data


def kills(function: Callable, at: int, kill: signal.Signals = signal.SIGINT) -> Callable:
    """The function, with a signal to this process when it has returned for the ``at``-th time."""
    calls = []

    def call(*arguments: object, **options: object) -> object:
        result = function(*arguments, **options)
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), kill)
        return result

    return call


def counted(function: Callable, calls: list) -> Callable:
    def call(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return function(*arguments, **options)

    return call


def test_an_archive_holds_the_images_by_path_whatever_the_folder_lists_first(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    assert rcc("compress", "pics", "-o", "one.rcc", *GREY)[0] == 0
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: [(r, d, n[::-1]) for r, d, n in walk(*a, **k)][::-1])
    assert rcc("compress", "pics", "-o", "two.rcc", *GREY)[0] == 0
    assert Path("one.rcc").read_bytes() == Path("two.rcc").read_bytes() == expected_archive()
    assert len(codec.decompress(Path("one.rcc").read_bytes())) == COUNT + 1
    assert sorted(os.listdir()) == ["one.rcc", "pics", "two.rcc"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 10, 16])
def test_an_archive_in_parts_is_the_archive_in_one(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, blocks: int
):
    monkeypatch.setattr(parts, "PART_BLOCKS", blocks)
    calls: list = []
    monkeypatch.setattr(parts, "choose", counted(parts.choose, calls))
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY)[0] == 0
    assert len(calls) > 1 or blocks == 16
    assert Path("a.rcc").read_bytes() == expected_archive()


def test_cutting_through_a_shared_index_would_change_the_file(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    def wrong(sources: list, settings: object, blocks: int) -> list[parts.Part]:
        rows = [[[1]] * (n == 1) + [[9]] * (n == 9) for n in (1, 1, 9, 1, 1, 1, 1, 1)]
        assert [9 if x.shape == (24, 17) else 1 for x in sources] == [row[0][0] for row in rows]
        return [parts.Part(i, i + 1, row) for i, row in enumerate(rows)]

    monkeypatch.setattr(parts, "cut", wrong)
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY)[0] == 0
    assert Path("a.rcc").read_bytes() != expected_archive()


@given(shapes=st.lists(st.sampled_from([(8, 8), (5, 8), (16, 8), (40, 33)]), min_size=1, max_size=30),
       blocks=st.integers(1, 50))  # fmt: skip
def test_parts_cover_all_images_and_end_between_shared_indices(model_folder: Path, shapes: list, blocks: int):
    settings = choose_settings(load_model(model_folder / "grey"), coder="pfr", joint=True)
    assert settings.joint_sizes() == [2]
    cut = parts.cut([np.zeros(shape, np.uint8) for shape in shapes], settings, blocks)
    assert [p.first for p in cut] == [0, *(p.last for p in cut[:-1])]
    assert cut[-1].last == len(shapes)
    for part in cut[:-1]:
        following = shapes[part.last]
        goes_on = shapes[part.last - 1] == following and following[0] <= 8
        assert not goes_on or part.counts[-1][0] % 2 == 0
    assert all(sum(row[0] for row in part.counts) >= blocks for part in cut[:-1])


def test_an_interrupted_archive_goes_on_with_the_parts_it_lacks(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(parts, "PART_BLOCKS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_save", kills(parts._save, 2))
        code, _, err = rcc("compress", "pics", "-o", "a.rcc", *GREY)
    assert (code, err.strip()) == (130, "rcc: interrupted")
    assert sorted(os.listdir()) == [".a.rcc.parts", "pics"]
    kept = sorted(Path(".a.rcc.parts").iterdir())
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:-9])  # a damaged part is made anew
    calls: list = []
    monkeypatch.setattr(parts, "choose", counted(parts.choose, calls))
    monkeypatch.setattr(parts, "_load", counted(parts._load, looked := []))
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY)[0] == 0
    assert len(calls) == len(looked) - 1
    assert Path("a.rcc").read_bytes() == expected_archive()
    assert sorted(os.listdir()) == ["a.rcc", "pics"]


def test_kept_parts_of_other_settings_are_not_taken(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "PART_BLOCKS", 2)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_save", kills(parts._save, 3))
        assert rcc("compress", "pics", "-o", "a.rcc", *GREY, "--seed", "9")[0] == 130
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY)[0] == 0
    assert Path("a.rcc").read_bytes() == expected_archive()


def test_an_archive_with_an_unreadable_image_is_refused_before_anything_is_written(work: Path, rcc):
    Path("pics/sub/k.png").write_bytes(b"nothing")
    code, _, err = rcc("compress", "pics", "-o", "a.rcc", *GREY)
    assert code == 3
    assert err.count("\n") == 1
    assert "k.png" in err
    assert os.listdir() == ["pics"]


def test_mirrored_files_are_those_of_each_image_alone(work: Path, rcc):
    Image.open("pics/a.png").save("pics/a.bmp")
    assert rcc("compress", "pics", "-o", "out/", *GREY)[0] == 0
    made = tree("out")
    assert sorted(made) == [
        "a.bmp.rcc", "a.png.rcc", "b.rcc", "big.rcc", "c.rcc", "sub/a.rcc", "sub/deep/z.rcc", "sub/m.rcc",
        "x.rcc",
    ]  # fmt: skip
    for name in ("sub/deep/z", "big"):
        image = read_image(f"pics/{name}.png")[0]
        alone = codec.compress(image, "grey", coder="pfr", index_code="fitted", joint=True)
        assert made[f"{name}.rcc"] == alone.data


def test_mirrored_files_that_are_as_asked_stay_and_all_others_are_made(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    calls: list = []
    monkeypatch.setattr(compress_folder, "_make", counted(compress_folder._make, calls))

    def made_by(*arguments: str) -> list[str]:
        calls.clear()
        assert rcc("compress", "pics", "-o", "out/", *arguments)[0] == 0
        return [task.file for (task,) in calls]

    assert len(made_by(*GREY)) == COUNT + 1
    first = tree("out")
    assert made_by(*GREY) == []
    assert made_by(*GREY, "--no-overwrite") == []
    Path("out/b.rcc").write_bytes(b"")
    os.unlink("out/sub/a.rcc")
    assert made_by(*GREY) == ["b.rcc", "sub/a.rcc"]
    assert tree("out") == first
    Image.open("pics/x.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("pics/x.png")
    assert made_by(*GREY) == ["x.rcc"]
    assert len(made_by(*GREY, "--seed", "9")) == COUNT + 1
    assert len(made_by("-m", "grey")) == COUNT + 1
    lines = Path("out", JOURNAL).read_bytes()
    Path("out", JOURNAL).write_bytes(lines[:-30] + b"\n[]\n\xff")  # its last line cut, and rubbish
    assert made_by("-m", "grey") == ["x.rcc"]


@pytest.mark.parametrize(("kill", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(
    ("place", "step", "files"), [(Journal, "add", 2), (compress_folder, "write_bytes", 3)]
)
def test_an_interrupted_folder_keeps_whole_files_and_goes_on(
    work: Path,
    rcc,
    monkeypatch: pytest.MonkeyPatch,
    kill: signal.Signals,
    exit_code: int,
    jobs: str,
    place: object,
    step: str,
    files: int,
):
    before = set(multiprocessing.active_children())
    with monkeypatch.context() as patch:
        patch.setattr(place, step, kills(getattr(place, step), 3, kill))
        code, _, err = rcc("compress", "pics", "-o", "out/", *GREY, "--jobs", jobs)
    assert code == exit_code
    assert err.strip().count("\n") == 0
    deadline = time.monotonic() + 60
    for child in set(multiprocessing.active_children()) - before:
        # not join: the executor's thread waits for it too, and only one of two is told that it ended
        while child.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert child.exitcode is not None
    some = tree("out")
    assert len(some) == files
    calls: list = []
    monkeypatch.setattr(compress_folder, "_make", counted(compress_folder._make, calls))
    assert rcc("compress", "pics", "-o", "out/", *GREY, "--no-overwrite")[0] == 0
    assert len(calls) == COUNT + 1 - files
    rcc("compress", "pics", "-o", "whole/", *GREY)
    assert tree("out") == tree("whole")
    assert some.items() <= tree("whole").items()


def test_two_processes_make_the_archive_of_one(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "LEAST_BLOCKS", 1)
    assert rcc("compress", "pics", "-o", "one.rcc", *GREY)[0] == 0
    monkeypatch.setattr(parts, "run_jobs", counted(parts.run_jobs, calls := []))
    assert rcc("compress", "pics", "-o", "two.rcc", *GREY, "--jobs", "2")[0] == 0
    assert [len(tasks) for _, tasks, _ in calls] == [2]
    assert Path("one.rcc").read_bytes() == Path("two.rcc").read_bytes()


def test_an_unreadable_image_is_named_and_the_others_go_on(work: Path, rcc):
    Path("pics/sub/k.png").write_bytes(b"nothing")
    for _ in range(2):
        code, out, err = rcc("compress", "pics", "-o", "out/", *GREY)
        assert code == 3
        assert err.startswith("rcc: error: pics/sub/k.png: ")
        assert err.count("\n") == 2
        assert len(tree("out")) == COUNT + 1
    assert f"{COUNT + 1} of {COUNT + 2} images" in out


@pytest.mark.parametrize("report", ["{}", '{"file_bytes": "x"}', "[]", '{"file_bytes": 1}'])
def test_a_file_whose_journal_line_is_damaged_is_made_anew(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, report: str
):
    rcc("compress", "pics", "-o", "out/", *GREY)
    whole, journal = tree("out"), Path("out", JOURNAL)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[3]["report"] = json.loads(report)
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.setattr(compress_folder, "_make", counted(compress_folder._make, calls := []))
    code, out, _ = rcc("compress", "pics", "-o", "out/", *GREY, "--json")
    assert code == 0
    assert [task.file for (task,) in calls] == [lines[3]["file"]]
    assert sum(row["file_bytes"] for row in json.loads(out)) == sum(map(len, whole.values()))
    assert tree("out") == whole


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--candidates", "99999999999"], 7),
        (["--seed", "-1"], 7),
        (["--quality", "101"], 7),
        (["--beta", "-1"], 7),
        (["--coder", "orc", "--index-code", "prior"], 5),
        (["-m", "nothing"], 5),
    ],
)
def test_settings_that_suit_no_image_are_refused_once_before_anything_is_made(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int
):
    monkeypatch.setattr(compress_folder, "_make", counted(compress_folder._make, calls := []))
    code, _, err = rcc("compress", "pics", "-o", "out/deep/", "-m", "grey", *arguments)
    assert code == exit_code
    assert err.count("\n") == 1
    assert not calls
    assert os.listdir() == ["pics"]


def test_a_target_out_of_reach_is_the_settings_fault_only_if_it_is_for_all(work: Path, rcc):
    code, _, err = rcc("compress", "pics", "-o", "out/", "-m", "grey", "--target-psnr", "90")
    assert code == 7
    assert err.count("\n") == COUNT + 2
    assert os.listdir() == ["pics"]
    image = read_image("pics/big.png")[0]
    least_bytes = min(len(codec.compress(image, "grey", rung=rung, joint=None).data) for rung in (0, 1))
    bits = str(8 * least_bytes - 1)
    code, _, err = rcc("compress", "pics", "-o", "out/", "-m", "grey", "--target-bits", bits)
    assert code == 3
    assert err.startswith("rcc: error: pics/big.png: target of ")
    assert "big.rcc" not in tree("out")
    assert len(tree("out")) == COUNT


def test_a_place_that_cannot_be_written_is_refused_before_any_image_is_coded(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compress_folder, "_make", counted(compress_folder._make, calls := []))
    Path("file").write_text("in the way")
    code, _, err = rcc("compress", "pics", "-o", "file/out/", *GREY)
    assert code == 6
    assert err.count("\n") == 1
    assert not calls


@pytest.mark.parametrize("output", ["new/", "old"])
def test_images_given_by_name_become_files_in_a_folder(work: Path, rcc, output: str):
    Path("old").mkdir()
    rcc("compress", "pics", "-o", "all/", *GREY)
    images = ["pics/b.png", "pics/sub/m.png", "pics/c.bmp"]
    assert rcc("compress", *images, "-o", output, *GREY)[0] == 0
    whole = tree("all")
    assert tree(output) == {"b.rcc": whole["b.rcc"], "m.rcc": whole["sub/m.rcc"], "c.rcc": whole["c.rcc"]}
    assert rcc("compress", "pics/x.png", "-o", output, *GREY)[0] == 0
    assert tree(output)["x.rcc"] == whole["x.rcc"]


@pytest.mark.parametrize("inputs", [["pics/a.png", "pics/sub/a.png"], ["-"], ["pics/a.png", ""]])
def test_images_without_a_name_of_their_own_in_a_folder_are_wrong_usage(work: Path, rcc, inputs: list[str]):
    assert rcc("compress", *inputs, "-o", "out/", *GREY)[0] == 2
    assert os.listdir() == ["pics"]


def test_saturation_of_many_images_is_said_once(work: Path, rcc):
    _, _, err = rcc("compress", "pics", "-o", "out/", "-m", "grey", "--candidates", "4")
    assert err.startswith("rcc: warning: saturated: ")
    assert f"{COUNT + 1} of {COUNT + 1} images" in err
    assert err.count("\n") == 1


def test_no_overwrite_refuses_a_file_of_other_options_before_it_begins(work: Path, rcc):
    rcc("compress", "pics", "-o", "out/", *GREY)
    os.unlink("out/b.rcc")
    before = tree("out")
    code, _, err = rcc("compress", "pics", "-o", "out/", *GREY, "--seed", "9", "--no-overwrite")
    assert code == 6
    assert err.count("\n") == 1
    assert tree("out") == before


def test_the_json_has_a_row_an_image_whether_made_or_kept(work: Path, rcc):
    rows = [json.loads(rcc("compress", "pics", "-o", "out/", *GREY, "--json")[1]) for _ in range(2)]
    assert rows[0] == rows[1]
    assert sum(row["file_bytes"] for row in rows[0]) == sum(map(len, tree("out").values()))


@pytest.mark.parametrize(
    "arguments", [["pics", "pics/a.png", "-o", "a.rcc"], ["pics/a.png", "pics", "-o", "o/"]]
)
def test_a_folder_beside_another_input_is_wrong_usage(work: Path, rcc, arguments: list[str]):
    assert rcc("compress", *arguments)[0] == 2


def test_a_folder_without_images_is_an_input_error(work: Path, rcc):
    Path("none/.hidden").mkdir(parents=True)
    Path("none/.hidden/a.png").write_bytes(Path("pics/a.png").read_bytes())
    os.mkfifo("none/pipe.png")
    for output in ("a.rcc", "out/"):
        assert rcc("compress", "none", "-o", output)[0] == 3
    assert sorted(os.listdir()) == ["none", "pics"]


def test_a_folder_of_files_becomes_a_folder_of_images(work: Path, rcc):
    rcc("compress", "pics", "-o", "out/", *GREY)
    rcc("compress", "pics/sub", "-o", "out/sub/all.rcc", *GREY)
    Path("out/broken.rcc").write_bytes(b"RCC")
    code, out, err = rcc("decompress", "out", "-o", "back")
    assert code == 4
    assert err.startswith("rcc: error: out/broken.rcc: ")
    assert f"{COUNT + 2} of {COUNT + 3} files" in out
    made = sorted(tree("back"))
    assert "sub/deep/z.png" in made
    assert "c.png" in made
    assert [name for name in made if "all/" in name] == [f"sub/all/000{i}.png" for i in range(3)]
    x_hat = codec.decompress(Path("out/big.rcc").read_bytes())[0]
    np.testing.assert_array_equal(read_image("back/big.png")[0], x_hat)


def test_no_picture_of_an_archive_meets_one_of_another_file(work: Path, rcc):
    Path("q/a").mkdir(parents=True)
    assert rcc("compress", "pics/sub", "-o", "q/a.rcc", *GREY)[0] == 0
    assert rcc("compress", "pics/big.png", "-o", "q/a/0000.rcc", *GREY)[0] == 0
    for name in ("q/b.rcc", "q/b.png.rcc", "q/C.rcc", "q/c.png.rcc"):
        Path(name).write_bytes(Path("q/a.rcc" if ".png" in name else "q/a/0000.rcc").read_bytes())
    assert rcc("decompress", "q", "-o", "back")[0] == 0
    made = tree("back")
    archives = [f"{folder}/000{i}.png" for folder in ("a.rcc", "b", "c") for i in range(3)]
    assert sorted(made) == sorted([*archives, "a/0000.png", "b.png", "C.png"])
    one = codec.decompress(Path("q/a/0000.rcc").read_bytes())[0]
    three = codec.decompress(Path("q/a.rcc").read_bytes())
    for name in ("a/0000.png", "b.png", "C.png"):
        np.testing.assert_array_equal(read_image(f"back/{name}")[0], one)
    for folder in ("a.rcc", "b", "c"):
        for i, image in enumerate(three):
            np.testing.assert_array_equal(read_image(f"back/{folder}/000{i}.png")[0], image)


@given(st.dictionaries(st.text("aA.pngrc/", min_size=1, max_size=6), st.booleans(), max_size=12))
def test_no_target_of_a_file_is_or_lies_in_that_of_another(files: dict[str, bool]):
    given = {str(PurePosixPath(f"x/{name}.rcc")): archive for name, archive in files.items()}
    targets = decompress_folder._targets(sorted(given), {name for name, archive in given.items() if archive})
    assert set(targets) == set(given)
    assert len(set(targets.values())) == len(targets)
    above = {str(above) for target in targets.values() for above in PurePosixPath(target).parents}
    assert not above & {target for name, target in targets.items() if given[name]}


@given(st.sets(st.text("aA.bpng/", min_size=1, max_size=6), max_size=12))
def test_mirrored_names_never_clash(names: set[str]):
    given = mirrored(sorted(names), lambda n: n.split(".")[0] + ".rcc", lambda n: n + ".rcc")
    assert set(given) == names
    folded = [given[name].casefold() for name in given if given[name] != name + ".rcc"]
    assert len(set(given.values())) == len(names)
    assert len(set(folded)) == len(folded)


def test_a_fingerprint_sees_the_method_and_the_model_but_not_the_device():
    one = Request("grey", beta=1.0)
    assert one.fingerprint("a") == Request("other", beta=1.0, device="cuda").fingerprint("a")
    others = [
        one.fingerprint("b"),
        Request("grey", beta=2.0).fingerprint("a"),
        Request("grey").fingerprint("a"),
    ]
    assert len({one.fingerprint("a"), *others}) == 4


@pytest.mark.parametrize("report", [None, [], {}, {"file_bytes": "1"}, {"file_bytes": True}])
def test_a_journal_without_a_whole_report_is_no_reason_to_keep_a_file(tmp_path, report):
    for name, data in (("x.png", b"source"), ("x.rcc", b"file")):
        (tmp_path / name).write_bytes(data)
    for noted, is_kept in ((report, False), ({"file_bytes": 4}, True)):
        (tmp_path / JOURNAL).unlink(missing_ok=True)
        journal = Journal(tmp_path)
        journal.begin()
        journal.add("x.rcc", hashlib.sha256(b"source").digest(), "asked", b"file", noted)
        assert (Journal(tmp_path).kept("x.rcc", tmp_path / "x.png", "asked") is not None) == is_kept


def test_a_file_is_never_called_like_a_folder_of_another_one(work: Path, rcc):
    digit = Path("pics/a.png").read_bytes()
    for name in ("a.png", "A.rcc/x.png", "a.png.rcc/y.png", "b.png"):
        Path("in", name).parent.mkdir(parents=True, exist_ok=True)
        Path("in", name).write_bytes(digit)
    assert rcc("compress", "in", "-o", "out/", *GREY)[::2] == (0, "")
    assert sorted(tree("out")) == ["A.rcc/x.rcc", "a.png.rcc.rcc", "a.png.rcc/y.rcc", "b.rcc"]
    assert len(set(tree("out").values())) == 1


def test_a_picture_that_may_not_be_looked_at_is_named(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    real = os.stat

    def refuse(path: object, *args: object, **options: object) -> os.stat_result:
        if str(path).endswith("x.png"):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    Path("pics/x.png").unlink()
    Path("pics/x.png").symlink_to("closed/x.png")  # which cannot be opened either
    Path("pics/dangling.png").symlink_to("nowhere")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        names = list_files(Path("pics"), [".png"])
    assert "x.png" in names
    assert "dangling.png" not in names
    monkeypatch.setattr(compress_folder, "_say", lambda *_: None)
    monkeypatch.setattr("rcccodec.folder.list_files", lambda *_: names)
    code, _, err = rcc("compress", "pics", "-o", "out/", *GREY)
    assert code == 3
    assert "x.png: cannot read" in err
    assert len(tree("out")) == len(names) - 1
    code, _, err = rcc("compress", "pics", "-o", "a.rcc", *GREY)
    assert (code, err.count("\n")) == (3, 1)


def test_a_folder_out_of_too_long_a_name_is_refused_before_the_first_image(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compress_folder, "_make", None)
    for out in ("a" * 300, f"{'a' * 300}/", f"{'a' * 300}/b/", f"{'a' * 300}.rcc"):
        code, _, err = rcc("compress", "pics", "-o", out, *GREY)
        assert (code, err.count("\n")) == (6, 1)
        assert "File name too long" in err
    assert os.listdir() == ["pics"]


@pytest.mark.parametrize("name", ["a" * 246 + ".rcc", "中" * 82 + ".rcc"])
def test_an_archive_of_a_long_name_is_interrupted_and_taken_up(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setattr(parts, "PART_BLOCKS", 8)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_save", kills(parts._save, 1))
        assert rcc("compress", "pics", "-o", name, *GREY)[0] == 130
    assert len(list(parts.parts_folder(Path(name)).iterdir())) == 1
    assert rcc("compress", "pics", "-o", name, *GREY)[0] == 0
    assert Path(name).read_bytes() == expected_archive()
    assert sorted(os.listdir()) == sorted([name, "pics"])
    assert parts.parts_folder(Path("x/a.rcc")) == Path("x/.a.rcc.parts")


def test_a_run_takes_away_its_own_parts_alone(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "PART_BLOCKS", 8)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_save", kills(parts._save, 1))
        assert rcc("compress", "pics", "-o", "a.rcc", *GREY, "--seed", "9")[0] == 130
    (theirs,) = Path(".a.rcc.parts").iterdir()
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY)[0] == 0
    assert list(Path(".a.rcc.parts").iterdir()) == [theirs]
    Path(".a.rcc.parts", f".{theirs.name}.0123abcd.tmp").write_bytes(b"half")
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY, "--seed", "9")[0] == 0
    assert sorted(os.listdir()) == ["a.rcc", "pics"]


def test_a_target_out_of_reach_takes_away_no_part_it_found(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parts, "PART_BLOCKS", 8)
    unreachable = ["--target-bits", "1"]
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY, *unreachable)[0] == 7
    assert os.listdir() == ["pics"]
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_save", kills(parts._save, 1))
        assert rcc("compress", "pics", "-o", "a.rcc", *GREY, *unreachable)[0] == 130
    (found,) = Path(".a.rcc.parts").iterdir()
    assert rcc("compress", "pics", "-o", "a.rcc", *GREY, *unreachable)[0] == 7
    assert list(Path(".a.rcc.parts").iterdir()) == [found]


def test_a_part_is_kept_though_another_run_takes_the_folder_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / ".a.rcc.parts" / "part"
    make = parts.make_folder

    def taken_away(times: int) -> Callable:
        calls: list = []

        def made(folder: Path) -> None:
            make(folder)
            calls.append(folder)
            if len(calls) <= times:
                folder.rmdir()

        return made

    monkeypatch.setattr(parts, "make_folder", taken_away(1))
    parts.write_part(file, b"content")
    assert parts.read_part(file) == b"content"
    parts.forget_parts(file.parent, [file])
    assert os.listdir(tmp_path) == []
    monkeypatch.setattr(parts, "make_folder", taken_away(2))
    with pytest.raises(OutputError):
        parts.write_part(file, b"content")


def test_an_archive_goes_into_a_pipe_and_leaves_nothing_beside_it(work: Path, rcc):
    read, write = os.pipe()
    try:
        assert rcc("compress", "pics", "-o", f"/dev/fd/{write}", *GREY)[::2] == (0, "")
        assert os.read(read, 1 << 16) == expected_archive()
    finally:
        os.close(read)
        os.close(write)
    assert os.listdir() == ["pics"]


@pytest.mark.parametrize("size", ["abc", "", "0", "-1", "1.5"])
def test_a_number_of_processes_that_is_none_is_wrong_usage(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, size: str
):
    monkeypatch.setenv("WORLD_SIZE", size)
    code, _, err = rcc("compress", "pics", "-o", "a.rcc", *GREY)
    assert code == 2
    assert "WORLD_SIZE" in err
    assert os.listdir() == ["pics"]
