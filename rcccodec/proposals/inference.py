"""Trained generators rewritten for evaluation: the same map, fewer and larger matrix products.

Weights are rearranged once, in float64, so the forms below differ from the networks that were trained only by
rounding. What each rewrite brings is measured by ``bench/throughput.py``.

    Patches   transposed 8x8/4 convolution -> 3x3 convolution to 4x4 sub-pixels, all channels_last
    Dcgan     4x4/2 from 2x2 pixels -> three matrix products; 4x4/2 elsewhere, on the CPU, by its precision
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from rcccodec.proposals.networks import Dcgan, FullyConnected, Generator, Mlp, Patches
from rcccodec.proposals.spec import PATCH_STRIDE

_ROWS_PER_PASS_CUDA = 1 << 15
_VALUES_PER_PASS, _VALUES_PER_PASS_CUDA = 1 << 22, 1 << 30  # of the widest layer: memory stays bounded
_MAPS_LAID_OUT = 32  # whose neighbourhoods are in memory at a time
_FOUR_AS_ONE = {torch.bfloat16: torch.int64, torch.float32: torch.complex128}  # four values in one of these


class InferenceForm(nn.Module):
    """What all forms share: latents (n, latent_dim) to coordinates (n, dim), without gradients."""

    cpu_rows = 512  # of one pass and thread in float32: what it makes on the way stays in the cache
    widest = 1  # values that a layer makes of a row

    def rows_per_pass(self, z: Tensor) -> int:
        """Candidates to make at a time from latents like z; changes speed only."""
        if z.device.type != "cpu":
            return min(_ROWS_PER_PASS_CUDA, max(1, _VALUES_PER_PASS_CUDA // self.widest))
        rows = min(self.cpu_rows, _VALUES_PER_PASS // self.widest)
        return max(1, rows * 4 // z.element_size()) * torch.get_num_threads()


class FastMlp(InferenceForm):
    """`networks.Mlp`, activations in place."""

    def __init__(self, plain: Mlp) -> None:
        super().__init__()
        self.layers, self.last = copy.deepcopy(plain.layers), copy.deepcopy(plain.last)
        self.widest = max(plain.spec.width, plain.last.out_features, plain.dim)
        self.sigmoid = plain.spec.output == "sigmoid"
        if not self.sigmoid:
            self.register_buffer("mean", plain.mean.clone())
            self.register_buffer("basis", plain.basis.clone())

    def forward(self, z: Tensor) -> Tensor:
        h = functional.silu(self.layers[0](z), inplace=True)
        for layer in self.layers[1:]:
            h += functional.silu(layer(h), inplace=True)
        y = self.end(h)
        return y.sigmoid_() if self.sigmoid else y

    def end(self, h: Tensor) -> Tensor:
        y: Tensor = self.last(h)
        return y


class FastPatches(FastMlp):
    """`networks.Patches`; feature maps lie channels last, (n, h/4, w/4, f), from the first on.

    A pixel y = 4 j + r is drawn by rows i = j - 1, j, j + 1 of the maps, with row k = y + 2 - 4 i of the 8x8
    patch where that is one: a 3x3 convolution to 16 sub-pixels a map pixel, at 9/4 of the multiplications
    that are needed, but in the one shape that processors are fast at.
    """

    def __init__(self, plain: Patches) -> None:
        super().__init__(plain)
        features, height, width = plain.grid
        order = torch.arange(self.last.out_features).view(features, height, width).permute(1, 2, 0).flatten()
        self.last.weight.data = plain.last.weight.data[order]
        self.last.bias.data = plain.last.bias.data[order]
        self.mix = Conv3x3(plain.mix.weight, plain.mix.bias)
        self.draw = Conv3x3(_sub_pixel_weight(plain.draw.weight), None)
        self.grid, self.channels = (height, width, features), plain.spec.shape[2]
        self.mean_logits = nn.Parameter(plain.mean_logits.permute(1, 2, 0).flatten(), requires_grad=False)

    def end(self, h: Tensor) -> Tensor:
        height, width, _ = self.grid
        maps = functional.silu(self.last(h), inplace=True).view(-1, *self.grid)
        maps += functional.silu(self.mix(maps), inplace=True)
        pieces = self.draw(maps).view(-1, height, width, PATCH_STRIDE, PATCH_STRIDE * self.channels)
        pieces = pieces.view(_FOUR_AS_ONE.get(h.dtype, h.dtype))  # moved whole: four times as fast
        y = pieces.transpose(2, 3).reshape(len(h), -1).view(h.dtype)
        y += self.mean_logits
        return y


def _sub_pixel_weight(weight: Tensor) -> Tensor:
    """Of a transposed 8x8/4 convolution with margin 2, (f, c, 8, 8), as (16 c, f, 3, 3), r, s, c in order."""
    features, channels = weight.shape[:2]
    taps = torch.zeros(3, 3, PATCH_STRIDE, PATCH_STRIDE, channels, features, dtype=weight.dtype)
    for i in range(3):  # maps' row j - 1 + i
        for r in range(PATCH_STRIDE):
            for k in range(3):
                for s in range(PATCH_STRIDE):
                    u, v = r + 2 - PATCH_STRIDE * (i - 1), s + 2 - PATCH_STRIDE * (k - 1)
                    if 0 <= u < weight.shape[2] and 0 <= v < weight.shape[3]:
                        taps[i, k, r, s] = weight[:, :, u, v].T
    return taps.permute(2, 3, 4, 5, 0, 1).reshape(-1, features, 3, 3)


class Conv3x3(nn.Module):
    """A padded 3x3 convolution of maps (n, h, w, c), channels last, to (n, h, w, o)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            weight.detach().contiguous(memory_format=torch.channels_last), requires_grad=False
        )
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.dtype == torch.float64 and maps.device.type == "cpu":
            return self._as_product(maps)
        y = functional.conv2d(maps.permute(0, 3, 1, 2), self.weight, self.bias, padding=1)
        return y.permute(0, 2, 3, 1).contiguous()

    def _as_product(self, maps: Tensor) -> Tensor:
        """Neighbourhoods laid out, one matrix product: there is no fast float64 convolution on CPUs."""
        n, height, width, c = maps.shape
        padded = functional.pad(maps, (0, 0, 1, 1, 1, 1))
        step = c * (width + 2)
        around = padded.as_strided((n, height, width, 3, 3 * c), (step * (height + 2), step, c, step, 1))
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        y = maps.new_empty(n, height, width, len(weight))
        for first in range(0, n, _MAPS_LAID_OUT):
            part = around[first : first + _MAPS_LAID_OUT].reshape(-1, 9 * c)
            y[first : first + _MAPS_LAID_OUT].view(-1, len(weight)).copy_(
                functional.linear(part, weight, self.bias)
            )
        return y


