"""Bundles from strangers: one line of ModelError, little memory, no hang; nothing run or written outside."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hostile_bundles
import numpy as np
import pytest
import torch
from hostile_bundles import CASES, KINDS, attempts, change, description, fault, load, put_weights, watched
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from tiny_models import write_tiny_models

import rcccodec
from rcccodec import cli, codec, container, model_search
from rcccodec.atomic import write_folder
from rcccodec.bundle import load_model
from rcccodec.channel.distances import default_chunk
from rcccodec.checkpoint import load_checkpoint, save_checkpoint
from rcccodec.container import Header
from rcccodec.description import MAX_DEPTH, parse_json, printable
from rcccodec.errors import ModelError, OutputError
from rcccodec.model_search import find_models, identify
from rcccodec.proposals.generator import GeneratorSpec, build_generator
from rcccodec.proposals.inference import InferenceForm, inference_form
from rcccodec.published_models import PUBLISHED, published

PACKAGE = Path(rcccodec.__file__).parent
ROOT = PACKAGE.parent
SPARE_BYTES = 64 << 20  # of address space that loading may take beyond what importing everything took
USE_BYTES = 384 << 20  # likewise, of compressing blocks of the largest size there is
ESCAPES = "\x1b]0;owned\x07\x9b31m\u202e"
EARLIER = bytes.fromhex("e5eb0f8ddf82")  # a mnist that another one followed


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    hostile_bundles.write_kinds(folder)
    return folder


@pytest.fixture
def models(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to spoil with the models grey and latent, where alone models are looked for; cwd beside it."""
    monkeypatch.chdir(tmp_path)
    for kind in ("grey", "latent"):
        shutil.copytree(whole / kind, tmp_path / "models" / kind)
    monkeypatch.setattr(model_search, "model_folders", lambda: [tmp_path / "models"])
    return tmp_path / "models"


@pytest.fixture
def rcc(capfd: pytest.CaptureFixture[str]):
    """Run rcc in this process: (exit code, all that it printed); nothing of it may steer a terminal."""

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.run(list(arguments))
        out, err = capfd.readouterr()
        assert all(line.isprintable() for line in (out + err).split("\n"))
        assert code in (0, 2) or err.count("\n") == 1
        return code, out + err

    return run


