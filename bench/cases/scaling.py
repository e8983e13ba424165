"""How the cost of a convolution grows with its length, batch and channels, one at a time, and on more threads."""

from __future__ import annotations

import functools
import os

from bench.case import Case
from bench.cases.fft_conv import problem

BASE = {"B": 2, "H": 64, "L": 4096}
SERIES = {"L": [1 << n for n in range(8, 21, 2)], "B": [1, 4, 16, 64], "H": [16, 128, 512]}


def cases() -> list[Case]:
    """A series for each number; the one of lengths on every count of threads up to all cores."""
    cores = os.cpu_count() or 1
    counts = tuple(sorted({1 << n for n in range(cores.bit_length()) if 1 << n <= cores} | {cores}))
    found = []
    for name, values in SERIES.items():
        for value in values:
            shape = BASE | {name: value}
            make = functools.partial(problem, shape["B"], shape["H"], shape["L"], backward=True)
            found.append(
                Case(f"scaling-{name}/{'x'.join(map(str, shape.values()))}/both", make, counts if name == "L" else (1,))
            )
    return found
