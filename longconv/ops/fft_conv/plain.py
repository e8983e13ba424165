"""What the backends in plain torch share: precision, gates, masks and gradients around a bare convolution.

With x = pre_gate u (zero at t >= lengths), c = C x + skip x and y = post_gate c, C being linear with adjoint C^T and
g = post_gate dy the gradient that reaches c:

    d post_gate = dy c             du = pre_gate dx,  dx = C^T g + skip g
    d pre_gate  = u dx             dk = the correlation of x and g at the lags of k
    d skip      = sum_{b,t} x g

so a backend gives C, and from g its image under C^T and that correlation: the class :class:`Convolution`. Nothing but
the inputs is kept for the gradients, and all is differentiable torch code: the second derivative of the operator is
autograd through here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Arguments(NamedTuple):
    """What the operator takes beside the sequence that it convolves, in its order."""

    k: Tensor
    k_reverse: Tensor | None = None
    skip: Tensor | None = None
    pre_gate: Tensor | None = None
    post_gate: Tensor | None = None
    lengths: Tensor | None = None
    mode: str = "causal"


class Filter(NamedTuple):
    """A filter in the precision of the arithmetic: all that defines C for sequences of a length."""

    k: Tensor  # (H, K) or (B, H, K), K <= length
    k_reverse: Tensor | None  # the same with a K of its own, < length
    length: int
    mode: str
    lengths: Tensor | None  # (B,) in 0..length, already used to mask; the periods in circular mode


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


class Convolution(Protocol):
    """The linear map C of one filter; x, g and the results are (B, H, L)."""

    def apply(self, x: Tensor) -> Tensor:
        """C x."""

    def gradients(self, x: Tensor | None, g: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        """The gradients of <g, C x> to x (it is C^T g), k and k_reverse; None where not wanted. C^T g needs no x."""


Make = Callable[[Filter], Convolution]


class _Call(NamedTuple):
    """The arguments of a call in the precision of the arithmetic, with the mask of valid samples.

    Sequences are masked before they meet anything, so that what stands in the padding reaches no derivative either.
    """

    filter: Filter
    skip: Tensor | None
    pre_gate: Tensor | None
    post_gate: Tensor | None
    mask: Tensor | None

    def masked(self, x: Tensor) -> Tensor:
        """The sequence x in the arithmetic's precision, zero at t >= lengths, whatever stands there (NaN too)."""
        x = x.to(self.filter.k.dtype)
        return x if self.mask is None else torch.where(self.mask, x, x.new_zeros(()))

    def gated(self, u: Tensor) -> Tensor:
        return u if self.pre_gate is None else u * self.pre_gate

    def add_skip(self, y: Tensor, x: Tensor) -> Tensor:
        return y if self.skip is None else torch.addcmul(y, self.skip[:, None], x)


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a call on inputs of ``dtype`` is computed: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _prepare(like: Tensor, given: Arguments) -> _Call:
    k, k_reverse, skip, pre_gate, post_gate, lengths, mode = given
    dtype, length = arithmetic(like.dtype), int(like.shape[-1])  # an int also when traced: FFT lengths are plans
    mask = None
    if lengths is not None:
        lengths = lengths.clamp(0, length)
        mask = (torch.arange(length, device=like.device) < lengths[:, None])[:, None]

    reverse = None if k_reverse is None or length < 2 else k_reverse[..., : length - 1].to(dtype)
    taps = Filter(k[..., :length].to(dtype), reverse, length, mode, lengths)
    call = _Call(taps, None if skip is None else skip.to(dtype), None, None, mask)
    pre_gate, post_gate = (None if gate is None else call.masked(gate) for gate in (pre_gate, post_gate))
    return call._replace(pre_gate=pre_gate, post_gate=post_gate)


def forward(make: Make, u: Tensor, *arguments: Any) -> Tensor:
    """The result y of the operator ``fft_conv``; after u come :class:`Arguments`."""
    call = _prepare(u, Arguments(*arguments))
    x = call.gated(call.masked(u))
    y = call.add_skip(make(call.filter).apply(x), x)
    y = call.masked(y)
    return (y if call.post_gate is None else y * call.post_gate).to(u.dtype)


def backward(make: Make, dy: Tensor, u: Tensor | None, *rest: Any) -> list[Tensor]:
    """The wanted gradients, in the order (u, k, k_reverse, skip, pre_gate, post_gate); u may be None for du alone.

    After u come :class:`Arguments`, then for each of these gradients whether it is wanted.
    """
    *arguments, wanted = rest
    k, k_reverse, skip, pre_gate, post_gate, *_ = Arguments(*arguments)
    call = _prepare(dy, Arguments(*arguments))
    convolution = make(call.filter)
    want_u, want_k, want_reverse, want_skip, want_pre, want_post = wanted
    g = call.masked(dy)
    wide_u = None if u is None else call.masked(u)
    x = None if wide_u is None else call.gated(wide_u)
    grads: list[Tensor | None] = [None] * 6
    if want_post:
        assert x is not None and post_gate is not None
        grads[5] = (g * call.masked(call.add_skip(convolution.apply(x), x))).to(post_gate.dtype)
    if call.post_gate is not None:
        g = g * call.post_gate
    dx, *taps = convolution.gradients(x, g, (want_u or want_pre, want_k, want_reverse))
    if dx is not None:
        dx = call.masked(call.add_skip(dx, g))
        grads[0] = call.gated(dx).to(dy.dtype) if want_u else None
        if want_pre:
            assert wide_u is not None and pre_gate is not None
            grads[4] = (dx * wide_u).to(pre_gate.dtype)
    for place, grad, given in ((1, taps[0], k), (2, taps[1], k_reverse)):
        grads[place] = _fill(grad, given) if wanted[place] and given is not None else None
    if want_skip:
        assert x is not None and skip is not None
        grads[3] = (x * g).sum((0, 2)).to(skip.dtype)
    return [grad for grad in grads if grad is not None]


def _fill(grad: Tensor | None, given: Tensor) -> Tensor:
    """The gradient of the taps that took part, with zeros for those beyond the length, in the filter's dtype."""
    if grad is None:
        return torch.zeros_like(given)
    return torch.nn.functional.pad(grad, (0, given.shape[-1] - grad.shape[-1])).to(given.dtype)
