"""Operators: each is a public function, an operator of ``torch.ops.longconv``, and one or more backends."""

from longconv.ops.cauchy import cauchy
from longconv.ops.fft_conv import fft_conv
from longconv.ops.linear_scan import linear_scan
from longconv.ops.short_conv import short_conv
from longconv.ops.state_space_step import state_space_step
from longconv.ops.transpose import transpose
from longconv.ops.vandermonde import vandermonde, vandermonde_log

__all__ = [
    "cauchy",
    "fft_conv",
    "linear_scan",
    "short_conv",
    "state_space_step",
    "transpose",
    "vandermonde",
    "vandermonde_log",
]
