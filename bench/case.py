"""What a benchmark is: a problem, and the sides that solve it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

Solve = Callable[..., Tensor]
"""A function of the problem's inputs."""

OURS = "longconv"
"""The side of the library; the others are what users write without it."""


@dataclass(frozen=True)
class Problem:
    """One thing to compute, with everything prepared that is not to be timed.

    Attributes:
        inputs: arguments of every side. Floating-point ones have gradients where ``backward``.
        sides: the ways to compute it, :data:`OURS` among them.
        exact: the definition, which is given the inputs in double precision.
        sample: inputs of the same kind for the check of the result, smaller where the whole would take too long.
        backward: whether the gradients of all inputs are computed and timed too.
        tolerance: relative L2 error above which a result is refused instead of timed.
        ceiling: what no side can beat, such as a copy of the bytes that all have to move; timed with them.
    """

    inputs: tuple[Tensor, ...]
    sides: Mapping[str, Solve]
    exact: Solve
    sample: tuple[Tensor, ...] = ()
    backward: bool = False
    tolerance: float = 1e-6
    ceiling: Solve | None = None


@dataclass(frozen=True)
class Case:
    """A named problem, made when it is run.

    >>> Case("sum/3", lambda: Problem((torch.ones(3),), {OURS: torch.sum}, torch.sum)).name
    'sum/3'
    """

    name: str
    make: Callable[[], Problem]
    threads: tuple[int, ...] = field(default=(1, 2))


def both(name: str, make: Callable[..., Problem], threads: tuple[int, ...] = (1, 2)) -> list[Case]:
    """The two cases of a problem that is made for a value of ``backward``."""
    return [
        Case(f"{name}/{'both' if backward else 'forward'}", functools.partial(make, backward=backward), threads)
        for backward in (False, True)
    ]
