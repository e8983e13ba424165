"""``cauchy`` in blocks of poles and points that stay in the cache, with real arithmetic on planes.

With z - w = a + ib and r = 1 / (a^2 + b^2), the resolvent is q = 1 / (z - w) = r a - i r b. The planes [r a; r b] of a
block, (2N, S), are formed once for all rows of residues that share the poles, and the sum over n is a real product:

    [Re y; Im y] = [Re v, Im v; Im v, -Re v] [r a; r b]

The gradients need g conj(q) and g conj(q)^2 summed over the points, and v q^2 summed over n: products of the same
form, accumulated over the blocks in double precision. Real poles and points need the first plane alone, r a = 1 / a.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from longconv.ops._layout import Layout
from longconv.ops._library import gradients_of, reduce_like
from longconv.ops.cauchy import reference
from longconv.ops.cauchy.reference import result_dtype

POINTS = 1024
"""Most points in a block."""


def forward(v: Tensor, z: Tensor, w: Tensor) -> Tensor:
    """The sum over n, block by block."""
    layout, dtype = Layout.of(v, z, w), result_dtype(v, z, w)
    y = v.new_empty((*layout.lead, z.shape[-1]), dtype=dtype)
    folded = layout.fold(y)
    target = torch.view_as_real(folded) if dtype.is_complex else folded[..., None]  # (X, M, L, 1 or 2)
    weights = _weights(layout.fold(v), dtype.is_complex and (z.is_complex() or w.is_complex()))
    for sets, points, q in _blocks(layout.fold_shared(z), layout.fold_shared(w), weights.dtype):
        product = (weights[sets] @ q).unflatten(1, (target.shape[-1], -1))
        target[sets, :, points] = product.movedim(1, -1)
    return y if folded.data_ptr() == y.data_ptr() else layout.unfold(folded).contiguous()


def backward(g: Tensor, v: Tensor, z: Tensor, w: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted ones of the gradients to v, z and w."""
    layout, both = Layout.of(v, z, w), z.is_complex() or w.is_complex()
    g_planes, v_folded = _planes(layout.fold(g)), layout.fold(v)
    weights = _weights(v_folded, both)
    poles, nodes = layout.fold_shared(z), layout.fold_shared(w)
    sums, slopes = (g.new_zeros(len(g_planes), g_planes.shape[1], weights.shape[2], dtype=torch.float64) for _ in "12")
    dz = g.new_zeros(poles.shape, dtype=torch.complex128 if g.is_complex() else torch.float64)
    for sets, points, q in _blocks(poles, nodes, weights.dtype):
        part = g_planes[sets, :, points]
        if wanted[0]:
            sums[sets] += part @ q.mT
        if wanted[1] or wanted[2]:
            q = _squares(q) if both else q.square_()
        if wanted[2]:
            slopes[sets] += part @ q.mT
        if wanted[1]:
            value = _join(weights[sets] @ q, g.is_complex())
            row = -(_join(part, g.is_complex()) * value.conj_physical()).sum(1)
            dz[sets if len(dz) > 1 else slice(None), points] += row if len(dz) > 1 else row.sum(0, keepdim=True)
    dw = (v_folded.conj_physical() * _contracted(slopes, g.is_complex(), both)).sum(1, keepdim=True)
    grads = (_contracted(sums, g.is_complex(), both), dz[:, None], dw)
    return [reduce_like(layout.unfold(t), like) for t, like, want in zip(grads, (v, z, w), wanted, strict=True) if want]


