"""Long convolutions and state-space sequence models for PyTorch."""

from __future__ import annotations

__version__ = "0.1.0"
