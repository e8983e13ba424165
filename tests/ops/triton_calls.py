"""Where the tests of Triton's backends run, and what they compare.

Their kernels run on a GPU, where there is one, or in Triton's interpreter, in a process whose environment has
``TRITON_INTERPRET=1``: test_triton.py starts it. Elsewhere they are skipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.ops import _triton
from tests.ops.native_calls import Call, cast, differentiate
from tests.tolerances import RELATIVE_L2, assert_close

DEVICE = "cpu" if _triton.interpreted() else "cuda"
MARKS = [] if _triton.interpreted() else [pytest.mark.gpu]
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def sizes(small: Iterable[int], real: Iterable[int]) -> list[int]:
    """Small sizes, and on a GPU real ones too."""
    return [*small] if _triton.interpreted() else [*small, *real]


def compare(
    op: str, call: Call, options: Mapping[str, Any], dtype: torch.dtype, *, wide: Iterable[str] = (), exact: str = ""
) -> None:
    """The results and gradients of backend ``triton`` against the definition on the same numbers in float64.

    Args:
        op: the op's name.
        call: its tensors.
        options: its other arguments.
        dtype: of the tensors, or of their real and imaginary parts.
        wide: the names of those that stay in double precision.
        exact: the backend that gives the right results, else the definition.
    """
    narrow = {name: t if name in wide else cast({name: t}, dtype)[name] for name, t in call.items()}
    there = {name: _moved(t) for name, t in narrow.items()}
    got = differentiate(op, there, {**_on_device(options)}, "triton")
    want = differentiate(op, cast(narrow, torch.float64), options, exact or "definition")
    for key, tensor in got.items():
        assert tensor.dtype == dtype or tensor.dtype == dtype.to_complex() or key[1:] in wide, key
        if want[key].any():
            assert_close(tensor.cpu(), want[key], RELATIVE_L2[dtype])
        else:
            assert not tensor.any(), key


def _moved(tensor: Tensor) -> Tensor:
    """The tensor on the device, in the same layout."""
    return tensor if DEVICE == "cpu" else tensor.to(DEVICE)


def _on_device(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: t.to(DEVICE) if isinstance(t, Tensor) else t for name, t in options.items()}
