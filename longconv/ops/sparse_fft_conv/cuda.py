"""Backend ``cuda``: csrc/cuda/sparse_*.cu, products of matrices on tensor cores for what a mask keeps of the spectrum.

With n = N1 N2 and f = f1 + N1 f2 the transform of n points is one product with a matrix over f1 and one over f2, see
csrc/cuda/sparse_transform.h. Rows f1 and columns f2 in which the mask keeps no frequency are left out of matrices,
spectra and shared memory; N1 is the divisor of n that leaves the least to multiply. Precision is as that of
``fft_conv``'s backend of this name. A block of the GPU holds a sequence: longer ones are refused.

The mask is read on the CPU, so a call waits for it. A CUDA graph can't: a call that is captured takes the mask as the
last one before it has read it, if it is unchanged, and the plan that was made then. Changes that torch doesn't count,
by ``mask.data``, by a replayed graph or through DLPack, aren't seen: after one, call with the mask before the capture.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from longconv import _native
from longconv.ops import _cuda
from longconv.ops._sizes import blocks
from longconv.ops.fft_conv.cuda_calls import Rows
from longconv.ops.sparse_fft_conv.blocks import residues, spectrum_size

CACHE_BYTES = 2**26
MOST_TABLE_BYTES = 2**25
"""What the tables of one mask may take: those of n without divisors near its square root take about n^2 numbers."""

_I32, _I64, _POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class Call(ctypes.Structure):
    """``LongconvCudaSparse`` of csrc/longconv.h."""

    _fields_ = [
        *[(name, _POINTER) for name in ("tables", "kept", "alive", "spectrum", "scratch", "norms")],
        *[(name, _I64) for name in ("batch", "channels", "length", "taps", "parts")],
        *[(name, _I32) for name in ("n1", "n2", "rows", "columns", "arithmetic", "element", "per_sample", "conjugate")],
        *[(name, Rows) for name in ("x", "y")],
    ]


class Size(ctypes.Structure):
    """``LongconvCudaSparseSize``."""

    _fields_ = [(name, _I64) for name in ("table_bytes", "shared_bytes", "most_shared_bytes", "spectrum")]


class Split(NamedTuple):
    """The factors of n and the rows and columns that have a frequency which is kept."""

    n1: int
    n2: int
    rows: Tensor
    columns: Tensor

    @property
    def products(self) -> int:
        """Products of matrices of 16 x 16 and 16 x 8 numbers for a sequence."""
        n1, n2, rows, columns = (blocks(size, 16) for size in (self.n1, self.n2, len(self.rows), len(self.columns)))
        return 8 * rows * n2 * (n1 + 2 * columns)

    def sizes(self) -> dict[str, int]:
        """The fields of a call."""
        return {"n1": self.n1, "n2": self.n2, "rows": len(self.rows), "columns": len(self.columns)}


class _Plan(NamedTuple):
    split: Split
    spectrum: int  # numbers
    alive: Tensor
    tables: Tensor


_plans: dict[tuple[bytes, int, int, torch.device], _Plan] = {}  # in the order in which they were made
_masks = WeakTensorKeyDictionary()
"""Of a mask the version that ``supports`` has read last, and what was kept, for the next call and for graphs."""
_NOT_READ = (
    "a CUDA graph is being captured, which can't read block_mask on the CPU: before the capture call sparse_fft_conv "
    "with tensors of the same dtype and length and the same mask, unchanged since and no inference tensor; "
    "changes by .data, by a replayed graph or through DLPack aren't seen"
)


def available() -> str | None:
    """None if the CUDA library is loaded, has the convolution, and torch sees a GPU, else the reason why not."""
    return _cuda.available("sparse_filter")


def supports(u: Tensor, k: Tensor, block_mask: Tensor) -> str | None:
    """None if the backend can serve the call, else the reason why not."""
    if reason := _cuda.refusal("u", u):
        return reason
    if u.dtype == torch.float64:
        return "u is float64"
    captured = _cuda.capturing(u.device)
    if not captured:
        _masks[block_mask] = _version(block_mask), _read(block_mask)
    elif block_mask.is_inference() or not _known(block_mask):
        return _NOT_READ
    key = _key(u, _known(block_mask))
    chosen = choose(*key)
    if isinstance(chosen, str):
        return chosen
    return _NOT_READ if captured and chosen and (*key[:-1], u.device) not in _plans else None


def forward(u: Tensor, k: Tensor, block_mask: Tensor) -> Tensor:
    """The result y of the operator ``sparse_fft_conv``, contiguous, on the current stream."""
    plan = _plan(u, block_mask)
    y = _like(u, plan)
    if plan:
        _Passes(plan, u, k).filter(u, y)
    return y


def backward(dy: Tensor, u: Tensor | None, k: Tensor, block_mask: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """The wanted gradients of u and k; u may be None for du alone."""
    plan = _plan(dy, block_mask)
    du, dk = (_like(t, plan) if want else None for t, want in zip((dy, k), wanted, strict=True))
    if plan:
        passes = _Passes(plan, dy, k)
        if du is not None:
            passes.filter(dy, du, conjugate=True)
        if dk is not None:
            assert u is not None
            _cuda.finish(dk, passes.correlate(u, dy))
    return [grad for grad in (du, dk) if grad is not None]


def _like(x: Tensor, plan: _Plan | None) -> Tensor:
    """Room for a result in a tensor's layout, or zeros where the mask keeps nothing."""
    make = torch.empty_like if plan else torch.zeros_like
    return make(x, memory_format=torch.contiguous_format)


