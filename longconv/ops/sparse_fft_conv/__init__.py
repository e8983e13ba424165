"""The frequency-sparse convolution: the public function, its operator, its definition and its backends."""

from __future__ import annotations

import torch
from torch import Tensor

from longconv import _sequence
from longconv._checks import FLOATS, check_choice, check_device, check_tensor, describe
from longconv.ops.fft_conv import check_filter
from longconv.ops.sparse_fft_conv.operator import BACKENDS, call_forward

__all__ = ["sparse_fft_conv"]


def sparse_fft_conv(u: Tensor, k: Tensor, block_mask: Tensor, *, backend: str = "auto") -> Tensor:
    r"""Long convolution with a filter whose spectrum is zero but for some blocks, which can make it cheaper.

    The causal convolution of L samples takes the filter's spectrum at n >= L frequencies,

        S[f] = sum_s k[s] exp(-2 pi i (f + 1/4) s / n),    0 <= f < n,

    those of a product modulo X^n + i, whose real part has no tail that wraps. With a mask of N_1 ... N_r = P blocks, n
    is P m, m the least number with no prime factor above 5 for which n >= L. Frequencies are counted as the factors of
    a transform split them, the first axis first,

        f = f_1 + N_1 f_2 + ... + N_1 ... N_(r-1) f_r + P g,    0 <= g < m,

    and where ``block_mask[f_1, ..., f_r]`` is False, S is 0 for every g. Then y = a * k * u with

        a[e] = 1/n sum_(f kept) cos(2 pi (f + 1/4) e / n),    for all lags e, negative ones too.

    So all True is ``fft_conv(u, k)``, masks that share no block add up to the mask of both, and a mask in general makes
    a filter that reaches into the future.

    Frequencies are grouped by f modulo Q, the divisor of P with the least estimated work; groups without a block that
    is True are left out of every transform, of u, k and y alike. Masks of few blocks gain most; of hundreds of
    scattered blocks nothing may be left out. A mask of shape (N_1, N_2) that is True below (a, b) alone is the Monarch
    form of the paper.

    Args:
        u: input (B, H, L), real: float64, float32, bfloat16 or float16; any B, H, L >= 0.
        k: filter (H, K), or (B, H, K) with one filter a sample; any K >= 1, taps from L on are ignored. In u's dtype,
            or float32 under a u of 16 bits.
        block_mask: bool, of one to four axes (N_1, ..., N_r) of any sizes >= 1: the blocks that are kept. A
            block is the frequencies of one f modulo P, a comb, not a band.
        backend: ``"auto"``, or one of the names that ``longconv.info()`` prints. On a CPU ``"auto"`` is ``"fft_conv"``,
            with the masked filter's taps, where many sequences share a filter, else ``"torch"``. ``"cuda"`` takes what
            one block of a GPU holds (of an H100 up to 32768 samples of 16 bits or 16384 in float32, and more if the
            mask keeps less) and raises for what is longer. It also raises where no way to split n = n1 n2 has tables of
            at most 2^25 bytes, which are 16 (n1^2 + n2^2) bytes in float32, half of that in 16 bits, or less if the
            mask leaves out rows or columns. So numbers of blocks with large prime factors, as 1453 or 2039, may be
            refused. In a CUDA graph that is captured by hand it takes a mask that a call before the capture has read,
            and raises for others.

    Returns:
        y (B, H, L), contiguous, in u's dtype; arithmetic is in float64 for float64, else in float32, but ``"cuda"``
        multiplies in half precision for 16 bits. ``u`` and ``k`` have gradients, and the gradients have gradients.

    Raises:
        TypeError: an argument is not a tensor or has a wrong dtype.
        ValueError: a wrong shape, device or backend.

    References:
        D. Y. Fu, H. Kumbong, E. Nguyen, C. Ré, "FlashFFTConv: Efficient Convolutions for Long Sequences with Tensor
        Cores", arXiv:2311.05908, its frequency-sparse convolutions.

    >>> u, k = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([[1.0, 0.5]])
    >>> even, odd = (sparse_fft_conv(u, k, torch.tensor(mask)) for mask in ([True, False], [False, True]))
    >>> (even + odd).round(decimals=4)
    tensor([[[1.0000, 2.5000, 4.0000, 5.5000]]])
    >>> sparse_fft_conv(u, k, torch.tensor([1.0]))
    Traceback (most recent call last):
        ...
    TypeError: block_mask is a (1,) float32 tensor, expected dtype bool
    """
    check_tensor("u", u, "(B, H, L)", ndim=3, dtypes=FLOATS)
    k = check_filter("k", k, u)
    check_tensor(
        "block_mask", block_mask, "(N_1, ..., N_r) with r from 1 to 4", ndim=(1, 2, 3, 4), dtypes=(torch.bool,)
    )
    if 0 in block_mask.shape:
        raise ValueError(f"block_mask is {describe(block_mask)}, expected at least one block along every axis")
    check_device("block_mask", block_mask, "u", u)
    check_choice("backend", backend, BACKENDS.names())

    def convolve(channels: slice, u: Tensor) -> Tensor:
        y: Tensor = call_forward(u, k[..., channels, :], block_mask, backend)
        return y

    return _sequence.channelwise(convolve, u, size=u.shape[-1])
