r"""``state_space_taps`` by blocks of T taps, T about the square root of L.

On real vectors of size 2N the matrix is M = diag(A) + sum_r left[r] right[r]. With l = q T + r the taps are the
products of Q rows Y[q] = C (M^T)^q and T columns X[r] = M^r B. Columns, and the rows V[j] = right M^j, come from T
steps of the structured recurrence; then

    M^T = A^T + sum_{j<T} U[j] V[j],    U[j] = A^(T-1-j) left

is one product of (2N, T R) with (T R, 2N) matrices, where squaring takes log2 T products of (2N, 2N) with (2N, 2N); the
rows Y follow by Q products with M^T.

The gradients run the same recurrences on the adjoints. With dY = g X and dX = g^T Y,

    P[q] = dY[q] + P[q+1] (M^T)^T,    dC = P[0],    dM^T = sum_q Y[q]^T P[q+1]

and M^T passes its gradient to A^T, U and V. The sequences X and V are

    z[t+1] = alpha z[t] + sum_r lambda[r] <rho[r], z[t]>

with (alpha, lambda, rho) = (A, left, conj right) and (conj A, conj right, left), and <s, z> the real inner product. The
map of each is the adjoint of the other's, so that with p[t] = dz[t] + conj(alpha) p[t+1] + sum_r rho[r] <lambda[r],
p[t+1]>,

    dalpha = sum_t p[t+1] conj(z[t]),
    dlambda[r] = sum_t p[t+1] <rho[r], z[t]>,    drho[r] = sum_t z[t] <lambda[r], p[t+1]>.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from longconv.ops._library import conjugate, square_blocks
from longconv.ops.state_space_taps.reference import modes, real

BLOCK_NUMBERS = 2**18
"""Numbers of the matrices M^T that are in work at once on the CPU: they are read Q times and have to stay in cache."""


class Recurrence(NamedTuple):
    """The 1 + R sequences of a feature, all stacked along the first axis: the columns X, then the rows V."""

    alpha: Tensor
    """(1 + R, H, N) complex."""
    lambda_: Tensor
    """(1 + R, R, H, 2N), on real vectors."""
    rho: Tensor
    """(1 + R, R, H, 2N), on real vectors."""

    def adjoint(self) -> Recurrence:
        """The transposed maps."""
        return Recurrence(conjugate(self.alpha), self.rho, self.lambda_)

    def step(self, z: Tensor) -> Tensor:
        """(1 + R, H, N) -> the next."""
        inner = (self.rho * real(z)[:, None]).sum(-1, keepdim=True)  # (1 + R, R, H, 1)
        return self.alpha * z + modes((self.lambda_ * inner).sum(1))


class Blocks(NamedTuple):
    """What the taps are made of, on real vectors."""

    recurrence: Recurrence
    sequences: Tensor
    """(T, 1 + R, H, N) complex: X and V."""
    powers: Tensor
    """(T, H, N) complex: A^j, j < T."""
    block: Tensor
    """M^T (H, 2N, 2N)."""
    rows: Tensor
    """Y (Q, H, C, 2N)."""

    def columns(self) -> Tensor:
        """X (H, T, 2N)."""
        return real(self.sequences[:, 0]).transpose(0, 1)

    def all_rows(self) -> Tensor:
        """Y (H, C Q, 2N)."""
        return self.rows.permute(1, 2, 0, 3).flatten(1, 2)


def _recurrence(A: Tensor, left: Tensor, right: Tensor) -> Recurrence:
    rank = left.shape[0]
    conj_A, row, column = conjugate(A), real(conjugate(right)), real(left)
    alpha = torch.cat([A[None], conj_A.expand(rank, *A.shape)])
    lambda_ = torch.cat([column[None], row.expand(rank, *row.shape)])
    rho = torch.cat([row[None], column.expand(rank, *column.shape)])
    return Recurrence(alpha, lambda_, rho)


def _stack(tensor: Tensor) -> Tensor:
    """(T, R, H, N) complex -> (H, T R, 2N) real."""
    return real(tensor).flatten(0, 1).transpose(0, 1)


def _unstack(tensor: Tensor, size: int) -> Tensor:
    """The inverse of :func:`_stack`."""
    return modes(tensor.transpose(0, 1).unflatten(0, (size, tensor.shape[1] // size)).contiguous())


def diagonal_matrix(a: Tensor) -> Tensor:
    """The product with a (H, N) as a matrix (H, 2N, 2N) on real vectors."""
    block = torch.stack([torch.stack([a.real, -a.imag], -1), torch.stack([a.imag, a.real], -1)], -2)  # (H, N, 2, 2)
    place = torch.eye(a.shape[-1], dtype=block.dtype, device=block.device)[:, None, :, None]  # (N, 1, N, 1)
    return (block[:, :, :, None] * place).reshape(-1, 2 * a.shape[-1], 2 * a.shape[-1])


def _of_diagonal(matrix: Tensor) -> Tensor:
    """The adjoint of :func:`diagonal_matrix`."""
    count = matrix.shape[-1] // 2
    blocks = matrix.unflatten(2, (count, 2)).unflatten(1, (count, 2)).diagonal(dim1=1, dim2=3)  # (H, 2, 2, N)
    return torch.complex(blocks[:, 0, 0] + blocks[:, 1, 1], blocks[:, 1, 0] - blocks[:, 0, 1])


def _reversed(tensor: Tensor) -> Tensor:
    """The first axis backwards; a copy of rows, which ``flip`` makes element by element."""
    return tensor[torch.arange(tensor.shape[0] - 1, -1, -1, device=tensor.device)]


def _powers(A: Tensor, count: int) -> Tensor:
    """A^j for j < count, a power of two, (count, H, N)."""
    powers, square = torch.ones_like(A)[None], A
    while powers.shape[0] < count:
        powers = torch.cat([powers, square * powers])
        square = square * square
    return powers


def blocks_of(A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int) -> Blocks:
    """The blocks of the first ``length`` taps."""
    size, count = square_blocks(length)
    recurrence = _recurrence(A, left, right)
    z = [torch.cat([B[None], conjugate(right)])]
    for _ in range(size - 1):
        z.append(recurrence.step(z[-1]))
    sequences, powers = torch.stack(z), _powers(A, size)
    u = _reversed(powers)[:, None] * left  # (T, R, H, N)
    block = diagonal_matrix(powers[-1] * A) + _stack(u).mT @ _stack(sequences[:, 1:])
    rows = [real(conjugate(C)).transpose(0, 1)]
    for _ in range(count - 1):
        rows.append(rows[-1] @ block)
    return Blocks(recurrence, sequences, powers, block, torch.stack(rows))


def features_at_once(A: Tensor) -> int:
    """How many features to take at once."""
    return A.shape[0] if A.device.type != "cpu" else max(1, BLOCK_NUMBERS // (2 * A.shape[1]) ** 2)


def forward(A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor, length: int) -> Tensor:
    """Rows times columns, for some features after the other."""
    size = features_at_once(A)
    parts = zip(*(part.split(size, -2) for part in (A, B, C, left, right)), strict=True)
    return torch.cat([_forward(length, *part) for part in parts], 1)


def backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
    """The gradients of the module's docstring, for some features after the other."""
    size = features_at_once(A)
    parts = zip(*(part.split(size, -2) for part in (g, A, B, C, left, right)), strict=True)
    gradients = [_backward(*part) for part in parts]
    return [torch.cat(parts, -2) for parts in zip(*gradients, strict=True)]


