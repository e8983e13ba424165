"""How the cost grows with length, batch, channels and modes, one at a time, and on more threads."""

from __future__ import annotations

import functools
import os

from bench.case import Case
from bench.cases.fft_conv import problem
from bench.cases.state_space import vandermonde_problem

BASE = {"B": 2, "H": 64, "L": 4096}
SERIES = {"L": [1 << n for n in range(8, 23, 2)], "B": [1, 4, 16, 64], "H": [16, 64, 256, 512]}
"""Of convolutions; one number leaves the base."""
MODES = (4, 16, 64, 256)
"""N of the filter of a diagonal state space."""


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4, ... and all.

    >>> thread_counts(6)
    (1, 2, 4, 6)
    """
    return tuple(sorted({1 << n for n in range(cores.bit_length()) if 1 << n <= cores} | {cores}))


def cases() -> list[Case]:
    """A series for each number; the one of lengths on every count of threads up to all cores."""
    counts = thread_counts(os.cpu_count() or 1)
    found = []
    for name, values in SERIES.items():
        for value in values:
            shape = BASE | {name: value}
            make = functools.partial(problem, shape["B"], shape["H"], shape["L"], backward=True)
            found.append(
                Case(f"scaling-{name}/{'x'.join(map(str, shape.values()))}/both", make, counts if name == "L" else (1,))
            )
    for modes in MODES:
        make = functools.partial(vandermonde_problem, BASE["L"], backward=True, channels=BASE["H"], modes=modes)
        found.append(Case(f"scaling-N/{BASE['H']}x{modes}x{BASE['L']}/both", make, (1,)))
    return found
