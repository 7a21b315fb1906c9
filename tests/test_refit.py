"""``rcc refit``: the codes a model has come out again, other N and codebooks get their own."""

import json
from pathlib import Path

import numpy as np
import pytest

from rcccodec import cli, codec
from rcccodec.bundle import load_model, read_card
from rcccodec.errors import LimitError, ModelError, OutputError
from rcccodec.joint import joint_size
from rcccodec.sources import load_source
from rcccodec.training.blocks import PHOTO_BLOCKS
from rcccodec.training.extension import keep
from rcccodec.training.refit import refit_model, refit_plan

COARSE_TO_FINE = [
    "sample-photos", "--stage", "8:2@1-4", "--stage", "4:8,16", "--coordinates", "5,4", "--blocks", "120",
    "--width", "8", "--vae-steps", "3", "--nerd-steps", "2", "--candidates", "16",
]  # fmt: skip
DIGITS = [
    "sample-digits", "--stage", "32:0.2,0.4", "--width", "8", "--vae-steps", "4", "--nerd-steps", "3",
    "--candidates", "32", "--default-rung", "0",
]  # fmt: skip


@pytest.fixture(params=[COARSE_TO_FINE, DIGITS], ids=["photos", "digits"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", *request.param, "-o", "made", "--quiet"]) == 0
    return request.param


def test_the_same_n_and_codebook_give_the_same_codes(made: list[str]):
    if "--blocks" in made:  # refitting cuts its own number of blocks from photographs
        assert cli.run(["train", *_without(made, "--blocks"), "-o", "whole", "--quiet"]) == 0
    model = "whole" if "--blocks" in made else "made"
    assert cli.run(["refit", model, "-o", "again", "--quiet"]) == 0
    old, new = read_card(model), read_card("again")
    assert new["rungs"] == old["rungs"]
    assert new["default_rung"] == old["default_rung"]
    assert new["command"].endswith(f"rcc refit {model} -o again")
    assert Path("again/weights.safetensors").read_bytes() == Path(model, "weights.safetensors").read_bytes()


def test_another_n_and_codebook_get_priors_of_their_own(made: list[str]):
    assert cli.run(["refit", "made", "-o", "again", "--candidates", "64", "--seed", "3", "--quiet"]) == 0
    old, new = load_model("made"), load_model("again")
    assert (new.default_num_candidates, new.default_seed) == (64, 3)
    assert [rung.beta for rung in new.rungs] == [rung.beta for rung in old.rungs]
    source = load_source(made[0], "test", limit=1)
    x = source.images()[0][:32, :32]
    for coder in ("mincost", "pfr"):
        encoded = codec.compress(x, new, coder=coder)
        assert json.loads(json.dumps(encoded.report.as_json()))["log2_num_candidates"] == 6
        assert np.array_equal(codec.decompress(encoded.data, new)[0], encoded.images[0])


def test_codes_of_shared_indices_alone_are_those_of_a_whole_refit(made: list[str], capfd):
    """What is fitted anew is the same, and so is what stays, whatever the model had for shared indices."""
    n, blocks = (4096, 120) if "--blocks" in made else (64, PHOTO_BLOCKS)  # room for two blocks an index

    def refit(model: str, output: str, **options: object) -> None:
        kept = keep(Path(model))
        plan = refit_plan(kept, "m", seed=None, blocks=blocks, **options)
        assert refit_model(kept, plan, Path(output), command="rcc refit") is not None

    refit("made", "whole", candidates=n)
    card = read_card("whole")
    shared = [stage for rung in card["rungs"] for stage in rung["stages"] if "joint" in stage]
    assert shared
    assert card["bundle_version"] == 2
    for stage in shared:
        assert stage["joint"]["blocks"] == joint_size(n, stage["zipf_rate_millibits"])
        assert set(stage["joint"]["fitted"]) == set(stage["joint"]["priors"]) == {"pfr", "orc", "mincost"}
    refit("whole", "again", candidates=None, shared_only=True)
    assert read_card("again")["rungs"] == card["rungs"]
    assert Path("again/weights.safetensors").read_bytes() == Path("whole/weights.safetensors").read_bytes()
    assert cli.run(["refit", "whole", "-o", "no", "--shared-only", "--seed", "9"]) == LimitError.exit_code
    assert "seed 0" in capfd.readouterr().err.splitlines()[-1]


def test_a_model_is_not_overwritten_and_a_missing_one_is_named(made: list[str], capfd):
    assert cli.run(["refit", "made", "-o", "made"]) == OutputError.exit_code
    assert cli.run(["refit", "nothing", "-o", "again"]) == ModelError.exit_code
    assert "nothing" in capfd.readouterr().err.splitlines()[-1]
    assert not Path("again").exists()


def _without(words: list[str], option: str) -> list[str]:
    at = words.index(option)
    return words[:at] + words[at + 2 :]
