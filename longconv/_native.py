"""The two shared libraries of ``csrc``, loaded with ctypes when first asked for.

A library that is absent or can't be loaded is no error here: :func:`cpu` and :func:`cuda` then return a
:class:`Library` whose ``reason`` says why, which the backends hand on and ``longconv.info()`` prints.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import torch

ABI = 3
"""``LONGCONV_ABI`` of csrc/longconv.h."""

ISA_VARIABLE = "LONGCONV_CPU_ISA"
"""Environment variable that names the CPU instruction set in place of the widest."""

ELEMENTS = {
    torch.float32: 0,
    torch.float64: 1,
    torch.complex64: 2,
    torch.complex128: 3,
    torch.bfloat16: 4,
    torch.float16: 5,
}
"""``LongconvElement`` of csrc/longconv.h."""

ACTIVATIONS = {name: number for number, name in enumerate(("none", "silu", "gelu", "relu", "tanh", "sigmoid"))}
"""``LongconvActivation`` of csrc/longconv.h."""

_I32, _I64, _POINTER, _TEXT = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p, ctypes.c_char_p
_STRIDES = ctypes.POINTER(_I64)
_TRANSPOSE = [_POINTER, _POINTER, *[_I64] * 7, _I32]
_FFT_PASSES = ("fft_spectrum", "fft_filter", "fft_blocks", "fft_correlate", "fft_products", "fft_taps")
_FFT_OUTER = ("fft_columns", "fft_rows", "fft_columns_back")
_SPARSE_PASSES = ("sparse_tables", "sparse_spectrum", "sparse_filter", "sparse_correlate", "sparse_taps")
_OTHERS = ("cauchy", "linear_scan", "short_conv", "short_conv_sums", "vandermonde")
_CUDA_CALLS = (*_FFT_PASSES, *_FFT_OUTER, *_SPARSE_PASSES, *_OTHERS)
_SIGNATURES: dict[str, dict[str, tuple[Sequence[type], type | None]]] = {
    "cpu": {
        "isa_name": ([_I32], _TEXT),
        "isa_check": ([_TEXT], _I32),
        "isa_select": ([_TEXT], _I32),
        "isa": ([], _TEXT),
        "threads": ([_POINTER], None),
        "fft_plan": ([_POINTER, _I64, _I32, _I32, _POINTER], _I32),
        "fft_conv": ([_POINTER, _POINTER], _I32),
        "short_conv": ([_POINTER, _POINTER], _I32),
        "state_space_step": ([*[_POINTER] * 9, *[_I64] * 5, _I32], _I32),
        "transpose": (_TRANSPOSE, _I32),
        "cauchy": ([_POINTER, _POINTER], _I32),
        "vandermonde": ([_POINTER, _POINTER], _I32),
        "dense_taps": ([_POINTER, _POINTER], _I32),
        "linear_scan": ([*[_POINTER] * 4, *[_I64] * 3, *[_STRIDES] * 3, *[_I32] * 3], _I32),
    },
    "cuda": {
        "transpose": ([*_TRANSPOSE, _I32, _POINTER], _I32),
        "fft_longest": ([_POINTER, _I32, _I32], _I32),
        "fft_plan": ([_POINTER, _I64, _I32, _POINTER, _I32, _POINTER], _I32),
        "fft_outer_limits": ([_POINTER, _I32, _I32], _I32),
        "fft_outer_plan": ([_POINTER, _I64, _I64, _I32, _POINTER, _I32, _POINTER], _I32),
        "sparse_size": ([_POINTER, _POINTER, _I32], _I32),
        **{name: ([_POINTER, _I32, _POINTER], _I32) for name in _CUDA_CALLS},
    },
}


class Numbers(ctypes.Structure):
    """``LongconvNumbers`` of csrc/longconv.h."""

    _fields_ = [("data", _POINTER), *[(name, _I64) for name in ("set", "row", "step")], ("element", _I32)]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Numbers:
        """A tensor (sets, rows, steps)."""
        return cls(tensor.data_ptr(), *tensor.stride(), ELEMENTS[tensor.dtype])


@dataclass(frozen=True)
class Library:
    """One shared library: either ``handle`` and ``path``, or the ``reason`` why there is none."""

    name: str
    path: Path | None = None
    handle: ctypes.CDLL | None = None
    reason: str | None = None

    def call(self, function: str, *arguments: object) -> None:
        """Call ``longconv_<name>_<function>`` and raise a RuntimeError unless its status is 0."""
        self.function(function)(*arguments)

    def function(self, function: str) -> Callable[..., None]:
        """``longconv_<name>_<function>``, which raises a RuntimeError unless its status is 0."""
        symbol = self.symbol(function)

        def call(*arguments: object) -> None:
            if status := symbol(*arguments):
                self.fail(function, status)

        return call

    def fail(self, function: str, status: int) -> NoReturn:
        """Raise the RuntimeError of a status that is not 0."""
        raise RuntimeError(f"longconv_{self.name}_{function}: {self.error(status)} (status {status})")

    def lacks(self, function: str) -> str | None:
        """None if the library is loaded and has the function, else the reason why it can't be called."""
        if self.handle is None or hasattr(self.handle, f"longconv_{self.name}_{function}"):
            return self.reason
        return f"{self.path} is older than this version of longconv and has no {function}: install longconv again"

    def error(self, status: int) -> str:
        """The library's words for a status."""
        return str(self.symbol("error")(status).decode())

    def symbol(self, function: str) -> ctypes._NamedFuncPointer:
        """``longconv_<name>_<function>`` as it is, which returns its status."""
        if self.handle is None:
            raise RuntimeError(f"the {self.name} library is not loaded: {self.reason}")
        return getattr(self.handle, f"longconv_{self.name}_{function}")


