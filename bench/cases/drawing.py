"""Pictures of Pathfinder, as `lra-tasks prepare` draws them in each of its processes."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from bench.case import OURS, Case, Problem

CHUNKS = {32: 500, 128: 100}
"""How many pictures of a size are drawn at once: those of a chunk of the task."""


def problem(size: int, n: int) -> Problem:
    """A chunk; its pictures depend on the seed and its number alone, so that they come out again the same."""
    from lra_tasks.data.pathfinder.draw import draw_chunk  # bench runs without what the tasks need, but for these cases

    def draw(chunk: Tensor) -> Tensor:
        return torch.from_numpy(draw_chunk(size, n, 0, int(chunk))[0]).double()

    return Problem((torch.tensor(7, device="cpu"),), {OURS: draw}, draw)


def cases() -> list[Case]:
    """Of Pathfinder32 and of Path-X, on one core."""
    return [
        Case(f"drawing/{size}x{size}/{n}", functools.partial(problem, size, n), threads=(1,))
        for size, n in CHUNKS.items()
    ]
