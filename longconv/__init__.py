"""Long convolutions and state-space sequence models for PyTorch."""

from __future__ import annotations

from longconv._info import info
from longconv.distillation import distill
from longconv.mixers import create_mixer, list_mixers
from longconv.ops import fft_conv

__version__ = "0.1.0"

__all__ = ["__version__", "create_mixer", "distill", "fft_conv", "info", "list_mixers"]
