"""Several images in one code (nerd-rcc, section VI-A): one-shot transforms, joined where the latents are.

    x_1..x_n --> analysis of each --> y --> y + mix(y) --> round --> y + mix(y) --> synthesis of each

The mixing networks see the latents of all images; they begin at zero, where the code is the one-shot code, so
that it starts from a trained one and can only gain.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from rcccodec.baselines.ntc import Ntc, code_rate_and_distortion, entropy_bottleneck
from rcccodec.baselines.rounding import Rounding
from rcccodec.baselines.spec import NtcSpec
from rcccodec.baselines.tables import Tables, factorised_tables
from rcccodec.proposals.generator import GeneratorSpec, build_generator

MIXING_WIDTH = 256
MIXING_SCALE = 0.25  # of the latents that the mixing networks see; rounded latents are whole numbers


class BlockNtc(nn.Module):
    """Networks of a ``block`` code; ``one_shot`` are those of its images, whose latents it holds."""

    def __init__(self, spec: NtcSpec, *, for_training: bool = True) -> None:
        super().__init__()
        self.spec = spec
        self.one_shot = Ntc(one_shot_spec(spec), for_training=False)
        slopes = (spec.betas[0], spec.betas[-1])
        mixing = GeneratorSpec(
            "mlp", (spec.latent_dim,), spec.latent_dim, MIXING_WIDTH, 1, "linear", spec.latent_dim, slopes
        )
        self.mix_in, self.mix_out = build_generator(mixing), build_generator(mixing)
        for network in (self.mix_in, self.mix_out):
            del network.mean, network.basis
            nn.init.zeros_(network.last.weight)
        if for_training:  # coding needs its tables alone
            self.bottleneck = entropy_bottleneck(len(spec.betas) * spec.latent_dim)

    def start_from(self, mean: Tensor, basis: Tensor, variances: Tensor) -> None:
        """Begin at the mean of the images and their KLT."""
        self.one_shot.start_from(mean, basis, variances)

    def analysis(self, x: Tensor, slope: Tensor) -> Tensor:
        """Latents (n, latent_dim) before rounding, of x (n, images * pixels) and ``slope`` (n,)."""
        count = self.spec.images_per_code
        y = self.one_shot.analysis(x.reshape(len(x) * count, -1), slope.repeat_interleave(count))
        return self._mixed(self.mix_in, y.view(len(x), -1), slope)

    def synthesis(self, y: Tensor, slope: Tensor) -> Tensor:
        """Pixels (n, images * pixels) of rounded latents (n, latent_dim)."""
        count = self.spec.images_per_code
        mixed = self._mixed(self.mix_out, y, slope).view(len(y) * count, -1)
        return self.one_shot.synthesis(mixed, slope.repeat_interleave(count)).view(len(y), -1)

    def _mixed(self, network: nn.Module, y: Tensor, slope: Tensor) -> Tensor:
        return y + network(MIXING_SCALE * y, self.one_shot.log_betas[slope])

    def rate_and_distortion(self, x: Tensor, slope: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """Rates (nats) and summed squared errors, (n,) each, of codes x (n, dim).

        ``slope`` (n,) int64 must be i mod K in row i, K slopes in all.
        """
        return code_rate_and_distortion(self, x, slope, rounding)

    def tables(self) -> dict[str, Tables]:
        """Integer tables of the trained entropy model: ``latents``, row slope * latent_dim + latent."""
        return {"latents": factorised_tables(self.bottleneck)}


def one_shot_spec(spec: NtcSpec) -> NtcSpec:
    """The one-shot code that a block code is made of."""
    return replace(spec, kind="image", images_per_code=1, latent_dim=spec.latent_dim // spec.images_per_code)


def from_one_shot(spec: NtcSpec, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of a trained one-shot network as far as it goes into that of a block code of these sizes."""
    count, slopes = spec.images_per_code, len(spec.betas)
    state = {}
    for name, value in tensors.items():
        if not name.startswith("bottleneck."):
            state[f"one_shot.{name}"] = value
        elif len(value) == slopes * spec.latent_dim // count:  # a row for each slope and latent
            rows = value.view(slopes, 1, -1, *value.shape[1:])
            state[name] = rows.repeat(1, count, *[1] * (rows.dim() - 2)).flatten(0, 2)
    return state
