"""What a call costs that has next to nothing to compute: a hundred calls on 16 numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Case, Problem, Solve
from longconv.ops import cauchy, linear_scan, short_conv, state_space_step, transpose, vandermonde

CALLS = 100


def problem(name: str, recording: bool) -> Problem:
    """Hundred calls, with gradients recorded or not, and none computed."""
    solve, inputs = OPS[name][0], OPS[name][1]()

    def hundred(*tensors: Tensor) -> Tensor:
        with torch.set_grad_enabled(recording):
            tensors = tuple(t.detach().requires_grad_(recording) for t in tensors)
            for _ in range(CALLS):
                y = solve(*tensors)
        return y.detach()

    return Problem(inputs, {OURS: hundred}, solve)


def modes() -> Tensor:
    """Four that decay."""
    return torch.complex(-torch.rand(1, 4), torch.randn(1, 4))


def numbers(*shape: int) -> Tensor:
    """Complex ones."""
    return torch.randn(*shape, dtype=torch.complex64)


def wide(*shape: int) -> Tensor:
    """In double precision, below 1."""
    return torch.randn(*shape, dtype=torch.complex128) / 8


OPS: dict[str, tuple[Solve, Callable[[], tuple[Tensor, ...]]]] = {
    "fft_conv": (longconv.fft_conv, lambda: (torch.randn(1, 1, 16), torch.randn(1, 16))),
    "short_conv": (short_conv, lambda: (torch.randn(1, 1, 16), torch.randn(1, 4))),
    "linear_scan": (linear_scan, lambda: (torch.rand(1, 16, 1), torch.randn(1, 16, 1))),
    "vandermonde": (lambda v, x: vandermonde(v, x, 16), lambda: (numbers(1, 4), modes().exp())),
    "cauchy": (cauchy, lambda: (numbers(1, 4), torch.linspace(1, 2, 16), modes())),
    "transpose": (transpose, lambda: (torch.randn(1, 4, 4),)),
    "state_space_step": (
        lambda x, u, A, B, C: state_space_step(x, u, A, B, C)[1],
        lambda: (numbers(1, 1, 4), torch.randn(1, 1), wide(1, 4), wide(1, 4), wide(1, 1, 4)),
    ),
}


def cases() -> list[Case]:
    """Every op that streaming and short sequences call often."""
    return [
        Case(
            f"calls/{name}/{'recording' if recording else 'plain'}x{CALLS}",
            functools.partial(problem, name, recording),
            threads=(1,),
        )
        for name in OPS
        for recording in (False, True)
    ]