class FastDcgan(InferenceForm):
    """`networks.Dcgan`, batch normalisation folded; feature maps lie channels last, (n, h, w, c).

    An output pixel o of a 4x4/2 layer sees input i through tap k = o + 1 - 2 i, 0 <= k < 4: two inputs an
    axis, one at an edge. From 2x2 pixels the outputs' rows 0, 1 and 2, and 3 see the upper row, both, and the
    lower row: three products with dense weights.
    """

    cpu_rows = 128

    def __init__(self, plain: Dcgan) -> None:
        super().__init__()
        first = plain.first
        order = torch.arange(first.out_features).view(-1, 4).T.flatten()  # (c, 2, 2) to (2, 2, c)
        self.first = _linear(first.weight[order], first.bias[order])
        c_in, c_out = plain.up[0].weight.shape[:2]
        dense = _dense_4x4(plain.up[0].weight, 2)  # (4, 4, o, 2, 2, i)
        bias = plain.up[0].bias.repeat(4)
        self.top = _linear(dense[0, :, :, 0].reshape(4 * c_out, 2 * c_in), bias)
        self.middle = _linear(dense[1:3].reshape(8 * c_out, 4 * c_in), bias.repeat(2))
        self.bottom = _linear(dense[3, :, :, 1].reshape(4 * c_out, 2 * c_in), bias)
        self.up = nn.ModuleList(Up4x4(up.weight, up.bias) for up in list(plain.up)[1:])

    def forward(self, z: Tensor) -> Tensor:
        h = functional.relu(self.first(z), inplace=True)
        half = h.shape[1] // 2
        rows = (self.top(h[:, :half]), self.middle(h), self.bottom(h[:, half:]))
        h = functional.relu(torch.cat(rows, dim=1), inplace=True).view(len(z), 4, 4, -1)
        for layer in self.up[:-1]:
            h = functional.relu(layer(h), inplace=True)
        y: Tensor = self.up[-1](h)
        return y.flatten(1).sigmoid_()


