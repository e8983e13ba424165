"""What a benchmark is: a problem, and the sides that solve it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import Module

Solve = Callable[..., Tensor]
"""A function of the problem's inputs."""

AnyModule = TypeVar("AnyModule", bound=Module)

OURS = "longconv"
"""The side of the library; the others are what users write without it."""

WHOLE = "training step"
"""A side that does much else beside the problem, which is a share of it: no peer, and its result is not looked at."""


@dataclass(frozen=True)
class Work:
    """How large a problem is, and the operations that its usual algorithm takes.

    The least bytes are not stated but counted from the tensors: :func:`bench.measure.least_bytes`.

    Attributes:
        flops: floating-point operations, an addition or a product each, of forward and, where it is timed, backward.
        sequences: rows that are computed together.
        length: positions of one.

    >>> Work(flops=2.0, sequences=8, length=1024).tokens
    8192
    """

    flops: float
    sequences: int
    length: int

    @property
    def tokens(self) -> int:
        """Positions in all."""
        return self.sequences * self.length


@dataclass(frozen=True)
class Problem:
    """One thing to compute, with everything prepared that is not to be timed.

    Attributes:
        inputs: arguments of every side. Floating-point ones have gradients where ``backward``.
        sides: the ways to compute it, :data:`OURS` among them; None where a package is not installed.
        exact: the definition, which is given the inputs in double precision.
        sample: inputs of the same kind for the check of the result, smaller where the whole would take too long.
        backward: whether the gradients of all inputs are computed and timed too.
        tolerance: relative L2 error above which a result is refused instead of timed.
        work: its size; None for what is timed for its overhead, on the same inputs again and again. Other problems are
            timed on copies of their inputs in turn that together are larger than the cache.
        sent: the bytes that this process has sent to others so far, where there are others.
    """

    inputs: tuple[Tensor, ...]
    sides: Mapping[str, Solve | None]
    exact: Solve
    sample: tuple[Tensor, ...] = ()
    backward: bool = False
    tolerance: float = 1e-6
    work: Work | None = None
    sent: Callable[[], int] | None = None

    @property
    def installed(self) -> dict[str, Solve]:
        """The sides that can run here."""
        return {name: solve for name, solve in self.sides.items() if solve is not None}


@dataclass(frozen=True)
class Case:
    """A named problem, made when it is run; a ``device`` is the only one that it runs on.

    >>> Case("sum/3", lambda: Problem((torch.ones(3),), {OURS: torch.sum}, torch.sum)).name
    'sum/3'
    """

    name: str
    make: Callable[[], Problem]
    threads: tuple[int, ...] = field(default=(1, 2))
    device: str | None = None


def placed(make: Callable[[], AnyModule]) -> AnyModule:
    """A module for inference, made on the CPU as its users make it, and moved to the device that is asked for."""
    device = torch.get_default_device()
    with torch.device("cpu"):
        module = make()
    return module.to(device).eval()


def both(name: str, make: Callable[..., Problem], threads: tuple[int, ...] = (1, 2)) -> list[Case]:
    """The two cases of a problem that is made for a value of ``backward``."""
    return [
        Case(f"{name}/{'both' if backward else 'forward'}", functools.partial(make, backward=backward), threads)
        for backward in (False, True)
    ]