@functools.cache
def cpu() -> Library:
    """The CPU library, with torch's thread pool and the instruction set of ``LONGCONV_CPU_ISA`` (default: the widest).

    A process that is forked from one that loaded it computes in the calling thread alone.

    Raises:
        ValueError: ``LONGCONV_CPU_ISA`` is unknown or not supported by this processor.
    """
    library = _load("cpu")
    if library.handle is None:
        return library
    library.handle.longconv_cpu_threads(torch_parallel_for())
    if hasattr(os, "register_at_fork"):  # torch's threads are not there in a child, whose calls would wait for them
        os.register_at_fork(after_in_child=functools.partial(library.handle.longconv_cpu_threads, None))
    wanted = os.environ.get(ISA_VARIABLE)
    if wanted:
        select_isa(library, wanted)
    elif library.handle.longconv_cpu_isa_select(None):
        return Library("cpu", reason=f"this processor has none of {', '.join(_isa_names(library))}")
    return library


@functools.cache
def cuda() -> Library:
    """The CUDA library; it loads without a driver, so a loaded library says nothing on whether a GPU is there."""
    return _load("cuda")


def cuda_reason() -> str | None:
    """None if the CUDA library is loaded and torch can use a GPU, else the reason why not."""
    if reason := cuda().reason:
        return reason
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return None if torch.cuda.is_available() else "torch sees no GPU"


def isas(library: Library) -> dict[str, bool]:
    """The instruction sets compiled into the CPU library, widest first, and whether this processor has each."""
    if library.handle is None:
        return {}
    return {name: library.handle.longconv_cpu_isa_check(name.encode()) == 0 for name in _isa_names(library)}


def chosen_isa(library: Library) -> str | None:
    """The instruction set in use."""
    name = library.handle.longconv_cpu_isa() if library.handle is not None else None
    return name.decode() if name else None


def select_isa(library: Library, name: str) -> None:
    """Use the instruction set ``name`` from now on; for tests and measurements.

    Raises:
        ValueError: it is unknown, or this processor lacks it.
    """
    global selections
    assert library.handle is not None
    selections += 1
    if status := library.handle.longconv_cpu_isa_select(name.encode()):
        fit = ", ".join(isa for isa, supported in isas(library).items() if supported)
        raise ValueError(f"{ISA_VARIABLE} is {name!r}: {library.error(status)}; expected one of {fit}")


selections = 0
"""How often an instruction set was selected by name: what was prepared for another one is of no use."""


@functools.cache
def torch_parallel_for() -> int | None:
    """Address of torch's thread pool; None where it isn't found, and the CPU library runs in the calling thread."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        path = Path(torch.__file__).parent / "lib" / name
        if path.exists():
            function = getattr(ctypes.CDLL(str(path)), "torch_parallel_for", None)
            return ctypes.cast(function, _POINTER).value if function is not None else None
    return None


def _isa_names(library: Library) -> Sequence[str]:
    assert library.handle is not None
    names: list[str] = []
    while name := library.handle.longconv_cpu_isa_name(len(names)):
        names.append(name.decode())
    return names


def load_file(name: str, path: Path) -> Library:
    """The library of that name in a file, or the reason why it can't be used."""
    try:
        handle = ctypes.CDLL(str(path))
        abi = int(getattr(handle, f"longconv_{name}_abi")())
    except (OSError, AttributeError) as error:
        return Library(name, reason=f"{path}: {error}")
    if abi != ABI:
        reason = f"{path} has interface {abi}, this version of longconv needs {ABI}: install longconv again"
        return Library(name, reason=reason)
    getattr(handle, f"longconv_{name}_error").restype = _TEXT
    for function, (arguments, result) in _SIGNATURES[name].items():
        if symbol := getattr(handle, f"longconv_{name}_{function}", None):  # an older library may lack new ones
            symbol.argtypes, symbol.restype = arguments, result
    return Library(name, path, handle)


def _load(name: str) -> Library:
    reasons = []
    for path in _candidates(name):
        library = load_file(name, path)
        if library.reason is None:
            return library
        reasons.append(library.reason)
    if reasons:
        return Library(name, reason="; ".join(reasons))
    if name == "cuda" and next(_candidates("cpu"), None):
        return Library(name, reason="not built: no CUDA compiler >= 12.0, or LONGCONV_CUDA=OFF, at installation")
    return Library(name, reason="not built: this is a plain checkout, or the build left it out; run 'pip install .'")


def _candidates(name: str) -> Iterator[Path]:
    """The library's files, in a normal install, an editable one, or a checkout beside an install, in this order."""
    file_names = [f"{prefix}longconv_{name}{suffix}" for prefix in ("lib", "") for suffix in (".so", ".dylib", ".dll")]
    folders = [Path(folder) / "lib" for folder in sys.modules[__package__].__path__]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        folders.append(Path(str(importlib.metadata.distribution("longconv").locate_file("longconv/lib"))))
    for folder in dict.fromkeys(folders):
        for file_name in file_names:
            if (folder / file_name).exists():
                yield folder / file_name
