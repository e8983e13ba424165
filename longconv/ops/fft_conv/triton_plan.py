"""The tiles of Triton's ``fft_conv``, one for every size, and the tables of their transforms."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv.ops import _cuda, _triton
from longconv.ops._sizes import blocks, power_of_two


class Tile(NamedTuple):
    """The sizes of stages, of order 2 where N3 = 1; rows and warps of a program; the most bytes of shared memory."""

    N1: int
    N2: int
    N3: int
    rows: int
    warps: int
    shared: int


TILES = {
    torch.float16: {
        256: Tile(16, 16, 1, 8, 4, 16384),
        512: Tile(16, 32, 1, 4, 4, 16384),
        1024: Tile(32, 32, 1, 4, 8, 32768),
        2048: Tile(32, 64, 1, 2, 8, 36864),
        4096: Tile(64, 64, 1, 1, 8, 49152),
        8192: Tile(32, 16, 16, 1, 8, 49152),
        16384: Tile(64, 16, 16, 1, 8, 81920),
    },
    torch.float32: {
        256: Tile(16, 16, 1, 4, 4, 16384),
        512: Tile(16, 32, 1, 2, 4, 16384),
        1024: Tile(32, 32, 1, 2, 8, 32768),
        2048: Tile(32, 64, 1, 1, 8, 49152),
        4096: Tile(16, 16, 16, 1, 8, 49152),
        8192: Tile(32, 16, 16, 1, 8, 73728),
    },
}
"""By the type of the operands and the samples n. A transform takes 2n registers for its sums, and for operands n in
float16 or 2n in float32: twice as long, that would be more than the 65536 of a multiprocessor, or all of them."""


def operands(dtype: torch.dtype) -> torch.dtype:
    """The type of the operands of products for sequences of ``dtype``."""
    return torch.float32 if dtype == torch.float32 else torch.float16


@functools.cache
def largest(kind: torch.dtype, device: torch.device) -> int:
    """The samples of the largest tile that a device's shared memory has room for."""
    room = 0
    if device.type == "cuda":
        properties: Any = torch.cuda.get_device_properties(device)
        room = max(properties.shared_memory_per_block, getattr(properties, "shared_memory_per_block_optin", 0))
    return max(size for size, tile in TILES[kind].items() if not room or tile.shared <= room)


class Plan(NamedTuple):
    """A tile and its tables: F1, its adjoint, F2 and F3, real parts before imaginary ones; W's factors and V."""

    tile: Tile
    matrices: Tensor
    twiddles: Tensor

    @property
    def size(self) -> int:
        return self.tile.N1 * self.tile.N2 * self.tile.N3

    @property
    def crowded(self) -> bool:
        """Whether a transform leaves no registers for the operands of another, counted as for :data:`TILES`."""
        return self.size * (4 if self.matrices.dtype == torch.float16 else 6) >= 32768

    def launch(self, kernel: Any, rows: int, *args: Any, **options: Any) -> None:
        """Run a kernel for so many rows, compiled for the tile."""
        import triton.language as tl

        height = self.tile.rows if rows >= self.tile.rows * _triton.PROGRAMS else 1
        warps = self.tile.warps if height == self.tile.rows else 4
        _triton.launch(
            kernel,
            blocks(rows, height),
            *args,
            **options,
            R=height,
            N1=self.tile.N1,
            N2=self.tile.N2,
            N3=self.tile.N3,
            C=tl.float16 if self.matrices.dtype == torch.float16 else tl.float32,
            PRECISION=_precision(self.size),
            num_warps=warps,
        )


_plans: dict[tuple[Tile, torch.dtype, torch.device], Plan] = {}


def plan_of(length: int, kind: torch.dtype, device: torch.device) -> Plan:
    """The plan of a length: there are few, and they stay; but for those of a graph that is being captured.

    They are for all streams, which therefore wait for their tables.
    """
    tile = TILES[kind][max(min(TILES[kind]), power_of_two(length))]
    key = tile, kind, device
    plan = _plans.get(key)
    if plan is None:
        with torch.inference_mode(False):
            plan = _make_plan(*key)
        if not _cuda.capturing(device):
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            _plans[key] = plan
    return plan


def _make_plan(tile: Tile, kind: torch.dtype, device: torch.device) -> Plan:
    """In double precision, from angles reduced as integers, and rounded once."""
    N1, N2, N3 = tile[:3]
    size = N1 * N2 * N3
    one, two, three = (torch.arange(n, device=device) for n in (N1, N2, N3))

    def roots(f: Tensor, s: Tensor, n: int, twist: int = 0) -> Tensor:
        """exp(-2 pi i f s / n), times exp(i pi s / 2 twist) if there is a twist."""
        angle = (f[:, None] * s % n).double() * (-2 / n)
        angle = angle + s.double() / (2 * twist) if twist else angle
        return torch.polar(torch.ones_like(angle), angle * math.pi)

    first, second, third = (
        roots(places, places, n, twist) / math.sqrt(n)
        for places, n, twist in ((one, N1, N1), (two, N2, 0), (three, N3, 0))
    )
    matrices = torch.cat([t.flatten() for t in (first, first.mT.conj_physical(), second, third)])
    turns = [roots(one, two * N3, size, size), roots(one, three, size, size), roots(three, two, N2 * N3)]
    twiddles = torch.cat([part.flatten() for turn in turns for part in (turn.real, turn.imag)])
    return Plan(tile, torch.cat((matrices.real, matrices.imag)).to(kind), twiddles.float())


def _precision(size: int) -> str:
    """How products of float32 numbers are formed, as torch is told for its own.

    Products of tf32x3, three of tf32, err as single precision does, and leave registers for larger tiles than those of
    "ieee", which run on no matrix unit. AMD's GPUs have neither.
    """
    asked = torch.get_float32_matmul_precision()
    if torch.version.hip is not None or (asked == "highest" and size <= 1024):
        return "ieee"
    return "tf32" if asked == "medium" else "tf32x3"
