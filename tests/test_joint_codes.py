"""Index codes of shared indices: which one a file takes, that it is a code, that no choice depends on it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tiny_models import CANDIDATES, SEED

from rcccodec import codec, container
from rcccodec.bundle import Model, load_model
from rcccodec.channel.distances import CentredBlocks
from rcccodec.channel.search import select_channel, select_with_cost
from rcccodec.comparison.rcc_files import image_bits, read_indices, with_index_code
from rcccodec.errors import FormatError, ModelError
from rcccodec.index_code import CodebookPrior, FittedCode, encode_segments
from rcccodec.index_code.codebook_prior import block_sums, quantise
from rcccodec.index_code.fitted import fit
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.proposals.joint import JointProposal
from rcccodec.randomness import standard_normals
from rcccodec.settings import choose_settings
from rcccodec.training.groups import CentredGroups, random_groups
from rcccodec.training.joint_codes import fit_joint_codes

CODERS = ("pfr", "orc", "mincost")
SIZE = 2  # what rung 0 of the tiny grey model shares at its N


def digits(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (8, 8), dtype=np.uint8) // 4 * rng.integers(1, 5) for _ in range(count)]


def joint_fields() -> tuple[dict, dict[str, np.ndarray]]:
    """What a stage's ``joint`` says, and levels by name: another prior for every coder, own and shared."""
    rng = np.random.default_rng(7)
    histogram = fit(rng.integers(0, CANDIDATES, 900), num_candidates=CANDIDATES)
    names = {coder: f"shared-{coder}" for coder in CODERS}
    levels = {name: quantise(6 + 4 * rng.random(CANDIDATES)) for name in (*names.values(), *CODERS)}
    fields = {"blocks": SIZE, "num_candidates": CANDIDATES, "fitted": dict.fromkeys(CODERS, histogram)}
    return fields | {"priors": names}, levels


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """The tiny grey model with joint codes at its first rung."""
    made = tmp_path / "shared"
    made.mkdir()
    card = json.loads((model_folder / "grey" / "model.json").read_bytes())
    tensors = load((model_folder / "grey" / "weights.safetensors").read_bytes())
    stage = card["rungs"][0]["stages"][0]
    stage["joint"], levels = joint_fields()
    stage["priors"] = {coder: coder for coder in CODERS}
    for name, row in levels.items():
        tensors |= {f"priors.{name}": torch.from_numpy(row)}
        tensors |= {f"prior_sums.{name}": torch.from_numpy(block_sums(row))}
    write(made, card | {"bundle_version": 2}, tensors)
    return made


