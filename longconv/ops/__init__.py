"""Operators: each is a public function, an operator of ``torch.ops.longconv``, and one or more backends."""

from longconv.ops.fft_conv import fft_conv

__all__ = ["fft_conv"]
