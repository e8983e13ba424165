"""Libraries that solve the same problems, where they are installed; None stands for one that is not.

Nothing of them is imported before the first call, whose failure is told beside their name.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.case import Solve


def installed(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def scipy_fft_conv(u: Tensor, k: Tensor) -> Tensor:
    """``scipy.signal.fftconvolve``, in the precision of its input, on one thread."""
    from scipy.signal import fftconvolve

    if u.device.type != "cpu":
        raise NotImplementedError("it runs on the CPU alone")
    return torch.from_numpy(fftconvolve(u.numpy(), k[None].numpy(), axes=-1)[..., : u.shape[-1]])


# --- JAX --------------------------------------------------------------------------------------------------------------


def jax_fft_conv() -> Solve | None:
    """The usual way in JAX."""

    def padded(u: Any, k: Any) -> Any:
        from jax import numpy as jnp

        n = 2 * u.shape[-1]
        return jnp.fft.irfft(jnp.fft.rfft(u, n=n) * jnp.fft.rfft(k, n=n), n=n)[..., : u.shape[-1]]

    return from_jax(padded) if installed("jax") else None


def jax_scan(dim: int) -> Solve | None:
    """``jax.lax.associative_scan`` of the pairs that a recurrence along an axis is made of."""

    def scan(a: Any, b: Any) -> Any:
        import jax
        from jax import numpy as jnp

        def after(first: Any, second: Any) -> Any:
            return first[0] * second[0], second[0] * first[1] + second[1]

        return jax.lax.associative_scan(after, (jnp.broadcast_to(a, b.shape), b), axis=dim)[1]

    return from_jax(scan) if installed("jax") else None


def from_jax(function: Callable[..., Any]) -> Solve:
    """A function of JAX arrays, compiled by XLA for their device, as one of tensors that has gradients."""
    import jax

    plain = jax.jit(function)
    recording = jax.jit(lambda *arrays: jax.vjp(function, *arrays))
    pull = jax.jit(lambda gradient, cotangent: gradient(cotangent))

    class Call(torch.autograd.Function):
        """What backward needs is kept by JAX; its gradients of complex numbers are conjugates of torch's."""

        @staticmethod
        def forward(ctx: Any, *tensors: Tensor) -> Tensor:
            arrays = [jax.dlpack.from_dlpack(t.detach().contiguous()) for t in tensors]
            if not any(ctx.needs_input_grad):
                return torch.from_dlpack(plain(*arrays).block_until_ready())
            y, ctx.gradient = recording(*arrays)
            return torch.from_dlpack(y.block_until_ready())

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            found = pull(ctx.gradient, jax.dlpack.from_dlpack(grads[0].conj_physical().contiguous()))
            return tuple(torch.from_dlpack(array.block_until_ready()).conj_physical() for array in found)

    return Call.apply


# --- CUDA -------------------------------------------------------------------------------------------------------------


def flash_fft_conv(size: int, dtype: torch.dtype) -> Solve | None:
    """FlashFFTConv (16 bits, transforms whose size is a power of two); a causal one has twice the length's size."""

    def load() -> Solve:
        convolution = _from("flashfftconv", "FlashFFTConv")(size, dtype=dtype).cuda()
        return lambda u, k, *gates: convolution(u, k.float(), *gates)

    return _on_cuda("flashfftconv", load)


def cudnn_fft_conv() -> Solve | None:
    """``cudnn.ops.fft_causal_conv1d`` of nvidia-cudnn-frontend; the first tap meets the newest sample, as in ours."""
    return _on_cuda("cudnn", lambda: _of_one_dtype(_from("cudnn.ops", "fft_causal_conv1d")))


def subquadratic_fft_conv() -> Solve | None:
    """The same of subquadratic-ops-torch."""
    module = "subquadratic_ops_torch.fft_causal_conv1d"
    return _on_cuda("subquadratic_ops_torch", lambda: _of_one_dtype(_from(module, "fft_causal_conv1d")))


def causal_conv1d(activation: str | None = None) -> Solve | None:
    """The kernel of the package causal-conv1d (2 to 4 taps), which mamba-ssm convolves with too."""

    def load() -> Solve:
        function = _from("causal_conv1d", "causal_conv1d_fn")
        return lambda u, w, bias=None: function(u, w, bias, activation=activation)

    return _on_cuda("causal_conv1d", load)


def cudnn_causal_conv1d(activation: str = "identity") -> Solve | None:
    """``cudnn.ops.causal_conv1d`` of nvidia-cudnn-frontend (2 to 256 taps, the last one meets the newest sample)."""

    def load() -> Solve:
        function = _from("cudnn.ops", "causal_conv1d")
        return lambda u, w, bias=None: function(u, w, bias, activation=activation)

    return _on_cuda("cudnn", load)


def subquadratic_causal_conv1d() -> Solve | None:
    """The same of subquadratic-ops-torch."""
    return _on_cuda("subquadratic_ops_torch", lambda: _from("subquadratic_ops_torch.causal_conv1d", "causal_conv1d"))


def mamba_scan() -> Solve | None:
    """mamba-ssm's selective scan with one state and steps of 1: h_t = exp(A) h_{t-1} + u_t, of (1, H, 1) and (B, H, L).

    So coefficients stay the same, and are above zero. The tensors that say "steps of 1" are made once.
    """

    def load() -> Solve:
        scan = _from("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")
        ones = functools.cache(torch.ones)

        def solve(a: Tensor, b: Tensor) -> Tensor:
            step, one = ones(b.shape, device=b.device), ones((b.shape[1], 1), device=b.device)
            y: Tensor = scan(b, step, a[0].log(), one, one)
            return y

        return solve

    return _on_cuda("mamba_ssm", load)


def needs_cuda(tensor: Tensor) -> bool:
    """Whether a kernel for CUDA can't take a tensor."""
    return not tensor.is_cuda


def _on_cuda(package: str, load: Callable[[], Solve]) -> Solve | None:
    """What ``load`` imports at the first call on a GPU."""
    if not installed(package):
        return None
    loaded = functools.cache(load)

    def solve(*tensors: Tensor) -> Tensor:
        if needs_cuda(tensors[0]):
            raise NotImplementedError("it runs on CUDA alone")
        return loaded()(*tensors)

    return solve


def _of_one_dtype(function: Solve) -> Solve:
    """With the filter rounded to the sequence's dtype."""
    return lambda u, k: function(u, k.to(u.dtype))


def _from(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