def write(folder: Path, card: dict, tensors: dict[str, torch.Tensor]) -> None:
    weights = save(tensors)
    card["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "model.json").write_text(json.dumps(card))


@pytest.fixture
def shared(folder: Path) -> Model:
    return load_model(folder)


def joint_code(model: Model, **options: object) -> np.ndarray:
    """Lengths of all indices in the code of what blocks of the first rung share."""
    ((code),) = choose_settings(model, joint=True, **options).joint_codes()
    assert code is not None
    return code.lengths_bits(np.arange(code.num_candidates))


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("index_code", ["zipf", "fitted", "prior"])
@pytest.mark.parametrize("joint", [False, True])
def test_files_come_back_and_their_bits_add_up(shared: Model, coder: str, index_code: str, joint: bool):
    options = {"coder": coder, "index_code": index_code, "joint": joint}
    encoded = codec.compress(digits(21), shared, **options)
    assert container.unpack(encoded.data)[0].joint is joint
    for x_hat, said in zip(codec.decompress(encoded.data, shared), encoded.images, strict=True):
        np.testing.assert_array_equal(x_hat, said)
    bits = image_bits(encoded.data, shared)
    slack = 1e-9 if index_code == "zipf" else 8  # a range coder names any point of its interval
    assert -slack < encoded.report.payload_bits - bits.sum() < 17


def test_shared_indices_take_the_codes_made_for_them(shared: Model):
    stage, k = shared.rungs[0].stages[0], np.arange(CANDIDATES)
    assert stage.joint is not None
    for coder in CODERS:
        found = joint_code(shared, coder=coder, index_code="prior")
        np.testing.assert_array_equal(found, stage.joint.priors[coder].lengths_bits(k))
        assert not np.array_equal(found, stage.priors[coder].lengths_bits(k))
        found = joint_code(shared, coder=coder, index_code="fitted", seed=SEED + 1)
        own = FittedCode(stage.joint.fitted[coder], CANDIDATES)
        np.testing.assert_array_equal(found, own.lengths_bits(k))
        borrowed = FittedCode(shared.rungs[1].stages[0].fitted[coder], CANDIDATES)
        assert not np.array_equal(found, borrowed.lengths_bits(k))


def test_another_number_of_blocks_an_index_borrows_a_table_as_before(shared: Model):
    old = without_joint(shared)
    for n, borrows in ((1 << 9, False), (1 << 11, True)):  # 2 and 3 blocks an index
        found, before = (
            joint_code(m, coder="pfr", index_code="fitted", num_candidates=n) for m in (shared, old)
        )
        assert np.array_equal(found, before) is borrows


def test_min_cost_shares_indices_where_it_has_a_prior_for_them(shared: Model):
    for model, wanted in ((shared, True), (without_joint(shared), False)):
        data = codec.compress(digits(4), model).data
        assert container.unpack(data)[0].joint is wanted
        assert container.unpack(data)[0].index_code == container.INDEX_CODES.index("prior")
    stage = shared.rungs[0].stages[0]
    only_pfr = replace(stage.joint, priors={"pfr": stage.joint.priors["pfr"]})
    rungs = (replace(shared.rungs[0], stages=(replace(stage, joint=only_pfr),)), shared.rungs[1])
    assert not container.unpack(codec.compress(digits(4), replace(shared, rungs=rungs)).data)[0].joint


def test_a_prior_is_of_one_codebook_alone(shared: Model):
    for changes in ({"seed": SEED + 1}, {"num_candidates": CANDIDATES + 1}):
        settings = choose_settings(shared, coder="pfr", index_code="prior", joint=True, **changes)
        with pytest.raises(ModelError, match="no index prior"):
            settings.segments([2])
        (code,) = settings.joint_codes()
        assert isinstance(code, FittedCode)


def without_joint(model: Model) -> Model:
    """The model as a bundle of version 1 has it."""
    rungs = tuple(
        replace(rung, stages=tuple(replace(stage, joint=None) for stage in rung.stages))
        for rung in model.rungs
    )
    return replace(model, rungs=rungs)


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("index_code", ["fitted", "prior"])
def test_a_model_without_joint_codes_writes_what_it_always_did(shared: Model, coder: str, index_code: str):
    """Shared indices in the fitted table of the rung whose rate is nearest to theirs, joined by hand."""
    old = without_joint(shared)
    data = codec.compress(digits(7), old, coder=coder, index_code=index_code, joint=True).data
    (group,) = container.unpack(data)[1]
    ((both, own),) = read_indices(data, old)
    near = FittedCode(old.rungs[1].stages[0].fitted[coder], CANDIDATES)  # R is 2.5 and 4 bits
    stage = old.rungs[0].stages[0]
    one = stage.priors[coder] if index_code == "prior" else FittedCode(stage.fitted[coder], CANDIDATES)
    assert group.payload == encode_segments([(near, both), (one, own)], num_blocks=7)


@pytest.mark.parametrize("coder", ["pfr", "orc"])
def test_the_choice_of_an_exact_coder_does_not_depend_on_the_code(shared: Model, coder: str):
    files = {
        name: codec.compress(digits(30), shared, coder=coder, index_code=name, joint=True).data
        for name in ("prior", "fitted", "zipf")
    }
    wanted = read_indices(files["prior"], shared)[0]
    for name, data in files.items():
        for a, b in zip(wanted, read_indices(data, shared)[0], strict=True):
            np.testing.assert_array_equal(a, b)
        assert with_index_code(files["prior"], shared, name) == data
    cheapest = [
        read_indices(codec.compress(digits(30), shared, index_code=name, joint=True).data, shared)[0][0]
        for name in ("prior", "fitted")
    ]
    assert not np.array_equal(*cheapest)  # the control: min-cost does look at the code


def test_a_code_of_less_than_a_bit_an_index_keeps_the_floor_of_a_payload(shared: Model):
    """One index that costs next to nothing: a reader's work stays tied to the blocks, not to the indices."""
    lengths = np.full(CANDIDATES, 20.0)
    lengths[3] = 0
    cheap = CodebookPrior(quantise(lengths))
    stage = shared.rungs[0].stages[0]
    stage = replace(stage, joint=replace(stage.joint, priors={"pfr": cheap}))
    model = replace(shared, rungs=(replace(shared.rungs[0], stages=(stage,)), shared.rungs[1]))
    settings = choose_settings(model, coder="pfr", index_code="prior", joint=True)
    count, indices = 2000, np.full(1000, 3)
    segments = list(
        zip((code for code, _ in settings.segments([count])), (indices, indices[:0]), strict=True)
    )
    payload = encode_segments(segments, num_blocks=count)
    assert len(payload) == count // 32 > cheap.lengths_bits(indices).sum() / 8 + 8
    group = container.Group(0, count, 8, 8, payload)
    images = codec.decompress(container.pack(settings.header(), [group]), model)
    assert len(images) == count
    more = replace(group, count=count + 64)
    with pytest.raises(FormatError, match="too short"):
        codec.decompress(container.pack(settings.header(), [more]), model)


BAD = {
    "a version that has none": (("bundle_version",), 1),
    "not an object": (("joint",), 3),
    "empty": (("joint",), {}),
    "one block": (("joint", "blocks"), 1),
    "too many blocks": (("joint", "blocks"), 17),
    "another size": (("joint", "blocks"), 3),
    "a size in words": (("joint", "blocks"), "2"),
    "another N": (("joint", "num_candidates"), 512),
    "no N": (("joint", "num_candidates"), None),
    "a missing tensor": (("joint", "priors"), {"pfr": "nowhere"}),
    "priors in a row": (("joint", "priors"), [1]),
    "no fitted codes": (("joint", "fitted"), None),
    "a short histogram": (("joint", "fitted"), {"pfr": [65536]}),
    "a broken histogram": (("joint", "fitted"), {"pfr": [65536.0] + [1] * 79}),
    "a histogram of nothing": (("joint", "fitted"), {"pfr": [0] * 80}),
}


@pytest.mark.parametrize("fault", BAD)
def test_damaged_joint_codes_are_refused_in_one_line(folder: Path, fault: str):
    (*place, key), value = BAD[fault]
    card = json.loads((folder / "model.json").read_bytes())
    target = card if key == "bundle_version" else card["rungs"][0]["stages"][0]
    for part in place:
        target = target[part]
    target[key] = value
    write(folder, card, load((folder / "weights.safetensors").read_bytes()))
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_prior_of_another_length_is_refused(folder: Path):
    card = json.loads((folder / "model.json").read_bytes())
    tensors = load((folder / "weights.safetensors").read_bytes())
    tensors["priors.shared-pfr"] = tensors["priors.shared-pfr"][:-1].clone()
    write(folder, card, tensors)
    with pytest.raises(ModelError, match="shared-pfr"):
        load_model(folder)


def test_sums_of_groups_are_those_of_their_rows_laid_end_to_end():
    rng = torch.Generator().manual_seed(1)
    x, y, row = (torch.rand(*shape, generator=rng) for shape in ((40, 6), (9, 18), (9,)))
    groups = random_groups(x, 3, 100)
    assert groups[:].shape == (len(groups), 18) == (100, 18)
    np.testing.assert_array_equal(torch.bincount(groups.members[:80].flatten(), minlength=40), 6)
    place = torch.device("cpu")
    plain, fast = CentredBlocks(groups[:], place), CentredGroups(groups, place)
    found = []
    for frame in (plain, fast):
        centred = frame.centre(y)
        tiles = [scores.clone() for _, scores in frame.tiles(centred, row + centred.square().sum(1), -2.0)]
        found.append(torch.cat(tiles) + frame.square_norms[:, None])
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    wanted = row + (groups[:][:, None] - y).square().sum(2)
    torch.testing.assert_close(found[1].float(), wanted, rtol=1e-4, atol=1e-4)


VARIANCES = np.array([4.0, 2.5])
BETA, N = 0.8, 512


def gaussian_blocks(start: int, count: int) -> torch.Tensor:
    scale = torch.tensor(np.sqrt(VARIANCES)).float()
    return standard_normals(1, torch.arange(start, start + count), 2, 1 << 20) * scale


def test_codes_fitted_to_pairs_cost_less_on_pairs_never_seen():
    one = GaussianProposal(VARIANCES, BETA)
    pairs = JointProposal(one, 2)
    options = {"size": 2, "beta": BETA, "num_candidates": N, "stage": 0}
    made = fit_joint_codes(gaussian_blocks(0, 3000), one, seed=SEED, **options)
    other = fit_joint_codes(gaussian_blocks(0, 3000), one, seed=SEED + 1, coders=("pfr",), **options)
    assert sorted(other.levels) == ["orc", "pfr"]
    unseen, k = gaussian_blocks(10_000, 4000).reshape(2000, 4), np.arange(N)
    common = {"beta": BETA, "seed": SEED}
    for coder in ("pfr", "orc"):
        chosen = select_channel(unseen, pairs, coder=coder, num_candidates=N, **common).indices.numpy()
        prior, histogram = CodebookPrior(made.levels[coder]), FittedCode(made.fitted[coder], N)
        mean = [float(code.lengths_bits(chosen).mean()) for code in (prior, histogram)]
        assert mean[0] < mean[1] - 0.1
        assert CodebookPrior(other.levels[coder]).lengths_bits(chosen).mean() > mean[0] + 0.3  # the control
    cost = {}
    levels = made.levels["mincost"]
    for name, code in (
        ("prior", CodebookPrior(levels)),
        ("uniform", CodebookPrior(np.full(N, 72, np.uint8))),
        ("moved", CodebookPrior(np.random.default_rng(0).permutation(levels))),
    ):
        nats = np.log(2) * code.lengths_bits(k)
        cost[name] = float(select_with_cost(unseen, pairs, cost_nats=nats, **common).scores.mean())
    assert cost["prior"] < cost["uniform"] - 0.3
    assert cost["prior"] < cost["moved"] - 0.3  # the control
