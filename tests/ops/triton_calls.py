"""Where the tests of Triton's backends run, and what they compare.

Their kernels run on a GPU, where there is one, or in Triton's interpreter, in a process whose environment has
``TRITON_INTERPRET=1``: test_triton.py starts it. Elsewhere they are skipped.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import pytest
import torch

from longconv.ops import _triton
from tests.ops import comparison

DEVICE = "cpu" if _triton.interpreted() else "cuda"
MARKS = [] if _triton.interpreted() else [pytest.mark.gpu]
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def sizes(small: Iterable[int], real: Iterable[int]) -> list[int]:
    """Small sizes, and on a GPU real ones too."""
    return [*small] if _triton.interpreted() else [*small, *real]


compare = functools.partial(comparison.compare, backend="triton", device=DEVICE)
"""Results and gradients against the definition on the same numbers in float64, see comparison.py."""
