"""Libraries that solve the same problems, where they are installed; None stands for one that is not."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from bench.case import Solve


def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def scipy_fft_conv(u: Tensor, k: Tensor) -> Tensor:
    """``scipy.signal.fftconvolve``, in the precision of its input, on one thread."""
    from scipy.signal import fftconvolve

    return torch.from_numpy(fftconvolve(u.numpy(), k[None].numpy(), axes=-1)[..., : u.shape[-1]])


def jax_fft_conv() -> Solve | None:
    """The usual way in JAX, compiled by XLA for its own device."""
    if not installed("jax"):
        return None
    import jax
    from jax import numpy as jnp

    @jax.jit
    def padded(u: jax.Array, k: jax.Array) -> jax.Array:
        n = 2 * u.shape[-1]
        return jnp.fft.irfft(jnp.fft.rfft(u, n=n) * jnp.fft.rfft(k, n=n), n=n)[..., : u.shape[-1]]

    def solve(u: Tensor, k: Tensor) -> Tensor:
        y = padded(jax.dlpack.from_dlpack(u.detach()), jax.dlpack.from_dlpack(k.detach()))
        return torch.from_dlpack(y.block_until_ready())

    return solve


def flash_fft_conv(length: int, dtype: torch.dtype) -> Solve | None:
    """FlashFFTConv (CUDA, 16 bits, lengths that are powers of two), which has a transform of twice the length."""
    if not (installed("flashfftconv") and torch.cuda.is_available()) or length & (length - 1):
        return None
    from flashfftconv import FlashFFTConv

    convolution = FlashFFTConv(2 * length, dtype=dtype).cuda()
    return lambda u, k: convolution(u, k.float())


def causal_conv1d(activation: str | None = None) -> Solve | None:
    """The kernel of the package causal-conv1d (CUDA, 2 to 4 taps)."""
    if not (installed("causal_conv1d") and torch.cuda.is_available()):
        return None
    from causal_conv1d import causal_conv1d_fn

    return lambda u, w, bias=None: causal_conv1d_fn(u, w, bias, activation=activation)
