"""What starting costs: modules that a command imports; bench/startup.py has the seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rcccodec
from rcccodec import cli

HEAVY = ("torch", "numpy", "PIL", "scipy", "matplotlib", "importlib.metadata")
COMPILER = ("torch._dynamo", "torch._inductor", "sympy")


def modules_after(code: str, folder: Path) -> set[str]:
    """Names of all modules that a fresh interpreter holds once it has run ``code``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ending = "import json, sys; open('modules.json', 'w').write(json.dumps(list(sys.modules)))"
    subprocess.run([sys.executable, "-c", f"{code}\n{ending}"], env=environment, cwd=folder, check=True)
    return set(json.loads((folder / "modules.json").read_text()))


@pytest.fixture
def file(tiny: Path, tmp_path: Path) -> Path:
    """A file of the tiny model ``grey``, made in this process."""
    import numpy as np

    (tmp_path / "a.rcc").write_bytes(rcccodec.compress(np.zeros((8, 8), np.uint8), "grey"))
    return tmp_path


@pytest.mark.parametrize("arguments", [["--help"], ["info", "a.rcc"], ["compress", "--help"]])
def test_help_and_info_import_neither_torch_nor_numpy(file: Path, arguments: list[str]):
    loaded = modules_after(f"from rcccodec import cli; assert cli.run({arguments}) == 0", file)
    assert "rcccodec.commands.compress" in loaded
    assert not loaded & set(HEAVY)


def test_decoding_imports_torch_but_not_its_compiler(file: Path):
    command = ["decompress", "a.rcc", "-o", "a.png"]
    loaded = modules_after(f"from rcccodec import cli; assert cli.run({command}) == 0", file)
    assert (file / "a.png").exists()
    assert "torch" in loaded
    assert not loaded & set(COMPILER)


def test_the_version_is_that_of_the_installed_package():
    from importlib.metadata import version

    assert rcccodec.__version__ == version("rcccodec")
    with pytest.raises(AttributeError, match="nothing"):
        _ = rcccodec.nothing
