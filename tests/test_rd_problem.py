"""What estimators are asked of: slopes, settings, sources, records, runs with checkpoints."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rcccodec.errors import InputError, LimitError, ModelError
from rcccodec.rd.point import RatePoint, is_saturated, upper_point
from rcccodec.rd.problem import check_problem, load_problem, zero_rate_distortion
from rcccodec.rd.run import Run, fit
from rcccodec.rd.settings import Settings, describe, with_setting
from rcccodec.rd.slopes import parse_slopes

# --- slopes and settings ------------------------------------------------------------------------------------


def test_slopes_are_read_in_every_form():
    assert parse_slopes("0.5") == (0.5,)
    assert parse_slopes("2,0.5,2") == (0.5, 2.0)
    assert parse_slopes("0.1:10:log3") == (0.1, 1.0, 10.0)
    assert parse_slopes("1:2:lin3") == (1.0, 1.5, 2.0)
    eight = parse_slopes("0.1:10:log8")
    assert len(eight) == 8
    ratios = np.diff(np.log(eight))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-4)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "0.1,0", "nan", "inf", "x", "1:2", "1:2:3", "1:2:log1", "2:1:log4", "1:1:lin2",
     "0:1:lin3", "1:2:log", "1:2:geo4", "1:2:log9999", "1:2:log3:4", "-1:2:lin3"],
)  # fmt: skip
def test_slopes_that_make_no_sense_are_input_errors_in_one_line(text):
    with pytest.raises(InputError, match="slopes") as caught:
        parse_slopes(text)
    assert "\n" not in str(caught.value)


def test_settings_change_one_by_one_and_keep_their_kind():
    changed = with_setting(Settings(), "ais.chains=40")
    assert changed.ais.chains == 40
    assert replace(changed, ais=Settings().ais) == Settings()
    assert with_setting(Settings(), "vae.rate=2e-4").vae.rate == 2e-4
    assert with_setting(Settings(), "wgd.hybrid=false").wgd.hybrid is False
    assert with_setting(Settings(), "ais.model=gan").ais.model == "gan"
    assert any(line.startswith("ais: model=vae") for line in describe())


@pytest.mark.parametrize(
    "text",
    ["ais", "ais.chains", "ais.chains=", "ais.chains=1.5", "ais.chains=0", "ais.chains=-2", "nope.x=1",
     "ais.nope=1", "vae.rate=nan", "vae.rate=inf", "wgd.hybrid=maybe", "=1", ".=1"],
)  # fmt: skip
def test_settings_that_do_not_exist_or_fit_are_input_errors(text):
    with pytest.raises(InputError, match="--set"):
        with_setting(Settings(), text)


# --- problems -----------------------------------------------------------------------------------------------


def test_a_law_is_a_problem_with_its_parameters_and_disjoint_splits():
    problem = load_problem("gaussian:m=3,variance=1", num_train=50, num_test=20, seed=3)
    assert problem.train.shape == (50, 3)
    assert problem.test.shape == (20, 3)
    assert problem.law == ("gaussian", {"m": 3, "decay": 0.5, "variance": 1})
    assert (problem.distortion, problem.alphabet) == ("mse", None)
    assert torch.cdist(problem.train, problem.test).min() > 0
    assert not torch.equal(problem.train, load_problem("gaussian:m=3,variance=1", num_train=50, seed=4).train)


def test_binary_laws_have_hamming_distortion_and_their_alphabet():
    problem = load_problem("markov:n=7", num_train=40, num_test=10)
    assert problem.distortion == "hamming"
    assert problem.alphabet is not None
    assert problem.alphabet.tolist() == [0.0, 1.0]
    counted = (problem.test[:, None] != problem.train).sum(2)
    torch.testing.assert_close(problem.distance(problem.test, problem.train), counted.float())
    l1 = load_problem("markov:n=7", distortion="l1", num_train=40, num_test=10)
    assert l1.alphabet is None
    torch.testing.assert_close(l1.distance(l1.test, l1.train), counted.float())


def test_zeros_and_ones_of_any_source_may_have_hamming_distortion(tmp_path):
    rows = np.random.default_rng(0).integers(0, 2, (40, 5)).astype(bool)
    np.save(tmp_path / "bits.npy", rows)
    problem = load_problem(str(tmp_path / "bits.npy"), distortion="hamming")
    assert problem.alphabet is not None
    counted = (problem.test[:, None] != problem.train).sum(2)
    torch.testing.assert_close(problem.distance(problem.test, problem.train), counted.float())


@pytest.mark.parametrize("distortion", ["ssim", "lp:0.5", "", "hamming"])
def test_distortions_that_do_not_fit_are_input_errors(distortion):
    with pytest.raises(InputError, match=r"hamming|expected"):
        load_problem("gaussian", distortion=distortion, num_train=4, num_test=4)


def test_images_of_one_size_from_a_folder_are_vectors_and_of_many_are_refused(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(tmp_path / f"{i:02}.png")
    problem = load_problem(str(tmp_path))
    assert problem.dim == 60
    assert problem.shape == (5, 4, 3)
    assert 0 <= float(problem.train.min()) <= float(problem.train.max()) <= 1
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(tmp_path / "00.png")
    with pytest.raises(InputError, match="2 sizes"):
        load_problem(str(tmp_path))


def test_nan_pixels_empty_and_unequal_splits_are_input_errors():
    good = load_problem("laplacian:m=2", num_train=4, num_test=4)
    bad = good.test.clone()
    bad[1, 0] = math.nan
    for broken, cause in (
        (replace(good, test=bad), "1 values of its test split are NaN"),
        (replace(good, train=good.train / 0), "NaN or infinite"),
        (replace(good, train=good.train[:0]), "train split is empty"),
        (replace(good, test=good.test[:, :1]), "different sizes"),
    ):
        with pytest.raises(InputError, match=cause):
            check_problem(broken)
    check_problem(good)


def test_a_source_larger_than_memory_is_a_limit_error():
    with pytest.raises(LimitError):
        load_problem("sawbridge:n=1048576")


def test_the_best_constant_is_the_mean_or_the_median():
    squared = load_problem("laplacian:m=2", num_train=2000, num_test=500)
    mean = squared.train.mean(0)
    expected = (squared.test - mean).square().sum(1).mean()
    sample, error = zero_rate_distortion(replace(squared, law=None))
    assert sample <= float(expected) + 1e-4
    assert abs(sample - zero_rate_distortion(squared)[0]) < 5 * error
    binary = replace(load_problem("bernoulli:p=0.3,m=2", num_train=500, num_test=100), law=None)
    assert zero_rate_distortion(binary)[0] == pytest.approx(float(binary.test.sum(1).mean()))


@pytest.mark.parametrize(
    ("spec", "distortion", "expected"),
    [("gaussian:m=2,variance=1,decay=0", "mse", 2.0), ("laplacian:m=3,b=2", "l1", 6.0),
     ("laplacian:m=3,b=2", "mse", 24.0), ("sphere:m=5", "mse", 1.5), ("bernoulli:p=0.3,m=2", "hamming", 0.6),
     ("markov:n=10,p=0.3,q=0.1", "hamming", 2.5), ("markov:n=10,p=0.1", "hamming", 5.0)],
)  # fmt: skip
def test_the_distortion_of_laws_at_rate_zero_is_known(spec, distortion, expected):
    problem = load_problem(spec, distortion=distortion, num_train=4000, num_test=4000)
    known, error = zero_rate_distortion(problem)
    assert (known, error) == (pytest.approx(expected), 0.0)
    sample, spread = zero_rate_distortion(replace(problem, law=None))
    assert abs(sample - known) < 5 * spread


# --- records ------------------------------------------------------------------------------------------------


def test_a_record_is_made_of_means_and_errors_over_data_and_over_repetitions():
    rng = torch.Generator().manual_seed(0)
    lagrangian = torch.rand(3, 40, generator=rng, dtype=torch.float64) + 2
    d = torch.rand(3, 40, generator=rng, dtype=torch.float64)
    point = upper_point("x", 0.5, lagrangian, d, num_samples=1 << 10)
    ln2 = math.log(2)
    assert point.rate_bits == pytest.approx(float((lagrangian - 0.5 * d).mean()) / ln2)
    assert point.lagrangian_bits == pytest.approx(point.rate_bits + 0.5 * point.distortion / ln2)
    assert point.lagrangian_se_bits == pytest.approx(float(lagrangian.mean(0).std()) / ln2 / math.sqrt(40))
    assert point.lagrangian_se_samples_bits == pytest.approx(
        float(lagrangian.mean(1).std()) / ln2 / math.sqrt(3)
    )
    assert (point.num_blocks, point.num_repeats, point.num_samples) == (40, 3, 1024)
    one = upper_point("x", 0.5, lagrangian[0], d[0], num_samples=1 << 10)
    assert math.isnan(one.lagrangian_se_samples_bits)


def test_saturation_is_three_bits_below_the_ceiling():
    assert is_saturated(1024, 7.01)
    assert not is_saturated(1024, 6.99)
    lagrangian, d = torch.full((5,), 6.0), torch.zeros(5)  # 8.66 bits
    assert upper_point("x", 1.0, lagrangian, d, num_samples=1024).saturated
    assert not upper_point("x", 1.0, lagrangian, d, num_samples=1 << 12).saturated


def test_a_record_survives_json_with_its_gaps():
    point = RatePoint("x", "lower", 0.5, math.nan, math.nan, 3.25, details={"gap_bits": math.inf, "ess": 2.0})
    values = point.as_json()
    assert values["rate_bits"] is None
    assert values["details"] == {"gap_bits": None, "ess": 2.0}
    again = RatePoint.from_json(values)
    assert math.isnan(again.rate_bits)
    assert (again.method, again.kind, again.lagrangian_bits) == ("x", "lower", 3.25)
    with pytest.raises(TypeError):
        RatePoint.from_json(values | {"unknown": 1})


# --- runs ---------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def train(run: Run, steps: int, stop_at: int | None = None, plan: str = "a") -> torch.Tensor:
    """Weights of a tiny regression whose data come from the step's generator."""
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)

    def update(step: int, generator: torch.Generator) -> None:
        if step == stop_at:
            raise Interrupted
        x = torch.randn(8, 3, generator=generator)
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    fit("tiny", {"net": module}, {"adam": optimizer}, update, steps, run, {"plan": plan})
    return module.weight.detach().clone()


