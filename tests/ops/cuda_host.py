"""The kernels of csrc/cuda as a library that runs them on the host: the fixture ``cuda_on_host``.

It is compiled once a run, by the C++ compiler of this machine, from the sources that a GPU gets.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from longconv import _native
from longconv.ops import _cuda
from longconv.ops.fft_conv import cuda_plan
from longconv.ops.sparse_fft_conv import cuda as sparse_cuda

CSRC = Path(__file__).parents[2] / "csrc"
_FFT = "fft_plan fft_filter fft_gradient fft_blocks fft_outer sparse_plan sparse_fft"
_KERNELS = f"{_FFT} linear_scan short_conv transpose vandermonde cauchy"
NAMES = ["host.cpp", *(f"{name}.cu" for name in _KERNELS.split())]
SOURCES = [CSRC / "cuda" / name for name in NAMES]
H100_SHARED = 232448
COMPILER = os.environ.get("CXX", "c++")


def build(folder: Path) -> Path:
    """The library in a folder that the processes of a run share."""
    path = folder / "liblongconv_cuda_host.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            new = path.with_suffix(".new")
            flags = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{CSRC}"]
            flags += os.environ.get("LONGCONV_HOST_FLAGS", "").split()
            alone = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
            subprocess.run([COMPILER, *flags, "-x", "c++", *map(str, SOURCES), "-o", str(new)], check=True, env=alone)
            new.rename(path)
    return path


@pytest.fixture(scope="session")
def host_library(tmp_path_factory: pytest.TempPathFactory) -> _native.Library:
    given = os.environ.get("LONGCONV_CUDA_HOST")  # one that is built already
    if given is None and shutil.which(COMPILER) is None:
        pytest.skip(f"no C++ compiler {COMPILER!r}")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    library = _native.load_file("cuda", Path(given) if given else build(shared))
    assert library.reason is None, library.reason
    return library


@contextlib.contextmanager
def counted_reads(
    library: _native.Library, function: str, field: str, size: Callable[[Any], int]
) -> Iterator[list[int]]:
    """For every call of a function how often its kernels have read one of the floats, ``size(call)``, in a field."""
    assert library.handle is not None
    watch = library.handle.longconv_cuda_watch
    watch.restype, watch.argtypes = ctypes.c_int64, [ctypes.c_void_p, ctypes.c_int64]
    run, counts = _cuda.run, list[int]()

    def counting(name: str, call: ctypes.Structure, device: torch.device) -> None:
        if name == function:
            watch(getattr(call, field), 4 * size(call))
        run(name, call, device)
        if name == function:
            counts.append(watch(None, 0))

    with mock.patch.object(_cuda, "run", counting):
        yield counts


@contextlib.contextmanager
def shared_memory(library: _native.Library, most: int) -> Iterator[None]:
    """Blocks have so many bytes of it, and what is known of the device is forgotten."""
    assert library.handle is not None
    _forget_device()
    library.handle.longconv_cuda_set_most_shared(most)
    yield
    library.handle.longconv_cuda_set_most_shared(H100_SHARED)
    _forget_device()


def _forget_device() -> None:
    for of_device in (cuda_plan.longest, cuda_plan.limits, cuda_plan.choose, sparse_cuda.choose):
        of_device.cache_clear()


@pytest.fixture
def cuda_on_host(host_library: _native.Library, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The backends ``cuda`` serve tensors of the CPU, by host execution."""
    monkeypatch.setattr(_native, "cuda", lambda: host_library)
    monkeypatch.setattr(_native, "cuda_reason", lambda: None)
    monkeypatch.setattr(_cuda, "refusal", lambda name, tensor: None)
    monkeypatch.setattr(_cuda, "queue", lambda device: (0, None))
    monkeypatch.setattr(cuda_plan, "_plans", {})
    monkeypatch.setattr(sparse_cuda, "_plans", {})
    _forget_device()
    yield
    _forget_device()
