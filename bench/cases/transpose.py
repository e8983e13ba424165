"""``longconv.ops.transpose``, between the layout of modules and that of operators, beside torch's copy."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bench.case import OURS, Case, Problem, Solve, Work, both
from longconv.ops import transpose

SHAPES = [(8, 256, 256), (8, 1024, 256), (8, 4096, 256), (4, 16384, 256), (1, 65536, 256), (1, 1 << 20, 16)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "complex64": torch.complex64}


def usual(x: Tensor) -> Tensor:
    """A contiguous copy."""
    return x.mT.contiguous()


def problem(batch: int, length: int, channels: int, dtype: torch.dtype, backward: bool) -> Problem:
    """(B, L, D) to (B, D, L): bytes alone, no operations."""
    sides: dict[str, Solve | None] = {OURS: transpose, "torch contiguous": usual}
    work = Work(0.0, batch * channels, length)
    x = torch.randn(batch, length, channels, dtype=dtype)
    tolerance = 4e-3 if dtype == torch.bfloat16 and backward else 1e-12  # of a cotangent that is rounded
    return Problem((x,), sides, usual, (x[:1, :1024],), backward, tolerance, work)


def cases() -> list[Case]:
    """Lengths in float32, and other widths of a number at one of them."""
    made = [(shape, "float32") for shape in SHAPES] + [(SHAPES[2], name) for name in DTYPES if name != "float32"]
    return [
        case
        for shape, name in made
        for case in both(
            f"transpose/{'x'.join(map(str, shape))}/{name}", functools.partial(problem, *shape, DTYPES[name])
        )
    ]
