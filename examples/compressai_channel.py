"""CompressAI's factorised prior with a Gaussian channel in place of its entropy bottleneck, and as it is.

    python examples/compressai_channel.py FOLDER

Both are trained in the same way for a short time, on crops of the pictures in FOLDER (BSDS500 under RCC_DATA
when left out), and then write real strings. It shows how to use the channel, not what long training reaches.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from torch import Tensor, nn

from rcccodec.baselines.compressai import import_compressai
from rcccodec.errors import RccError
from rcccodec.latent.gaussian_channel import GaussianChannel
from rcccodec.sources import load_source, random_blocks

CROP = 128  # pixels a side
FIT_CROPS, TEST_CROPS = 64, 12
ENTROPY_RATE = 10.0  # of learning, of entropy models, as a multiple


def crops(folder: str, split: str, count: int) -> Tensor:
    """Crops (count, 3, CROP, CROP) in [0, 1]."""
    images = load_source(folder, split).x
    made = random_blocks(images, (CROP, CROP), count, seed=0)
    return torch.from_numpy(made).permute(0, 3, 1, 2).float() / 255


def train(net: nn.Module, x: Tensor, options: argparse.Namespace) -> None:
    """Adam on CompressAI's own loss; the entropy model learns faster than the transforms."""
    loss = import_compressai("compressai.losses").RateDistortionLoss(lmbda=options.lmbda)
    torch.manual_seed(0)
    entropy = [p for name, p in net.named_parameters() if "entropy" in name and "quantiles" not in name]
    others = [p for name, p in net.named_parameters() if "entropy" not in name]
    rates = (options.learning_rate * ENTROPY_RATE, options.learning_rate)
    groups = [{"params": p, "lr": lr} for p, lr in zip((entropy, others), rates, strict=True)]
    optimizer = torch.optim.Adam(groups)
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, 4 * (1 - t / options.steps)))
    net.train()
    for _ in range(options.steps):
        some = x[torch.randint(len(x), (options.batch,))]
        at = torch.randint(CROP // 2 + 1, (2,)).tolist()
        some = some[:, :, at[0] : at[0] + CROP // 2, at[1] : at[1] + CROP // 2]
        optimizer.zero_grad()
        loss(net(some), some)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        falling.step()
    net.eval()


@torch.no_grad()
def report(name: str, net: nn.Module, x: Tensor, seconds: float) -> None:
    """Strings of every crop, read back: bits, squared error; beside them what the forward pass promised."""
    start = time.perf_counter()
    coded = net.compress(x)
    middle = time.perf_counter()
    x_hat = net.decompress(**coded)["x_hat"]
    end = time.perf_counter()
    out = net(x)
    expected_bits = sum(-float(p.double().log2().sum()) for p in out["likelihoods"].values())
    bits = 8 * sum(len(s) for strings in coded["strings"] for s in strings)
    pixels = x.numel() / 3

    def psnr_db(made: Tensor) -> float:
        return float(
            np.mean([-10 * float((a - b).square().mean().log10()) for a, b in zip(made, x, strict=True)])
        )

    print(
        f"{name:<18} strings {bits / pixels:.4f} bpp, PSNR {psnr_db(x_hat):.2f} dB; "
        f"forward pass {expected_bits / pixels:.4f} bpp, {psnr_db(out['x_hat'].clamp(0, 1)):.2f} dB; "
        f"trained {seconds:.0f} s, encoded {middle - start:.1f} s, decoded {end - middle:.1f} s"
    )


def run(options: argparse.Namespace) -> None:
    """Train both networks and print a line of each."""
    factorized_prior = import_compressai("compressai.models").FactorizedPrior
    x = crops(options.folder, "train", options.crops)
    x_test = crops(options.folder, "test", TEST_CROPS)

    torch.manual_seed(0)
    net = factorized_prior(options.width, options.latents)
    start = time.perf_counter()
    train(net, x, options)
    net.update(update_quantiles=True)
    report("EntropyBottleneck", net, x_test, time.perf_counter() - start)

    torch.manual_seed(0)
    net = factorized_prior(options.width, options.latents)
    net.entropy_bottleneck = GaussianChannel(
        options.latents, options.classes, log2_states=options.log2_states
    )
    start = time.perf_counter()
    with torch.no_grad():
        net.entropy_bottleneck.fit_classes(net.g_a(x[:FIT_CROPS]))
    train(net, x, options)
    with torch.no_grad():
        net.entropy_bottleneck.fit(torch.cat([net.g_a(some) for some in x.split(32)]))
    report("GaussianChannel", net, x_test, time.perf_counter() - start)


def main() -> int:
    """Read the command line; documented errors are one line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default="bsds500", help="pictures to train on and to code")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, default=400)
    parser.add_argument("--width", type=int, default=32, help="CompressAI's N")
    parser.add_argument("--latents", type=int, default=48, help="CompressAI's M")
    parser.add_argument("--lmbda", type=float, default=0.01, help="of CompressAI's RateDistortionLoss")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--classes", type=int, default=64)
    parser.add_argument("--log2-states", type=int, default=12, help="of the channel's trellis")
    options = parser.parse_args()
    try:
        run(options)
    except RccError as error:
        print(f"compressai_channel: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
