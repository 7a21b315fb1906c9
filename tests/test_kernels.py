"""Triton's kernels: in its interpreter, compiled for GPUs that need not be there, and on one where it is.

Triton reads TRITON_INTERPRET when it is imported, so each way has a process of its own.
"""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from rcccodec import kernels

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (it exists for Linux only)"
)


def run(*words: str, **environment: str) -> str:
    """Output of a Python process, which must succeed."""
    everything = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    path = [str(HERE.parent), str(HERE), *filter(None, [everything.get("PYTHONPATH")])]
    everything["PYTHONPATH"] = os.pathsep.join(path)
    done = subprocess.run([sys.executable, *words], env=everything, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_cases(device: str, **environment: str) -> None:
    words = ("-m", "pytest", "-p", "no:cacheprovider", str(HERE / "kernel_cases.py"))
    said = run(*words, RCC_KERNEL_DEVICE=device, **environment)
    assert "passed" in said
    assert "skipped" not in said


@needs_triton
def test_the_kernels_are_right_in_the_interpreter() -> None:
    run_cases("cpu", TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernels_are_right_on_cuda() -> None:
    run_cases("cuda", TRITON_INTERPRET="0")


@needs_triton
def test_the_kernels_compile_for_gpus(tmp_path: Path) -> None:
    said = run(str(HERE / "compile_kernels.py"), TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert said.split() == ["normals", "gaps", "search"]


@needs_triton
def test_without_cuda_triton_is_never_imported() -> None:
    code = (
        "import sys, torch\n"
        "from rcccodec.randomness import standard_normals\n"
        "import rcccodec.codec\n"
        "standard_normals(0, torch.arange(3), 5, 0)\n"
        "print('triton' in sys.modules)\n"
        "import rcccodec.kernels.latents\n"
        "print('triton' in sys.modules)\n"
    )
    assert run("-c", code).split() == ["False", "True"]


def test_plain_torch_is_taken_where_kernels_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not kernels.usable(torch.device("cpu"))
    asked = []
    monkeypatch.setattr(kernels, "_passes", lambda device: asked.append(device) or True)
    assert kernels.usable(torch.device("cuda", 0))
    monkeypatch.setenv("RCC_KERNELS", "0")
    assert not kernels.usable(torch.device("cuda", 0))
    assert asked == ["cuda:0"]


def test_a_device_that_fails_its_first_latents_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("triton") is None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    kernels._passes.cache_clear()
    with pytest.warns(RuntimeWarning, match="not used on nowhere"):
        assert not kernels._passes("nowhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not kernels._passes("nowhere")
    kernels._passes.cache_clear()
