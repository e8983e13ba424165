"""The FFT convolution: the public function, its operator, its definition and its backends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longconv import _autocast, _sequence
from longconv._checks import FLOATS, check_choice, check_device, check_shape, check_tensor, describe, filter_dtypes
from longconv.ops.fft_conv.operator import BACKENDS, call_forward

MODES = ("causal", "circular")

__all__ = ["MODES", "check_arguments", "check_filter", "fft_conv", "fft_conv_alike"]


def fft_conv(
    u: Tensor,
    k: Tensor,
    *,
    k_reverse: Tensor | None = None,
    skip: Tensor | None = None,
    pre_gate: Tensor | None = None,
    post_gate: Tensor | None = None,
    mode: str = "causal",
    lengths: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Long convolution of every channel with its own filter, by FFT, with gates and skip.

    With x = pre_gate u:

        causal      y[t] = sum_{s<=t} k[t-s] x[s] + sum_{s>t} k_reverse[s-t-1] x[s] + skip x[t]
        circular    y[t] = sum_s k[(t-s) mod L] x[s] + skip x[t]

    and the result is post_gate y. ``k_reverse`` starts at lag 1, so that the sample itself is counted once.

    Args:
        u: input (B, H, L), real: float64, float32, bfloat16 or float16; any B, H, L >= 0, odd and prime L included.
        k: filter (H, K), or (B, H, K) with one filter a sample; any K >= 1, taps from L on are ignored. In u's dtype,
            or float32 under a u of 16 bits.
        k_reverse: anticausal filter, (H, K') or (B, H, K'), or None; refused in circular mode.
        skip: (H,), the weight of the input itself, or None. Dtypes as for k.
        pre_gate: (B, H, L) in u's dtype, multiplies the input, or None.
        post_gate: (B, H, L) in u's dtype, multiplies the output, or None.
        mode: ``"causal"`` (linear convolution; with ``k_reverse`` a bidirectional one) or ``"circular"``.
        lengths: (B,) integers in 0..L: the valid length of each sample, or None for L. What stands at t >= lengths
            changes nothing, and the output is zero there. In circular mode each sample's period is its own length, and
            taps from there on are ignored.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        y (B, H, L), contiguous, in u's dtype; arithmetic is in float64 for float64, else in float32 at least. Every
        tensor argument but ``lengths`` has a gradient, and the gradients have gradients.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype.
        ValueError: a wrong shape, device, mode or backend, or lengths outside 0..L.

    References:
        D. Y. Fu, H. Kumbong, E. Nguyen, C. Ré, "FlashFFTConv: Efficient Convolutions for Long Sequences with Tensor
        Cores", arXiv:2311.05908.

    >>> u = torch.tensor([[[1.0, 2.0, 3.0]]])
    >>> fft_conv(u, torch.tensor([[1.0, 0.5]])).round(decimals=4)
    tensor([[[1.0000, 2.5000, 4.0000]]])
    >>> fft_conv(u, torch.tensor([[1.0, 0.5]]), mode="circular").round(decimals=4)
    tensor([[[2.5000, 2.5000, 4.0000]]])
    >>> fft_conv(u, torch.ones(2, 5))
    Traceback (most recent call last):
        ...
    ValueError: k is a (2, 5) float32 tensor, expected shape (H, K) = (1, any)
    """
    if (shard := _sequence.shard()) is not None:
        gates = {"pre_gate": pre_gate, "post_gate": post_gate}
        options = {"k_reverse": k_reverse, "skip": skip, **gates, "mode": mode, "lengths": lengths, "backend": backend}
        return shard.fft_conv(u, k, **options)
    y: Tensor = call_forward.checked(
        check_arguments, u, k, k_reverse, skip, pre_gate, post_gate, lengths, mode, backend
    )
    return y


def fft_conv_alike(u: Tensor, k: Tensor, **options: Any) -> Tensor:
    """:func:`fft_conv` with filters that are cut along their taps where sequences are cut along time."""
    shard = _sequence.shard()
    return fft_conv(u, k, **options) if shard is None else shard.fft_conv(u, k, filters="sharded", **options)


def check_arguments(
    u: Tensor,
    k: Tensor,
    k_reverse: Tensor | None,
    skip: Tensor | None,
    pre_gate: Tensor | None,
    post_gate: Tensor | None,
    lengths: Tensor | None,
    mode: str,
    backend: str,
) -> tuple[Any, ...]:
    """The arguments as the operator takes them, if all of them are right."""
    check_tensor("u", u, "(B, H, L)", ndim=3, dtypes=FLOATS)
    batch, channels, _ = u.shape
    check_choice("mode", mode, MODES)
    check_choice("backend", backend, BACKENDS.names())
    k = check_filter("k", k, u)
    if k_reverse is not None:
        k_reverse = check_filter("k_reverse", k_reverse, u)
        if mode == "circular":
            raise ValueError("k_reverse is given in circular mode, where every lag is in k: leave it out")
    if skip is not None:
        skip = _check_dtype("skip", skip, "(H,)", 1, filter_dtypes(u), u)
        check_shape("skip", skip, (channels,), "(H,)")
        check_device("skip", skip, "u", u)
    pre_gate = _check_gate("pre_gate", pre_gate, u)
    post_gate = _check_gate("post_gate", post_gate, u)
    if lengths is not None:
        check_tensor("lengths", lengths, "(B,)", ndim=1, dtypes=(torch.int64, torch.int32))
        check_shape("lengths", lengths, (batch,), "(B,)")
        check_device("lengths", lengths, "u", u)
    return u, k, k_reverse, skip, pre_gate, post_gate, lengths, mode, backend


def _check_dtype(
    name: str, value: Tensor, shape: str, ndim: int | tuple[int, ...], dtypes: tuple[torch.dtype, ...], u: Tensor
) -> Tensor:
    """Check rank and dtype; under autocast, which leaves some tensors wide and makes others narrow, it follows u's."""
    if isinstance(value, Tensor) and value.dtype in FLOATS and value.dtype not in dtypes and _autocast.is_on(u.device):
        value = value.to(u.dtype)
    return check_tensor(name, value, shape, ndim=ndim, dtypes=dtypes)


def check_filter(name: str, k: Tensor, u: Tensor) -> Tensor:
    """The filter for u (B, H, L) if its dtype, shape and device are right; under autocast in a dtype that is."""
    k = _check_dtype(name, k, "(H, K) or (B, H, K)", (2, 3), filter_dtypes(u), u)
    batch, channels, _ = u.shape
    sizes, symbols = ((channels, None), "(H, K)") if k.ndim == 2 else ((batch, channels, None), "(B, H, K)")
    check_shape(name, k, sizes, symbols)
    if k.shape[-1] < 1:
        raise ValueError(f"{name} is {describe(k)}, expected at least one tap, K >= 1")
    check_device(name, k, "u", u)
    return k


def _check_gate(name: str, gate: Tensor | None, u: Tensor) -> Tensor | None:
    if gate is None:
        return None
    gate = _check_dtype(name, gate, "(B, H, L)", 3, (u.dtype,), u)
    check_shape(name, gate, u.shape, "(B, H, L)")
    check_device(name, gate, "u", u)
    return gate
