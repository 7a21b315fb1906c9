"""The package as a stranger meets it: import, wheel, README."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import rcccodec
from rcccodec.bundle import list_models, load_model

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def readme() -> ModuleType:
    """bench/readme.py as a module."""
    spec = importlib.util.spec_from_file_location("readme_tool", ROOT / "bench" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, rcccodec; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    for name in rcccodec.__all__:
        assert hasattr(rcccodec, name)


def test_what_the_wire_format_depends_on_is_pinned():
    dependencies = PROJECT["project"]["dependencies"]
    assert "dahuffman==0.4.2" in dependencies
    assert "torch==2.13.0" in dependencies
    assert not any(d.startswith(("compressai", "torchvision")) for d in dependencies)
    assert "{}.{}".format(*sys.version_info) == "3.11"
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.12"


def test_a_wheel_carries_models_samples_and_format_and_works_alone(model_folder: Path, tmp_path: Path):
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "rcccodec", source / "rcccodec", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(model_folder, source / "models")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(wheel, check=True, capture_output=True)
    (built,) = tmp_path.glob("rcccodec-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", site, built], check=True)
    for name in ("FORMAT.md", "samples/coffee.png", "_models/grey/model.json", "_models/colour/README.md"):
        assert (site / "rcccodec" / name).is_file(), name
    missing = {p.relative_to(ROOT) for p in (ROOT / "rcccodec").rglob("*.py")} - {
        p.relative_to(site) for p in site.rglob("*.py")
    }
    assert not missing
    assert not (site / "tests").exists()

    Image.new("L", (9, 9), 90).save(tmp_path / "in.png")
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    for arguments in (
        ["compress", "in.png", "-o", "in.rcc", "-m", "grey"],
        ["decompress", "in.rcc", "-o", "out.png"],
    ):
        command = [sys.executable, "-P", "-m", "rcccodec.cli", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "out.png").size == (9, 9)


def test_the_shipped_models_load_are_hashed_and_fit_40_megabytes():
    for name, least_rungs in (("mnist", 6), ("photo-pixels", 4), ("photo", 6)):
        assert name in list_models()
        model = load_model(name)
        assert len(model.rungs) >= least_rungs
        rates_bpp = [rung.rate_bpp for rung in model.rungs]
        assert rates_bpp == sorted(rates_bpp)
        assert (ROOT / "models" / name / "README.md").is_file()
    assert sum(p.stat().st_size for p in (ROOT / "models").rglob("*") if p.is_file()) < 40e6


def test_the_transcript_in_the_readme_is_what_the_commands_print(readme: ModuleType):
    (written,) = readme.TRANSCRIPT.findall(readme.README.read_text())
    assert written.count("$ rcc ") >= 3
    assert readme.differences(written, readme.rerun(written)) == []


def test_the_table_of_models_in_the_readme_is_up_to_date(readme: ModuleType):
    (written,) = readme.TABLE.findall(readme.README.read_text())
    assert readme.differences(written, readme.model_table(), 0) == []


def test_the_transcript_check_sees_changed_words_numbers_and_lines(readme: ModuleType):
    assert readme.differences("a 1.00 b\n", "a 1.01 b\n") == []
    assert readme.differences("a 1.00 b\n", "a 1.05 b\n")
    assert readme.differences("a 1 b\n", "a 1 c\n")
    assert readme.differences("a\n", "a\nb\n")


def test_the_readme_opens_with_one_sentence_and_two_commands():
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.strip()]
    assert lines[0] == "# rcccodec"
    text = " ".join(lines[1 : lines.index("    make demo")])
    assert len(re.findall(r"\.(\s|$)", text)) == 1
    assert lines[lines.index("    make demo") + 1] == "    make test"


def test_the_makefile_has_the_documented_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "lint"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    assert "torch==2.13.0" in makefile


def test_rooms_are_attributes_of_a_bare_import_and_load_no_torch():
    script = (
        "import sys, rcccodec; rcccodec.errors.RccError, rcccodec.container.pack; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_the_table_of_models_shows_what_each_kind_was_measured_in(readme: ModuleType):
    rows = {
        line.split("|")[1].strip(): line.split("|")[4].strip() for line in readme.model_table().splitlines()
    }
    assert re.fullmatch(r"\d\.\d{3} bpp, \d\d\.\d\d dB", rows["`photo`"])
    assert re.fullmatch(r"32x32, [\d.]+, [\d.]+", rows["`mnist`"])
