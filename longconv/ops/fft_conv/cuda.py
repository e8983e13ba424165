"""Backend ``cuda``: csrc/cuda/fft_*.cu, transforms on tensor cores, one pass over memory for a convolution.

The products of the transforms are in half precision with a scale a row for sequences of 16 bits. For float32 they are
as ``torch.get_float32_matmul_precision()`` says: "highest" takes three products in tf32 that make one of float32,
"high" and "medium" take one in tf32.

In one pass over memory go sequences that a block of the GPU holds, and those of any length with a filter of fewer taps
than that: they are taken in tiles that overlap by the filter's length, each with a transform of its own. Other ones are
cut, and every pair of a piece of the sequence and one of the filter is a product of spectra; or they are transformed as
a whole, in three passes, by an outer transform through memory. What takes the fewest bytes and operations is done, see
:func:`longconv.ops.fft_conv.cuda_plan.choose`. Gradients come from the inputs alone: spectra are computed anew.

Spectra in memory and their products are floats without a scale, up to the sums of the magnitudes of samples and taps.
So right results are sure where sum |u| times sum |k| over each pair of pieces, one of the filter being of two blocks'
taps, summed over the pairs of a piece of y, is below 2^127, and gradients of taps where sum |u| times sum |dy|, summed
over the samples that share a filter, is. In 16 bits the output and du of sequences in one pass take the spectrum of
the filter alone to memory: with sum |k| below 2^127 sequences, taps and results may be of all sizes from 2^-119 to
2^127. With an outer transform so may those whose sums over its rows, which have scales as floats, are below 2^127.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops import _cuda
from longconv.ops._cuda import straight as _straight
from longconv.ops.fft_conv import cuda_plan
from longconv.ops.fft_conv.cuda_outer import OuterPasses
from longconv.ops.fft_conv.cuda_passes import BlockPasses, Passes, TilePasses, per_sample, reach


def available() -> str | None:
    """None if the CUDA library is loaded, has the convolution, and torch sees a GPU, else the reason why not."""
    return _cuda.available("fft_columns_back")


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
    call = _passes(u, k, k_reverse, skip, lengths, mode)
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
    call = _passes(dy, k, k_reverse, skip, lengths, mode, tap_gradients=any(wanted[1:4]))
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


def _passes(like: Tensor, k: Tensor, k_reverse: Tensor | None, *rest: Any, tap_gradients: bool = False) -> Passes:
    """The passes of a call, the cheapest of all ways."""
    batch, _, length = like.shape
    arguments = like, k, k_reverse, *rest
    before, after = reach(length, k, k_reverse, rest[-1])
    filters = 1 if per_sample(k, k_reverse, *rest[1:]) else 1 / batch
    arithmetic = _cuda.arithmetic(like.dtype)
    options = {"circular": rest[-1] == "circular", "tap_gradients": tap_gradients}
    way = cuda_plan.choose(length, before, after, filters, arithmetic, like.device, **options)
    if isinstance(way, cuda_plan.Tiles):
        return TilePasses(way, *arguments)
    return BlockPasses(way, *arguments) if isinstance(way, cuda_plan.Cut) else OuterPasses(way, *arguments)
