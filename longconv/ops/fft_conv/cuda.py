"""Backend ``cuda``: csrc/cuda/fft_*.cu, transforms on tensor cores, one pass over memory for a convolution.

The products of the transforms are in half precision with a scale a row for sequences of 16 bits. For float32 they are
as ``torch.get_float32_matmul_precision()`` says: "highest" takes three products in tf32 that make one of float32,
"high" and "medium" take one in tf32.

Sequences that are longer than a block of the GPU holds are cut, and every pair of a piece of the sequence and one of
the filter is a product of spectra. Gradients come from the inputs alone: spectra are computed anew.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops.fft_conv import cuda_calls as calls

HALF, TF32, TF32X3 = 0, 1, 2
"""``LongconvArithmetic`` of csrc/longconv.h."""

CACHE_BYTES = 2**26
WORK_BYTES = 2**28
"""Memory for the spectra of sequences of several blocks, unless one channel takes more."""
SHORTEST = 4096
"""The least samples of a block of several."""
_ROWS = 1024  # of a correlation, to keep a GPU busy


def available() -> str | None:
    """None if the CUDA library is loaded, has the convolution, and torch sees a GPU, else the reason why not."""
    return _cuda.available("fft_filter")


def supports(u: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    return _cuda.refusal("u", u) or ("u is float64" if u.dtype == torch.float64 else None)


def forward(
    u: Tensor,
    k: Tensor,
    k_reverse: Tensor | None,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    lengths: Tensor | None,
    mode: str,
) -> Tensor:
    """The result y of the operator ``fft_conv``, contiguous, on the current stream."""
    call = _Call(u, k, k_reverse, skip, lengths, mode)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    call.filter((_straight(u), _straight(pre_gate)), (y, _straight(post_gate)))
    return y


def backward(
    dy: Tensor,
    u: Tensor | None,
    k: Tensor,
    k_reverse: Tensor | None,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    lengths: Tensor | None,
    mode: str,
    wanted: Sequence[bool],
) -> list[Tensor]:
    """The wanted gradients, in the order of the operator's arguments; u may be None for du alone."""
    call = _Call(dy, k, k_reverse, skip, lengths, mode)
    dy, u, pre_gate, post_gate = (_straight(t) for t in (dy, u, pre_gate, post_gate))
    du, dk, dk_reverse, dskip, dpre, dpost = (
        torch.empty(t.shape, dtype=t.dtype, device=t.device) if want and t is not None else None
        for t, want in zip((dy, k, k_reverse, skip, pre_gate, post_gate), wanted, strict=True)
    )
    if du is not None or dpre is not None:
        call.filter((dy, post_gate), (du, pre_gate), (dpre, u), conjugate=True)
    if dpost is not None:
        call.filter((u, pre_gate), (dpost, dy))
    if any(wanted[1:4]):
        call.correlate((u, pre_gate), (dy, post_gate), (dk, dk_reverse, dskip))
    return [grad for grad in (du, dk, dk_reverse, dskip, dpre, dpost) if grad is not None]


Gated = tuple[Tensor | None, Tensor | None]
"""A sequence and its gate."""


