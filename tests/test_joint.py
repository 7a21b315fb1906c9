"""Joint coding: which blocks share an index, that a product law is simulated, and what it saves."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rcccodec import codec, container
from rcccodec.bundle import load_model
from rcccodec.channel import candidates_at, log_weights, select_channel
from rcccodec.comparison.rcc_files import image_bits, read_indices, with_index_code
from rcccodec.errors import FormatError
from rcccodec.index_code import FittedCode, ZipfHuffman
from rcccodec.joint import MAX_JOINT_BLOCKS, joint_size, split_count, to_addresses, to_indices
from rcccodec.proposals.joint import JointProposal
from rcccodec.settings import choose_settings, read_settings
from rcccodec.tiles import to_blocks

SEED = 5


@pytest.fixture(autouse=True)
def _models(tiny: Path):
    """The tiny models are found by name."""


def digits(count: int, side: int = 8, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(60, 190, (side, side), dtype=np.uint8) for _ in range(count)]


def test_sizes_are_what_the_candidates_can_carry():
    assert [joint_size(1 << 16, rate) for rate in (13001, 13000, 6500, 4333, 4334)] == [1, 1, 2, 3, 2]
    assert joint_size(1 << 16, 0) == joint_size(1 << 40, 1) == MAX_JOINT_BLOCKS
    assert joint_size(1, 1) == joint_size(8, 1) == 1
    assert joint_size(30000, 2000) == int((math.log2(30000) - 3) // 2)
    by_n = [joint_size(n, 2500) for n in range(1, 40_000, 7)]
    assert all(a <= b for a, b in pairwise(by_n))


@given(st.integers(0, 200), st.integers(1, MAX_JOINT_BLOCKS), st.integers(0, 2**32))
def test_addresses_and_indices_are_each_other_s_inverse(count: int, size: int, seed: int):
    num_shared, num_own = split_count(count, size)
    rng = np.random.default_rng(seed)
    shared, own = rng.integers(0, 1 << 40, num_shared), rng.integers(0, 1 << 40, num_own)
    addresses = to_addresses(shared, own, size)
    assert addresses.shape == (count,)
    assert len(np.unique(addresses)) == count
    back = to_indices(addresses, size)
    np.testing.assert_array_equal(back[0], shared)
    np.testing.assert_array_equal(back[1], own)


def test_a_joint_candidate_is_made_of_independent_draws_the_first_of_them_its_own():
    one = load_model("grey").rungs[0].stages[0].proposal()
    joint, k = JointProposal(one, 3), torch.arange(400)
    y = candidates_at(joint, k, seed=SEED).reshape(400, 3, one.dim)
    torch.testing.assert_close(y[:, 0], candidates_at(one, k, seed=SEED), rtol=0, atol=0)
    centred = (y - y.mean(0)).flatten(2).transpose(0, 1)
    across = [float((centred[a] * centred[b]).mean() / centred.square().mean()) for a, b in ((0, 1), (1, 2))]
    assert max(map(abs, across)) < 0.05
    assert float((centred[0] * centred[0]).mean() / centred.square().mean()) > 0.9  # the control


@pytest.mark.parametrize("coder", ["pfr", "orc", "mincost"])
def test_shared_indices_are_those_of_brute_force_and_the_rest_have_their_own(coder: str):
    model, n, images = load_model("grey"), 300, digits(7)
    encoded = codec.compress(images, model, coder=coder, num_candidates=n, index_code="fitted")
    settings = read_settings(container.unpack(encoded.data)[0], model)
    assert settings.joint_sizes() == [2]
    ((shared, own),) = read_indices(encoded.data, model)
    stage = settings.step.stages[0]
    one, joint = stage.proposal(), JointProposal(stage.proposal(), 2)
    x = np.concatenate([to_blocks(i[..., None].astype(np.float32) / 255, (8, 8)) for i in images])
    x = x.astype(np.float64)
    (code, _), (own_code, _) = settings.segments([7])
    for proposal, blocks, found, bits in (
        (joint, x[:6].reshape(3, -1), shared, code),
        (one, x[6:], own, own_code),
    ):
        y = candidates_at(proposal, torch.arange(n), seed=SEED).numpy()
        distances = np.square(blocks[:, None] - y[None]).sum(axis=2)
        if coder == "mincost":
            offsets = math.log(2) * bits.lengths_bits(np.arange(n))
        else:
            offsets = torch.cat([w for _, w in log_weights(coder, n, seed=SEED, stage=0)]).numpy()
        np.testing.assert_array_equal(found, np.argmin(stage.beta * distances + offsets, axis=1))


@pytest.mark.parametrize("coder", ["pfr", "mincost"])
@pytest.mark.parametrize("index_code", ["zipf", "fitted", None])
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_archives_of_shared_indices_come_back(coder: str, index_code: str | None, count: int):
    encoded = codec.compress(digits(count), "grey", coder=coder, index_code=index_code, joint=True)
    header, _ = container.unpack(encoded.data)
    assert (header.version, header.joint) == ((2, True) if count > 1 else (1, False))
    for x_hat, said in zip(codec.decompress(encoded.data), encoded.images, strict=True):
        np.testing.assert_array_equal(x_hat, said)


def test_stages_of_a_photograph_share_indices_within_an_image():
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in ((37, 50), (16, 8), (16, 8), (5, 90))
    ]
    for rung in (0, 1, 2):
        encoded = codec.compress(images, "colour", rung=rung, num_candidates=1 << 12)
        assert container.unpack(encoded.data)[0].joint
        for x_hat, said in zip(codec.decompress(encoded.data), encoded.images, strict=True):
            np.testing.assert_array_equal(x_hat, said)
        assert image_bits(encoded.data, load_model("colour")).shape == (4,)


def test_it_can_be_switched_off_and_a_search_too_small_does_without():
    images = digits(4)
    assert not container.unpack(codec.compress(images, "grey", joint=False).data)[0].joint
    small = codec.compress(images, "grey", coder="pfr", num_candidates=64)
    assert not container.unpack(small.data)[0].joint
    assert container.unpack(codec.compress(images, "grey", coder="pfr").data)[0].joint


def test_min_cost_with_a_prior_codes_one_by_one_unless_asked():
    def joint(**options: object) -> bool:
        return container.unpack(codec.compress(digits(4), "grey", **options).data)[0].joint

    assert not joint()
    assert joint(joint=True)
    assert joint(seed=SEED + 1)  # no prior for this codebook
    assert joint(coder="pfr")


def test_the_code_of_a_shared_index_is_that_of_its_rate():
    model = load_model("grey")  # rates of 2.5 and 4 bits
    chosen = choose_settings(model, coder="pfr", num_candidates=1 << 11, index_code="fitted", joint=True)
    assert chosen.joint_sizes() == [3]
    (code,) = chosen.joint_codes()
    assert isinstance(code, FittedCode)
    k = np.arange(1 << 11)
    nearest = FittedCode(model.rungs[1].stages[0].fitted["pfr"], 1 << 11)
    np.testing.assert_array_equal(code.lengths_bits(k), nearest.lengths_bits(k))
    zipf = choose_settings(model, coder="pfr", num_candidates=1 << 11, index_code="zipf", joint=True)
    (code,) = zipf.joint_codes()
    np.testing.assert_array_equal(code.lengths_bits(k), ZipfHuffman(1 << 11, 7500).lengths_bits(k))


def test_bits_of_images_add_up_to_the_payload_and_another_code_keeps_the_choices():
    model = load_model("grey")
    encoded = codec.compress(digits(21), model, coder="pfr", index_code="fitted", num_candidates=4096)
    bits = image_bits(encoded.data, model)
    assert bits.shape == (21,)
    assert -1 < encoded.report.payload_bits - bits.sum() < 17
    other = with_index_code(encoded.data, model, "zipf")
    assert (
        other == codec.compress(digits(21), model, coder="pfr", index_code="zipf", num_candidates=4096).data
    )
    for a, b in zip(read_indices(other, model)[0], read_indices(encoded.data, model)[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_shared_index_of_a_low_rate_costs_less_than_two():
    """Overhead is paid once: with the Zipf code of either rate, the same digits, both exact coders."""
    model, images = load_model("grey"), digits(400)
    for coder in ("pfr", "orc"):
        bits = [
            codec.compress(
                images, model, coder=coder, index_code="zipf", joint=joint, num_candidates=1 << 12
            ).report.payload_bits
            for joint in (False, True)
        ]
        assert bits[1] < bits[0]


def test_the_report_says_the_guarantee_of_shared_indices():
    report = codec.compress(digits(4), "grey", coder="pfr", num_candidates=1 << 9).report
    assert report.blocks == 4
    assert report.guarantee_bits == pytest.approx((5 + math.log2(6) + 5) / 2)
    assert report.rd_estimate_bits == pytest.approx(2.5)
    assert report.margin_bits == pytest.approx(4)
    assert not report.saturated
    odd = codec.compress(digits(5), "grey", coder="pfr", num_candidates=1 << 9).report
    own = 2.5 + math.log2(3.5) + 5
    assert odd.guarantee_bits == pytest.approx((2 * (5 + math.log2(6) + 5) + own) / 5)


def test_a_draw_of_two_blocks_follows_the_product_of_their_channels():
    """The error of each block of a pair, over seeds, against that of its own channel."""
    one = load_model("grey").rungs[0].stages[0].proposal()
    x = torch.from_numpy(np.stack([d.reshape(-1) for d in digits(2)])).float() / 255
    seeds, beta = range(4000), 2.0
    means = {1: torch.zeros(2, dtype=torch.float64), 2: torch.zeros(2, dtype=torch.float64)}
    for size, proposal, rows in ((1, one, x), (2, JointProposal(one, 2), x.reshape(1, -1))):
        for seed in seeds:
            chosen = select_channel(rows, proposal, beta=beta, coder="pfr", seed=seed, num_candidates=256)
            y = candidates_at(proposal, chosen.indices, seed=seed).reshape(2, -1)
            means[size] += (x.double() - y).square().sum(1) / len(seeds)
    prior = candidates_at(one, torch.arange(20_000), seed=1)
    d = (x.double()[:, None] - prior[None]).square().sum(2)
    w = torch.softmax(-beta * d, 1)
    true = (w * d).sum(1)
    spread = ((w * d.square()).sum(1) - true.square()).sqrt() / math.sqrt(len(seeds))
    for size in (1, 2):
        assert ((means[size] - true).abs() < 5 * spread).all(), (size, means[size], true, spread)
    assert ((d.mean(1) - true).abs() > 5 * spread).any()  # the control: unselected draws are told apart


def test_a_file_of_version_2_must_share_an_index():
    alone = codec.compress(digits(1), "grey", coder="pfr").data
    header, groups = container.unpack(alone)
    with pytest.raises(FormatError, match="no two blocks share"):
        codec.decompress(container.pack(replace(header, joint=True), groups))
