"""Generators: shapes, folding of the slope and of batch normalisation, coordinates, bounds."""

import json
import math
from dataclasses import replace

import pytest
import torch

from rcccodec.proposals.generator import (
    GeneratorProposal,
    GeneratorSpec,
    build_generator,
)
from rcccodec.proposals.inference import InferenceForm
from rcccodec.proposals.precision import coarse_dtype
from rcccodec.randomness import standard_normals

SIGMOID = GeneratorSpec("mlp", (4, 4, 3), 5, 16, 2, "sigmoid", None, (0.2, 2.0))
LINEAR = GeneratorSpec("mlp", (4, 4, 3), 5, 16, 2, "linear", 7, (0.2, 2.0))
PATCHES = GeneratorSpec("patches", (8, 12, 3), 5, 16, 2, "sigmoid", None, (0.2, 2.0), 4)
DCGAN = GeneratorSpec("dcgan", (32, 32, 3), 6, 2, 4)
VECTORS = GeneratorSpec("fc", (5,), 5, 8, 2, "linear")
PICTURES = GeneratorSpec("fc", (4, 4, 1), 5, 8, 2, "sigmoid")
GREY_PATCHES = GeneratorSpec("patches", (12, 8, 1), 5, 16, 2, "sigmoid", None, (0.2, 2.0), 3)
GREY_DCGAN = GeneratorSpec("dcgan", (32, 32, 1), 6, 2, 4)
WIDE_DCGAN = GeneratorSpec("dcgan", (32, 32, 5), 6, 2, 4)  # its last layer is no longer narrow
ALL = [SIGMOID, LINEAR, PATCHES, DCGAN, VECTORS, PICTURES]


