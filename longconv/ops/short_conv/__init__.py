"""Short causal convolutions: the public function, its operator, its definition and its backends."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from longconv import _sequence
from longconv._checks import FLOATS, check_choice, check_device, check_shape, check_tensor, describe, filter_dtypes
from longconv.ops.short_conv.activations import ACTIVATIONS
from longconv.ops.short_conv.operator import BACKENDS, call

__all__ = ["check_arguments", "short_conv"]


def short_conv(
    u: Tensor,
    w: Tensor,
    bias: Tensor | None = None,
    *,
    activation: str | None = None,
    initial: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    r"""Causal convolution of every channel with its own few taps, with bias and activation.

        y[b, h, t] = activation(bias[h] + sum_k w[h, k] u[b, h, t - (K - 1) + k]),    u[., ., t < 0] = initial or 0

    As in ``nn.Conv1d``, the last tap is the weight of the current sample. The past samples for the next chunk of a
    stream are the last K - 1 of ``torch.cat((initial, u), -1)``.

    Args:
        u: input (B, H, L), real: float64, float32, bfloat16 or float16; any B, H, L >= 0.
        w: taps (H, K), K >= 1. In u's dtype, or float32 under a u of 16 bits.
        bias: (H,), or None. Dtypes as for w.
        activation: None, or one of "silu", "gelu" (with the error function), "relu", "tanh", "sigmoid".
        initial: (B, H, K - 1) in u's dtype, the samples before the first, or None for 0.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints.

    Returns:
        y (B, H, L) in u's dtype, channels-last where u is (its channels side by side in memory and its times not),
        else contiguous. Every tensor has a gradient, and the gradients have gradients; what is
        kept for them is the arguments alone.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype.
        ValueError: a wrong shape, device, activation or backend.

    References:
        M. Poli, S. Massaroli, E. Nguyen, D. Y. Fu, T. Dao, S. Baccus, Y. Bengio, S. Ermon, C. Ré, "Hyena Hierarchy:
        Towards Larger Convolutional Language Models", arXiv:2302.10866.

    >>> import torch
    >>> u, w = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[10.0, 1.0]])
    >>> short_conv(u, w)
    tensor([[[ 1., 12., 23.]]])
    >>> short_conv(u, w, initial=torch.tensor([[[5.0]]]))
    tensor([[[51., 12., 23.]]])
    >>> short_conv(u, w[0])
    Traceback (most recent call last):
        ...
    ValueError: w is a (2,) float32 tensor, expected shape (H, K)
    """
    if (shard := _sequence.shard()) is not None:
        return shard.short_conv(u, w, bias, activation=activation, initial=initial, backend=backend)
    y: Tensor = call.checked(check_arguments, u, w, bias, initial, activation, backend)
    return y


def check_arguments(
    u: Tensor, w: Tensor, bias: Tensor | None, initial: Tensor | None, activation: str | None, backend: str
) -> tuple[Any, ...]:
    """The arguments as the operator takes them, if all of them are right."""
    check_tensor("u", u, "(B, H, L)", ndim=3, dtypes=FLOATS)
    batch, channels, _ = u.shape
    check_tensor("w", w, "(H, K)", ndim=2, dtypes=filter_dtypes(u))
    check_shape("w", w, (channels, None), "(H, K)")
    check_device("w", w, "u", u)
    if w.shape[1] < 1:
        raise ValueError(f"w is {describe(w)}, expected at least one tap, K >= 1")
    if bias is not None:
        check_tensor("bias", bias, "(H,)", ndim=1, dtypes=filter_dtypes(u))
        check_shape("bias", bias, (channels,), "(H,)")
        check_device("bias", bias, "u", u)
    if initial is not None:
        check_tensor("initial", initial, "(B, H, K - 1)", ndim=3, dtypes=(u.dtype,))
        check_shape("initial", initial, (batch, channels, w.shape[1] - 1), "(B, H, K - 1)")
        check_device("initial", initial, "u", u)
    name = "none" if activation is None else check_choice("activation", activation, tuple(ACTIVATIONS))
    check_choice("backend", backend, BACKENDS.names())
    return u, w, bias, initial, name, backend
