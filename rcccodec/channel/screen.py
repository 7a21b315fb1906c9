"""A lower bound on the distances of a job that costs a fraction of them, to leave most pairs unscored.

    phi(x) = (leading coefficients of x - mean in an orthonormal basis, norm of what they leave)

is 1-Lipschitz: the part left out enters by its norm alone, and | |a| - |b| | <= |a - b|. So
``|phi(x) - phi(y)|^2 <= |x - y|^2`` in any such basis; the principal axes of the job's blocks make it tight.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from rcccodec.randomness import standard_normals

WIDTHS = (15, 31, 47, 63, 95, 127)  # leading coefficients to choose from
_SAMPLE_ROWS, _SAMPLE_COLUMNS, _ITERATIONS = 2048, 256, 2
_SLACK = 2.0**-18  # of the square norm, added to what is left: rounding must not make the bound too high
# in multiply-adds of a matrix product: what a pair costs besides its product, what a survivor costs per
# dimension and besides
_PASS, _GATHER, _SURVIVOR = 20, 5, 1500


class Screen:
    """phi of blocks and candidates that are centred alike."""

    def __init__(self, x: Tensor) -> None:
        self.basis = leading_axes(x, min(WIDTHS[-1], x.shape[1] - 1))  # (dim, at most 127)
        self._leading: dict[int, Tensor] = {}

    def phi(self, centred: Tensor, square_norms: Tensor, width: int) -> Tensor:
        """float32 (n, width + 1) of centred rows float32 (n, dim) with these square norms (n,)."""
        if width not in self._leading:  # the product is several times slower with part of a wider matrix
            self._leading[width] = self.basis[:, :width].contiguous()
        leading = centred @ self._leading[width]
        rest = (square_norms - leading.square().sum(dim=1)).clamp_min_(0.0) + _SLACK * square_norms
        return torch.cat([leading, rest.sqrt_()[:, None]], dim=1)

    def best_width(self, x: Tensor, y: Tensor, row: Tensor, scale: float, ceilings: Tensor) -> int:
        """The number of coefficients that promises the least work, 0 for scoring all pairs.

        Survivors are counted on some pairs: those with ``row + scale phi(x) phi(y)`` at most ``ceilings``.
        """
        dim = x.shape[1]
        x, ceilings = (part[:: -(-len(x) // _SAMPLE_COLUMNS)] for part in (x, ceilings))
        y, row = (part[:: -(-len(y) // _SAMPLE_COLUMNS)] for part in (y, row))
        least, best = float(dim), 0
        for width in WIDTHS:
            if width > self.basis.shape[1]:
                break
            phi_x, phi_y = (self.phi(part, part.square().sum(dim=1), width) for part in (x, y))
            bound = torch.addmm(row, phi_x, phi_y.T, alpha=scale)
            share = float((bound <= ceilings[:, None]).float().mean())
            work = width + 1 + _PASS + share * (_GATHER * dim + _SURVIVOR)
            if work < least:
                least, best = work, width
        return best


def leading_axes(x: Tensor, count: int) -> Tensor:
    """About the leading principal axes of centred rows x (n, dim): orthonormal float32 (dim, count)."""
    x = x[:: -(-len(x) // _SAMPLE_ROWS)].to(torch.float32)
    axes = standard_normals(0, torch.arange(x.shape[1]), count, 0).to(x.device)
    for _ in range(_ITERATIONS):
        axes = torch.linalg.qr((x.T @ (x @ axes)).double())[0].float()
    # rows may span less than ``count`` axes, and rounding may leave the rest unlike a basis
    _, _, turn = torch.linalg.svd((x @ axes).double(), full_matrices=False)
    if len(turn) < count:
        return axes
    return torch.linalg.qr(axes.double() @ turn.T)[0].float()


def at_most(scores: Tensor, ceilings: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (rows, columns) where scores (B, n) <= ceilings (B,), row by row, columns rising.

    Minima of eight columns at a time come first: comparing all would take longer than the product did.
    """
    num_rows, n = scores.shape
    if n % 8:
        return (scores <= ceilings[:, None]).nonzero(as_tuple=True)
    eights = scores.view(num_rows, 8, n // 8)
    group_rows, groups = (eights.amin(dim=1) <= ceilings[:, None]).nonzero(as_tuple=True)
    close = eights[group_rows, :, groups] <= ceilings[group_rows, None]
    which, eighth = close.nonzero(as_tuple=True)
    rows, columns = group_rows[which], eighth * (n // 8) + groups[which]
    order = torch.argsort(rows * n + columns)
    return rows[order], columns[order]


def products_at(x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x[rows] . y[columns], float32, for pairs row by row, columns rising."""
    starts = torch.zeros(len(x) + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(rows, minlength=len(x)), dim=0, out=starts[1:])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")
        zeros = torch.zeros(len(rows), dtype=torch.float32)
        pairs = torch.sparse_csr_tensor(starts, columns, zeros, (len(x), len(y)), check_invariants=False)
        return torch.sparse.sampled_addmm(pairs, x, y.T, beta=0.0).values()