def _forward(length: int, A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor) -> Tensor:
    blocks = blocks_of(A, B, C, left, right, length)
    taps = blocks.all_rows() @ blocks.columns().mT  # (H, C Q, T)
    return taps.unflatten(1, (C.shape[0], -1)).flatten(2)[..., :length].transpose(0, 1)


def _backward(g: Tensor, A: Tensor, B: Tensor, C: Tensor, left: Tensor, right: Tensor) -> list[Tensor]:
    length = g.shape[-1]
    size, count = square_blocks(length)
    blocks = blocks_of(A, B, C, left, right, length)
    g = torch.nn.functional.pad(g, (0, size * count - length)).transpose(0, 1)  # (H, C, Q T)
    g = g.unflatten(-1, (count, size)).flatten(1, 2)  # (H, C Q, T)
    drows = (g @ blocks.columns()).unflatten(1, (-1, count)).permute(2, 0, 1, 3)  # (Q, H, C, 2N)
    dcolumns = g.mT @ blocks.all_rows()  # (H, T, 2N)

    later = [drows[-1]]
    for q in range(count - 2, -1, -1):
        later.append(drows[q] + later[-1] @ blocks.block.mT)
    dC = conjugate(modes(later[-1].transpose(0, 1).contiguous()))
    if count == 1:
        dblock = torch.zeros_like(blocks.block)
    else:
        adjoints = torch.stack(later[-2::-1], 1).flatten(1, 2)  # (H, (Q - 1) C, 2N)
        dblock = blocks.rows[:-1].transpose(0, 1).flatten(1, 2).mT @ adjoints
    u, v = _reversed(blocks.powers)[:, None] * left, blocks.sequences[:, 1:]
    du, dv = _unstack(_stack(v) @ dblock.mT, size), _unstack(_stack(u) @ dblock, size)
    dz = torch.cat([modes(dcolumns.transpose(0, 1).contiguous())[:, None], dv], 1)
    dA, dleft = _powers_gradient(blocks.powers, A, left, du, _of_diagonal(dblock))
    first, (dalpha, dlambda, drho) = _sequence_gradient(blocks.recurrence, blocks.sequences, dz)
    dA = dA + dalpha[0] + conjugate(dalpha[1:].sum(0))
    dleft = dleft + modes(dlambda[0] + drho[1:].sum(0))
    dright = conjugate(first[1:] + modes(drho[0] + dlambda[1:].sum(0)))
    return [dA, first[0], dC, dleft, dright]