def _dense_4x4(weight: Tensor, side: int) -> Tensor:
    """A 4x4/2 transposed convolution (i, o, 4, 4) of square maps as (2 side, 2 side, o, side, side, i)."""
    c_in, c_out = weight.shape[:2]
    dense = torch.zeros(2 * side, 2 * side, c_out, side, side, c_in, dtype=weight.dtype)
    for y in range(2 * side):
        for x in range(2 * side):
            for i in range(side):
                for j in range(side):
                    u, v = y + 1 - 2 * i, x + 1 - 2 * j
                    if 0 <= u < 4 and 0 <= v < 4:
                        dense[y, x, :, i, j] = weight[:, :, u, v].T
    return dense


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight = nn.Parameter(weight.detach().contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias.detach().contiguous(), requires_grad=False)
    return layer


# along one axis, for outputs o = 2 i and 2 i + 1: the tap of input i, that of the neighbour it also sees, and
# which outputs have one
_PHASES = ((1, 3, slice(1, None), slice(None, -1)), (2, 0, slice(None, -1), slice(1, None)))
_NARROW = 4  # outputs too few to fill a vector register


class Up4x4(nn.Module):
    """A 4x4/2 transposed convolution with margin 1 of maps (n, h, w, c), channels last, to (n, 2h, 2w, o).

    Few outputs, and float64 on CPUs, which has no fast convolution: one matrix product for the 16 taps of
    every input pixel, and their sums.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        self.narrow = weight.shape[1] <= _NARROW

    def forward(self, maps: Tensor) -> Tensor:
        if not (self.narrow or (maps.dtype == torch.float64 and maps.device.type == "cpu")):
            y = functional.conv_transpose2d(maps.permute(0, 3, 1, 2), self.weight, self.bias, 2, 1)
            return y.permute(0, 2, 3, 1).contiguous()
        n, height, width, c = maps.shape
        pixels = maps.reshape(-1, c)
        if self.narrow:  # planes of pixels, so that sums run along them
            made = self.weight.permute(2, 3, 1, 0).reshape(-1, c) @ pixels.T
            made = made.view(4, 4, -1, n, height, width).permute(3, 4, 5, 0, 1, 2)
            made = made if maps.dtype == torch.float64 else made.float()
            y = made.new_empty(2, 2, made.shape[-1], n, height, width).permute(3, 4, 0, 5, 1, 2)
        else:
            made = pixels @ self.weight.permute(0, 2, 3, 1).reshape(c, -1)
            made = made.view(n, height, width, 4, 4, -1)
            y = made.new_empty(n, height, 2, width, 2, made.shape[-1])
        for a, (u, u_far, to_i, from_i) in enumerate(_PHASES):
            for b, (v, v_far, to_j, from_j) in enumerate(_PHASES):
                part = y[:, :, a, :, b]
                torch.add(made[..., u, v, :], self.bias, out=part)
                part[:, to_i] += made[:, from_i, :, u_far, v]
                part[:, :, to_j] += made[:, :, from_j, u, v_far]
                part[:, to_i, to_j] += made[:, from_i, from_j, u_far, v_far]
        return y.reshape(n, 2 * height, 2 * width, -1).to(maps.dtype)


class FastFullyConnected(InferenceForm):
    """`networks.FullyConnected`, activations in place."""

    def __init__(self, plain: FullyConnected) -> None:
        super().__init__()
        self.first, _, self.second, _, self.last = copy.deepcopy(plain.body)
        self.widest = max(plain.spec.width, plain.dim)
        self.sigmoid = plain.spec.output == "sigmoid"

    def forward(self, z: Tensor) -> Tensor:
        h = functional.relu(self.first(z), inplace=True)
        y: Tensor = self.last(functional.relu(self.second(h), inplace=True))
        return y.sigmoid_() if self.sigmoid else y


def inference_form(plain: Generator) -> InferenceForm:
    """The float64 network ``at_slope`` of a generator, rewritten; ``.to`` gives it in another precision."""
    with torch.no_grad():
        if isinstance(plain, Patches):
            form: InferenceForm = FastPatches(plain)
        elif isinstance(plain, Mlp):
            form = FastMlp(plain)
        elif isinstance(plain, Dcgan):
            form = FastDcgan(plain)
        else:
            form = FastFullyConnected(plain)
    return form.eval().requires_grad_(False)
