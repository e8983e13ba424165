"""The structures of csrc/longconv.h that the backend ``cuda`` of ``fft_conv`` hands over."""

from __future__ import annotations

import ctypes
from typing import Any

from torch import Tensor

_I32, _I64, _POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class Rows(ctypes.Structure):
    """``LongconvRows``."""

    _fields_ = [("data", _POINTER), ("batch", _I64), ("channel", _I64)]

    @classmethod
    def of(cls, tensor: Tensor | None) -> Rows:
        """A tensor (B, H, n), or (1, H, n) for all samples."""
        if tensor is None:
            return cls(None, 0, 0)
        return cls(tensor.data_ptr(), tensor.stride(0) if tensor.shape[0] > 1 else 0, tensor.stride(1))


class Tiles(ctypes.Structure):
    """``LongconvCudaTiles``."""

    _fields_ = [*((name, _I64) for name in ("points", "tiles", "step", "before")), ("around", _I32)]


def _fields(**kinds: str) -> list[tuple[str, Any]]:
    types = {"pointers": _POINTER, "sizes": _I64, "tiles": Tiles, "switches": _I32, "rows": Rows}
    return [(name, types[kind]) for kind, names in kinds.items() for name in names.split()]


class Size(ctypes.Structure):
    """``LongconvCudaFftSize``."""

    _fields_ = _fields(sizes="points table_bytes")


class Limits(ctypes.Structure):
    """``LongconvCudaOuterLimits``."""

    _fields_ = _fields(sizes="rows columns")


class Columns(ctypes.Structure):
    """``LongconvCudaColumns``."""

    _fields_ = _fields(
        pointers="tables work peaks skip lengths",
        sizes="batch channels rows columns period taps reverse_taps",
        switches="arithmetic circular alone half element reverse_element",
        rows="k k_gate k_reverse",
    )


class InnerRows(ctypes.Structure):
    """``LongconvCudaInner``."""

    _fields_ = _fields(
        pointers="tables work peaks new_peaks spectrum spectrum_peaks",
        sizes="batch channels rows columns",
        switches="arithmetic half per_sample conjugate forward inverse",
    )


class ColumnsBack(ctypes.Structure):
    """``LongconvCudaColumnsBack``."""

    _fields_ = _fields(
        pointers="tables work peaks lengths",
        sizes="batch channels length rows columns first",
        switches="arithmetic half element imaginary",
        rows="y y_gate z z_gate",
    )


class Spectrum(ctypes.Structure):
    """``LongconvCudaSpectrum``."""

    _fields_ = _fields(
        pointers="tables spectrum norms skip lengths",
        sizes="batch channels length period first blocks taps reverse_taps",
        switches="arithmetic circular alone element reverse_element",
        rows="k k_gate k_reverse",
    )


class Filter(ctypes.Structure):
    """``LongconvCudaFilter``."""

    _fields_ = _fields(
        pointers="tables spectrum norms lengths",
        sizes="batch channels length",
        tiles="tiles",
        switches="arithmetic element per_sample conjugate",
        rows="x x_gate y y_gate z z_gate",
    )


class Blocks(ctypes.Structure):
    """``LongconvCudaBlocks``."""

    _fields_ = _fields(
        pointers="tables spectra filters norms filter_norms lengths",
        sizes="batch channels length points blocks first filter_blocks",
        switches="arithmetic element per_sample conjugate",
        rows="y y_gate z z_gate",
    )


class Correlation(ctypes.Structure):
    """``LongconvCudaCorrelation``."""

    _fields_ = _fields(
        pointers="tables products scratch lengths",
        sizes="batch channels length parts",
        tiles="tiles",
        switches="arithmetic element",
        rows="x x_gate g g_gate",
    )


class Products(ctypes.Structure):
    """``LongconvCudaProducts``."""

    _fields_ = _fields(pointers="x g products", sizes="batch channels points blocks first filter_blocks parts")


class Taps(ctypes.Structure):
    """``LongconvCudaTaps``."""

    _fields_ = [
        *_fields(
            pointers="tables products",
            sizes="batch channels length first filter_blocks parts taps back_taps",
            switches="arithmetic",
        ),
        ("scale", ctypes.c_float),
        *_fields(rows="dk dback"),
    ]