def made(spec: GeneratorSpec, seed: int = 0) -> torch.nn.Module:
    """A generator with random weights everywhere, so that nothing is hidden behind a zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(spec)
        basis = torch.linalg.qr(torch.randn(spec.dim, spec.num_coordinates or spec.dim)).Q.T
        generator.start_from(torch.rand(spec.dim), basis, torch.rand(len(basis)))
        for name, parameter in generator.named_parameters():
            if "slope_out" in name or "norm" in name:
                parameter.data.normal_(0.5, 0.2)
    return generator


def latents(spec: GeneratorSpec, count: int = 9) -> torch.Tensor:
    return standard_normals(3, torch.arange(count), spec.latent_dim, 0).double()


@pytest.mark.parametrize("spec", ALL)
def test_a_specification_survives_json(spec: GeneratorSpec):
    assert GeneratorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"arch": "gan"}, {"output": "tanh"}, {"shape": ()}, {"shape": (0, 4)}, {"shape": (1 << 8, 1 << 8)},
        {"latent_dim": 1 << 13}, {"width": 1 << 14}, {"depth": 65}, {"depth": 0}, {"width": 1.5},
        {"num_coordinates": None}, {"num_coordinates": 49}, {"num_coordinates": 0},
        {"slope_range": (0.0, 1.0)}, {"slope_range": (2.0, 1.0)}, {"slope_range": (1.0, math.nan)},
        {"slope_range": (1.0, math.inf)}, {"arch": "dcgan"},
        {"arch": "dcgan", "shape": (32, 32, 1), "width": 257}, {"features": 1}, {"arch": "patches"},
        {"arch": "patches", "features": 4}, {"arch": "patches", "output": "sigmoid"},
        {"arch": "patches", "output": "sigmoid", "features": 257},
        {"arch": "patches", "output": "sigmoid", "features": 4, "shape": (4, 6, 3)},
    ],
)  # fmt: skip
def test_a_specification_out_of_bounds_is_refused(changes: dict):
    with pytest.raises(ValueError, match=r".+"):
        replace(LINEAR, **changes)


@pytest.mark.parametrize(
    "fields", [{}, {"shape": 3}, {**SIGMOID.to_json(), "extra": 1}, {**SIGMOID.to_json(), "slope_range": [1]}]
)
def test_json_of_another_form_is_refused(fields: dict):
    with pytest.raises((TypeError, KeyError, ValueError)):
        GeneratorSpec.from_json(fields)


@pytest.mark.parametrize("spec", [SIGMOID, LINEAR, PATCHES])
@pytest.mark.parametrize("beta", [0.2, 0.5, 2.0])
def test_folding_the_slope_changes_nothing(spec: GeneratorSpec, beta: float):
    generator, z = made(spec).double(), latents(spec)
    log_slope = torch.tensor([math.log(beta)], dtype=torch.float64)
    plain = generator.at_slope(beta)
    torch.testing.assert_close(plain(z), generator(z, log_slope), rtol=1e-9, atol=1e-9)
    other = generator(z, log_slope + 0.3)
    assert (plain(z) - other).abs().max() > 1e-4  # the control: the slope does matter
    assert not [name for name in plain.state_dict() if "slope" in name]
    assert not plain.conditional


def test_a_conditional_generator_without_a_slope_is_an_untouched_network():
    generator = made(SIGMOID)
    assert not torch.equal(
        generator(latents(SIGMOID).float()), generator.at_slope(1.0).float()(latents(SIGMOID).float())
    )


def test_folding_leaves_the_trained_generator_alone():
    generator = made(SIGMOID).double()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.at_slope(0.7)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def trained_dcgan() -> torch.nn.Module:
    generator = made(DCGAN)
    generator.train()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for _ in range(3):
            generator(2 * torch.randn(16, DCGAN.latent_dim) + 0.5)
    return generator


def test_folded_batch_normalisation_is_that_of_evaluation():
    generator, z = trained_dcgan(), latents(DCGAN)
    folded = generator.at_slope(1.0)
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    torch.testing.assert_close(folded(z), generator.double().eval()(z), rtol=1e-9, atol=1e-9)
    assert (generator.train()(z) - folded(z)).abs().max() > 1e-3  # the control: train mode differs


@pytest.mark.parametrize("spec", ALL)
def test_a_candidate_depends_on_its_own_latents_only(spec: GeneratorSpec):
    proposal, z = GeneratorProposal(made(spec).at_slope(1.0)), latents(spec)
    y = proposal.candidates(z)
    assert y.shape == (9, proposal.dim)
    changed = z.clone()
    changed[[0, 1, 2, 4, 5, 6, 7, 8]] += 1
    torch.testing.assert_close(proposal.candidates(changed)[3], y[3], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(proposal.candidates(z[3:4])[0], y[3], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(proposal.candidates(changed)[4], y[4])


def test_in_train_mode_candidates_would_depend_on_each_other():
    generator, z = trained_dcgan().double().train(), latents(DCGAN)
    changed = z.clone()
    changed[4:] += 1
    assert (generator(z)[3] - generator(changed)[3]).abs().max() > 1e-4


@pytest.mark.parametrize("spec", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_latents_is_that_of_the_candidates(spec: GeneratorSpec, dtype: torch.dtype):
    proposal = GeneratorProposal(made(spec).at_slope(1.0))
    y = proposal.candidates(latents(spec).to(dtype))
    assert y.dtype == dtype
    assert not y.requires_grad
    assert proposal.synthesise(y).shape == (9, spec.dim)
    if spec.output == "sigmoid" or spec.arch == "dcgan":
        assert 0 <= y.min() <= y.max() <= 1


def lively(spec: GeneratorSpec) -> torch.nn.Module:
    """A generator whose candidates differ well from each other."""
    generator = made(spec)
    for name, parameter in generator.named_parameters():
        if name.startswith(("up.", "body.", "draw.")):
            parameter.data.mul_(4)
    return generator


@pytest.mark.parametrize("spec", [*ALL, GREY_PATCHES, GREY_DCGAN, WIDE_DCGAN])
def test_a_proposal_makes_what_its_network_makes(spec: GeneratorSpec):
    plain, z = lively(spec).at_slope(1.0), latents(spec, 5)
    wanted = plain(z)
    assert (wanted[1:] - wanted[:-1]).abs().max() > 1e-2  # the control
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        made_now = GeneratorProposal(plain).candidates(z.to(dtype)).double()
        torch.testing.assert_close(made_now, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("spec", [PATCHES, DCGAN, LINEAR])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_candidates_do_not_depend_on_where_a_pass_ends(monkeypatch, spec: GeneratorSpec, dtype: torch.dtype):
    proposal, z = GeneratorProposal(lively(spec).at_slope(1.0)), latents(spec, 23).to(dtype)
    whole = proposal.candidates(z)
    monkeypatch.setattr(InferenceForm, "rows_per_pass", lambda *_: 4)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    torch.testing.assert_close(proposal.candidates(z), whole, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("spec", ALL)
def test_coarse_candidates_are_the_exact_ones_up_to_bfloat16(spec: GeneratorSpec):
    proposal, z = GeneratorProposal(lively(spec).at_slope(1.0)), latents(spec, 64)
    exact, coarse = proposal.candidates(z), proposal.candidates(z.bfloat16())
    assert coarse.dtype == torch.bfloat16
    error = (coarse.double() - exact).square().mean().sqrt()
    assert 0 < error < 0.03 * exact.square().mean().sqrt()  # 0: not made in bfloat16 at all
    assert (coarse[1:].double() - exact[:-1]).square().mean().sqrt() > 5 * error  # the control


def test_the_precision_of_a_coarse_pass_is_one_that_proposals_take():
    assert coarse_dtype() == coarse_dtype("cpu") in (torch.float32, torch.bfloat16)
    assert coarse_dtype("meta") == torch.float32


@pytest.mark.parametrize("spec", ALL)
def test_synthesis_and_analysis_undo_each_other_on_candidates(spec: GeneratorSpec):
    proposal = GeneratorProposal(made(spec).at_slope(1.0))
    y = proposal.synthesise(proposal.candidates(latents(spec)))
    torch.testing.assert_close(proposal.synthesise(proposal.analyse(y)), y, rtol=0, atol=1e-5)


def test_distances_in_coordinates_differ_by_what_the_coordinates_leave_out():
    proposal = GeneratorProposal(made(LINEAR).at_slope(1.0))
    x = torch.rand(6, LINEAR.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = proposal.candidates(latents(LINEAR))
    in_pixels = torch.cdist(x, proposal.synthesise(y)).square()
    in_coordinates = torch.cdist(proposal.analyse(x), y).square()
    left_out = (x - proposal.synthesise(proposal.analyse(x))).square().sum(1, keepdim=True)
    torch.testing.assert_close(in_pixels, in_coordinates + left_out, rtol=0, atol=1e-4)
    assert left_out.min() > 0.1  # the control: it is not a small matter


@pytest.mark.parametrize("spec", [SIGMOID, PICTURES, DCGAN])
def test_a_fresh_sigmoid_generator_starts_about_the_mean(spec: GeneratorSpec):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator(spec)
    mean = torch.full((spec.dim,), 0.2)
    generator.start_from(mean, None, None)
    y = GeneratorProposal(generator.at_slope(1.0)).candidates(latents(spec, 64))
    assert abs(float(y.mean()) - 0.2) < 0.12


def test_a_fresh_linear_generator_starts_in_the_given_basis():
    generator = build_generator(LINEAR)
    basis = torch.eye(LINEAR.dim)[:7]
    generator.start_from(torch.full((LINEAR.dim,), 0.3), basis, torch.tensor([4.0, 1, 0, 0, 0, 0, -1]))
    y = GeneratorProposal(generator.at_slope(1.0)).candidates(latents(LINEAR, 64))
    assert y[:, 2:].abs().max() == 0  # no variance, no spread; a negative one is rounding
    assert y[:, 0].std() > y[:, 1].std() > 0


def test_making_proposals_leaves_the_global_random_state_alone():
    generators = [made(spec) for spec in ALL]
    before = torch.get_rng_state()
    for generator in generators:
        GeneratorProposal(generator.at_slope(1.0))
    assert torch.equal(torch.get_rng_state(), before)