def copy_of(whole: Path, kind: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole / kind, tmp_path / "copy" / kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_hostile_bundle_is_one_line_of_model_error(kind: str, whole: Path, tmp_path: Path):
    failures = []
    for case, for_kind in attempts():
        if for_kind == kind:
            folder = copy_of(whole, kind, tmp_path)
            case.spoil(folder)
            if found := fault(folder, kind):
                failures.append(f"{case.name}: {found}")
            shutil.rmtree(folder)
    assert failures == []
    assert fault(whole / kind, kind) == "loaded"  # control: it is what was spoilt that is refused


def test_faults_are_seen_where_the_checks_are_gone(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = {}
    monkeypatch.setattr(model_search, "parse_json", json.loads)
    monkeypatch.setattr(model_search, "read_bounded", lambda file, _limit: file.read_bytes())
    monkeypatch.setattr(hostile_bundles, "HANG_S", 1)
    for case in CASES:
        if case.name in ("description with NaN", "description with a name twice", "weights: pipe"):
            folder = copy_of(whole, "grey", tmp_path)
            case.spoil(folder)
            seen[case.name] = fault(folder, "grey")
            shutil.rmtree(folder)
    assert seen["description with NaN"] == seen["description with a name twice"] == "loaded"
    assert "TimeoutError" in seen["weights: pipe"]


CHILD = """
import resource, shutil, sys
from pathlib import Path
import torch
import hostile_bundles as h
from rcccodec.baselines.networks import build_network
from rcccodec.baselines.spec import NtcSpec

scratch, spare = Path(sys.argv[1]), int(sys.argv[2])
for kind in h.KINDS:
    h.load(scratch / "whole" / kind, kind)  # all that is imported is, now
taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + spare,) * 2)
for case, kind in h.attempts():
    if not case.name.startswith(("a network of", "weights of")):
        continue  # nothing that asks for memory
    folder = Path(shutil.copytree(scratch / "whole" / kind, scratch / "child" / kind))
    case.spoil(folder)
    if found := h.fault(folder, kind):
        print(f"{kind}: {case.name}: {found}")
    shutil.rmtree(folder)
try:
    build_network(NtcSpec("hyperprior", (64, 64, 3), (3.0,), 320, 320), for_training=False)
    print("the limit does not bite")
except (RuntimeError, MemoryError):
    print("control")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to know what is taken")
def test_no_hostile_bundle_makes_a_loader_ask_for_much_memory(whole: Path, tmp_path: Path):
    shutil.copytree(whole, tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path), str(SPARE_BYTES)],
        capture_output=True, text=True, env=environment, check=False, timeout=120,
    )  # fmt: skip
    assert made.stderr == ""
    assert made.stdout == "control\n"


USE_CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from rcccodec import codec
from rcccodec.bundle import bundle_files, load_model
from rcccodec.channel import distances, remake
from rcccodec.proposals.generator import GeneratorSpec, build_generator

torch.set_num_threads(1)
folder, spare = Path(sys.argv[1]), int(sys.argv[2])
for side in (8, 128):
    generator = build_generator(GeneratorSpec("mlp", (side, side, 1), 1, 1, 1)).eval()
    stage = {"block": [side, side], "beta": 1.0, "rate_bits": 1.0, "distortion": 1.0, "generator": 0,
             "zipf_rate_millibits": 9, "fitted": {"mincost": [65536 - 79] + [1] * 79}, "prior": None}
    card = {"channels": 1, "default_rung": 0, "default_num_candidates": 2048, "default_seed": 0,
            "rungs": [{"beta": 1.0, "stages": [stage]}]}
    for name, data in bundle_files(card, [generator], {}, "").items():
        (folder / name).write_bytes(data)
    model, x = load_model(folder), np.zeros((side, side), np.uint8)
    if side == 8:
        codec.compress(x, model)  # all that is imported is, now
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + spare,) * 2)
made = codec.compress(x, model)
print(codec.decompress(made.data, model)[0].shape)
distances._CHUNK_VALUES_CPU = remake._VALUES_AT_ONCE = 1 << 40
try:
    codec.compress(x, model, num_candidates=4096)
    print("the limit does not bite")
except (RuntimeError, MemoryError):
    print("control")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to know what is taken")
def test_first_use_of_a_small_bundle_of_large_blocks_takes_bounded_memory(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE_CHILD, str(tmp_path), str(USE_BYTES)],
        capture_output=True, text=True, env=environment, check=False, timeout=120,
    )  # fmt: skip
    assert made.stderr == ""
    assert made.stdout == "(128, 128)\ncontrol\n"


WIDE = [
    GeneratorSpec("patches", (128, 128, 1), 1, 1, 1, "sigmoid", None, (1.0, 1.0), 128),
    GeneratorSpec("mlp", (128, 128, 1), 1, 1, 1),
    GeneratorSpec("fc", (1 << 14,), 1, 1, 2),
]


@pytest.mark.parametrize("spec", WIDE, ids=str)
def test_first_use_of_few_weights_makes_few_values_at_a_time(spec: GeneratorSpec):
    generator = build_generator(spec).eval().requires_grad_(False)
    form = inference_form(generator.at_slope(1.0))
    wide = max(spec.dim, spec.width, spec.map_values)
    for dtype in (torch.float32, torch.float64):
        z = torch.zeros(4, spec.latent_dim, dtype=dtype)
        rows = form.rows_per_pass(z) // torch.get_num_threads()
        assert rows >= 1
        assert rows * wide * z.element_size() <= 16 << 20
    assert InferenceForm.cpu_rows * wide * 4 > 16 << 20  # control: without a bound it is more
    assert default_chunk("cpu", spec.dim) * spec.dim <= 1 << 24
    assert form.to(torch.float32)(torch.zeros(2, spec.latent_dim)).shape == (2, spec.dim)


def test_maps_that_cost_no_weights_are_bounded():
    GeneratorSpec("patches", (128, 128, 1), 1, 1, 1, features=128)
    with pytest.raises(ValueError, match="maps of 132096 values"):
        GeneratorSpec("patches", (128, 128, 1), 1, 1, 1, features=129)


@pytest.mark.parametrize("value", [65504.0, 3e38])
@pytest.mark.parametrize("coder", ["mincost", "pfr", "orc"])
def test_weights_that_overflow_are_the_model_s_fault(tmp_path: Path, value: float, coder: str):

    write_tiny_models(tmp_path)
    folder = tmp_path / "colour"
    x = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    assert codec.compress(x, load_model(folder), coder=coder).data  # control
    tensors = load_tensors((folder / "weights.safetensors").read_bytes())
    put_weights(folder, save({n: torch.full_like(t.float(), value) for n, t in tensors.items()}))
    with pytest.raises(ModelError, match=r"finite score|values that no picture has"):
        codec.compress(x, load_model(folder), coder=coder)


def test_descriptions_are_read_strictly_and_no_deeper_than_said():
    assert parse_json(b'{"a": [1, 2.5, null, true, "\xc3\xa4"]}') == {"a": [1, 2.5, None, True, "ä"]}
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="deeper"):
        parse_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    assert parse_json(str((1 << 64) - 1)) == (1 << 64) - 1
    assert parse_json("[NaN, 1e999]", finite=False)[1] == float("inf")
    assert printable("a\x1b[1m\n\x9b\u202eä", 6) == "a?[1m?"


# --- what a stranger writes never steers a terminal


@pytest.mark.parametrize("kind", ["grey", "latent"])
def test_what_a_card_says_is_printed_in_one_harmless_line(models: Path, rcc, kind: str):
    lines = rcc("models")[1].count("\n")
    change(
        models / kind,
        lambda card: card.update(source=f"{ESCAPES}\nfree: a model\n" + 9999 * "x", name=ESCAPES),
    )
    assert ESCAPES in json.loads(description(models / kind).read_text())["source"]  # control: it is there
    code, printed = rcc("models")
    assert (code, printed.count("\n")) == (0, lines)
    assert "?]0;owned?" in printed
    assert max(map(len, printed.split("\n"))) < 200
    assert json.loads(rcc("models", "--json")[1])[kind]["source"].startswith(ESCAPES)


STAGE = {"block": [ESCAPES, 1], "rate_bits": 1, "distortion": 1}
NO_LADDERS = [
    {"rungs": [{"beta": 1, "stages": [STAGE]}]},
    {"default_num_candidates": ESCAPES},
    {"rungs": [{}] * 17},
    {"rungs": {"a": 1}},
]


@pytest.mark.parametrize("change_of", NO_LADDERS, ids=lambda fields: str(fields)[:20])
def test_a_card_that_is_no_ladder_is_a_warning(models: Path, rcc, change_of: dict):
    change(models / "grey", lambda card: card.update(change_of))
    code, printed = rcc("models")
    assert code == 0
    assert "grey: damaged model description" in printed


def test_names_of_folders_and_tensors_are_harmless_in_every_line(models: Path, rcc):
    name = f"a{ESCAPES}"
    (models / "grey").rename(models / name)
    assert "a?]0;owned?" in rcc("models")[1]
    commands = {5: ["samples", "nothing", "-o", "a.png"], 3: ["info", f"{ESCAPES}.rcc"], 2: [f"un{ESCAPES}"]}
    for exit_code, words in commands.items():
        code, printed = rcc(*words)
        assert code == exit_code
        assert "owned" in printed
    hostile_bundles._escapes(Path(shutil.copytree(models / name, "grey")))
    code, printed = rcc("samples", "grey", "-o", "a.png")
    assert code == 5
    assert "damaged model bundle" in printed


# --- a file says which model it wants


def test_the_list_of_published_models_has_every_shipped_one():
    folder = ROOT / "models" if (ROOT / "models").is_dir() else PACKAGE / "_models"
    shipped = [file for name in ("model.json", "baseline.json") for file in folder.glob(f"*/{name}")]
    assert len(shipped) >= 8
    for file in shipped:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        assert PUBLISHED.get(sha256) == file.parent.name, (
            f"add {sha256}: {file.parent.name} to published_models.py"
        )
        assert published(bytes.fromhex(sha256)[:4]) == (file.parent.name, sha256, False)
    altered = hashlib.sha256(shipped[0].read_bytes() + b"\n").digest()
    assert published(altered[:6]) is None  # control
    assert published(b"") is None
    assert len({sha256[:8] for sha256 in PUBLISHED}) == len(PUBLISHED)  # four bytes tell them apart


def git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=True).stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the history")
def test_the_list_has_every_model_that_was_ever_committed():
    lines = git("log", "--format=", "--raw", "--no-abbrev", "-m", "--", "models").decode().split("\n")
    blobs = {line.split()[3]: line.split("\t")[-1] for line in lines if line.endswith((".json",))}
    found = {hashlib.sha256(git("cat-file", "blob", blob)).hexdigest()
             for blob, name in blobs.items() if set(blob) != {"0"}}  # fmt: skip
    assert len(found) >= 15
    assert found <= PUBLISHED.keys()


def rcc_file(model_id: bytes, name: str = "a.rcc") -> str:
    """A file of an 8x8 image, made with the model of this id."""
    x = np.add.outer(np.arange(8), np.arange(8)).astype(np.uint8)
    data = codec.compress(x, load_model("models/grey")).data
    header, groups = container.unpack(data)
    fields = {k: v for k, v in vars(header).items() if k != "model_id"}
    Path(name).write_bytes(container.pack(Header(model_id, **fields), groups))
    return name


def test_a_file_says_which_model_it_wants_and_which_it_got(models: Path, rcc):
    ids = {name: load_model(models / name).sha256 for name in ("grey", "latent")}
    file = rcc_file(bytes.fromhex(ids["grey"])[:6])
    assert rcc("decompress", file, "-o", "a.png")[0] == 0  # control
    code, printed = rcc("decompress", file, "-o", "a.png", "-m", "latent")
    assert code == 5
    assert f"made with model grey ({ids['grey'][:12]}), not latent ({ids['latent'][:12]})" in printed
    assert "model           grey\n" in rcc("info", file)[1]


def test_a_file_of_an_earlier_release_names_it_and_says_what_to_do(models: Path, rcc):
    file = rcc_file(EARLIER)
    code, printed = rcc("decompress", file, "-o", "a.png")
    assert code == 5
    assert "made with model mnist (e5eb0f8ddf82, an earlier release), which is not installed" in printed
    assert "-m" in printed
    assert "RCC_MODELS" in printed
    assert (
        "mnist (e5eb0f8ddf82, an earlier release), not grey ("
        in rcc("decompress", file, "-o", "b.png", "-m", "grey")[1]
    )
    assert "model           mnist, an earlier release, not installed\n" in rcc("info", file)[1]
    facts = json.loads(rcc("info", file, "--json")[1])
    assert (facts["model"], facts["model_status"]) == ("mnist", "an earlier release, not installed")
    assert facts["model_sha256"] in PUBLISHED


def test_of_a_model_nobody_knows_the_hash_is_all_there_is(models: Path, rcc):
    file = rcc_file(b"nobody")
    code, printed = rcc("decompress", file, "-o", "a.png")
    assert code == 5
    assert f"made with model {b'nobody'.hex()}, which is not installed (found: grey, latent)" in printed
    assert "model           not installed\n" in rcc("info", file)[1]
    assert json.loads(rcc("info", file, "--json")[1])["model"] is None
    assert identify(b"nobody").sha256 == b"nobody".hex()


def test_damaged_neighbours_do_not_hide_the_right_model(models: Path, rcc):
    sha256 = bytes.fromhex(load_model(models / "grey").sha256)
    file = rcc_file(sha256[:6])
    for number, case in enumerate(CASES):
        if case.name.startswith("description"):
            folder = Path(shutil.copytree(models / "grey", models / f"a{number:03}"))
            case.spoil(folder)
    twin = Path(shutil.copytree(models / "grey", models / "aaa"))
    (twin / "weights.safetensors").write_bytes(b"")  # the right description, and no weights
    os.mkfifo(models / "b")
    shutil.copytree(models / "grey", models / ".grey.0123.tmp")
    (models / os.fsdecode(b"c\xff")).mkdir()
    assert find_models(sha256[:6]) == [twin, models / "grey"]
    with watched():
        assert rcc("decompress", file, "-o", "a.png")[0] == 0
    shutil.rmtree(models / "grey")
    code, printed = rcc("decompress", file, "-o", "b.png")  # control: it was that one
    assert code == 5
    assert "aaa/weights.safetensors: its hash" in printed


# --- nothing is run, and nothing written outside


def unsafe(source: str) -> list[str]:
    """What unpickles or runs text, in a module's source."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            bad = {"pickle", "cPickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "runpy"}
            found += [name for name in names if name.split(".")[0] in bad]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in (
                "eval",
                "exec",
                "compile",
                "__import__",
                "os.system",
                "torch.load",
                "torch.jit.load",
            ):
                found.append(called)
            if called.startswith(("pickle.", "torch.hub.")) or called.endswith(
                ("read_pickle", ".load_module")
            ):
                found.append(called)
            is_safe = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)
            if called in ("np.load", "numpy.load", "np.lib.format.read_array") and not is_safe:
                found.append(called)
            found += ["allow_pickle" for k in node.keywords if k.arg == "allow_pickle" and not is_safe]
    return found


def test_nothing_in_the_package_unpickles_or_runs_what_it_reads():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 100
    found = {str(file.relative_to(PACKAGE)): found for file in files if (found := unsafe(file.read_text()))}
    # CIFAR-10's own files, read by an Unpickler that knows no object but arrays (tests/test_sources.py)
    assert found == {"sources/colour32.py": ["pickle", "pickle.UnpicklingError"]}


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from torch import load\nimport torch\ntorch.load(x)", "np.load(f)", "eval(card['x'])",
     "np.load(f, allow_pickle=True)", "from pickle import loads"],
)  # fmt: skip
def test_what_would_unpickle_is_found(source: str):
    assert unsafe(source)


