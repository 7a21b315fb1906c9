"""Two processes under torchrun: the same search, the same file, one training."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_train_command import VECTORS
from test_trainer import PLANS, pixels
from two_ranks import TRAINED, Watched, selections

from rcccodec import cli, codec
from rcccodec.bundle import load_model
from rcccodec.checkpoint import load_checkpoint
from rcccodec.ranks import ALONE, Ranks
from rcccodec.training.trainer import train

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
LIMIT_S = 300  # nothing here takes a tenth of it; a deadlock must not stop the tests


def torchrun(*arguments: str, processes: int = 2, folder: Path) -> subprocess.CompletedProcess:
    """Run it on a free port (--standalone), and end it with its processes if it hangs."""
    package = str(Path(cli.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": package, "OMP_NUM_THREADS": "1"}
    environment.pop("RCC_DATA", None)
    process = subprocess.Popen(
        [*TORCHRUN, str(processes), *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What both ranks of two_ranks.py found, and the checkpoint's tensors in place 2."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(str(Path(__file__).with_name("two_ranks.py")), str(folder), folder=folder)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    return [*ranks, load_checkpoint(folder / "checkpoint.safetensors")[0]]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_shared_search_chooses_as_one_process_does(two: list[dict]):
    alone = selections()
    for rank in two[:2]:
        assert rank["search"].keys() == alone.keys()
        for name, value in alone.items():
            if name.endswith("scores"):
                torch.testing.assert_close(rank["search"][name], value, rtol=1e-5, atol=1e-5)
            else:
                assert torch.equal(rank["search"][name], value), name


def test_gradients_are_the_mean_of_those_that_each_rank_found(two: list[dict]):
    for name in TRAINED:
        first, second = two[0][name], two[1][name]
        assert len(first["after"]) == PLANS[name].steps
        for step, (mine, its) in enumerate(zip(first["before"], second["before"], strict=True)):
            for a, b, mean, other in zip(mine, its, first["after"][step], second["after"][step], strict=True):
                assert (a is None) == (b is None) == (mean is None) == (other is None)
                if a is not None:
                    torch.testing.assert_close(mean, (a + b) / 2)
                    assert torch.equal(mean, other)
            pairs = [(a, b) for a, b in zip(mine, its, strict=True) if a is not None]
            assert any(not torch.equal(a, b) for a, b in pairs)  # each has a batch of its own


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the ranks have: sums in another order differ in their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_first_rank_draws_what_one_process_draws(two: list[dict], one_thread: None):
    for name in TRAINED:
        alone = Watched()
        train(pixels(PLANS[name]), PLANS[name], ranks=alone)
        for a, b in zip(alone.log["before"][0], two[0][name]["before"][0], strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b)


def test_all_ranks_end_with_the_same_networks(two: list[dict]):
    for name in TRAINED:
        first, second = two[0][name], two[1][name]
        assert same(first["weights"], second["weights"])
        alike = [torch.equal(a, b) for a, b in zip(first["state"][-1], second["state"][-1], strict=True)]
        assert all(alike) == (name != "dcgan")  # whose running statistics are each rank's own until the end
        assert not same(first["weights"], train(pixels(PLANS[name]), PLANS[name]).generator.state_dict())


def test_an_interrupted_training_stops_on_all_ranks_and_resumes_bit_for_bit(two: list[dict]):
    for rank in two[:2]:
        assert rank["steps"] == 5
        assert same(rank["resumed"], two[0]["warm"]["weights"])
    assert {"rng", "rng.1"} <= two[2].keys()
    assert not torch.equal(two[2]["rng"], two[2]["rng.1"])


def test_what_ranks_tell_each_other_arrives(two: list[dict]):
    for rank in two[:2]:
        assert rank["gathered"] == [0, 1]
        assert rank["first"] == "one"
        assert rank["any"] == (True, False)
        assert rank["mean"] == (1.5, 5.0)


def test_one_rank_alone_changes_nothing():
    plan = PLANS["warm"]
    assert same(
        train(pixels(), plan).generator.state_dict(),
        train(pixels(), plan, ranks=Ranks(0, 1)).generator.state_dict(),
    )
    value = object()
    assert ALONE.gather(value) == [value]
    assert ALONE.first_of(value) is value
    assert ALONE.mean(0.1, 0.2) == (0.1, 0.2)
    assert ALONE.share(5) == (0, 5)


@given(count=st.integers(0, 1 << 40), size=st.integers(1, 200))
def test_the_shares_of_all_ranks_make_up_the_whole(count: int, size: int):
    shares = [Ranks(rank, size).share(count) for rank in range(size)]
    assert shares[0][0] == 0
    assert shares[-1][1] == count
    assert all(a[1] == b[0] for a, b in pairwise(shares))
    lengths = [stop - start for start, stop in shares]
    assert max(lengths) - min(lengths) <= 1


@given(seed=st.integers(0, (1 << 63) - 1))
def test_every_rank_has_a_stream_of_its_own(seed: int):
    seeds = [Ranks(rank, 64).stream_seed(seed) for rank in range(64)]
    assert seeds[0] == seed
    assert len(set(seeds)) == 64
    assert all(0 <= s < 1 << 63 for s in seeds)


@pytest.mark.parametrize("coder", ["pfr", "mincost"])
def test_two_processes_make_the_file_of_one(tiny: Path, tmp_path: Path, coder: str):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    command = [
        "-m",
        "rcccodec",
        "compress",
        "x.png",
        "-o",
        "x.rcc",
        "-m",
        "colour",
        "--coder",
        coder,
        "--beta",
        "4",
    ]
    done = torchrun(*command, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("x.rcc: 1 image") == 1
    assert (tmp_path / "x.rcc").read_bytes() == codec.compress(image, "colour", rung=2, coder=coder).data


def test_two_processes_train_one_model(tmp_path: Path):
    done = torchrun("-m", "rcccodec", "train", *VECTORS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Lagrangian") == 1
    assert load_model(tmp_path / "made", for_images=False).channels == 0
    assert {"rng", "rng.1"} <= load_checkpoint(tmp_path / "made" / "checkpoint-0.safetensors")[0].keys()


def test_torchrun_refuses_what_it_cannot_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "pics").mkdir()
    for words in (["pics", "-o", "out/"], ["a.png", "-o", "a.rcc", "--jobs", "2"], ["-", "-o", "a.rcc"]):
        assert cli.run(["compress", *words]) == 2
