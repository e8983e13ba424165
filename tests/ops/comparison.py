"""What the tests of the CUDA and Triton backends compare, by host execution or in an interpreter, or on a GPU."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tests.ops.native_calls import Call, cast, differentiate
from tests.tolerances import RELATIVE_L2, assert_close


def compare(
    op: str,
    call: Call,
    options: Mapping[str, Any],
    dtype: torch.dtype,
    *,
    backend: str = "cuda",
    device: str = "cpu",
    wide: Iterable[str] = (),
    exact: str = "definition",
) -> None:
    """The results and gradients of a backend against another one's on the same numbers in float64.

    Args:
        op: the op's name.
        call: its tensors.
        options: its other arguments.
        dtype: of the tensors, or of their real and imaginary parts.
        backend: what is tested.
        device: where it runs.
        wide: the names of those tensors that stay in double precision.
        exact: the backend that gives the right results.
    """
    narrow = {name: t if name in wide else cast({name: t}, dtype)[name] for name, t in call.items()}
    there = {name: t if device == "cpu" else t.to(device) for name, t in narrow.items()}
    moved = {name: t.to(device) if isinstance(t, Tensor) else t for name, t in options.items()}
    got = differentiate(op, there, moved, backend)
    want = differentiate(op, cast(narrow, torch.float64), options, exact)
    for key, tensor in got.items():
        assert tensor.dtype in (dtype, dtype.to_complex()) or key[1:] in wide, f"{key} is {tensor.dtype}"
        if want[key].any():
            try:
                assert_close(tensor.cpu(), want[key], RELATIVE_L2[dtype])
            except AssertionError as error:
                raise AssertionError(f"{key}: {error}") from error
        else:
            assert not tensor.any(), key


def between_nans(*shape: int, dtype: torch.dtype) -> Tensor:
    """Random numbers with gaps between them, which hold what nobody may read."""
    room = torch.full([2 * size + 3 for size in shape], torch.nan, dtype=dtype)
    view = room[tuple(slice(1, 2 * size + 1, 2) for size in shape)]
    return view.copy_(torch.randn(shape, dtype=torch.float64))


def each_length(check: Callable[[random.Random, int], None], *ranges: tuple[int, int]) -> None:
    """A check of a length from each of some ranges, others each run; the seed is in the message of a failure."""
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    for length in [draw.randint(*ends) for ends in ranges]:
        try:
            check(draw, length)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, length {length}: {error}") from error