def test_links_in_a_stranger_s_folder_are_never_written_through(tmp_path: Path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    theirs.mkdir()
    mine.write_bytes(b"precious")
    for name in ("weights.safetensors", "checkpoint-0.safetensors", "model.json"):
        (theirs / name).symlink_to(mine)
    (theirs / "kept").write_bytes(b"")
    (theirs / "inside").symlink_to("kept")
    write_folder(theirs, {"weights.safetensors": b"new", "model.json": b"{}"})
    assert (theirs / "weights.safetensors").read_bytes() == b"new"
    with pytest.raises(OutputError, match="a link to another folder"):
        save_checkpoint(theirs / "checkpoint-0.safetensors", {"a": torch.zeros(1)}, {})
    assert mine.read_bytes() == b"precious"
    (tmp_path / "link").symlink_to(theirs)
    for path in (theirs / "inside", tmp_path / "link" / "other"):  # control: these stay in the folder
        save_checkpoint(path, {"a": torch.zeros(1)}, {"step": 1})
        assert load_checkpoint(path)[1] == {"step": 1}


def test_names_that_climb_out_find_nothing(models: Path):
    shutil.copytree(models / "grey", models.parent / "beside")
    for name in ("../beside", "grey/../../beside", "/beside", "grey/../nothing", "a\0b"):
        with pytest.raises(ModelError, match="no such model"):
            load(Path(name), "grey")
