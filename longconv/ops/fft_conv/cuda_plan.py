"""The sizes and tables of the transforms of the backend ``cuda``, and which of three ways a sequence goes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._sizes import blocks
from longconv.ops.fft_conv import cuda_calls as calls

CACHE_BYTES = 2**26
SHORTEST = 4096
"""The least samples of a block of several."""
READ = 8
"""Samples that are read together."""
ROWS, COLUMNS = 16, 1024
"""Those of an outer transform are multiples of these."""
_FLOPS = {_cuda.HALF: 295, _cuda.TF32: 148, _cuda.TF32X3: 49}
"""Of matrix products in the time of a byte of memory, on an H100 (3.35 TB/s; 989, 495 and 495 / 3 Tflop/s)."""


def _time(memory: float, cache: float, flops: float, arithmetic: int) -> float:
    """In bytes of memory; those that the cache has are taken at half the price."""
    return memory + cache / 2 + flops / _FLOPS[arithmetic]


def _matrix(rows: float, columns: int, arithmetic: int) -> float:
    """Bytes a point of the matrix of a transform of ``rows`` points, one way, for tiles of ``columns`` columns."""
    return 2 * rows * (2 if arithmetic == _cuda.HALF else 4) / columns


def _transforms(points: int, arithmetic: int) -> tuple[float, float]:
    """Bytes of matrices, which the cache has, and flop a point of a block's transform and of one back.

    They are 8 (rows + 32) flop; a block is so many rows of 16 columns up to 768 points, then of 64, in half precision
    of 128 beyond 4096.
    """
    columns = 16 if points <= 768 else 128 if arithmetic == _cuda.HALF and points > 4096 else 64
    rows = points / columns
    return 2 * _matrix(rows, columns, arithmetic), 8 * (rows + 32)


class Plan(NamedTuple):
    """Points of a transform and its tables."""

    points: int
    tables: Tensor


class Tiles(NamedTuple):
    """A sequence in ``pieces`` blocks of ``points``, of which ``before`` and ``after`` are the neighbours' as well."""

    points: int
    pieces: int = 1
    before: int = 0
    after: int = 0

    @property
    def step(self) -> int:
        """The samples that a tile gives."""
        return self.points - self.before - self.after

    def cost(self, arithmetic: int, filters: float) -> float:
        """The time of a sequence beside its own reading and writing, in bytes of memory.

        A point of a filter's spectrum is 8 bytes, written for its share ``filters`` of the sequences. The cache has it
        for each tile, and the neighbours' samples.
        """
        matrices, flops = _transforms(self.points, arithmetic)
        shared = (2 if arithmetic == _cuda.HALF else 4) * (1 - self.step / self.points)
        return self.points * (self.pieces * _time(0, 8 + matrices + shared, flops, arithmetic) + filters * 8)


class Cut(NamedTuple):
    """A sequence in blocks of ``points``, and the blocks of its filters from the number ``first`` on."""

    points: int
    blocks: int
    first: int
    filter_blocks: int

    def cost(self, arithmetic: int, filters: float) -> float:
        """As of tiles.

        A point is 8 bytes of spectrum, written once and read for every pair of a block with one of the filter, which
        is read as well; all but the first reads are the cache's.
        """
        first, end = self.first, self.first + self.filter_blocks
        pairs = sum(max(0, self.blocks - abs(m)) for m in range(first, end)) / self.blocks
        matrices, flops = _transforms(self.points, arithmetic)
        each = _time(16, 16 * pairs - 8 + matrices, flops, arithmetic)
        return self.points * (self.blocks * each + filters * 8 * self.filter_blocks)


class Outer(NamedTuple):
    """The points of a long transform, as rows of columns."""

    rows: int
    columns: int

    @property
    def points(self) -> int:
        """All of them."""
        return self.rows * self.columns

    def cost(self, arithmetic: int, filters: float) -> float:
        """As of tiles.

        A point is 8 bytes, in half precision 4, written and read twice; a filter's is 8, written, read, written and
        read again; samples that share it find it in the cache. The outer transform and its inverse are 8 rows flop a
        point, those of rows of 1024 s complex numbers 16 (16 s + 16). Tiles are of 64 columns, but of 32 on the way
        back from more than 256 rows of wide numbers.
        """
        rows, inner, half = self.rows, self.columns / 64, arithmetic == _cuda.HALF
        memory = (16 if half else 32) + 32 * filters
        back = 64 if half or rows <= 256 else 32
        matrices = _matrix(rows, 64, arithmetic) + _matrix(rows, back, arithmetic) + 2 * _matrix(inner, 64, arithmetic)
        return self.points * _time(memory, 8 * (1 - filters) + matrices, 8 * rows + 16 * (inner + 16), arithmetic)


