"""A convolution by a butterfly whose stage matrices are trained.

Symbols: B batch, H channels, L length, K taps, N = N_1 N_2 size of the transform, M blocks of N samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longconv import _autocast
from longconv._checks import FLOATS, check_int, check_real, check_shape, check_tensor
from longconv.filters.base import WideModule, parameter_dtype
from longconv.ops.butterfly_conv import butterfly_conv
from longconv.ops.butterfly_conv.operator import MATRICES
from longconv.ops.transpose import transpose


class ButterflyConvolution(WideModule):
    r"""The product of spectra under a learned transform, which starts as the causal convolution.

    A butterfly of two stages takes x, cut into N_2 columns of N_1 samples N_2 apart, to

    .. math:: T(x) = ((E_1 x) \circ W)\, E_2, \qquad y = \mathrm{Re}\; G_1 (((\sqrt N\, T(x)\, T(k))\, G_2) \circ V)

    with trained complex matrices E_1, G_1 (N_1, N_1), E_2, G_2 (N_2, N_2) and twiddles W, V (N_1, N_2). They start at
    the DFT of x[n] exp(i pi n / 2N) and its inverse, unitary each: the product of polynomials modulo X^N - i, whose
    real part are the first N outputs of the causal convolution, and whose imaginary part are the next N, which go to
    the following block. So any length starts as the convolution: inputs are cut into blocks of N samples, the last one
    filled up with zeros.

    Once trained it is linear still, but no convolution: an output may depend on any input of its block and of the one
    before, later ones too, and on where in its block it is. What zeros at the end add to it never changes.

    A stage is a product with small matrices, whatever they hold: forward, the learned transform costs what the DFT by
    the same stages does, with N_1 = N_2 12 N^1.5 multiplications a row. With gradients it costs more: a training step
    of fixed matrices takes 30 N^1.5 multiplications a row, as nothing but arguments is kept, one of learned matrices
    46 N^1.5, for a product more a stage, and the third stage once more. On one thread that is 1.3 to 1.4 times the
    time; at N = 1024 the fixed one takes 9 to 11 times that of :func:`longconv.fft_conv`, forward and with gradients.

    Args:
        size: least N; N_1 and N_2 are powers of two, equal or N_1 = 2 N_2.
        filter_lr: learning rate of the matrices; None takes the optimiser's.

    Attributes:
        size: N.
        analysis_1, analysis_twiddles, analysis_2: E_1, W, E_2, with a last axis for real and imaginary part.
        synthesis_1, synthesis_twiddles, synthesis_2: G_1, V, G_2, likewise.

    References:
        Simple Hardware-Efficient Long Convolutions for Sequence Modeling (Fu, Epstein, Nguyen, Thomas, Zhang, Dao,
        Rudra, Ré, arXiv 2302.06646)
        Monarch: Expressive Structured Matrices for Efficient and Accurate Training (Dao, Chen, Sohoni, Desai, Poli,
        Grogan, Liu, Rao, Rudra, Ré, arXiv 2204.00595)

    >>> convolve = ButterflyConvolution(4)
    >>> y = convolve(torch.ones(1, 1, 6), torch.tensor([[1.0, 1.0, 1.0]]))
    >>> y.round(decimals=4)
    tensor([[[1., 2., 3., 3., 3., 3.]]], grad_fn=<RoundBackward1>)
    """

    filter_parameters = MATRICES

    def __init__(self, size: int, *, filter_lr: float | None = None) -> None:
        super().__init__()
        bits = (check_int("size", size) - 1).bit_length()
        N1, N2 = 1 << (bits + 1) // 2, 1 << bits // 2
        self.size = N = N1 * N2
        self.filter_lr = None if filter_lr is None else check_real("filter_lr", filter_lr, least=0)
        n1, n2 = (torch.arange(n, dtype=torch.float64) for n in (N1, N2))
        E1 = _unit(-n1[:, None] * n1 / N1 + n1 * (N2 / (4 * N))) / math.sqrt(N1)
        W = _unit((0.25 - n1[:, None]) * n2 / N)
        E2 = _unit(-n2[:, None] * n2 / N2) / math.sqrt(N2)
        self.analysis_1, self.analysis_twiddles, self.analysis_2 = map(_parameter, (E1, W, E2))
        self.synthesis_1, self.synthesis_twiddles, self.synthesis_2 = map(_parameter, (E1.mH, W.conj(), E2.mH))

    def forward(self, x: Tensor, k: Tensor, k_reverse: Tensor | None = None) -> Tensor:
        """Convolve; at the start what :func:`longconv.fft_conv` gives.

        Args:
            x: (B, H, L), any L.
            k: (H, K); of more than N taps those from N on are not used.
            k_reverse: (H, K), the taps for the future, from lag 1 to lag N - 1.

        Returns:
            (B, H, L) in x's dtype and memory layout: where x lies in memory as (B, L, H), nothing is transposed.

        Raises:
            TypeError: no such tensors.
            ValueError: taps of another number of channels.
        """
        check_tensor("x", x, "(B, H, L)", ndim=3, dtypes=FLOATS)
        for name, taps in (("k", k), ("k_reverse", k_reverse)):
            if taps is not None:
                check_tensor(name, taps, "(H, K)", ndim=2, dtypes=FLOATS)
                check_shape(name, taps, (x.shape[1], None), "(H, K)")
        if x.mT.is_contiguous():
            return self._of_columns(x.mT, k, k_reverse).mT
        return transpose(self._of_columns(transpose(x), k, k_reverse))

    def _of_columns(self, x: Tensor, k: Tensor, k_reverse: Tensor | None) -> Tensor:
        """The same for x (B, L, H)."""
        L, N = x.shape[1], self.size
        with _autocast.off(x.device):
            wide = x.to(self.analysis_1.dtype)
            wide = F.pad(wide, (0, 0, 0, -L % N)) if L % N else wide
            y = self._causal(wide, k)
            if k_reverse is not None:
                y = y + self._causal(wide.flip(1), F.pad(k_reverse, (1, 0))).flip(1)
        return y[:, :L].to(x.dtype)

    def _causal(self, x: Tensor, k: Tensor) -> Tensor:
        """(B, M N, H) and the taps (H, K) -> (B, M N, H)."""
        B, L, H = x.shape
        N = self.size
        k = k[:, :N].to(x.dtype)
        k = transpose(F.pad(k, (0, N - k.shape[1])))
        matrices = [getattr(self, name) for name in self.filter_parameters]
        M = L // N
        if M == 1:
            return butterfly_conv(x, k, *matrices)
        y = butterfly_conv(x.reshape(B * M, N, H), k, *matrices, tail=True)
        y, after = y.view(B, M, 2, N, H).unbind(2)
        return torch.cat((y[:, :1], y[:, 1:] + after[:, :-1]), 1).flatten(1, 2)


def _unit(turns: Tensor) -> Tensor:
    """exp(2 pi i turns)."""
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)


def _parameter(z: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.view_as_real(z.resolve_conj()).to(parameter_dtype()).contiguous())
