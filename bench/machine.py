"""What a result depends on beside the code: processor, versions, commit, and how memory is kept."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import longconv

WARM = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "67108864"}
"""Tells glibc to keep memory that is freed, so that no side is timed with the page faults of fresh memory."""


def restart_warm() -> None:
    """Start this program again with :data:`WARM`, which glibc reads as a process begins; return if it is so already."""
    if platform.libc_ver()[0] == "glibc" and not WARM.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **WARM})


@dataclass(frozen=True)
class Ceilings:
    """What the machine reaches: bytes a second that a copy reads and writes, operations a matrix product makes."""

    bytes_per_second: float
    flops_per_second: float

    def floor(self, flops: float, least_bytes: float) -> float:
        """Seconds below which no way of computing comes that takes so many operations and bytes.

        >>> Ceilings(bytes_per_second=10.0, flops_per_second=100.0).floor(flops=50.0, least_bytes=20.0)
        2.0
        """
        return max(flops / self.flops_per_second, least_bytes / self.bytes_per_second)


def ceilings(device: torch.device, rounds: int = 5) -> Ceilings:
    """Copy a tensor that no cache holds, and multiply float32 matrices, on the threads that torch has; medians."""
    large = device.type == "cuda"
    a, b = (torch.randn(4096 if large else 1024, 4096 if large else 1024, device=device) for _ in range(2))
    source = torch.zeros((1 << 30 if large else 1 << 26) // 4, device=device)
    target = torch.zeros_like(source)
    copied = _median(lambda: target.copy_(source), device, rounds)
    multiplied = _median(lambda: a @ b, device, rounds)
    return Ceilings(2 * source.nbytes / copied, 2 * a.shape[0] ** 3 / multiplied)


def cache_bytes() -> int:
    """Bytes of the last level of the processor's cache; 32 MB where the system does not say."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
    except OSError:
        return 32 << 20
    return int(text.removesuffix("K")) << 10


def describe() -> dict[str, str]:
    """The record that goes with results.

    >>> sorted(describe())
    ['commit', 'cores', 'cpu', 'date', 'gpu', 'instruction set', 'longconv', 'memory', 'python', 'torch']
    """
    info = longconv.info()
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "gpu": ", ".join(info.gpus) or "none",
        "instruction set": str(info.isa),
        "memory": "freed memory is kept (warm)" if WARM.items() <= os.environ.items() else "as glibc does by itself",
        "longconv": info.version,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": info.python,
    }


def _median(call: Callable[[], object], device: torch.device, rounds: int) -> float:
    """Median seconds of a call, after one that warms up."""
    found = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The commit of the checkout, with a + where files other than results have changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        code = [":(top)", ":(top,exclude)bench/results"]
        changed = subprocess.run([*git, "status", "--porcelain", *code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