@functools.lru_cache(maxsize=1024)
def choose(
    length: int,
    before: int,
    after: int,
    filters: float,
    arithmetic: int,
    device: torch.device,
    *,
    circular: bool = False,
    tap_gradients: bool = False,
) -> Tiles | Cut | Outer:
    """The way for sequences of a length and filters with taps at ``before`` lags below 0, ``after`` from 0 on.

    It is the one that takes the fewest bytes and operations by the count of ``cost``. In one pass over memory go the
    block that holds a sequence and, for a filter that is shorter than a block, tiles, so that its length tells the
    work. Sequences that no block holds can also be cut into blocks of about the filter's length, or be transformed as
    a whole by the smallest outer transforms, as they are with long filters from about two blocks on. What is longer
    than the most rows of the most columns, 4M samples or more on a H100, is not. For the gradients of taps those are
    the least of the arithmetic's and of :func:`wide`'s, which they come back in. Tiles of a circular convolution are
    read around the end, so that none of its taps is below 0.
    """
    index = device.index or 0
    most = longest(arithmetic, index)
    ways: list[Tiles | Cut | Outer] = [*_tiles(length, 0 if circular else before, after, most, arithmetic, device)]
    if length <= most:
        return min(ways, key=lambda way: way.cost(arithmetic, filters))
    taken = {arithmetic, wide(arithmetic)} if tap_gradients else {arithmetic}
    rows, columns = map(min, zip(*(limits(one, index) for one in taken), strict=True))
    ways += [_cut(length, before, after, most, arithmetic, device), *_outers(length, rows, columns)]
    return min(ways, key=lambda way: way.cost(arithmetic, filters))


def _tiles(length: int, before: int, after: int, most: int, arithmetic: int, device: torch.device) -> Iterator[Tiles]:
    """Those of every size that a filter leaves a part of, up to the block that holds the whole sequence."""
    sides = READ * blocks(after - 1, READ), READ * blocks(before, READ)
    points = 0
    while points < min(length, most):
        points = _points(points + 1, arithmetic, device)
        if points >= length:
            yield Tiles(points)
        elif points > sum(sides):
            yield Tiles(points, blocks(length, points - sum(sides)), *sides)


def _cut(length: int, before: int, after: int, most: int, arithmetic: int, device: torch.device) -> Cut:
    parts = blocks(length, min(most, max(after, before + 1, SHORTEST)))
    points = _points(blocks(length, parts), arithmetic, device)
    count = blocks(length, points)
    first = -min(blocks(before, points), count - 1)
    return Cut(points, count, first, min(blocks(after, points), count - 1) - first + 1)


def _outers(length: int, most_rows: int, most_columns: int) -> Iterator[Outer]:
    """For every number of columns the fewest rows that hold a length."""
    for columns in range(COLUMNS, most_columns + 1, COLUMNS):
        rows = ROWS * blocks(length, ROWS * columns)
        if rows <= most_rows:
            yield Outer(rows, columns)


def wide(arithmetic: int) -> int:
    """The arithmetic of transforms without a scale."""
    return _cuda.TF32 if arithmetic == _cuda.HALF else arithmetic


@functools.cache
def longest(arithmetic: int, device: int) -> int:
    """The longest sequence that a block holds."""
    length = ctypes.c_int64()
    _native.cuda().call("fft_longest", ctypes.byref(length), arithmetic, device)
    return length.value


@functools.cache
def limits(arithmetic: int, device: int) -> Outer:
    """The most rows and the most columns of an outer transform."""
    most = calls.Limits()
    _native.cuda().call("fft_outer_limits", ctypes.byref(most), arithmetic, device)
    return Outer(most.rows, most.columns)


_plans: dict[tuple[Any, ...], Plan] = {}  # in the order in which they were made


def plan(length: int, arithmetic: int, device: torch.device) -> Plan:
    """The transform that holds a length in a block; the last tables are kept, as :data:`CACHE_BYTES` hold."""
    return _made(_of_block(length, arithmetic), (arithmetic, device), device)


def outer_plan(outer: Outer, arithmetic: int, device: torch.device) -> Plan:
    """The same of a transform with an outer stage."""
    call = functools.partial(_native.cuda().call, "fft_outer_plan")
    return _made(lambda *rest: call(rest[0], *outer, arithmetic, *rest[1:]), (outer, arithmetic, device), device)


def _points(length: int, arithmetic: int, device: torch.device) -> int:
    """Those of the block for a length."""
    return _size(_of_block(length, arithmetic), device).points


def _of_block(length: int, arithmetic: int) -> Callable[..., None]:
    """The call that tells the size of the tables or fills them."""
    call = functools.partial(_native.cuda().call, "fft_plan")
    return lambda tables, *rest: call(tables, length, arithmetic, *rest)


def _size(call: Callable[..., None], device: torch.device) -> calls.Size:
    size = calls.Size()
    call(None, ctypes.byref(size), *_cuda.queue(device))
    return size


def _made(call: Callable[..., None], key: tuple[Any, ...], device: torch.device) -> Plan:
    size = _size(call, device)

    def make() -> Plan:
        tables = torch.empty(size.table_bytes, dtype=torch.uint8, device=device)
        call(tables.data_ptr(), ctypes.byref(size), *_cuda.queue(device))
        return Plan(size.points, tables)

    return _cuda.kept(_plans, (size.points, *key), make, device, CACHE_BYTES)
