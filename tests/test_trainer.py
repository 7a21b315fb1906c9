"""Training runs: determinism, resuming, refusal of foreign checkpoints, and that they learn."""

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from rcccodec.checkpoint import load_checkpoint, save_checkpoint
from rcccodec.errors import InputError, LimitError, ModelError, OutputError
from rcccodec.proposals.generator import GeneratorSpec
from rcccodec.rd.gaussian import gaussian_point_at_slope
from rcccodec.sources.synthetic import gaussian_variances
from rcccodec.training import trainer
from rcccodec.training.objectives import HIGHEST_SLOPE
from rcccodec.training.trainer import Progress, TrainingPlan, plan_values, principal_axes, train

SIGMOID = GeneratorSpec("mlp", (4, 4, 3), 5, 12, 1, "sigmoid", None, (0.2, 2.0))
WARM = TrainingPlan(
    SIGMOID, (0.2, 2.0), 8, 6, batch_size=16, nerd_batch_size=12, pool_draws=2, pool_prior_draws=8,
    num_candidates=16, encoder_width=8,
)  # fmt: skip
LINEAR = replace(WARM, generator=GeneratorSpec("mlp", (4, 4, 3), 5, 12, 1, "linear", 9, (0.2, 2.0)))
COLD = replace(WARM, vae_steps=0)
FIXED = replace(
    COLD,
    generator=replace(SIGMOID, slope_range=(1.0, 1.0)),
    slopes=(1.0, 1.0),
    target_distortion=3.9,
)
LP = replace(COLD, distortion="lp:1")
DCGAN = replace(COLD, generator=GeneratorSpec("dcgan", (32, 32, 1), 4, 2, 4), nerd_steps=4)
JITTERED = replace(WARM, jitter=1.0)
PLANS = {
    "jittered": JITTERED,
    "warm": WARM,
    "linear": LINEAR,
    "cold": COLD,
    "fixed D": FIXED,
    "lp": LP,
    "dcgan": DCGAN,
}


def pixels(plan: TrainingPlan = WARM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand((60, plan.generator.dim), generator=generator) * 255).to(torch.uint8)


def weights(trained: trainer.Trained) -> dict[str, torch.Tensor]:
    return trained.generator.state_dict()


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def until(step: int):
    """``report`` and ``stop`` that end a run after this step."""
    seen = [0]

    def report(progress: Progress) -> None:
        seen[0] = progress.step

    return {"report": report, "stop": lambda: seen[0] >= step}


@pytest.mark.parametrize("name", PLANS)
def test_a_resumed_run_is_the_uninterrupted_one(name: str, tmp_path: Path):
    plan, file = PLANS[name], tmp_path / "c"
    x = pixels(plan)
    whole = train(x, plan)
    for stop in (2, 3, 9, 11):
        part = train(x, plan, checkpoint=file, resume=file.exists(), **until(stop))
        assert part.step == min(stop, plan.steps)
    resumed = train(x, plan, checkpoint=file, resume=True)
    assert resumed.step == whole.step == plan.steps
    assert same(weights(resumed), weights(whole))
    assert resumed.beta == whole.beta
    again = train(x, plan, checkpoint=file, resume=True)  # of a finished run: nothing happens
    assert same(weights(again), weights(whole))


def test_a_run_begins_with_the_networks_of_another(tmp_path: Path):
    first = train(pixels(), WARM, checkpoint=tmp_path / "first")
    plan = replace(WARM, vae_steps=0, nerd_steps=9, start="0123456789ab")
    started = train(pixels(), plan, start_from=tmp_path / "first", **until(0))
    assert same(weights(started), weights(first))
    whole = train(pixels(), plan, start_from=tmp_path / "first")
    part = {"checkpoint": tmp_path / "c", "start_from": tmp_path / "first"}
    train(pixels(), plan, **part, **until(4))
    assert same(weights(train(pixels(), plan, **part, resume=True)), weights(whole))
    assert not same(weights(train(pixels(), replace(plan, start=""))), weights(whole))
    with pytest.raises(ModelError, match="other sizes"):
        train(pixels(), replace(plan, generator=replace(SIGMOID, width=13)), start_from=tmp_path / "first")


def test_forgetting_the_random_state_would_show(tmp_path: Path):
    file = tmp_path / "c"
    train(pixels(), WARM, checkpoint=file, **until(5))
    tensors, values = load_checkpoint(file)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        save_checkpoint(file, tensors | {"rng": torch.get_rng_state()}, values)
    resumed = train(pixels(), WARM, checkpoint=file, resume=True)
    assert not same(weights(resumed), weights(train(pixels(), WARM)))


def test_a_checkpoint_changes_nothing_and_other_seeds_change_all(tmp_path: Path):
    plain = weights(train(pixels(), WARM))
    assert same(plain, weights(train(pixels(), WARM, checkpoint=tmp_path / "c")))
    assert same(plain, weights(train(pixels().float() / 255, WARM)))
    assert not same(plain, weights(train(pixels(), replace(WARM, seed=1))))