def second(
    inputs: Sequence[Tensor], wanted: Sequence[bool], cotangents: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The needed gradients of <cotangents, backward(*inputs, wanted)>: autograd through the definition, by blocks."""
    g, v, z, w = inputs
    step = max(1, _budget(v) // max(1, g.shape[:-1].numel() * v.shape[-1]))
    composite = functools.partial(reference.backward, wanted=wanted)
    names = [name for name, want in zip("vzw", wanted, strict=True) if want]
    totals: list[list[Tensor]] = [[], [], [], []]
    for start in range(0, max(z.shape[-1], 1), step):
        points = slice(start, start + step)
        seeds = [
            c[..., points] if name == "z" and c is not None else c for name, c in zip(names, cotangents, strict=True)
        ]
        grads = gradients_of(composite, (g[..., points], v, z[..., points], w), seeds, needed)
        for total, grad, split in zip(totals, grads, (True, False, True, False), strict=True):
            if grad is not None:
                total[:] = [*total, grad] if split or not total else [total[0] + grad]
    return [torch.cat(total, -1) if total else None for total in totals]


def _budget(like: Tensor) -> int:
    """Numbers in a plane of a block: as many as a core's cache holds, or as fill a GPU."""
    return 2**18 if like.device.type == "cpu" else 2**23


def _planes(x: Tensor) -> Tensor:
    """(X, M, S) -> (X, 2M, S), the real rows and then the imaginary ones; a real tensor as it is."""
    return torch.cat((x.real, x.imag), 1) if x.is_complex() else x


def _join(planes: Tensor, is_complex: bool) -> Tensor:
    """The inverse of :func:`_planes`."""
    return torch.complex(*planes.chunk(2, 1)) if is_complex else planes


def _weights(v: Tensor, both: bool) -> Tensor:
    """Residues (X, M, N) as the left factor of the products: with ``both`` planes (X, 2M, 2N), else (X, M or 2M, N)."""
    if not both:
        return _planes(v)
    real, imag = (v.real, v.imag) if v.is_complex() else (v, torch.zeros_like(v))
    return torch.cat((torch.cat((real, imag), 2), torch.cat((imag, -real), 2)), 1)


def _contracted(products: Tensor, is_complex: bool, both: bool) -> Tensor:
    """sum_l g conj(q), from the products of g's planes with those of q, which are (Re q, -Im q)."""
    product = _join(products, is_complex)
    if not both:
        return product
    first, second = product.chunk(2, 2)
    return torch.complex(first.real - second.imag, first.imag + second.real)


def _squares(q: Tensor) -> Tensor:
    """The planes (Re, -Im) of q^2 from those of q."""
    a, b = q.chunk(2, 1)
    result = torch.empty_like(q)
    first, second = result.chunk(2, 1)
    torch.mul(a, a, out=first).addcmul_(b, b, value=-1)
    torch.mul(a, b, out=second).mul_(2)
    return result


def _blocks(z: Tensor, w: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor]]:
    """The planes of the resolvent, (x, 2N or N, S), block by block, with the sets and points it is of."""
    count, n, length = max(len(z), len(w)), w.shape[-1], z.shape[-1]
    z, w = z.expand(count, -1), w.expand(count, -1)
    size = min(length, POINTS, max(16, _budget(w) // n))
    group = max(1, _budget(w) // (n * size))
    for first in range(0, count, group):
        sets = slice(first, min(first + group, count))
        for start in range(0, length, size):
            points = slice(start, min(start + size, length))
            yield sets, points, _resolvent(z[sets, points], w[sets], dtype)


def _resolvent(z: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
    """The planes (Re q, -Im q) of one block; the real q if z and w are real."""
    z, w = z[:, None, :], w[:, :, None]
    if not (z.is_complex() or w.is_complex()):
        return (z - w).to(dtype).reciprocal_()
    n = w.shape[1]
    planes = z.new_empty(len(z), 2 * n, z.shape[-1], dtype=dtype)
    a, b = planes[:, :n], planes[:, n:]
    _difference(z.real, w.real, a)
    _difference(_imag(z), _imag(w), b)
    r = torch.square(a).addcmul_(b, b).reciprocal_()
    a.mul_(r)
    b.mul_(r)
    return planes


def _imag(x: Tensor) -> Tensor:
    return x.imag if x.is_complex() else x.new_zeros(()).expand_as(x)


def _difference(z: Tensor, w: Tensor, out: Tensor) -> None:
    """Write z - w, formed in the highest precision of the three."""
    if torch.promote_types(z.dtype, w.dtype) == out.dtype:
        torch.sub(z, w, out=out)
    else:
        out.copy_(z.to(out.dtype) - w if torch.finfo(out.dtype).bits == 64 else z - w)