def test_stopped_and_resumed_training_ends_as_without_the_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("rcccodec.rd.run.CHECKPOINT_EVERY_S", 0.0)
    whole = train(Run(), 12)
    with pytest.raises(Interrupted):
        train(Run(folder=tmp_path), 12, stop_at=7)
    calls = []
    run = Run(folder=tmp_path, progress=lambda what, done, total: calls.append((what, done, total)))
    assert torch.equal(train(run, 12), whole)
    assert calls[0] == ("tiny", 8, 12)
    assert not torch.equal(train(Run(seed=1), 12), whole)  # control: the data do depend on the seed


def test_checkpoints_of_other_plans_and_seeds_are_not_used_and_damaged_ones_are_named(tmp_path):
    run = Run(folder=tmp_path)
    first = train(run, 5)
    assert torch.equal(train(run, 5), first)
    assert run.load("tiny", {"plan": "a"}) is not None
    assert run.load("tiny", {"plan": "b"}) is None
    assert replace(run, seed=1).load("tiny", {"plan": "a"}) is None
    (tmp_path / "tiny.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="tiny"):
        train(run, 5)


def test_diverging_training_is_a_limit_error():
    module = torch.nn.Linear(1, 1)

    def update(step: int, _generator: torch.Generator) -> None:
        module.weight.data.fill_(math.nan)

    with pytest.raises(LimitError, match="diverged"):
        fit("tiny", {"net": module}, {}, update, 1, Run(), {})


def test_randomness_is_a_function_of_seed_and_key():
    draw = [torch.rand(4, generator=r) for r in (Run().generator("a", 1), Run().generator("a", 1))]
    assert torch.equal(*draw)
    for other in (Run().generator("a", 2), Run().generator("b", 1), Run(seed=1).generator("a", 1)):
        assert not torch.equal(torch.rand(4, generator=other), draw[0])