class _Passes:
    """What the passes of a call have in common."""

    def __init__(self, plan: _Plan, like: Tensor, k: Tensor) -> None:
        self.batch, self.channels, self.length = like.shape
        self.device, self.plan = like.device, plan
        k = _cuda.straight(k[..., : self.length])
        self.k = k[None] if k.ndim == 2 else k
        self.filters, _, self.taps = self.k.shape
        self.per_sample = k.ndim == 3
        self.common = {
            **_common(self.plan.split, _cuda.arithmetic(like.dtype)),
            **dict(zip(("tables", "alive"), _cuda.pointers(self.plan.tables, self.plan.alive), strict=True)),
            "channels": self.channels,
            "element": _native.ELEMENTS[like.dtype],
        }

    def _run(self, function: str, **fields: object) -> None:
        _cuda.run(function, Call(**{**self.common, **fields}), self.device)

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def filter(self, x: Tensor, y: Tensor, *, conjugate: bool = False) -> None:
        """Fill y with the convolution (conjugate: its adjoint) of x."""
        spectrum = self._empty(self.channels, self.filters, self.plan.spectrum, 2)
        norms = self._empty(self.channels, self.filters)
        pointers = dict(zip(("spectrum", "norms"), _cuda.pointers(spectrum, norms), strict=True))
        of_k = {"batch": self.filters, "length": self.taps, "taps": self.taps, "x": Rows.of(self.k)}
        self._run("sparse_spectrum", **pointers, **of_k, element=_native.ELEMENTS[self.k.dtype])
        x = _cuda.straight(x)
        sizes = {"batch": self.batch, "length": self.length, "x": Rows.of(x), "y": Rows.of(y)}
        self._run("sparse_filter", **pointers, **sizes, per_sample=self.per_sample, conjugate=conjugate)

    def correlate(self, x: Tensor, g: Tensor) -> Tensor:
        """The gradients of the filters' taps, (1 or B, H, taps) in float32, from the sequence x and the gradient g."""
        parts = self.batch if self.per_sample else _cuda.correlation_parts(self.batch, self.channels)
        products = self._empty(self.channels, parts, self.plan.spectrum, 2)
        scratch = torch.empty_like(products)
        pointers = dict(zip(("spectrum", "scratch"), _cuda.pointers(products, scratch), strict=True))
        x, g = (_cuda.straight(t) for t in (x, g))
        sizes = {"batch": self.batch, "length": self.length, "parts": parts, "x": Rows.of(x), "y": Rows.of(g)}
        self._run("sparse_correlate", **pointers, **sizes)
        dk = self._empty(self.filters, self.channels, self.taps)
        sizes = {"batch": self.filters, "length": self.taps, "taps": self.taps, "parts": parts // self.filters}
        self._run("sparse_taps", **pointers, **sizes, element=_native.ELEMENTS[dk.dtype], y=Rows.of(dk))
        return dk


def splits(kept: Tensor, n: int) -> list[Split]:
    """All ways to split n for a mask of residues (P,) that keeps something, that with the fewest products first."""
    frequencies = kept.repeat(n // len(kept))
    found = []
    for n1 in range(1, n + 1):
        if n % n1 == 0:
            table = frequencies.view(-1, n1)
            rows, columns = (table.any(axis).nonzero()[:, 0].to(torch.int32) for axis in (0, 1))
            found.append(Split(n1, n // n1, rows, columns))
    return sorted(found, key=lambda split: split.products)


def _read(block_mask: Tensor) -> bytes:
    """Whether each residue is kept; waits for the GPU."""
    return residues(block_mask).cpu().numpy().tobytes()


def _version(block_mask: Tensor) -> int | None:
    """How often a mask was changed in place; None for inference tensors, of which torch does not tell."""
    return None if block_mask.is_inference() else block_mask._version


def _known(block_mask: Tensor) -> bytes:
    """What was read of a mask that is unchanged since, else nothing."""
    version, kept = _masks.get(block_mask, (None, b""))
    return kept if version == _version(block_mask) else b""


def _key(like: Tensor, kept: bytes) -> tuple[bytes, int, int, int]:
    n = spectrum_size(like.shape[-1], len(kept))
    return kept, n, _cuda.arithmetic(like.dtype), like.device.index or 0


def _unpacked(kept: bytes) -> Tensor:
    return torch.frombuffer(bytearray(kept), dtype=torch.bool)


@functools.lru_cache(maxsize=256)
def choose(kept: bytes, n: int, arithmetic: int, device: int) -> tuple[Split, int, int] | str | None:
    """The best split that fits, the numbers of its spectrum and the bytes of its tables, or the reason why none fits.

    None for a mask that keeps nothing.
    """
    mask = _unpacked(kept)
    if not mask.any():
        return None
    one = torch.zeros(1, dtype=torch.int32)
    most = _size(Split(1, 1, one, one), arithmetic, device).most_shared_bytes
    element = 2 if arithmetic == _cuda.HALF else 4
    if n * element > most:
        return f"{n} points of the transform, of {element} bytes each, are beyond the {most} that a block has"
    for split in splits(mask, n):
        size = _size(split, arithmetic, device)
        if size.shared_bytes <= most and size.table_bytes <= MOST_TABLE_BYTES:
            return split, size.spectrum, size.table_bytes
    return (
        f"with what the mask keeps no split of {n} points has both shared memory below the {most} bytes that a block "
        f"has and tables below {MOST_TABLE_BYTES}"
    )


def _size(split: Split, arithmetic: int, device: int) -> Size:
    size = Size()
    call = Call(**_common(split, arithmetic))
    _native.cuda().call("sparse_size", ctypes.byref(call), ctypes.byref(size), device)
    return size


def _common(split: Split, arithmetic: int) -> dict[str, object]:
    return {**split.sizes(), "arithmetic": arithmetic}


def _plan(like: Tensor, block_mask: Tensor) -> _Plan | None:
    """What the transforms for a mask need, None if it keeps nothing; the last are kept, as :data:`CACHE_BYTES` hold."""
    mask, n, arithmetic, device = _key(like, _known(block_mask) or _read(block_mask))
    chosen = choose(mask, n, arithmetic, device)
    if chosen is None:
        return None
    assert isinstance(chosen, tuple), chosen
    split, spectrum, table_bytes = chosen

    def make() -> _Plan:
        kept = torch.cat([split.rows, split.columns]).to(like.device)
        alive = _alive(_unpacked(mask), n, split).to(like.device)
        tables = torch.empty(table_bytes, dtype=torch.uint8, device=like.device)
        pointers = dict(zip(("tables", "kept"), _cuda.pointers(tables, kept), strict=True))
        _cuda.run("sparse_tables", Call(**_common(split, arithmetic), **pointers), like.device)
        return _Plan(split, spectrum, alive, tables)

    return _cuda.kept(_plans, (mask, n, arithmetic, like.device), make, like.device, CACHE_BYTES)


def _alive(kept: Tensor, n: int, split: Split) -> Tensor:
    """Whether each number of a spectrum is kept, in the order of the kernels: 16 x 16 of rows and columns at a time.

    A lane holds the pair of columns 2 (lane % 4) of the row lane / 4, of both halves of 8 columns and of 8 rows.
    """
    table = kept.repeat(n // len(kept)).view(split.n2, split.n1).T[split.rows.long()][:, split.columns.long()]
    table = torch.nn.functional.pad(table, (0, -table.shape[1] % 16, 0, -table.shape[0] % 16))
    parts = table.unflatten(1, (-1, 2, 4, 2)).unflatten(0, (-1, 2, 8))  # stripe, i, row; chunk, half, pair, j
    return parts.permute(0, 3, 4, 1, 2, 5, 6).to(torch.uint8).flatten()
