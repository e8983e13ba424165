"""Filters that stand in for others: a few modes each, in place of many taps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv._checks import check_int
from longconv.filters.base import Filter
from longconv.filters.diagonal import DiagonalFilter, phi


class DistilledFilter(Filter):
    """Trainable filters of few modes each: k[..., l] = first[...] [l = 0] + 2 Re sum_n c[..., n] exp(l z[..., n]).

    Re z < 0. :func:`longconv.distill` makes them. What single precision rounds off a frequency is kept in the step of
    its mode, a number near 1: the phases of lag 1e5 are as good as those of lag 1.

    Args:
        z: (R, P) complex, logarithms of the poles with Re z < 0, one of each conjugate pair.
        c: (R, P) complex, half the residue of a real pole.
        first: (R,), what tap 0 has besides.
        shape: the shape of the taps without their last axis, R in all; None: (R,).
        dtype: of the parameters.
        filter_lr: see :class:`Filter`.

    >>> z, c = torch.tensor([[-1.0 + 0j]]), torch.tensor([[0.5 + 0j]])
    >>> DistilledFilter(z, c, torch.tensor([1.0]))(3).detach()
    tensor([[2.0000, 0.3679, 0.1353]])
    """

    filter_parameters = ("modes", "first")

    def __init__(
        self,
        z: Tensor,
        c: Tensor,
        first: Tensor,
        shape: Sequence[int] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        filter_lr: float | None = None,
    ) -> None:
        super().__init__(filter_lr)
        rows, count = z.shape
        self.shape = (rows,) if shape is None else tuple(shape)
        self.modes = DiagonalFilter(rows, 1, 2 * count, dt_min=1.0, dt_max=1.0, dt_tied=False).to(dtype)
        self.first = nn.Parameter(first.to(dtype))
        z, c = z.to(torch.complex128), c.to(torch.complex128)
        frequency = z.imag.to(dtype)
        step = torch.where(frequency == 0, 1.0, z.imag / frequency.double())
        with torch.no_grad():
            self.modes.frequency.copy_(frequency)
            self.modes.log_dt.copy_(step.log())
            self.modes.log_decay.copy_((-z.real / self.modes.log_dt.double().exp()).log())
            self.modes.B.copy_(torch.tensor([1.0, 0.0]).expand_as(self.modes.B))
            self.modes.C.copy_(torch.view_as_real(c / (phi(z) * self.modes.log_dt.double().exp())))

    def forward(self, length: int, start: int = 0) -> Tensor:
        """The first ``length`` taps from ``start`` on, (..., length - start); those before it are computed too."""
        check_int("length", length, least=check_int("start", start, least=0))
        k = self.modes(length)[0]
        k = k + F.pad(self.first[:, None], (0, length))[:, :length].to(k.dtype)
        self.require_finite(k)
        return k.view(*self.shape, length)[..., start:]

    def system(self, rows: Tensor | None = None, skip: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A_bar, B_bar (R, P) and C (1, R, P) complex128, D (1, R): y = 2 Re(C x) + D u. D is ``first`` and ``skip``.

        Args:
            rows: (R,), which of the filters, None: all, in order.
            skip: (R,) of those, or None for 0.
        """
        A_bar, B_bar, C = self.modes.discretised()
        first: Tensor = self.first
        if rows is not None:
            rows = rows.to(first.device)
            A_bar, B_bar, C, first = A_bar[rows], B_bar[rows], C[:, rows], first[rows]
        return A_bar, B_bar, C, (first if skip is None else first + skip)[None]