def _powers_gradient(powers: Tensor, A: Tensor, left: Tensor, du: Tensor, dtop: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients to A and left of U[j] = A^(T-1-j) left (T, R, H, N), and of A^T, whose gradient is dtop."""
    size = powers.shape[0]
    du = _reversed(du)  # of A^j left
    dleft = (conjugate(powers)[:, None] * du).sum(0)
    dpowers = (du * conjugate(left)).sum(1)  # of A^j
    dpowers = torch.cat([dpowers[1:], dtop[None]])  # of A^(j + 1) = A A^j, whose derivative is (j + 1) A^j
    exponents = torch.arange(1, size + 1, dtype=torch.float64, device=A.device)[:, None, None]
    return (exponents * conjugate(powers) * dpowers).sum(0), dleft


def _sequence_gradient(recurrence: Recurrence, z: Tensor, dz: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The gradient to z[0], and those to alpha, lambda and rho, of the sequences z (T, 1 + R, H, N)."""
    adjoint = recurrence.adjoint()
    p = [dz[-1]]
    for t in range(z.shape[0] - 2, -1, -1):
        p.append(dz[t] + adjoint.step(p[-1]))
    first, later, z = p[-1], torch.stack(p[-2::-1]) if len(p) > 1 else z[:0], z[:-1]
    dalpha = (later * conjugate(z)).sum(0)
    z, later = real(z).permute(1, 2, 0, 3), real(later).permute(1, 2, 0, 3)  # (1 + R, H, T - 1, 2N)
    lambda_, rho = recurrence.lambda_.transpose(1, 2), recurrence.rho.transpose(1, 2)  # (1 + R, H, R, 2N)
    dlambda = (rho @ z.mT) @ later
    drho = (lambda_ @ later.mT) @ z
    return first, (dalpha, dlambda.transpose(1, 2), drho.transpose(1, 2))