@pytest.mark.parametrize("name", PLANS)
def test_the_global_random_state_is_left_alone(name: str):
    before = torch.get_rng_state()
    train(pixels(PLANS[name]), PLANS[name], **until(2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [{"vae_steps": 9}, {"seed": 1}, {"slopes": (0.2, 1.9)}, {"generator": replace(SIGMOID, width=13)}],
)
def test_a_checkpoint_of_another_plan_is_refused(changes: dict, tmp_path: Path):
    train(pixels(), WARM, checkpoint=tmp_path / "c", **until(1))
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(ModelError, match="other settings"):
        train(pixels(), replace(WARM, **changes), checkpoint=tmp_path / "c", resume=True)
    assert (tmp_path / "c").read_bytes() == before


def test_a_damaged_checkpoint_is_a_model_error_of_one_line(tmp_path: Path):
    file = tmp_path / "c"
    train(pixels(), WARM, checkpoint=file, **until(2))
    tensors, values = load_checkpoint(file)
    some = next(name for name in tensors if name.startswith("generator."))
    moment = next(name for name in tensors if name.endswith("exp_avg"))
    missing = [{k: v for k, v in tensors.items() if k != lost} for lost in ("rng", some)]
    shapes = [tensors | {some: torch.zeros(1)}, tensors | {moment: torch.zeros(1)}]
    shapes += [tensors | {moment: torch.tensor(0.0)}, tensors | {moment: tensors[moment].long()}]
    missing.append({k: v for k, v in tensors.items() if k != moment})  # Adam would fail at its first step
    spoilt = [(t, values) for t in (*missing, *shapes, tensors | {"rng": torch.zeros(3)})]
    spoilt += [(tensors, values | {"step": "x"}), (tensors, {"plan": values["plan"]}), (tensors, {})]
    for field, value in (("step", -1), ("step", 1e999), ("step", 15), ("step", 2.5), ("seconds", math.nan),
                         ("seconds", -1), ("beta", [1]), ("loss_bits", None)):  # fmt: skip
        spoilt.append((tensors, values | {field: value}))
    for damaged in spoilt:
        save_checkpoint(file, *damaged)
        with pytest.raises(ModelError) as caught:
            train(pixels(), WARM, checkpoint=file, resume=True)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    with pytest.raises(ModelError, match="not a readable checkpoint"):
        train(pixels(), WARM, checkpoint=tmp_path / "none", resume=True)


def test_a_checkpoint_from_before_rates_were_reported_still_resumes(tmp_path: Path):
    file = tmp_path / "c"
    train(pixels(), WARM, checkpoint=file, **until(10))
    tensors, values = load_checkpoint(file)
    save_checkpoint(file, tensors, {k: v for k, v in values.items() if k not in ("rate_bits", "distortion")})
    assert same(weights(train(pixels(), WARM, checkpoint=file, resume=True)), weights(train(pixels(), WARM)))


def test_a_checkpoint_that_cannot_be_written_is_an_output_error(tmp_path: Path):
    with pytest.raises(OutputError, match="cannot write"):
        train(pixels(), WARM, checkpoint=tmp_path / "missing" / "c", **until(1))


def test_plans_compare_as_json_gives_them_back():
    for plan in PLANS.values():
        assert json.loads(json.dumps(plan_values(plan))) == plan_values(plan)
        fields = {f: v for f, v in plan_values(plan).items() if f != "generator"}
        generator = GeneratorSpec.from_json(plan_values(plan)["generator"])
        again = TrainingPlan(**{**fields, "slopes": tuple(fields["slopes"]), "generator": generator})
        assert again == plan
        assert asdict(again) == asdict(plan)


def test_progress_counts_up_and_tells_rate_and_distortion():
    told: list[Progress] = []
    train(pixels(), LINEAR, report=told.append)
    assert [p.step for p in told] == list(range(1, 15))
    assert [p.phase for p in told] == ["vae"] * 8 + ["nerd"] * 6
    assert {p.steps for p in told} == {14}
    assert all(a.seconds <= b.seconds for a, b in pairwise(told))
    assert all(0.2 <= p.beta <= 2.0 for p in told)
    # 48 uniform pixels have a variance of 4, of which 9 of 48 coordinates can code a part only
    assert all(2 < p.distortion < 8 and p.rate_bits > -0.1 for p in told)


def test_rate_and_distortion_add_up_to_the_objective():
    plan = replace(WARM, slopes=(0.5, 0.5), generator=replace(SIGMOID, slope_range=(0.5, 0.5)), vae_steps=0)
    told: list[Progress] = []
    train(pixels(), plan, report=told.append)
    first = told[0]
    assert first.loss_bits == pytest.approx(first.rate_bits + first.beta * first.distortion / math.log(2))


def test_fixed_distortion_reports_the_rate_at_the_slope_it_solved():
    told: list[Progress] = []
    train(pixels(), FIXED, report=told.append)
    assert told[0].distortion == pytest.approx(3.9, abs=1e-3)
    assert told[0].loss_bits == pytest.approx(told[0].rate_bits)
    assert len({p.beta for p in told}) > 1


def test_a_distortion_met_at_zero_rate_does_not_break_training():
    told: list[Progress] = []
    train(pixels(), replace(FIXED, target_distortion=1e6), report=told.append)
    assert told[-1].step == FIXED.steps
    assert {p.beta for p in told} == {0.0}


def test_slopes_are_annealed_upward_from_scratch():
    told: list[Progress] = []
    plan = replace(COLD, slopes=(1.0, 1.0), generator=replace(SIGMOID, slope_range=(1.0, 1.0)), nerd_steps=20)
    train(pixels(), plan, report=told.append)
    betas = [p.beta for p in told]
    assert all(a < b + 1e-6 for a, b in pairwise(betas))
    assert betas[0] == pytest.approx(0.1)
    assert betas[-1] == pytest.approx(1.0)


def test_learning_rates_warm_up_and_fall_in_each_phase():
    plan = replace(WARM, vae_steps=5000, nerd_steps=3000)
    rates = [plan.learning_rate_at(step) for step in range(plan.steps)]
    for phase, peak in ((rates[:5000], plan.learning_rate), (rates[5000:], plan.nerd_learning_rate)):
        assert phase[0] == pytest.approx(peak / 200)
        assert 0.8 * peak < max(phase) <= peak
        assert phase[-1] == pytest.approx(peak / 50, rel=0.3)
    assert min(rates) > 0


def test_training_lowers_the_objective():
    """Blocks on a line in 48 dimensions: one latent can say nearly all, and 300 steps find it."""
    t = torch.rand(400, 1, generator=torch.Generator().manual_seed(2))
    x = (0.2 + 0.6 * t).expand(400, 48).contiguous()
    plan = replace(
        WARM, vae_steps=300, nerd_steps=30, slopes=(20.0, 20.0), learning_rate=5e-3,
        generator=replace(SIGMOID, slope_range=(20.0, 20.0)),
    )  # fmt: skip
    told: list[Progress] = []
    train(x, plan, report=told.append)
    assert told[-1].distortion < 0.5 * told[0].distortion
    assert told[-1].loss_bits < 0.6 * told[0].loss_bits


def test_a_run_that_diverges_ends_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    step_loss = trainer._step_loss

    def diverging(*arguments: object) -> trainer.StepLoss:
        loss = step_loss(*arguments)
        return replace(loss, loss=loss.loss * math.nan) if arguments[2] == 3 else loss

    monkeypatch.setattr(trainer, "_step_loss", diverging)
    with pytest.raises(LimitError, match="diverged at step 3"):
        train(pixels(), WARM, checkpoint=tmp_path / "c")


def test_blocks_must_fit_and_suffice():
    with pytest.raises(InputError, match="too few"):
        train(pixels()[:1], WARM)
    with pytest.raises(ValueError, match="48 values"):
        train(pixels()[:, :40], WARM)


@pytest.mark.parametrize("plan", [WARM, LINEAR])
def test_blocks_without_variance_are_learnt_without_nan(plan: TrainingPlan):
    trained = train(torch.full((10, 48), 128, dtype=torch.uint8), plan)
    assert all(torch.isfinite(value).all() for value in weights(trained).values())


def test_principal_axes_are_orthonormal_and_sorted():
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [3.0, 2, 1, 0.5, 0.1, 0]
    )
    mean, axes, variances = principal_axes(x + 5, 4)
    torch.testing.assert_close(axes @ axes.T, torch.eye(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(mean, x.mean(0) + 5, rtol=0, atol=1e-4)
    torch.testing.assert_close(variances, ((x - x.mean(0)) @ axes.T).var(0), rtol=1e-3, atol=1e-5)
    assert list(variances) == sorted(variances, reverse=True)


def test_fixed_distortion_comes_down_from_the_highest_slope_to_that_of_the_closed_form():
    variances = gaussian_variances(4, 0.5)
    point = gaussian_point_at_slope(variances, 0.5)
    x = (
        torch.randn((2000, 4), generator=torch.Generator().manual_seed(0))
        * torch.from_numpy(variances).sqrt()
    )
    spec = GeneratorSpec("fc", (4,), 4, 16, 2, "linear", None, (0.5, 0.5))
    plan = TrainingPlan(
        spec, (0.5, 0.5), 0, 400, target_distortion=point.distortion, nerd_batch_size=128, num_candidates=128,
        nerd_learning_rate=5e-3,
    )  # fmt: skip
    slopes: list[float] = []
    train(x.float(), plan, report=lambda progress: slopes.append(progress.beta))
    assert slopes[0] == HIGHEST_SLOPE  # candidates that are all alike come no closer
    assert sum(slopes[-50:]) / 50 == pytest.approx(0.5, rel=0.25)
