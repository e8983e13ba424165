"""Every mixer at the sizes of a small language model, or of a short video: training, prompt and step; whole models."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

import longconv
from bench.case import OURS, WHOLE, Case, Problem, Solve, Work, both, placed
from bench.cases import fft_conv
from longconv.mixers import Mixer, mixer_options
from longconv.models import SequenceClassifier

TOLERANCE = 1e-4
"""A mixer's float32 parameters make filters by exponentials of long times."""
LAYERS = 4
CONVOLUTIONS = {"s4d": "causal", "hyena": "gated"}
"""The models, and the kind of the one convolution that each layer has."""


@dataclass(frozen=True)
class Size:
    """Of an input (B, L, D, *frame)."""

    batch: int
    length: int
    d_model: int
    frame: tuple[int, ...] = ()

    def input(self, batch: int | None = None, length: int | None = None) -> Tensor:
        """A random one."""
        return torch.randn(batch or self.batch, length or self.length, self.d_model, *self.frame)


SEQUENCE, VIDEO = Size(8, 1024, 256), Size(2, 16, 32, (16, 16))
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {"multi_hyena": ("hyena", {"heads": 64, "outer_product": True})}
"""Mixers with other options than their own, by a name of their own."""


def size_of(name: str) -> Size:
    """What a mixer is given."""
    return SEQUENCE if name in VARIANTS or name in longconv.list_mixers(video=False) else VIDEO


def options_of(name: str) -> dict[str, Any]:
    """The length of the filters, where a mixer has a longest one, and what a variant has."""
    base, options = VARIANTS.get(name, (name, {}))
    return {**options, **({"l_max": size_of(name).length} if "l_max" in mixer_options(base) else {})}


def mixer(name: str) -> nn.Module:
    """With its default options, or those of a variant, causal."""
    base, _ = VARIANTS.get(name, (name, {}))
    return placed(lambda: longconv.create_mixer(base, size_of(name).d_model, **options_of(name)))


def model(name: str) -> nn.Module:
    """A classifier."""
    width = SEQUENCE.d_model
    options: dict[str, Any] = {"mixer": name, "mixer_options": options_of(name), "n_layers": LAYERS}
    return placed(lambda: SequenceClassifier(10, d_input=width, d_model=width, **options))


class Composed(nn.Module):
    """A Hyena of order 2 by one operator of the library after the other, each of all projections."""

    def __init__(self, hyena: nn.Module) -> None:
        super().__init__()
        self.hyena: Any = hyena

    def forward(self, u: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        hyena = self.hyena
        p = longconv.ops.transpose(hyena.input(u))
        x_0, x_1, v = longconv.ops.short_conv(p, hyena.short_weight, hyena.short_bias).chunk(3, 1)
        k = hyena.filter(u.shape[1])[0]
        y = longconv.fft_conv(v, k, skip=hyena.D[0], pre_gate=x_1, post_gate=x_0)
        mixed: Tensor = hyena.output(longconv.ops.transpose(y))
        return mixed


def wide(module: nn.Module) -> nn.Module:
    """A copy in double precision, its complex parameters too."""
    return copy.deepcopy(module).to(torch.float64)


def forward_problem(make: Callable[[str], nn.Module], name: str, backward: bool) -> Problem:
    """The module on (B, L, D), with the gradients of its parameters as well."""
    module, size = make(name), size_of(name)
    values = tuple(p.detach() for p in module.parameters())

    def solve(of: nn.Module, u: Tensor, *values: Tensor) -> Tensor:
        names = (name for name, _ in of.named_parameters())
        y: Tensor = functional_call(of, dict(zip(names, values, strict=True)), (u,))
        return y

    inputs, sample = (size.input(), *values), (size.input(2), *values)
    sides: dict[str, Solve | None] = {OURS: functools.partial(solve, module)}
    if make is mixer and name == "hyena":
        sides["operators"] = functools.partial(solve, Composed(module))
    exact = functools.partial(solve, wide(module))
    return Problem(inputs, sides, exact, sample, backward, TOLERANCE, _work(module, size, backward))


def train_problem(make: Callable[[str], nn.Module], name: str) -> Problem:
    """A training step: forward, backward, and AdamW on the parameters, which move as they would in training."""
    module, size = make(name), size_of(name)
    double = wide(module)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)

    def gradients(of: nn.Module, u: Tensor) -> Tensor:
        of.zero_grad()
        with torch.enable_grad():
            of(u).square().mean().backward()
        grads = [p.grad for p in of.parameters() if p.grad is not None]
        return torch.cat([torch.view_as_real(g).flatten() if g.is_complex() else g.flatten() for g in grads])

    def step(u: Tensor) -> Tensor:
        found = gradients(module, u)
        optimizer.step()
        return found

    exact = functools.partial(gradients, double)
    work = _work(module, size, True)
    return Problem((size.input(),), {OURS: step}, exact, (size.input(2),), False, TOLERANCE, work)


