"""Every mixer, forward, with gradients, a prompt and a step, at a small language model's sizes; and whole models."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import longconv
from bench.case import OURS, Case, Problem, Work, both
from bench.cases import fft_conv
from longconv.mixers import Mixer, mixer_options
from longconv.models import SequenceClassifier

BATCH, LENGTH, D_MODEL = 8, 1024, 256
TOLERANCE = 1e-4
"""A mixer's float32 parameters make filters by exponentials of long times."""


def mixer(name: str, d_model: int = D_MODEL) -> Mixer:
    """A mixer with its default options, causal."""
    options = {"l_max": LENGTH} if "l_max" in mixer_options(name) else {}
    return longconv.create_mixer(name, d_model, **options).eval()


def wide(module: nn.Module) -> nn.Module:
    """A copy in double precision, its complex parameters too."""
    module = copy.deepcopy(module)
    return module.to(torch.float64)


def model(name: str) -> nn.Module:
    """A classifier of four layers."""
    options: dict[str, Any] = {"l_max": LENGTH} if "l_max" in mixer_options(name) else {}
    return SequenceClassifier(10, d_input=D_MODEL, d_model=D_MODEL, mixer=name, mixer_options=options).eval()


def forward_problem(make: Callable[[str], nn.Module], name: str, backward: bool) -> Problem:
    """The module on (B, L, D), with the gradients of its parameters as well."""
    module = make(name)
    names, parameters = zip(*module.named_parameters(), strict=True)
    double = wide(module)

    def solve(of: nn.Module, u: Tensor, *values: Tensor) -> Tensor:
        return functional_call(of, dict(zip(names, values, strict=True)), (u,))

    inputs = (torch.randn(BATCH, LENGTH, D_MODEL), *(p.detach() for p in parameters))
    sample = (torch.randn(2, LENGTH, D_MODEL), *(p.detach() for p in parameters))
    flops = _matrix_flops(lambda: module(inputs[0])) * (3 if backward else 1)
    layers = sum(isinstance(part, Mixer) for part in module.modules())
    flops += layers * fft_conv.flops(BATCH, D_MODEL, LENGTH, backward)
    return Problem(
        inputs,
        {OURS: functools.partial(solve, module)},
        functools.partial(solve, double),
        sample,
        backward,
        TOLERANCE,
        Work(flops, BATCH, LENGTH),
    )


def prefill_problem(name: str) -> Problem:
    """A prompt from the beginning."""
    module = mixer(name)
    double: Any = wide(module)
    u = torch.randn(BATCH, LENGTH, D_MODEL)
    flops = _matrix_flops(lambda: module(u)) + fft_conv.flops(BATCH, D_MODEL, LENGTH, False)
    sides = {OURS: lambda u: module.prefill(u)[0]}
    return Problem((u,), sides, lambda u: double.prefill(u)[0], (u[:2],), False, TOLERANCE, Work(flops, BATCH, LENGTH))


def step_problem(name: str) -> Problem:
    """The step after a prompt of 16 samples, again and again from the same state."""
    module = mixer(name)
    double: Any = wide(module)
    prompt = torch.randn(BATCH, 16, D_MODEL)
    with torch.no_grad():
        _, state = module.prefill(prompt)
        _, state_double = double.prefill(prompt.double())
    step: Callable[[Tensor], Tensor] = lambda u: module.step(u, state)[0]  # noqa: E731
    exact: Callable[[Tensor], Tensor] = lambda u: double.step(u, state_double)[0]  # noqa: E731
    return Problem((torch.randn(BATCH, D_MODEL),), {OURS: step}, exact, (), False, TOLERANCE)


def _matrix_flops(call: Callable[[], Tensor]) -> float:
    """Operations of the matrix products of a call, as torch counts them."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def cases() -> list[Case]:
    """Forward, forward with gradients, prompt and step of every mixer."""
    found = []
    for name in longconv.list_mixers(video=False):
        found += both(f"mixers/{name}", functools.partial(forward_problem, mixer, name))
        found.append(Case(f"mixers/{name}/prefill", functools.partial(prefill_problem, name)))
        found.append(Case(f"mixers/{name}/step", functools.partial(step_problem, name)))
    for name in ("s4d", "hyena"):
        found += both(f"models/{name}", functools.partial(forward_problem, model, name))
    return found
