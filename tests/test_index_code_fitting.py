"""Index codes learnt from blocks: they are codes, and they are worth having on blocks never seen."""

import math

import numpy as np
import pytest
import torch

from rcccodec.channel import candidates_at, select_channel, select_with_cost, squared_distances
from rcccodec.index_code.codebook_prior import CodebookPrior
from rcccodec.index_code.fitted import FREQUENCY_TOTAL, FittedCode
from rcccodec.proposals.gaussian import GaussianProposal
from rcccodec.randomness import standard_normals
from rcccodec.training import index_codes
from rcccodec.training.index_codes import fit_channel_priors, fit_codebook_prior, fit_histograms

BETA, N, SEED = 0.5, 256, 9
VARIANCES = np.array([4.0, 2.5, 1.5])
PROPOSAL = GaussianProposal(VARIANCES, BETA)


def blocks(start: int, count: int) -> torch.Tensor:
    scale = torch.tensor(np.sqrt(VARIANCES)).float()
    return standard_normals(1, torch.arange(start, start + count), 3, 1 << 20) * scale


def prior(**changes: object) -> np.ndarray:
    options = {"beta": BETA, "num_candidates": N, "stage": 0, "seed": SEED} | changes
    return fit_codebook_prior(blocks(0, 4000), PROPOSAL, **options)


def lengths_bits(levels: np.ndarray) -> np.ndarray:
    return CodebookPrior(levels).lengths_bits(np.arange(N))


def cost_bits(bits: np.ndarray, x: torch.Tensor) -> float:
    """Mean of length + beta d / ln 2 under min-cost selection with these lengths."""
    chosen = select_with_cost(x, PROPOSAL, beta=BETA, cost_nats=math.log(2) * bits, seed=SEED)
    return float(chosen.scores.mean()) / math.log(2)


def test_a_prior_is_a_code():
    levels = prior()
    assert levels.dtype == np.uint8
    assert levels.shape == (N,)
    bits = lengths_bits(levels)
    assert np.exp2(-bits).sum() == pytest.approx(1, abs=1e-9)
    assert bits.min() < 8 < bits.max()  # some candidates are worth more than others


def test_a_prior_lowers_the_cost_of_unseen_blocks_below_uniform_and_histogram():
    held_out, bits = blocks(10_000, 2000), lengths_bits(prior())
    uniform = cost_bits(np.full(N, math.log2(N)), held_out)
    histogram = fit_histograms(
        blocks(0, 4000), PROPOSAL, beta=BETA, num_candidates=N, stage=0, seeds=tuple(range(50, 60))
    )["mincost"]
    per_class = cost_bits(FittedCode(histogram, N).lengths_bits(np.arange(N)), held_out)
    learnt = cost_bits(bits, held_out)
    assert learnt < per_class - 0.1 < uniform - 0.3
    # controls: the same lengths on other indices, or another codebook's, are worse than none
    assert cost_bits(np.random.default_rng(0).permutation(bits), held_out) > learnt + 0.3
    assert cost_bits(lengths_bits(prior(seed=SEED + 1)), held_out) > learnt + 0.3


def test_lengths_are_the_frequencies_with_which_indices_are_chosen():
    """At the fixed point of the hard reassignment a code fits the choices that it leads to."""
    bits = lengths_bits(prior())
    chosen = select_with_cost(
        blocks(0, 4000), PROPOSAL, beta=BETA, cost_nats=math.log(2) * bits, seed=SEED
    ).indices.numpy()
    shares = np.bincount(chosen, minlength=N) / len(chosen)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    assert float(bits[chosen].mean()) - entropy < 0.05