class _Call:
    """What the passes of a call have in common; the sequences are of one block, or cut into several of them."""

    def __init__(
        self,
        like: Tensor,
        k: Tensor,
        k_reverse: Tensor | None,
        skip: Tensor | None,
        lengths: Tensor | None,
        mode: str,
    ) -> None:
        self.batch, self.channels, self.length = like.shape
        self.dtype, self.device = like.dtype, like.device
        self.arithmetic, self.element = _arithmetic(self.dtype), _native.ELEMENTS[self.dtype]
        self.circular = mode == "circular"
        self.lengths = None if lengths is None else lengths.to(torch.int64).contiguous()
        self.periods = self.lengths if self.circular else None
        self.per_sample = k.ndim == 3 or (k_reverse is not None and k_reverse.ndim == 3) or self.periods is not None
        self.filters = self.batch if self.per_sample else 1
        self.k = self._taps(k, self.length)
        self.k_reverse = None if k_reverse is None or self.length == 1 else self._taps(k_reverse, self.length - 1)
        self.skip = None if skip is None else skip.resolve_neg().to(torch.float32).contiguous()
        self.taps = self.k.shape[-1]
        if self.circular:
            self.back_taps = self.length - 1
        else:
            self.back_taps = 0 if self.k_reverse is None else self.k_reverse.shape[-1]
        self._cut()

    def _taps(self, taps: Tensor, most: int) -> Tensor:
        taps = taps[..., :most].resolve_neg()
        taps = taps[None] if taps.ndim == 2 else taps
        return taps if taps.stride(-1) == 1 else taps.contiguous()

    def _cut(self) -> None:
        """The blocks of a sequence, of ``points`` samples; those of a filter, from the number ``first`` on.

        A short filter in a long sequence gets blocks of about its own size, and few of them.
        """
        longest = _longest(self.arithmetic, _index(self.device))
        reach = max(self.taps, self.back_taps + 1, SHORTEST)
        parts = 1 if self.length <= longest else -(-self.length // min(longest, reach))
        self.points, self.tables = _plan(-(-self.length // parts), self.arithmetic, self.device)
        self.blocks = -(-self.length // self.points)
        before, after = (-(-taps // self.points) for taps in (self.back_taps, self.taps))
        self.first = -min(before, self.blocks - 1)
        self.filter_blocks = min(after, self.blocks - 1) - self.first + 1
        size = 8 * self.batch * self.blocks * self.points
        self.step = self.channels if self.blocks == 1 else max(1, WORK_BYTES // size)

    def _groups(self) -> Iterator[slice]:
        """The channels that are done together."""
        return (slice(c, min(c + self.step, self.channels)) for c in range(0, self.channels, self.step))

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def _run(self, function: str, call: ctypes.Structure) -> None:
        _cuda.run(function, call, self.device)

    @functools.cached_property
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """The spectra of the filters (H, 1 or B, filter blocks, points) and the greatest magnitude in each."""
        spectrum = self._empty(self.channels, self.filters, self.filter_blocks, self.points, 2)
        norms = self._empty(*spectrum.shape[:3])
        reverse, alone = self.k_reverse, self.blocks == 1 and self.back_taps == 0
        call = calls.Spectrum(
            *_pointers(self.tables, spectrum, norms, self.skip, self.periods),
            *(self.filters, self.channels, self.points, self.length, self.first, self.filter_blocks),
            *(self.taps, 0 if reverse is None else reverse.shape[-1]),
            *(self.arithmetic, self.circular, alone),
            *(0 if taps is None else _native.ELEMENTS[taps.dtype] for taps in (self.k, reverse)),
            *map(calls.Rows.of, (self.k, None, reverse)),
        )
        self._run("fft_spectrum", call)
        return spectrum, norms

    def _spectra(self, x: Gated, group: slice) -> tuple[Tensor, Tensor]:
        """The same of the blocks of a sequence times its gate, for a group of channels."""
        spectra = self._empty(group.stop - group.start, self.batch, self.blocks, self.points, 2)
        norms = self._empty(*spectra.shape[:3])
        call = calls.Spectrum(
            *_pointers(self.tables, spectra, norms, None, self.lengths),
            *(self.batch, spectra.shape[0], self.points, self.length, 0, self.blocks, self.length, 0),
            *(self.arithmetic, False, True, self.element, 0),
            *(calls.Rows.of(_part(t, group)) for t in (*x, None)),
        )
        self._run("fft_spectrum", call)
        return spectra, norms

    def filter(self, x: Gated, y: Gated, z: Gated = (None, None), *, conjugate: bool = False) -> None:
        """Fill y and z with their gates times the convolution (conjugate: its adjoint) of x times its gate."""
        switches = self.arithmetic, self.element, self.per_sample, conjugate
        if self.blocks == 1:
            call = calls.Filter(
                *_pointers(self.tables, *self.spectrum, self.lengths),
                *(self.batch, self.channels, self.length, *switches),
                *map(calls.Rows.of, (*x, *y, *z)),
            )
            return self._run("fft_filter", call)
        for group in self._groups():
            spectra, norms = self._spectra(x, group)
            spectrum, filter_norms = (t[group] for t in self.spectrum)
            blocks = calls.Blocks(
                *_pointers(self.tables, spectra, spectrum, norms, filter_norms, self.lengths),
                *(self.batch, spectra.shape[0], self.length, self.points, self.blocks, self.first, self.filter_blocks),
                *switches,
                *(calls.Rows.of(_part(t, group)) for t in (*y, *z)),
            )
            self._run("fft_blocks", blocks)
        return None

    def _products(self, x: Gated, g: Gated) -> tuple[Tensor, float]:
        """The spectra of the correlations (H, parts, filter blocks, points), and what they are to be multiplied by."""
        parts = (
            self.batch if self.per_sample else min(self.batch, -(-_ROWS // self.channels)) if self.blocks == 1 else 1
        )
        products = self._empty(self.channels, parts, self.filter_blocks, self.points, 2)
        if self.blocks == 1:
            scratch = torch.empty_like(products)
            call = calls.Correlation(
                *_pointers(self.tables, products, scratch, self.lengths),
                *(self.batch, self.channels, self.length, parts, self.arithmetic, self.element),
                *map(calls.Rows.of, (*x, *g)),
            )
            self._run("fft_correlate", call)
            return products, 1 / 16
        for group in self._groups():
            spectra = [self._spectra(t, group)[0] for t in (x, g)]
            sums = calls.Products(
                *_pointers(*spectra, products[group]),
                *(self.batch, spectra[0].shape[0], self.points, self.blocks, self.first, self.filter_blocks, parts),
            )
            self._run("fft_products", sums)
        return products, 1 / self.points

    def correlate(self, x: Gated, g: Gated, grads: tuple[Tensor | None, Tensor | None, Tensor | None]) -> None:
        """Fill the gradients of k, k_reverse and skip that are there from x and g, each times its gate."""
        products, scale = self._products(x, g)
        taps = self.taps if grads[0] is not None else 1 if grads[2] is not None else 0
        back_taps = self.back_taps if grads[0 if self.circular else 1] is not None else 0
        dk, dback = (self._empty(self.filters, self.channels, size) for size in (taps, back_taps))
        call = calls.Taps(
            *_pointers(self.tables, products),
            *(self.filters, self.channels, self.points, self.first, self.filter_blocks),
            *(products.shape[1] // self.filters, taps, back_taps, self.arithmetic, scale),
            *(calls.Rows.of(t if t.numel() else None) for t in (dk, dback)),
        )
        self._run("fft_taps", call)
        if grads[2] is not None:
            grads[2].copy_(dk[..., 0].sum(0))
        if grads[0] is not None:
            _finish(grads[0], self._fold(dk, dback) if self.circular else dk)
        if grads[1] is not None:
            _finish(grads[1], dback)

    def _fold(self, dk: Tensor, dback: Tensor) -> Tensor:
        """The gradient of circular taps: tap j is also at the lag j - period."""
        if self.periods is None:
            if self.taps > 1:
                dk[..., 1:] += dback.flip(-1)[..., : self.taps - 1]
            return dk
        tap, period = torch.arange(self.taps, device=self.device), self.periods[:, None, None]
        zero = dk.new_zeros(())
        if self.taps > 1:
            place = (period - 1 - tap).clamp(0, self.back_taps - 1).expand(dk.shape)
            dk = dk + torch.where((tap > 0) & (tap < period), dback.gather(-1, place), zero)
        return torch.where(tap < period, dk, zero)


def _part(x: Tensor | None, channels: slice) -> Tensor | None:
    return None if x is None else x[:, channels]


def _finish(grad: Tensor, found: Tensor) -> None:
    """Put what was found into a gradient: summed over the samples that share it, with 0 beyond."""
    size = found.shape[-1]
    grad[..., :size] = found if grad.ndim == 3 else found.sum(0)
    grad[..., size:] = 0


def _arithmetic(dtype: torch.dtype) -> int:
    if dtype != torch.float32:
        return HALF
    return TF32X3 if torch.get_float32_matmul_precision() == "highest" else TF32


def _straight(x: Tensor | None) -> Any:
    """A sequence with rows in one piece: itself, or a copy."""
    if x is None:
        return None
    x = x.resolve_neg()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


def _index(device: torch.device) -> int:
    return device.index or 0


@functools.cache
def _longest(arithmetic: int, device: int) -> int:
    """The longest sequence that the kernels take."""
    length = ctypes.c_int64()
    _native.cuda().call("fft_longest", ctypes.byref(length), arithmetic, device)
    return length.value


class _Plan(NamedTuple):
    points: int
    tables: Tensor


_plans: dict[tuple[int, int, torch.device], _Plan] = {}  # in the order in which they were made


def _plan(length: int, arithmetic: int, device: torch.device) -> _Plan:
    """The points of the transform for a length and its tables; the last ones are kept, as :data:`CACHE_BYTES` hold.

    Not those of a graph that is being captured, whose memory is the graph's.
    """
    size = calls.Size()
    call = functools.partial(_native.cuda().call, "fft_plan")
    call(None, length, arithmetic, ctypes.byref(size), *_cuda.queue(device))
    key = size.points, arithmetic, device
    plan = _plans.get(key)
    if plan is None:
        with torch.inference_mode(False):
            plan = _Plan(size.points, torch.empty(size.table_bytes, dtype=torch.uint8, device=device))
        call(plan.tables.data_ptr(), length, arithmetic, ctypes.byref(size), *_cuda.queue(device))
        if not (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            _keep(key, plan)
    return plan


def _keep(key: tuple[int, int, torch.device], plan: _Plan) -> None:
    """Keep a plan for all streams, which therefore wait: for its tables, and before those of others may go."""
    if key[2].type == "cuda":
        torch.cuda.synchronize(key[2])
    _plans[key] = plan
    surplus = sum(p.tables.nbytes for p in list(_plans.values())) - CACHE_BYTES
    for old, p in list(_plans.items()):
        if surplus > 0 and old != key:
            surplus -= p.tables.nbytes
            _plans.pop(old, None)
