"""Backend ``triton``: sequences are a tile of a kernel, with gates, skip and lengths; see triton_kernels.py.

A filter's spectrum is made once a call by a kernel of its own. The weight of the input itself is added to all of the
spectrum; circular convolution is a two-sided one. The adjoint is the same kernel with the conjugate spectrum, and the
gradients of gates are its second result. In 16-bit types the operands of products and the spectra of filters are
float16, scaled by a row's largest number, and everything else is float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops import _triton
from longconv.ops.fft_conv import triton_plan


def supports(u: Tensor, *_: Any) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    if reason := _triton.refusal("u", u):
        return reason
    if u.dtype == torch.float64:
        return "u is float64, products are taken in single precision"
    largest = triton_plan.largest(triton_plan.operands(u.dtype), u.device)
    if u.shape[-1] > largest:
        return (
            f"L = {u.shape[-1]} is more than {largest}, the largest tile for {str(u.dtype).removeprefix('torch.')} here"
        )
    return None


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
    """The result y of the operator ``fft_conv``, contiguous."""
    call = _Call(u, k, k_reverse, lengths, mode)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    call.convolve(call.spectrum(skip), u, pre_gate, (y, post_gate))
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
    call = _Call(dy, k, k_reverse, lengths, mode)
    du, dpre, dpost = (
        torch.empty(dy.shape, dtype=dy.dtype, device=dy.device) if wanted[place] else None for place in (0, 4, 5)
    )
    if du is not None or dpre is not None or dpost is not None:
        filters = call.spectrum(skip)
        if du is not None or dpre is not None:
            call.convolve(filters, dy, post_gate, (du, pre_gate), (dpre, u), adjoint=True)
        if dpost is not None and u is not None:
            call.convolve(filters, u, pre_gate, (dpost, dy))
    grads: list[Tensor | None] = [du, None, None, None, dpre, dpost]
    if any(wanted[1:4]) and u is not None:
        sums, dskip = call.correlate(u, pre_gate, dy, post_gate, totals=wanted[3])
        if wanted[1]:
            grads[1] = _filled(call.tap_gradient(sums), k)
        if wanted[2] and k_reverse is not None:
            grads[2] = _filled(call.lags(sums, k_reverse.shape[-1], anticausal=True), k_reverse)
        if dskip is not None and skip is not None:
            grads[3] = dskip.to(skip.dtype)
    return [grad for grad in grads if grad is not None]


class _Call:
    """What the kernels of a call have in common.

    Filters, their spectra and their gradients are (samples, H, ...), with one sample for all where they share a filter.
    """

    def __init__(self, u: Tensor, k: Tensor, k_reverse: Tensor | None, lengths: Tensor | None, mode: str) -> None:
        self.batch, self.channels, self.length = u.shape
        self.circular = mode == "circular"
        self.lengths = None if lengths is None else lengths.clamp(0, self.length).to(torch.int64).contiguous()
        self.periods = self.lengths if self.circular else None
        several = k.ndim == 3 or (k_reverse is not None and k_reverse.ndim == 3) or self.periods is not None
        self.samples = self.batch if several else 1
        self.k, self.k_reverse = k, k_reverse
        self.plan = triton_plan.plan_of(self.length, triton_plan.operands(u.dtype), u.device)

    def spectrum(self, skip: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Of the filters and the weight of the input: operands (samples, H, 2, n), and the scales of narrow ones."""
        from longconv.ops.fft_conv import triton_kernels

        kind = self.plan.matrices.dtype
        out = self._empty(2, self.plan.size, dtype=kind)
        scales = self._empty() if kind == torch.float16 else None
        self.plan.launch(
            triton_kernels.spectrum,
            self.samples * self.channels,
            out,
            scales,
            *_strided(self.k, self.k_reverse),
            None if skip is None else skip.resolve_neg().contiguous(),
            self.periods,
            *(self.plan.matrices, self.plan.twiddles, math.sqrt(self.plan.size)),
            *(self.samples, self.channels, self.length),
            *(self.k.shape[-1], 0 if self.k_reverse is None else self.k_reverse.shape[-1]),
            CIRCULAR=self.circular,
        )
        return out, scales

    def convolve(
        self,
        filters: tuple[Tensor, Tensor | None],
        u: Tensor,
        gate: Tensor | None,
        *results: tuple[Tensor | None, Tensor | None],
        adjoint: bool = False,
    ) -> None:
        """Write the convolution of gate u, or its adjoint, times its gate into each of one or two results."""
        from longconv.ops.fft_conv import triton_kernels

        pairs = (*results, (None, None))[:2]
        self.plan.launch(
            triton_kernels.convolve,
            self.batch * self.channels,
            *_strided(u, gate, *(t for pair in pairs for t in pair)),
            *(*filters, self.channels if self.samples > 1 else 0, self.lengths),
            *(self.plan.matrices, self.plan.twiddles, self.batch, self.channels, self.length),
            ADJOINT=adjoint,
        )

    def correlate(
        self, u: Tensor, u_gate: Tensor | None, g: Tensor, g_gate: Tensor | None, *, totals: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The spectra of correlations of u_gate u and g_gate g, (samples, parts, H, 2, n); of lag zero too, (H,)."""
        from longconv.ops.fft_conv import triton_kernels

        parts = _triton.parts(self.channels, self.batch) if self.samples == 1 else self.batch
        sums = torch.zeros((parts, self.channels, 2, self.plan.size), dtype=torch.float32, device=u.device)
        zero = torch.empty((parts, self.channels), dtype=torch.float64, device=u.device) if totals else None
        scratch = torch.empty_like(sums, dtype=self.plan.matrices.dtype) if self.plan.crowded else None
        self.plan.launch(
            triton_kernels.correlate,
            parts * self.channels,
            *(sums, zero, scratch),
            *_strided(u, u_gate, g, g_gate),
            self.lengths,
            *(self.plan.matrices, self.plan.twiddles, self.batch, self.channels, self.length, parts),
        )
        return sums.view(self.samples, -1, *sums.shape[1:]), None if zero is None else zero.sum(0)

    def lags(self, sums: Tensor, taps: int, *, anticausal: bool = False) -> Tensor:
        """The correlations at the lags 0, 1, ..., or -1, -2, ..., (samples, H, taps), 0 where none are."""
        from longconv.ops.fft_conv import triton_kernels

        count = min(taps, self.length - anticausal)
        out = self._empty(taps) if count == taps else self._empty(taps).zero_()
        inside = out if count == taps else self._empty(count)
        if count:
            self.plan.launch(
                triton_kernels.taps,
                self.samples * self.channels,
                inside,
                sums,
                *(self.plan.matrices, self.plan.twiddles, math.sqrt(self.plan.size)),
                *(self.samples, self.channels, count, sums.shape[1]),
                ANTICAUSAL=anticausal,
            )
        if count != taps:
            out[..., :count] = inside
        return out

    def tap_gradient(self, sums: Tensor) -> Tensor:
        """The gradient to k, (samples, H, K): in circular mode tap j is that of the lag j - period too."""
        lags = self.lags(sums, self.k.shape[-1])
        if not self.circular or self.length == 1:
            return lags
        before = self.lags(sums, self.length - 1, anticausal=True)
        places = torch.arange(lags.shape[-1], device=lags.device)
        ends = torch.full((1,), self.length, device=lags.device) if self.periods is None else self.periods
        distance = ends[:, None] - places  # the lag is minus this
        inside = (distance > 0) & (places > 0)
        index = torch.where(inside, distance - 1, 0)[:, None].expand(self.samples, self.channels, -1)
        lags = lags + torch.where(inside[:, None], before.gather(-1, index), 0)
        return torch.where((distance > 0)[:, None], lags, 0)

    def _empty(self, *sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty((self.samples, self.channels, *sizes), dtype=dtype, device=self.plan.twiddles.device)


def _filled(grad: Tensor, given: Tensor) -> Tensor:
    """A filter's gradient in the shape and dtype of its argument: summed over the samples that share it."""
    return (grad if given.ndim == 3 else grad.sum(0)).to(given.dtype)


def _strided(*tensors: Tensor | None) -> list[Any]:
    """Every tensor and its strides (B, H, L), 0 over the samples of a shared filter; None and zeros for no tensor."""
    found: list[Any] = []
    for tensor in tensors:
        t = None if tensor is None else tensor.resolve_neg()
        found += [t, (0, 0, 0) if t is None else (0, *t.stride()) if t.ndim == 2 else t.stride()]
    return found
