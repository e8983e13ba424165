"""Operators: each is a public function, an operator of ``torch.ops.longconv``, and one or more backends.

================  ======================================================================================
fft_conv          long convolution by FFT: causal, two-sided or circular, gated
sparse_fft_conv   long convolution whose filter has blocks of its spectrum alone
butterfly_conv    product of spectra under a transform of two stages with any matrices
short_conv        causal convolution with a few taps a channel, with bias and activation
linear_scan       states of h[t] = a[t] h[t-1] + b[t]
cauchy            sum_n v[n] / (z[l] - w[n]): generating functions of state spaces
vandermonde       sum_n v[n] x[n]^l: filters of diagonal state spaces; vandermonde_log takes the logs of x
dense_taps        impulse response of a state space with a dense matrix: filters of LSSL
state_space_taps  impulse response of a state space whose matrix is diagonal plus low rank: filters of S4
state_space_step  one sample through a state space whose matrix is diagonal plus low rank
transpose         (..., R, C) to (..., C, R), contiguous
================  ======================================================================================
"""

from longconv.ops.butterfly_conv import butterfly_conv
from longconv.ops.cauchy import cauchy
from longconv.ops.dense_taps import dense_taps
from longconv.ops.fft_conv import fft_conv
from longconv.ops.linear_scan import linear_scan
from longconv.ops.short_conv import short_conv
from longconv.ops.sparse_fft_conv import sparse_fft_conv
from longconv.ops.state_space_step import state_space_step
from longconv.ops.state_space_taps import state_space_taps
from longconv.ops.transpose import transpose
from longconv.ops.vandermonde import vandermonde, vandermonde_log

__all__ = [
    "butterfly_conv",
    "cauchy",
    "dense_taps",
    "fft_conv",
    "linear_scan",
    "short_conv",
    "sparse_fft_conv",
    "state_space_step",
    "state_space_taps",
    "transpose",
    "vandermonde",
    "vandermonde_log",
]
