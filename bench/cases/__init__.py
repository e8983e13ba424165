"""All cases by name; a group is what stands before the first slash."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from bench.case import Case
from bench.cases import (
    butterfly,
    calls,
    distributed,
    drawing,
    fft_conv,
    gpu,
    loaders,
    mixers,
    scaling,
    scan,
    short_conv,
    sparse,
    state_space,
    transpose,
)

MODULES = (
    fft_conv,
    gpu,
    sparse,
    short_conv,
    state_space,
    scan,
    transpose,
    butterfly,
    calls,
    mixers,
    loaders,
    drawing,
    scaling,
    distributed,
)
CASES: dict[str, Case] = {case.name: case for module in MODULES for case in module.cases()}


NOT_QUICK = {"mixers": ("forward", "both"), "models": ("forward", "both", "train"), "drawing": ("100",)}
"""Parts of their other cases: of a training step, and of the one that convolutions are set beside; and a long one."""


def quick() -> list[Case]:
    """The first case of every group, forward and with gradients, of modules a training step: less than a minute.

    >>> [case.name for case in quick()][:2]
    ['fft_conv/8x256x256/forward', 'fft_conv/8x256x256/both']
    """
    found: dict[tuple[str, str], Case] = {}
    for name, case in CASES.items():
        group, what = name.split("/")[0], name.split("/")[-1]
        if what not in NOT_QUICK.get(group, ()):
            found.setdefault((group, what), case)
    return list(found.values())


def select(patterns: Iterable[str]) -> list[Case]:
    """The cases that a pattern names: a name, a group, or a shell pattern; without patterns, all of them.

    >>> [case.name for case in select(["fft_conv/8x256x1024/*"])]
    ['fft_conv/8x256x1024/forward', 'fft_conv/8x256x1024/both']

    Raises:
        ValueError: a pattern fits nothing.
    """
    found: dict[str, Case] = {}
    patterns = list(patterns) or ["*"]
    for pattern in patterns:
        named = {name: case for name, case in CASES.items() if fits(name, [pattern])}
        if not named:
            groups = sorted({name.split("/")[0] for name in CASES})
            raise ValueError(
                f"no case fits {pattern!r}; the groups are {', '.join(groups)} (see: python -m bench list)"
            )
        found |= named
    return list(found.values())


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns names a case; without patterns, true.

    >>> fits("fft_conv/8x256x1024/both", ["fft_conv"]), fits("fft_conv/8x256x1024/both", ["*/forward"])
    (True, False)
    """
    return not patterns or any(fnmatch.fnmatchcase(name, p) or name.startswith(f"{p}/") for p in patterns)
