"""The transform of ``long_conv`` that is trained: fixed, beside the convolution that it starts as, and trained."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor
from torch.func import functional_call

import longconv
from bench.case import OURS, Case, Problem, Solve, Work, both, placed
from bench.cases.fft_conv import padded
from longconv.mixers.butterfly import ButterflyConvolution

BATCH, CHANNELS, LENGTHS = 8, 256, (1024, 4096)


def problem(length: int, trained: bool, backward: bool) -> Problem:
    """With the gradients of the matrices where they are trained."""
    module = placed(lambda: ButterflyConvolution(length))
    names, matrices = zip(*((name, p.detach()) for name, p in module.named_parameters()), strict=True)

    def solve(of: ButterflyConvolution, x: Tensor, k: Tensor, *values: Tensor) -> Tensor:
        constants = values or tuple(p.detach() for p in of.parameters())
        return functional_call(of, dict(zip(names, constants, strict=True)), (x, k))

    inputs: tuple[Tensor, ...] = (torch.randn(BATCH, CHANNELS, length), torch.randn(CHANNELS, length))
    sides: dict[str, Solve | None] = {OURS: functools.partial(solve, module)}
    if trained:
        inputs = (*inputs, *matrices)
    else:
        sides |= {"fft_conv": longconv.fft_conv, "torch fft": padded}
    exact: Solve = functools.partial(solve, copy.deepcopy(module).double()) if trained else padded
    sample = (inputs[0][:1, :8], inputs[1][:8], *inputs[2:])
    n1, n2 = module.analysis_twiddles.shape[:2]
    transform = length * (4 * n1 + 8 * n2 + 8)  # of real numbers to complex ones, by matrices
    operations = transform * (2 * BATCH + 1) * CHANNELS + 6 * BATCH * CHANNELS * length
    work = Work(operations * (2 if backward else 1), BATCH * CHANNELS, length)
    return Problem(inputs, sides, exact, sample, backward, work=work)


def cases() -> list[Case]:
    """By length, without and with the gradients of the matrices."""
    found = []
    for length in LENGTHS:
        size = f"{BATCH}x{CHANNELS}x{length}"
        found += both(f"butterfly_conv/{size}", functools.partial(problem, length, False))
        trained = functools.partial(problem, length, True, True)
        found.append(Case(f"butterfly_conv_trained/{size}/both", trained))
    return found
