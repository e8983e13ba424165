r"""``butterfly_conv`` by products of real matrices, for some columns after the other.

The numbers of all channels stand side by side, H columns a sample, so that every stage is a product from the left with
nothing to permute. The twiddles go into the second stage, which so has a matrix of its own for each of the N_1 rows
that the first one gives, and real and imaginary part into all of them: with rows (m_1, Re | Im) of F_1 and of the
columns of F_4

    Y = F_1 X,    Z[m_1] = F_2[m_1] Y[m_1],    O[m_1] = F_3[m_1] (Z[m_1] K[m_1]),    y = F_4 O

where X (N_1, N_2 Q) are Q columns, Y (N_1, 2 N_2, Q), and K = sqrt(N) T(k) is transformed once. The gradients compute
Y and Z again and need one product more a stage, those of the matrices another one:

    dO = F_4^T dy,  dP = F_3^T dO,  dZ = dP conj(K),  dY = F_2^T dZ,  dX = F_1^T dY,  dK = sum conj(Z) dP
    dF_4 = dy O^T,  dF_3 = dO P^T,  dF_2 = dZ Y^T,  dF_1 = dY X^T,    P = Z K

with K's share of the last two. The four blocks of a matrix that stands for a complex one share its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv.ops._library import conjugate

CHUNK_NUMBERS = 2**18
"""Numbers of x that are in work at once on the CPU: what the stages make of them stays in the caches."""

PANEL_NUMBERS = 2**23
"""Numbers of F_2 that are made at once; of larger ones some m_1 after the other."""


class Stages(NamedTuple):
    """The matrices of P of the rows m_1."""

    first: Tensor
    """(2P, N_1)."""
    second: Tensor
    """(P, 2 N_2, 2 N_2)."""
    third: Tensor
    """(P, 2 N_2, 2 N_2)."""
    last: Tensor
    """(N_1, 2P), with a tail (2 N_1, 2P)."""


def forward(x: Tensor, k: Tensor, *rest: Any) -> Tensor:
    """The sum over the panels of rows m_1."""
    *matrices, tail = rest
    parts = (_forward(x, k, _stages(matrices, rows, tail)) for rows in _panels(matrices))
    y = next(parts)
    for part in parts:
        y += part
    return y


def backward(g: Tensor, x: Tensor, k: Tensor, *rest: Any) -> list[Tensor]:
    """The gradients of the module's docstring."""
    *matrices, tail, wanted = rest
    grads = [torch.empty_like(x, memory_format=torch.contiguous_format)]
    grads += [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (k, *matrices)]
    for rows in _panels(matrices):
        found = _Gradients(x, k, _stages(matrices, rows, tail), wanted)
        for chunk in _chunks(x):
            found.add(g[chunk], x[chunk], grads[0][chunk], again=rows.start > 0)
        if found.of_k:
            found.finish(k, grads[1])
        if found.of_matrices:
            _add_matrices(grads[2:], matrices, rows, found.stages)
    return [grad for grad, want in zip(grads, wanted, strict=True) if want]


# --- columns ----------------------------------------------------------------------------------------------------------


