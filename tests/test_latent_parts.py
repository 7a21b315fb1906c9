"""Archives of latents picture by picture: several processes, interrupted and taken up again."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import smooth_picture, write_tiny_latent_model

from rcccodec import cli, codec
from rcccodec.bundle import load_model
from rcccodec.commands import console
from rcccodec.errors import ModelError
from rcccodec.folder import list_files
from rcccodec.images import read_image
from rcccodec.latent import parts
from rcccodec.latent.file import choose_settings, encode_pictures
from rcccodec.parts import read_part, write_part

FAST = ("-m", "latent", "-e", "1")
SHAPES = {"b.png": (40, 60), "a.png": (20, 33), "sub/g.png": (17, 17), "sub/z.png": (40, 60)}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle ``latent`` of tiny_models.py."""
    folder = tmp_path_factory.mktemp("latent-models")
    write_tiny_latent_model(folder / "latent")
    return folder


@pytest.fixture
def work(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with four pictures in pics/, one of them grey."""
    monkeypatch.setenv("RCC_MODELS", str(models))
    monkeypatch.chdir(tmp_path)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        Path("pics", name).parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(smooth_picture(*shape, seed))
        (picture.convert("L") if "g" in Path(name).stem else picture).save(Path("pics", name))
    return tmp_path


@pytest.fixture
def rcc(capfd: pytest.CaptureFixture[str]):
    """Run rcc in this process: (exit code, standard error)."""

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        before = signal.signal(signal.SIGTERM, console.terminate)
        try:
            code = cli.run(list(arguments))
        finally:
            signal.signal(signal.SIGTERM, before)
        return code, capfd.readouterr().err

    return run


def pictures() -> list:
    return [read_image(Path("pics", name))[0] for name in list_files(Path("pics"), [".png"])]


def expected(**options: object) -> bytes:
    """The archive as one process makes it, without parts."""
    return codec.compress_latents(pictures(), load_model("latent"), effort=1, **options).data


def counted(function: Callable, calls: list) -> Callable:
    def call(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        return function(*arguments, **options)

    return call


def interrupted_after(count: int, monkeypatch: pytest.MonkeyPatch, rcc, *options: str) -> None:
    """Make a.rcc, and be interrupted when so many pictures are kept."""
    kept: list = []

    def keep(file: Path, content: bytes) -> None:
        write_part(file, content)
        kept.append(file)
        if len(kept) == count:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_part", keep)
        code, err = rcc("compress", "pics", "-o", "a.rcc", *FAST, *options)
    assert (code, err.strip()) == (130, "rcc: interrupted")
    assert sorted(os.listdir()) == [".a.rcc.parts", "pics"]


def searches(monkeypatch: pytest.MonkeyPatch, rcc, *options: str, stay: int = 0) -> int:
    """Make a.rcc and count the pictures that were searched; so many parts of another run stay."""
    with monkeypatch.context() as patch:
        patch.setattr(parts, "encode_picture", counted(parts.encode_picture, calls := []))
        assert rcc("compress", "pics", "-o", "a.rcc", *FAST, *options)[0] == 0
    assert sorted(os.listdir()) == [".a.rcc.parts"] * (stay > 0) + ["a.rcc", "pics"]
    assert not stay or len(os.listdir(".a.rcc.parts")) == stay
    return len(calls)


@pytest.mark.parametrize("coder", ["trellis", "mincost"])
def test_an_interrupted_archive_searches_only_the_pictures_it_lacks(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, coder: str
):
    interrupted_after(3, monkeypatch, rcc, "--coder", coder)
    assert searches(monkeypatch, rcc, "--coder", coder) == len(SHAPES) - 3
    assert Path("a.rcc").read_bytes() == expected(coder=coder)
    assert searches(monkeypatch, rcc, "--coder", coder) == len(SHAPES)  # nothing is kept after the end


def test_the_report_of_a_resumed_archive_is_that_of_one_run(work: Path, monkeypatch: pytest.MonkeyPatch):
    settings, sources = choose_settings(load_model("latent"), effort=1), pictures()
    whole = encode_pictures(sources, None, settings, "cpu", None)

    def again() -> list:
        return parts.encode_in_parts(sources, None, settings, "cpu", None, model="latent", keep=Path("kept"))

    assert len(again()) == len(SHAPES)
    monkeypatch.setattr(parts, "encode_picture", None)  # all of them are restored
    for one, other in zip(whole, again(), strict=True):
        assert bool((one.y == other.y).all())
        assert (one.data, parts._facts(one)) == (other.data, parts._facts(other))
        assert all(type(getattr(one, name)) is type(getattr(other, name)) for name in parts.FACTS)


def test_damaged_and_foreign_parts_are_made_anew(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    interrupted_after(4, monkeypatch, rcc)
    kept = sorted(Path(".a.rcc.parts").iterdir())
    for file, damage in zip(kept[:3], (b"", b"\0" * 32, kept[0].read_bytes()), strict=True):
        file.write_bytes(damage)  # the third is whole, but of another picture
    assert searches(monkeypatch, rcc) == 3
    assert Path("a.rcc").read_bytes() == expected()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"[]\n", b"{}\n123", b'{"class_bytes": 1}\n', b"no json\nabc"]
)
def test_a_part_of_another_program_is_made_anew(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, content: bytes
):
    interrupted_after(2, monkeypatch, rcc)
    for file in Path(".a.rcc.parts").iterdir():
        write_part(file, content)  # whole, by its hash
        assert read_part(file) == content
    assert searches(monkeypatch, rcc) == len(SHAPES)
    assert Path("a.rcc").read_bytes() == expected()


@pytest.mark.parametrize("other", [("-e", "2"), ("--seed", "9"), ("--beta", "8"), ("--coder", "pfr")])
def test_pictures_kept_by_other_options_are_not_taken(
    work: Path, rcc, monkeypatch: pytest.MonkeyPatch, other: tuple[str, str]
):
    interrupted_after(4, monkeypatch, rcc, *other)
    assert searches(monkeypatch, rcc, stay=4) == len(SHAPES)
    assert Path("a.rcc").read_bytes() == expected()
    assert searches(monkeypatch, rcc, *other) == len(SHAPES) - 4  # they were not lost


def test_a_changed_picture_is_searched_again(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    interrupted_after(4, monkeypatch, rcc)
    Image.fromarray(smooth_picture(20, 33, 99)).save("pics/a.png")
    assert searches(monkeypatch, rcc, stay=1) == 1
    assert Path("a.rcc").read_bytes() == expected()


def test_targets_go_on_where_they_were(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    pixels = sum(x.shape[0] * x.shape[1] for x in pictures())
    interrupted_after(2, monkeypatch, rcc, "--target-bpp", "0.9")
    assert searches(monkeypatch, rcc, "--target-bpp", "0.9") == len(SHAPES) - 2
    assert Path("a.rcc").read_bytes() == expected(target_bits=int(0.9 * pixels))
    os.unlink("a.rcc")
    lowest = codec.compress(pictures(), "latent", rung=0, effort=1).report.psnr_db
    assert lowest is not None
    quality = f"{lowest - 0.05:.3f}"
    whole = searches(monkeypatch, rcc, "--target-psnr", quality)
    assert whole > len(SHAPES)
    os.unlink("a.rcc")
    interrupted_after(len(SHAPES) + 1, monkeypatch, rcc, "--target-psnr", quality)
    assert searches(monkeypatch, rcc, "--target-psnr", quality) == whole - len(SHAPES) - 1
    assert Path("a.rcc").read_bytes() == expected(target_psnr_db=float(quality))


def test_a_target_out_of_reach_leaves_nothing(work: Path, rcc):
    code, err = rcc("compress", "pics", "-o", "a.rcc", *FAST, "--target-psnr", "90")
    assert (code, err.count("\n")) == (7, 1)
    assert os.listdir() == ["pics"]


def test_two_processes_make_the_archive_of_one(work: Path, rcc, monkeypatch: pytest.MonkeyPatch):
    interrupted_after(1, monkeypatch, rcc)
    monkeypatch.setattr(parts, "run_jobs", counted(parts.run_jobs, calls := []))
    assert searches(monkeypatch, rcc, "--jobs", "2") == 0  # none in this process
    assert [len(tasks) for _, tasks, _ in calls] == [len(SHAPES) - 1]
    assert Path("a.rcc").read_bytes() == expected()


def test_a_model_that_changes_meanwhile_is_refused(work: Path):
    settings = choose_settings(load_model("latent"), effort=1)
    slope, channel, gain = settings.slope, settings.channel, settings.gain
    task = parts._Task(0, pictures()[0], slope, channel, gain, "cpu", "latent", "0" * 64)
    with pytest.raises(ModelError, match="changed while it was in use"):
        parts._search_task(task)


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_grows_to_its_end(work: Path, monkeypatch: pytest.MonkeyPatch, jobs: int):
    monkeypatch.setattr(parts, "run_jobs", lambda function, tasks, _jobs: map(function, tasks))
    settings, told = choose_settings(load_model("latent"), effort=1), []
    sources = pictures()

    def tell(done: int, total: int) -> None:
        told.append(done / total)

    parts.encode_in_parts(sources, None, settings, "cpu", tell, model="latent", jobs=jobs)
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) >= len(sources)


def test_a_part_is_read_back_only_if_it_is_whole(tmp_path: Path):
    file = tmp_path / "kept" / "part"
    assert read_part(file) is None
    write_part(file, b"content")
    whole = file.read_bytes()
    assert read_part(file) == b"content"
    flipped = [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :] for i in range(len(whole))]
    for bad in (whole[:-1], whole + b"x", b"", *flipped):
        file.write_bytes(bad)
        assert read_part(file) is None