def prefill_problem(name: str) -> Problem:
    """A prompt from the beginning."""
    module: Any = mixer(name)
    double: Any = wide(module)
    size = size_of(name)
    sides: dict[str, Solve | None] = {OURS: lambda u: module.prefill(u)[0]}
    work = _work(module, size, False)
    return Problem((size.input(),), sides, lambda u: double.prefill(u)[0], (size.input(2),), False, TOLERANCE, work)


def step_problem(name: str) -> Problem:
    """The step after a prompt of 16 samples, again and again from the same state."""
    module: Any = mixer(name)
    double: Any = wide(module)
    prompt = size_of(name).input(length=16)
    with torch.no_grad():
        _, state = module.prefill(prompt)
        _, state_double = double.prefill(prompt.double())
    step: Callable[[Tensor], Tensor] = lambda u: module.step(u, state)[0]  # noqa: E731
    exact: Callable[[Tensor], Tensor] = lambda u: double.step(u, state_double)[0]  # noqa: E731
    return Problem((torch.randn_like(prompt[:, 0]),), {OURS: step}, exact, (), False, TOLERANCE)


def share_problem(name: str) -> Problem:
    """The convolutions of all layers with their gradients, one behind the other, beside the model's training step."""
    size, kind = SEQUENCE, CONVOLUTIONS[name]
    ours, usual = fft_conv.KINDS[kind]

    def filters(solve: Solve, u: Tensor, k: Tensor, *gates: Tensor) -> Tensor:
        leaves = [t.detach().requires_grad_() for t in (u, k, *gates)]
        with torch.enable_grad():
            y = leaves[0]
            for _ in range(LAYERS):
                y = solve(y, *leaves[1:])
        return torch.autograd.grad(y, leaves, torch.ones_like(y))[1]

    def inputs(batch: int, channels: int) -> tuple[Tensor, ...]:
        u, k, *gates = fft_conv.inputs(batch, channels, size.length, kind)
        return u, k / size.length**0.5, *gates

    step, u = train_problem(model, name).sides[OURS], size.input()
    assert step is not None
    sides: dict[str, Solve | None] = {
        OURS: functools.partial(filters, ours),
        "torch rfft": functools.partial(filters, usual),
        WHOLE: lambda *_: step(u),
    }
    flops = LAYERS * fft_conv.flops(size.batch, size.d_model, size.length, True, kind)
    work = Work(flops, size.batch * size.d_model, size.length)
    exact = functools.partial(filters, usual)
    return Problem(inputs(size.batch, size.d_model), sides, exact, inputs(2, 32), False, 1e-5, work)


def _work(module: nn.Module, size: Size, backward: bool) -> Work:
    """Operations of matrix products, as torch counts them, and of a long convolution a layer; of a video's, none."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(size.input())
    flops = float(counter.get_total_flops()) * (3 if backward else 1)
    layers = 0 if size.frame else sum(isinstance(part, Mixer) for part in module.modules())
    flops += layers * fft_conv.flops(size.batch, size.d_model, size.length, backward)
    return Work(flops, size.batch, size.length)


def cases() -> list[Case]:
    """Forward, with gradients, a training step, a prompt and a step of every mixer; models, and their convolutions."""
    found = []
    for name in (*longconv.list_mixers(), *VARIANTS):
        found += both(f"mixers/{name}", functools.partial(forward_problem, mixer, name))
        found.append(Case(f"mixers/{name}/train", functools.partial(train_problem, mixer, name)))
        found.append(Case(f"mixers/{name}/prefill", functools.partial(prefill_problem, name)))
        found.append(Case(f"mixers/{name}/step", functools.partial(step_problem, name)))
    for name in CONVOLUTIONS:
        found += both(f"models/{name}", functools.partial(forward_problem, model, name))
        found.append(Case(f"models/{name}/train", functools.partial(train_problem, model, name)))
        found.append(Case(f"models/{name}/convolutions", functools.partial(share_problem, name)))
    return found
