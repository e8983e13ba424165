"""What a call costs that has next to nothing to compute: a hundred calls on 16 numbers."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

import longconv
from bench.case import OURS, Case, Problem, Solve
from longconv.ops import cauchy, linear_scan, short_conv, vandermonde

CALLS = 100


def problem(solve: Solve, inputs: tuple[Tensor, ...], recording: bool) -> Problem:
    """Hundred calls, with gradients recorded or not, and none computed."""

    def hundred(*tensors: Tensor) -> Tensor:
        with torch.set_grad_enabled(recording):
            tensors = tuple(t.detach().requires_grad_(recording) for t in tensors)
            for _ in range(CALLS):
                y = solve(*tensors)
        return y.detach()

    return Problem(inputs, {OURS: hundred}, solve)


def cases() -> list[Case]:
    """Every op that streaming and short sequences call often."""
    modes = torch.complex(-torch.rand(1, 4), torch.randn(1, 4))
    calls: dict[str, tuple[Solve, tuple[Tensor, ...]]] = {
        "fft_conv": (longconv.fft_conv, (torch.randn(1, 1, 16), torch.randn(1, 16))),
        "short_conv": (short_conv, (torch.randn(1, 1, 16), torch.randn(1, 4))),
        "linear_scan": (linear_scan, (torch.rand(1, 16, 1), torch.randn(1, 16, 1))),
        "vandermonde": (lambda v, x: vandermonde(v, x, 16), (torch.randn(1, 4, dtype=torch.complex64), modes.exp())),
        "cauchy": (cauchy, (torch.randn(1, 4, dtype=torch.complex64), torch.linspace(1, 2, 16), modes)),
    }
    return [
        Case(
            f"calls/{name}/{'recording' if recording else 'plain'}x{CALLS}",
            functools.partial(problem, solve, inputs, recording),
            threads=(1,),
        )
        for name, (solve, inputs) in calls.items()
        for recording in (False, True)
    ]
