"""What a result depends on beside the code: processor, versions, commit, and how memory is kept."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

import longconv

WARM = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296", "MALLOC_TOP_PAD_": "67108864"}
"""Tells glibc to keep memory that is freed, so that no side is timed with the page faults of fresh memory."""


def restart_warm() -> None:
    """Start this program again with :data:`WARM`, which glibc reads as a process begins; return if it is so already."""
    if platform.libc_ver()[0] == "glibc" and not WARM.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **WARM})


def describe() -> dict[str, str]:
    """The record that goes with results.

    >>> sorted(describe())
    ['commit', 'cores', 'cpu', 'date', 'instruction set', 'longconv', 'memory', 'python', 'torch']
    """
    info = longconv.info()
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "cores": str(os.cpu_count()),
        "instruction set": str(info.isa),
        "memory": "freed memory is kept (warm)" if WARM.items() <= os.environ.items() else "as glibc does by itself",
        "longconv": info.version,
        "commit": _commit(),
        "torch": torch.__version__,
        "python": info.python,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    """The commit of the checkout, with a + where files have changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