def test_unchosen_candidates_stay_possible():
    levels = prior()
    rare = int(np.argmax(levels))
    assert lengths_bits(levels)[rare] < 25
    assert CodebookPrior(levels).lengths_bits(np.array([rare])) > 12


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_candidates_kept_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch, spread: float):
    monkeypatch.setattr(index_codes, "default_chunk", lambda _: 30)  # keeps and replaces across chunks
    x, offsets = blocks(0, 25), spread * torch.rand(100, generator=torch.Generator().manual_seed(0))
    distances, columns = index_codes._cheapest(x, PROPOSAL, offsets, 0, SEED, torch.device("cpu"), 10)
    y = candidates_at(PROPOSAL, torch.arange(100), seed=SEED)
    for row, (near, which) in enumerate(zip(distances, columns, strict=True)):
        exact = squared_distances(x[row].expand(100, 3), y)
        assert which.tolist() == torch.argsort(exact + offsets)[:10].tolist()
        torch.testing.assert_close(near.double(), exact[which.long()], rtol=1e-4, atol=1e-5)


def low_rate_cost(nearest: int, guess: bool, monkeypatch: pytest.MonkeyPatch) -> float:
    """Cost in bits at R = 1.5 bits, where a few of 1024 candidates should serve all blocks."""
    n, beta, proposal = 1024, 0.2, GaussianProposal(VARIANCES * 2, 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(index_codes, "NEAREST", nearest)
        if not guess:
            patch.setattr(index_codes, "_first_guess", lambda *_: torch.zeros(n))
        x = blocks(0, 3000) * math.sqrt(2)
        levels = fit_codebook_prior(x, proposal, beta=beta, num_candidates=n, stage=0, seed=SEED)
    cost_nats = math.log(2) * CodebookPrior(levels).lengths_bits(np.arange(n))
    held_out = blocks(10_000, 1000) * math.sqrt(2)
    chosen = select_with_cost(held_out, proposal, beta=beta, cost_nats=cost_nats, seed=SEED)
    return float(chosen.scores.mean()) / math.log(2)


def test_blocks_keep_the_candidates_worth_sharing_not_the_nearest(monkeypatch: pytest.MonkeyPatch):
    whole = low_rate_cost(1024, True, monkeypatch)
    assert low_rate_cost(32, True, monkeypatch) < whole + 0.3
    assert low_rate_cost(32, False, monkeypatch) > whole + 0.6  # the control: the nearest alone


def test_a_prior_needs_no_more_candidates_than_there_are():
    assert prior(num_candidates=16).shape == (16,)
    assert prior(num_candidates=1).shape == (1,)


@pytest.fixture(scope="module")
def histograms() -> dict[str, list[int]]:
    return fit_histograms(
        blocks(0, 4000), PROPOSAL, beta=BETA, num_candidates=N, stage=0, seeds=tuple(range(50, 60))
    )


def test_histograms_of_all_coders_are_codes(histograms: dict[str, list[int]]):
    assert list(histograms) == ["pfr", "orc", "mincost"]
    for frequencies in histograms.values():
        assert sum(frequencies) == FREQUENCY_TOTAL
        assert min(frequencies) >= 1
        assert np.exp2(-FittedCode(frequencies, N).lengths_bits(np.arange(N))).sum() == pytest.approx(1)


def test_histograms_fit_the_indices_that_unseen_codebooks_lead_to(histograms: dict[str, list[int]]):
    """Within a fifth of a bit of the class entropy of fresh choices, and well below log2 N."""
    mean_bits = {}
    for coder in ("pfr", "orc"):
        chosen = torch.cat(
            [
                select_channel(
                    blocks(20_000 + 200 * seed, 200),
                    PROPOSAL,
                    beta=BETA,
                    coder=coder,
                    seed=seed,
                    num_candidates=N,
                ).indices
                for seed in range(90, 100)
            ]
        ).numpy()
        own = FittedCode(index_codes.fit(chosen, num_candidates=N), N).lengths_bits(chosen).mean()
        mean_bits[coder] = FittedCode(histograms[coder], N).lengths_bits(chosen).mean()
        assert mean_bits[coder] - own < 0.2
        assert mean_bits[coder] < math.log2(N) - 0.5
    assert mean_bits["orc"] < mean_bits["pfr"] + 0.1


@pytest.mark.parametrize("coder", ["pfr", "orc"])
def test_a_prior_of_channel_simulation_fits_its_codebook_and_no_other(
    coder: str, histograms: dict[str, list[int]]
):
    def spent(levels: np.ndarray) -> float:
        return float(CodebookPrior(levels).lengths_bits(chosen).mean())

    options = {"beta": BETA, "num_candidates": N, "stage": 0, "fitted": histograms}
    own, other = (
        fit_channel_priors(blocks(0, 4000), PROPOSAL, seed=seed, **options)[coder]
        for seed in (SEED, SEED + 1)
    )
    held_out = blocks(10_000, 2000)
    chosen = select_channel(
        held_out, PROPOSAL, beta=BETA, coder=coder, seed=SEED, num_candidates=N
    ).indices.numpy()
    per_class = FittedCode(histograms[coder], N).lengths_bits(chosen).mean()
    shares = np.bincount(chosen, minlength=N) / len(chosen)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    assert spent(own) < per_class - 0.2
    assert spent(own) < entropy + 0.15  # which these blocks themselves could not beat
    assert spent(other) > per_class  # the control


def test_few_blocks_make_a_prior_that_is_about_the_histogram(histograms: dict[str, list[int]]):
    options = {"beta": BETA, "num_candidates": N, "stage": 0, "seed": SEED, "fitted": histograms}
    levels = fit_channel_priors(blocks(0, 1), PROPOSAL, **options)["pfr"]
    per_class = FittedCode(histograms["pfr"], N).lengths_bits(np.arange(N))
    assert np.abs(CodebookPrior(levels).lengths_bits(np.arange(N)) - per_class).max() < 0.6


def test_mincost_refitting_keeps_the_cheapest_of_its_starts(monkeypatch: pytest.MonkeyPatch):
    def cost(starts: slice) -> float:
        with monkeypatch.context() as patch:
            lengths = index_codes._first_lengths
            patch.setattr(index_codes, "_first_lengths", lambda *a: list(lengths(*a))[starts])
            seen = []
            bits = index_codes._cost_bits
            patch.setattr(index_codes, "_cost_bits", lambda *a: seen.append(bits(*a)) or seen[-1])
            fit_histograms(blocks(0, 1000), PROPOSAL, beta=BETA, num_candidates=N, stage=0, seeds=(50, 51))
        return min(seen)

    alone = [cost(slice(i, i + 1)) for i in range(6)]
    assert cost(slice(None)) == min(alone) < max(alone)


def test_mincost_spends_fewer_bits_than_channel_simulation(histograms: dict[str, list[int]]):
    code = FittedCode(histograms["mincost"], N)
    held_out = blocks(10_000, 1000)
    chosen = select_with_cost(
        held_out, PROPOSAL, beta=BETA, cost_nats=math.log(2) * code.lengths_bits(np.arange(N)), seed=77
    ).indices
    y = candidates_at(PROPOSAL, chosen, seed=77)
    cost = code.lengths_bits(chosen.numpy()).mean() + BETA / math.log(2) * float(
        squared_distances(held_out, y).mean()
    )
    simulated = select_channel(held_out, PROPOSAL, beta=BETA, coder="pfr", seed=77, num_candidates=N).indices
    bits = FittedCode(histograms["pfr"], N).lengths_bits(simulated.numpy()).mean()
    d = squared_distances(held_out, candidates_at(PROPOSAL, simulated, seed=77)).mean()
    assert cost < bits + BETA / math.log(2) * float(d) - 0.2


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11])
def test_few_blocks_are_enough(count: int):
    fitted = fit_histograms(
        blocks(0, count), PROPOSAL, beta=BETA, num_candidates=32, stage=0, seeds=tuple(range(10))
    )
    assert all(sum(frequencies) == FREQUENCY_TOTAL for frequencies in fitted.values())


def test_no_blocks_are_refused():
    with pytest.raises(ValueError, match="no blocks"):
        fit_histograms(blocks(0, 0), PROPOSAL, beta=BETA, num_candidates=N, stage=0, seeds=(1,))
