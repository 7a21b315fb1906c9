"""Commands that are killed, starved and signalled lose nothing; bench/faults.py does the same at full size.

Forks need a process of one thread, so all of it is measured in one child of the tests, through tiny models.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_tiny_latent_model, write_tiny_models

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits are set as on Linux")

ROOT = Path(__file__).resolve().parents[1]
PLACES = [
    "compress below a file", "compress an archive below too long a name",
    "compress a folder to closed/deep/, which may not be searched",
    "compress on a read-only file system", "compress on a full disk",
    "compress an archive on a full disk", "compress a folder on a full disk",
    "decompress an archive on a full disk", "compress to a full device", "a file to /dev/full",
    "JSON to closed", "a file to closed", "an error nobody can be told", "wrong usage nobody can be told",
    "a warning nobody can be told", "compress in 16 MiB", "decompress in 16 MiB",
]  # fmt: skip
MEASURE = """
import json, os, sys, tempfile
from pathlib import Path
import fault_places, faults
from rcccodec import atomic, parts
from rcccodec.commands import compress
from rcccodec.errors import OutputError
from rcccodec.latent import parts as latent_parts

def run(*names, **sizes):
    return faults.measure_faults(names, say=lambda line: None, **sizes)

class broken:
    def __init__(self, place, name, value):
        self.place, self.name, self.value = place, name, value
    def __enter__(self):
        self.before = getattr(self.place, self.name)
        setattr(self.place, self.name, self.value)
    def __exit__(self, *_):
        setattr(self.place, self.name, self.before)

def in_place(target, data, overwrite):
    with open(target, "wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        os.fsync(file.fileno())
        file.write(data[len(data) // 2 :])

result = {
    "one": run("no overwrite", most_steps=20, cuts=2, moments=1),
    "archives": run("archive of digits", "archive of photos", most_steps=6, cuts=1, moments=0),
    "folders": run("mirrored folder", "archive to a folder", most_steps=4, cuts=1, moments=0),
}
with broken(atomic, "_write_then_rename", in_place):
    result["written in place"] = run("photo", most_steps=4, cuts=0, moments=0)
with broken(compress, "sweep", lambda targets: None):
    result["never swept"] = run("photo", most_steps=4, cuts=0, moments=0)
with broken(latent_parts, "read_part", lambda file: None):
    result["parts not taken"] = run("archive of photos", most_steps=3, cuts=0, moments=0)
result["places"] = faults.measure_places(json.loads(sys.argv[1]))
with broken(OutputError, "exit_code", 1):
    result["another exit code"] = faults.measure_places(["compress below a file"])
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What MEASURE prints: of every group of scenarios how many were tried and what failed."""
    models = tmp_path_factory.mktemp("models")
    write_tiny_models(models)
    (models / "grey").rename(models / "mnist")
    write_tiny_latent_model(models / "photo")
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(PLACES)],
        env={
            **os.environ,
            "RCC_MODELS": str(models),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "bench")]),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(("group", "least"), [("one", 8), ("archives", 12), ("folders", 8)])
def test_killed_commands_leave_whole_files_and_go_on(measured: dict[str, Any], group: str, least: int):
    assert measured[group]["failures"] == []
    assert measured[group]["kill_points"] >= least


@pytest.mark.parametrize(
    ("sabotage", "seen"),
    [
        ("written in place", "o.rcc is neither old nor new"),
        ("never swept", ".tmp is left over"),
        ("parts not taken", "calls of 5 again, though"),
    ],
)
def test_the_measurement_sees_what_is_broken_on_purpose(measured: dict[str, Any], sabotage: str, seen: str):
    assert any(seen in failure for failure in measured[sabotage]["failures"])


def test_what_cannot_be_written_or_held_in_memory_ends_as_documented(measured: dict[str, Any]):
    places = measured["places"]
    assert places["failures"] == []
    assert places["tried"] + places["not_mountable_here"] == len(PLACES)
    assert places["tried"] >= len(PLACES) - 6
    assert len(measured["another exit code"]["failures"]) == 1


@pytest.mark.parametrize("module", ["click", "rcccodec.commands.compress"])
def test_ctrl_c_during_the_imports_is_one_line(tmp_path: Path, module: str):
    program = f"""
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["rcc", "models"]
from rcccodec.__main__ import main
main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "rcc: interrupted\n")
