"""The gated long convolution of projections, some channels at a time from the projections on.

Symbols: B batch, L length, H channels, K taps of a short convolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from longconv import _sequence
from longconv.ops._library import gradients_of
from longconv.ops.fft_conv import check_arguments, fft_conv_alike
from longconv.ops.fft_conv import operator as long
from longconv.ops.short_conv import operator as short
from longconv.ops.short_conv import short_conv

PART_NUMBERS = 2**18
"""Numbers of a projection that a thread has in work at once: what is made of them stays in the caches."""


class Short(NamedTuple):
    """A short convolution that is still to be done, c = short_conv(p, weight, bias)."""

    p: Tensor
    """(B, H, L)."""
    weight: Tensor
    """(H, K)."""
    bias: Tensor
    """(H,)."""

    def convolved(self) -> Tensor:
        """Do it: c (B, H, L)."""
        return short_conv(*self)


def gated_conv(
    u: Short | Tensor,
    k: Tensor,
    *,
    k_reverse: Tensor | None = None,
    skip: Tensor | None = None,
    pre_gate: Short | None = None,
    post_gate: Short | None = None,
    mode: str = "causal",
    lengths: Tensor | None = None,
) -> Tensor:
    """:func:`~longconv.ops.fft_conv.fft_conv_alike` of short convolutions, which are there for some channels at a time.

    Gradients keep what is given, and make the short convolutions again, some channels at a time too. torch.compile
    keeps what it finds best; under torch.func, on shards of a sequence and for gradients of gradients all channels are
    done together, and autograd keeps what they need.
    """
    sequences = u, pre_gate, post_gate
    if _is_transformed() or not any(isinstance(s, Short) for s in sequences):
        c: list[Any] = [s.convolved() if isinstance(s, Short) else s for s in sequences]
        return fft_conv_alike(
            c[0], k, k_reverse=k_reverse, skip=skip, pre_gate=c[1], post_gate=c[2], mode=mode, lengths=lengths
        )
    given: list[Any] = [s if isinstance(s, Short) else (s, None, None) for s in sequences]
    (p, *_), (pre, *_), (post, *_) = given
    *tensors, lengths, mode, _ = check_arguments(p, k, k_reverse, skip, pre, post, lengths, mode, "auto")
    y: Tensor = _GatedConv.apply(lengths, mode, *tensors, *(t for _, *parameters in given for t in parameters))
    return y


def gated(x: Short | Tensor, gate: Short, dtype: torch.dtype) -> Tensor:
    """The product x c in a dtype, of which gradients keep what is given."""

    def product(x: Tensor, *rest: Tensor) -> Tensor:
        *parameters, p, weight, bias = rest
        return (short_conv(x, *parameters) if parameters else x).to(dtype) * short_conv(p, weight, bias)

    return again(product, *(x if isinstance(x, Short) else (x,)), *gate)


def again(function: Any, *args: Any) -> Tensor:
    """``function(*args)`` without randomness, of which gradients keep the arguments and compute the rest again."""
    if _is_transformed() or not torch.is_grad_enabled():
        result: Tensor = function(*args)
        return result
    # computed again by itself, whatever ranks share by then
    result = checkpoint(_sequence.alone, function, *args, use_reentrant=False, preserve_rng_state=False)
    return result


def _is_transformed() -> bool:
    """Whether a compiler or torch.func looks at every operation, or ranks have to do the same at the same place."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or _sequence.shard() is not None
    )


PARAMETERS = {0: (6, 7), 4: (8, 9), 5: (10, 11)}
"""By the places of u, pre_gate and post_gate among the six tensors of ``fft_conv``, those of their (weight, bias)."""


class _GatedConv(torch.autograd.Function):
    """``fft_conv`` of sequences, each behind its short convolution if it has one."""

    @staticmethod
    def forward(ctx: Any, lengths: Tensor | None, mode: str, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(lengths, *tensors)
        ctx.mode = mode
        y: Tensor | None = None
        for channels in _parts(tensors[0]):
            part = [_part(t, channels) for t in tensors]
            y = _put(y, tensors[0], channels, long.call_forward(*_convolved(part), lengths, mode, "auto"))
        assert y is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        lengths, *tensors = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # for gradients of gradients

            def whole(*given: Tensor) -> list[Tensor]:
                return [long.call_forward(*_convolved(given), lengths, ctx.mode, "auto")]

            return None, None, *gradients_of(whole, tensors, [dy], wanted)
        grads: list[Tensor | None] = [None] * len(tensors)
        for channels in _parts(dy):
            part = [_part(t, channels) for t in tensors]
            for i, grad in _gradients(_part(dy, channels), part, lengths, ctx.mode, wanted):
                grads[i] = _put(grads[i], tensors[i], channels, grad)
        return None, None, *grads


def _convolved(tensors: Sequence[Any]) -> list[Any]:
    """The six tensors of ``fft_conv``."""
    found = list(tensors[:6])
    for i, (weight, bias) in PARAMETERS.items():
        if tensors[weight] is not None:
            found[i] = short.call(found[i], tensors[weight], tensors[bias], None, "none", "auto")
    return found


def _gradients(
    dy: Any, tensors: Sequence[Any], lengths: Tensor | None, mode: str, wanted: Sequence[bool]
) -> Iterator[tuple[int, Tensor]]:
    """The places of the wanted gradients, and the gradients."""
    places = [(i, *PARAMETERS.get(i, ())) for i in range(6)]
    of_long = [any(wanted[place] for place in group) for group in places]
    found = iter(long.call_backward(dy, *_convolved(tensors), lengths, mode, of_long, "auto"))
    for group in (group for group, want in zip(places, of_long, strict=True) if want):
        grad = next(found)
        if len(group) == 1 or tensors[group[1]] is None:
            yield group[0], grad
            continue
        needed = [wanted[place] for place in group]
        grads = short.call_backward(grad, *(tensors[place] for place in group), None, "none", [*needed, False], "auto")
        yield from zip((place for place, need in zip(group, needed, strict=True) if need), grads, strict=True)


# --- channels ---------------------------------------------------------------------------------------------------------


def _parts(x: Any) -> Iterator[slice]:
    """The channels of x (B, H, L) that are in work at once."""
    batch, channels, length = x.shape
    many = torch.get_num_threads() if x.device.type == "cpu" else 64
    size = max(many * PART_NUMBERS // max(1, batch * length), 4 * many)
    return (slice(start, min(start + size, channels)) for start in range(0, max(channels, 1), size))


def _part(t: Tensor | None, channels: slice) -> Tensor | None:
    """Of sequences (B, H, L), filters (H, K) or (B, H, K), or numbers (H,), those of some channels."""
    if t is None:
        return None
    axis = max(t.ndim - 2, 0)
    size = channels.stop - channels.start
    return t if size == t.shape[axis] else t.narrow(axis, channels.start, size)


def _put(whole: Tensor | None, like: Any, channels: slice, part: Tensor) -> Tensor:
    """What there is of a tensor, with the part of some channels; the part itself where it is all of them."""
    if part.shape == like.shape:
        return part
    if whole is None:
        whole = torch.empty_like(like, memory_format=torch.contiguous_format)
    rest = _part(whole, channels)
    assert rest is not None
    rest.copy_(part)
    return whole