def _forward(x: Tensor, k: Tensor, stages: Stages) -> Tensor:
    spectrum = _spectrum(k, stages)[1]
    y = x.new_empty(x.shape[0], len(stages.last) * spectrum.shape[1] // 2, x.shape[2])
    for chunk in _chunks(x):
        Y, Z, P = _room(x[chunk], spectrum, 3)
        _analyse(_columns(x[chunk]), stages, Y, Z)
        _multiply(Z, spectrum, P)
        torch.bmm(stages.third, P, out=Y)
        _put(y[chunk], stages.last, Y)
    return y


class _Gradients:
    """Sums over the chunks of what gradients of the filter and of matrices are made of."""

    def __init__(self, x: Tensor, k: Tensor, stages: Stages, wanted: Sequence[bool]) -> None:
        self.given, self.of_x, self.of_matrices = stages, wanted[0], any(wanted[2:])
        self.of_k = wanted[1] or self.of_matrices
        self.analysed, self.spectrum = _spectrum(k, stages)
        self.d_spectrum = torch.zeros_like(self.spectrum)
        self.stages = Stages(*(torch.zeros_like(matrix) for matrix in stages))

    def add(self, g: Tensor, x: Tensor, dx: Tensor, *, again: bool) -> None:
        """The share of a chunk; write the gradient of x, or if ``again`` add to it."""
        F1, _, F3, F4 = self.given
        Y, Z, P, dO, dP = _room(x, self.spectrum, 5)
        X, dy = _columns(x), _columns(g)
        torch.mm(F4.mT, _rows(dy, F4, 0), out=_rows(dO, F4, 1))
        torch.bmm(F3.mT, dO, out=dP)
        if self.of_k:
            _analyse(X, self.given, Y, Z)
        if self.of_matrices:
            _multiply(Z, self.spectrum, P)
            self.stages.third.baddbmm_(dO, P.mT)
            O = torch.bmm(F3, P, out=dO)
            self.stages.last.addmm_(_rows(dy, F4, 0), _rows(O, F4, 1).mT)
        if self.of_k:
            _multiply(dP, Z, P, conjugated=True)
            self.d_spectrum += P.unflatten(-1, (-1, x.shape[-1])).sum(-2)
        if self.of_x or self.of_matrices:
            dZ, dY = Z, dO
            _multiply(dP, self.spectrum, dZ, conjugated=True)
            self._first_stages(dZ, Y, X, dY)
            if self.of_x:
                _put(dx, F1.mT, dY, add=again)

    def finish(self, k: Tensor, dk: Tensor) -> None:
        """The share of the filter; add to its gradient."""
        dY = torch.empty_like(self.analysed)
        self.d_spectrum *= math.sqrt(k.shape[0])
        self._first_stages(self.d_spectrum, self.analysed, k, dY)
        _put(dk[None], self.given.first.mT, dY, add=True)

    def _first_stages(self, dZ: Tensor, Y: Tensor, X: Tensor, dY: Tensor) -> None:
        """Back to before the second stage, with the gradients of its matrices and of the first's."""
        torch.bmm(self.given.second.mT, dZ, out=dY)
        if self.of_matrices:
            F1 = self.given.first
            self.stages.second.baddbmm_(dZ, Y.mT)
            self.stages.first.addmm_(_rows(dY, F1, 0), _rows(X, F1, 1).mT)


def _chunks(x: Tensor) -> Iterator[slice]:
    """Samples that are in work at once."""
    most = CHUNK_NUMBERS if x.device.type == "cpu" else 64 * CHUNK_NUMBERS
    size = max(1, most // (x.shape[1] * x.shape[2]))
    return (slice(start, start + size) for start in range(0, x.shape[0], size))


def _columns(x: Tensor) -> Tensor:
    """Samples (S, N, H) as columns (N, S H)."""
    return x[0].contiguous() if len(x) == 1 else x.transpose(0, 1).flatten(1)


def _rows(t: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """The numbers as many rows as a matrix has along an axis."""
    return t.reshape(matrix.shape[axis], -1)


def _room(x: Tensor, spectrum: Tensor, count: int) -> tuple[Tensor, ...]:
    """Memory for what the stages make of samples, (P, 2 N_2, Q) each."""
    return x.new_empty(count, *spectrum.shape[:2], len(x) * x.shape[2]).unbind()


def _analyse(X: Tensor, stages: Stages, Y: Tensor, Z: Tensor) -> None:
    """The first two stages of the columns X."""
    torch.mm(stages.first, _rows(X, stages.first, 1), out=_rows(Y, stages.first, 0))
    torch.bmm(stages.second, Y, out=Z)


def _spectrum(k: Tensor, stages: Stages) -> tuple[Tensor, Tensor]:
    """Of the taps (N, H) what the first stage gives, and sqrt(N) T(k), (P, 2 N_2, H)."""
    Y, Z = _room(k[None], stages.second, 2)
    _analyse(k.contiguous(), stages, Y, Z)
    return Y, Z.mul_(math.sqrt(len(k)))


def _multiply(a: Tensor, b: Tensor, y: Tensor, *, conjugated: bool = False) -> None:
    """Write a b or a conj(b) to y: a and y (P, 2 N_2, Q), b (P, 2 N_2, H), one sample after the other."""
    parts = (t.unflatten(-1, (-1, b.shape[-1])).chunk(2, 1) for t in (a, b, y))
    (a_re, a_im), (b_re, b_im), (y_re, y_im) = parts
    sign = 1 if conjugated else -1
    torch.mul(a_re, b_re, out=y_re).addcmul_(a_im, b_im, value=sign)
    torch.mul(a_im, b_re, out=y_im).addcmul_(a_re, b_im, value=-sign)


def _put(y: Tensor, matrix: Tensor, columns: Tensor, *, add: bool = False) -> None:
    """The product of a stage's matrix as samples (S, N, H); add to what is there, or replace it."""
    columns = _rows(columns, matrix, 1)
    if len(y) == 1:
        torch.addmm(y_ := _rows(y, matrix, 0), matrix, columns, beta=int(add), out=y_)
    else:
        found = (matrix @ columns).view(y.shape[1], len(y), y.shape[2]).transpose(0, 1)
        y.add_(found) if add else y.copy_(found)


# --- matrices ---------------------------------------------------------------------------------------------------------


def _panels(matrices: Sequence[Tensor]) -> Iterator[slice]:
    N1, N2 = matrices[1].shape[:2]
    size = max(1, PANEL_NUMBERS // (2 * N2) ** 2)
    return (slice(start, start + size) for start in range(0, N1, size))


def _stages(matrices: Sequence[Tensor], rows: slice, tail: bool) -> Stages:
    E1, W, E2, G1, V, G2 = matrices
    synthesis = G1[:, rows]
    last = [torch.stack((synthesis[..., 0], -synthesis[..., 1]), -1)]
    if tail:
        last.append(synthesis.flip(-1))
    return Stages(
        E1[rows].mT.reshape(-1, E1.shape[1]),
        _real(_complex(W[rows])[:, None] * _complex(E2).mT),
        _real(_complex(V[rows])[:, :, None] * _complex(G2).mT),
        torch.cat(last).flatten(1),
    )


def _add_matrices(grads: Sequence[Tensor], matrices: Sequence[Tensor], rows: slice, d: Stages) -> None:
    """Add what the stages of some rows pass on to the matrices that they are made of."""
    _, W, E2, _, V, G2 = matrices
    dE1, dW, dE2, dG1, dV, dG2 = grads
    left, right = conjugate(_complex(E2)).mT, conjugate(_complex(G2)).mT
    second, third = _of_real(d.second), _of_real(d.third)
    last = d.last.unflatten(1, (-1, 2))
    N1 = dG1.shape[0]
    synthesis = last[:N1] * last.new_tensor((1.0, -1.0))
    if len(last) > N1:
        synthesis = synthesis + last[N1:].flip(-1)
    dE1[rows] += d.first.unflatten(0, (-1, 2)).mT
    dG1[:, rows] += synthesis
    dW[rows] += torch.view_as_real((second * left).sum(1))
    dE2 += torch.view_as_real((second * conjugate(_complex(W[rows]))[:, None]).sum(0).mT)
    dV[rows] += torch.view_as_real((third * right).sum(2))
    dG2 += torch.view_as_real((third * conjugate(_complex(V[rows]))[:, :, None]).sum(0).mT)


def _complex(parts: Tensor) -> Tensor:
    return torch.view_as_complex(parts.contiguous())


def _real(z: Tensor) -> Tensor:
    """Products with z (P, a, b) as matrices (P, 2a, 2b) on Re | Im."""
    return torch.cat((torch.cat((z.real, -z.imag), 2), torch.cat((z.imag, z.real), 2)), 1)


def _of_real(matrix: Tensor) -> Tensor:
    """The adjoint of :func:`_real`."""
    (a, b), (c, d) = (rows.chunk(2, 2) for rows in matrix.chunk(2, 1))
    return torch.complex(a + d, c - b)
