"""Operators whose gradients are another operator, ``NAME_backward``, that every backend computes as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from longconv.ops._library import align_mapped, define, gradients_of, mapped_first
from longconv.ops._registry import Backends

Second = Callable[[Sequence[Tensor], Sequence[Any], Sequence[Tensor | None], Sequence[bool]], list[Tensor | None]]
"""(inputs, options, cotangents, needed) of ``NAME_backward`` -> the gradients of its inputs, None where not needed."""

_LENGTH, _WANTED = "SymInt length", "bool[] wanted"


def by_autograd(backward: Callable[..., list[Tensor]]) -> Second:
    """The gradient of the gradients through a ``backward`` in plain torch, whichever backend gave the first."""

    def second(
        inputs: Sequence[Tensor], options: Sequence[Any], cotangents: Sequence[Tensor | None], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        return gradients_of(lambda *tensors: backward(*tensors, *options), inputs, cotangents, needed)

    return second


class WithGradients:
    """The operator of ``backends.op``, whose result is one tensor, and that of its gradients.

    Args:
        backends: each with ``forward(*tensors, *options)`` and ``backward(g, *tensors, *options)``.
        tensors: the names of the arguments that have gradients.
        options: the others in torch's schema language. The ``length`` of the result is none of the gradients' options.
        fake: the result without its numbers, of all arguments, the backend's name last.
        second: the gradients of the gradients.
        vmap: the rule of both operators.
        factor: the place of a tensor that the result is proportional to: without numbers there it is 0.
        selective: whether the gradients' options end with the list of those that are wanted.

    Attributes:
        call, call_backward: the functions that call the two.
    """

    def __init__(
        self,
        backends: Backends,
        tensors: Sequence[str],
        options: Sequence[str],
        fake: Callable[..., Tensor],
        second: Second,
        vmap: Callable[..., tuple[Any, Any]],
        *,
        factor: int = 0,
        selective: bool = False,
    ) -> None:
        self.backends, self.options, self.fake, self.second = backends, options, fake, second
        self.count, self.factor, self.selective = len(tensors), factor, selective
        self.kept = [place for place, option in enumerate(options, self.count) if option != _LENGTH]
        self.all = [True] * self.count
        names = [f"Tensor {name}" for name in tensors]
        kept = [option for option in options if option != _LENGTH] + [_WANTED] * selective
        self.call = define(
            backends.op,
            f"({', '.join([*names, *options])}, str backend) -> Tensor",
            self._forward,
            fake,
            self._save,
            self._gradients,
            vmap,
            backends.bind,
        )
        self.call_backward = define(
            f"{backends.op}_backward",
            f"(Tensor g, {', '.join([*names, *kept])}, str backend) -> Tensor[]",
            self._backward,
            self._fake_backward,
            self._save_second,
            self._second_gradients,
            vmap,
        )

    def _forward(self, *args: Any) -> Tensor:
        *arguments, backend = args
        y = self.fake(*args)
        if y.numel() == 0 or arguments[self.factor].numel() == 0:
            return y.zero_()
        del y  # the backend has memory of its own
        result: Tensor = self.backends.choose(backend, *arguments).forward(*arguments)
        return result.contiguous()

    def _save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options, ctx.backend = [inputs[place] for place in self.kept], inputs[-1]
        ctx.wanted = list(ctx.needs_input_grad[: self.count]) if self.selective else self.all
        ctx.save_for_backward(*inputs[: self.count])

    def _gradients(self, ctx: Any, g: Tensor) -> tuple[Any, ...]:
        nothing = (None,) * (len(self.options) + 1)
        if not any(ctx.wanted):
            return (None,) * self.count + nothing
        chosen = [ctx.wanted] if self.selective else []
        grads = iter(self.call_backward(g, *ctx.saved_tensors, *ctx.options, *chosen, ctx.backend))
        return (*(next(grads) if want else None for want in ctx.wanted), *nothing)

    def _backward(self, g: Tensor, *rest: Any) -> list[Tensor]:
        if g.numel() == 0 or rest[self.factor].numel() == 0:
            return [t.zero_() for t in self._fake_backward(g, *rest)]
        *arguments, backend = rest
        left = iter(arguments[self.count :])
        given = [g.shape[-1] if option == _LENGTH else next(left) for option in self.options]
        chosen = self.backends.choose(backend, *arguments[: self.count], *given)
        assert chosen.backward is not None
        return [grad.contiguous() for grad in chosen.backward(g, *arguments)]

    def _fake_backward(self, g: Tensor, *rest: Any) -> list[Tensor]:
        pairs = zip(rest[: self.count], rest[-2] if self.selective else self.all, strict=True)
        return [torch.empty_like(t, memory_format=torch.contiguous_format) for t, want in pairs if want]

    def _save_second(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options = inputs[self.count + 1 : -1]
        ctx.save_for_backward(*inputs[: self.count + 1])

    def _second_gradients(self, ctx: Any, cotangents: Sequence[Tensor | None]) -> tuple[Any, ...]:
        grads = self.second(ctx.saved_tensors, ctx.options, cotangents, ctx.needs_input_grad)
        return (*grads, *(None,) * (len(ctx.options) + 1))


def vmap_leading(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    """The rule for tensors whose leading axes broadcast: the mapped one is one more of them."""
    result = operator(*align_mapped(info, in_dims, args))
    if isinstance(result, Tensor):
        return result, 0
    ranks = [a.ndim - (d is not None) for a, d in zip(args, in_dims, strict=True) if isinstance(a, Tensor)][1:]
    wanted = next((a for a in args if isinstance(a, list)), [True] * len(ranks))
    ranks = [rank for rank, want in zip(ranks, wanted, strict=True) if want]
    return [r.reshape(r.shape[0], *r.shape[r.ndim - n :]) for r, n in zip(result, ranks, strict=True)], [0] * len(ranks)


def vmap_features(axis: int) -> Callable[..., tuple[Any, Any]]:
    """The rule for systems that are independent along an axis that every tensor has: the mapped ones are more."""
    place = axis if axis >= 0 else axis - 1

    def rule(operator: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        size = info.batch_size
        features = mapped_first(args[0], in_dims[0], size).shape[place + 1]

        def fold(a: Tensor, dim: int | None) -> Tensor:
            return mapped_first(a, dim, size).movedim(0, place).flatten(place, place + 1)

        def unfold(a: Tensor) -> Tensor:
            return a.unflatten(axis, (size, features)).movedim(place, 0)

        result = operator(*(fold(a, d) if isinstance(a, Tensor) else a for a, d in zip(args, in_dims, strict=True)))
        if isinstance(result, Tensor):
            return unfold(result), 0
        return [unfold(grad) for grad in result], [0] * len(result)

    return rule
