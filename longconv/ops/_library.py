"""The torch operator library that every op of longconv is defined in, and the one way to define one."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from longconv.ops._ways import Ways

LIBRARY = torch.library.Library("longconv", "DEF")
"""Namespace ``torch.ops.longconv``."""


_transforms = torch._C._are_functorch_transforms_active

_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU).add(torch._C.DispatchKey.AutocastCUDA)


_NO_MEMORY = re.compile(r"DefaultCPUAllocator: .*you tried to allocate (\d+ bytes)")


def _without_autocast(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The kernel with autocast off: the precision of its arithmetic is the op's own matter."""

    @functools.wraps(kernel)
    def run(*args: Any) -> Any:
        if not torch._C._is_any_autocast_enabled():
            return kernel(*args)
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return kernel(*args)

    return run


def _naming(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a MemoryError that names the op for torch's RuntimeError where the CPU's memory ends."""

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        try:
            return function(*args)
        except RuntimeError as error:
            _name_missing_memory(name, error)
            raise

    return run


def _name_missing_memory(name: str, error: RuntimeError) -> None:
    if found := _NO_MEMORY.search(str(error)):
        raise MemoryError(f"{name}: no memory for {found[1]}") from error


class Operator:
    """``torch.ops.longconv.<name>``, and the shortest way to its kernel that a call allows.

    Under the transforms of ``torch.func`` and forward-mode differentiation the call goes through an
    ``autograd.Function`` of the same rules, because those that ``torch.library`` registers know neither (torch 2.13).
    A call that nothing watches has no use for torch's dispatcher, which costs several times what a short convolution
    does: it goes to the kernel, through an ``autograd.Function`` where gradients are recorded.

    The arguments are those of :func:`define`, of which the kernel and the gradients name the op where memory ends, the
    number of the ``tensors``, which come first, and whether there are ``several`` results.
    """

    def __init__(
        self,
        name: str,
        kernel: Callable[..., Any],
        save: Callable[..., None],
        gradients: Callable[..., Any],
        vmap: Callable[..., tuple[Any, Any]],
        bind: Callable[..., Callable[..., Any] | None] | None,
        *,
        tensors: int,
        several: bool,
    ) -> None:
        self.name, self.operator = name, getattr(torch.ops.longconv, name)
        self.ways = Ways(kernel, bind, tensors)
        self.rule = functools.partial(vmap, self)
        self.function = _transformable(name, self.operator, save, gradients, self.rule, several=several)
        self.record = _recorder(name, save, gradients, several=several)

    def __call__(self, *args: Any) -> Any:
        """The result for arguments as the operator takes them."""
        return self.checked(_as_given, *args)

    def checked(self, check: Callable[..., Sequence[Any]], *given: Any) -> Any:
        """The result for arguments that ``check`` refuses or returns as the operator takes them, tensors first.

        Small tensors are checked once for a layout: what ``check`` finds depends on types, shapes, strides, dtypes and
        devices of tensors and on the values of the other arguments alone.
        """
        if torch.compiler.is_compiling():
            return self.operator(*check(*given))
        if _transforms() or forward_ad._current_level >= 0:
            return self.function.apply(*check(*given))
        found = None if _watched() else self.ways.find(check, given)
        if found is None:
            return self.operator(*_not_escaped(self.name, check(*given)))
        run, args, recording = found
        try:
            return self.record(*args, run) if recording else run(*args)
        except RuntimeError as error:  # the kernel names its own
            _name_missing_memory(self.name, error)
            raise


def _as_given(*args: Any) -> tuple[Any, ...]:
    return args


def _not_escaped(name: str, args: Sequence[Any]) -> Sequence[Any]:
    """The arguments of a call outside of all transforms; a RuntimeError for a tensor that outlived its vmap."""
    if any(isinstance(a, Tensor) and torch._C._functorch.is_batchedtensor(a) for a in args):
        raise RuntimeError(
            f"{name}: a tensor has left a function under vmap, which has ended, other than as its result"
        )
    return args


def _watched() -> bool:
    """Whether a mode, a tracer or a profiler wants to see calls."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    )


def define(
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
    save: Callable[..., None],
    gradients: Callable[..., Any],
    vmap: Callable[..., tuple[Any, Any]],
    bind: Callable[..., Callable[..., Any] | None] | None = None,
    tags: Sequence[torch.Tag] = (),
) -> Operator:
    """Define the operator ``torch.ops.longconv.<name>``; return the function that calls it.

    Args:
        name: the operator's name.
        schema: its arguments and results in torch's schema language, without the name.
        kernel: the computation for real tensors on any device; it chooses the backend.
        fake: the same for tensors without data: shapes, dtypes and devices of the results.
        save: ``setup_context(ctx, inputs, output)``, keeps what the gradients need.
        gradients: ``backward(ctx, *cotangents)``, a gradient or None for every argument.
        vmap: ``(call, info, in_dims, *args) -> (results, out_dims)``; ``call`` is what this function returns, for there
            may be further transforms around this one.
        bind: None, or a function of the arguments that returns the kernel for all small tensors of the same shapes,
            strides and dtypes with everything decided but their addresses, or None where there is no such short way.
        tags: what torch's compilers are to know of it.
    """
    LIBRARY.define(name + schema, tags=tuple(tags))
    kernel, gradients = _naming(name, _without_autocast(kernel)), _naming(name, gradients)
    bind = None if bind is None else _without_autocast(bind)
    tensors = schema.partition("->")[0].count("Tensor")
    call = Operator(name, kernel, save, gradients, vmap, bind, tensors=tensors, several=schema.endswith("[]"))
    qualified = f"longconv::{name}"
    LIBRARY.impl(name, kernel, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=LIBRARY)
    torch.library.register_autograd(qualified, gradients, setup_context=save, lib=LIBRARY)
    torch.library.register_vmap(qualified, call.rule, lib=LIBRARY)
    return call


def _recorder(name: str, save: Callable[..., None], gradients: Callable[..., Any], *, several: bool) -> Any:
    """Records a kernel, the last argument: an ``autograd.Function`` without rules for transforms, the cheapest form.

    It is called past ``torch.autograd.Function.apply``, which looks for tensors of transforms that have ended.
    """

    def forward(ctx: Any, *args: Any) -> Any:
        inputs, kernel = args[:-1], args[-1]
        output = kernel(*inputs)
        save(ctx, inputs, output)
        return tuple(output) if several else output

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return (*(gradients(ctx, list(cotangents)) if several else gradients(ctx, *cotangents)), None)

    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(name, (torch.autograd.Function,), members)
    return super(torch.autograd.Function, function).apply


class _Context:
    """What ``save`` and ``gradients`` need of an autograd context."""

    def __init__(self, needs_input_grad: Sequence[bool]) -> None:
        self.needs_input_grad, self.saved_tensors = needs_input_grad, ()

    def save_for_backward(self, *tensors: Any) -> None:
        self.saved_tensors = tensors


def _transformable(
    name: str,
    operator: Callable[..., Any],
    save: Callable[..., None],
    gradients: Callable[..., Any],
    rule: Callable[..., tuple[Any, Any]],
    *,
    several: bool,
) -> Any:
    """The operator as an ``autograd.Function``, which tracks the tensors of a tuple but not those of a list.

    So the results of an operator with ``several`` of them, a list, become a tuple here, and their cotangents a list;
    those of an operator with two results in its schema are a tuple already, and their cotangents two arguments.

    Forward mode is the gradient of the gradients: c -> J^T c is linear, and its own gradient takes a tangent t to J t.
    """

    def tupled(results: Any) -> Any:
        return tuple(results) if several else results

    def forward(*args: Any) -> Any:
        return tupled(operator(*args))

    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        return gradients(ctx, list(cotangents)) if several else gradients(ctx, *cotangents)

    def mapped(*args: Any) -> tuple[Any, Any]:
        results, dims = rule(*args)
        return tupled(results), tupled(dims)

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        save(ctx, inputs, output)
        ctx.many = isinstance(output, (tuple, list))  # a tuple of fixed size too
        outputs = output if ctx.many else (output,)
        ctx.count, ctx.plain_inputs = len(outputs), [None if isinstance(a, Tensor) else a for a in inputs]
        ctx.save_for_forward(*outputs, *(a if isinstance(a, Tensor) else None for a in inputs))

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        saved: list[Any] = [t if t is None else forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]
        outputs, tensors = saved[: ctx.count], saved[ctx.count :]
        inputs = [a if t is None else t for a, t in zip(ctx.plain_inputs, tensors, strict=True)]
        moving = {i: t for i, t in enumerate(tangents) if t is not None and (t.is_floating_point() or t.is_complex())}
        rule = _Context([i in moving for i in range(len(inputs))])
        save(rule, tuple(inputs), outputs if ctx.many else outputs[0])

        def pull(*cotangents: Tensor) -> tuple[Tensor, ...]:
            grads = backward(rule, *cotangents)
            return tuple(torch.zeros_like(t) if grads[i] is None else grads[i] for i, t in moving.items())

        push = torch.func.vjp(pull, *(torch.zeros_like(o) for o in outputs))[1]
        moved = push(tuple(moving.values()))
        return moved if ctx.many else moved[0]

    members = {"forward": forward, "setup_context": setup, "backward": backward, "vmap": mapped, "jvp": jvp}
    return type(name, (torch.autograd.Function,), {key: staticmethod(value) for key, value in members.items()})


def gradients_of(
    composite: Callable[..., list[Tensor]],
    inputs: Sequence[Tensor | None],
    cotangents: Sequence[Tensor | None],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """The gradients of <cotangents, composite(*inputs)> by autograd, for a composite of differentiable torch functions.

    It is how an operator gets its second derivative: the composite is its ``gradients`` in plain torch. The gradients
    are differentiable in turn, in the inputs and the cotangents.

    Args:
        composite: a function of all inputs that returns a list of tensors, linear in the first one.
        inputs: its arguments; the first is the operator's own cotangent, where it is empty nothing is computed.
        cotangents: one for each result; None stands for zeros.
        needed: for each input, in order, whether its gradient is asked for; what comes after is not looked at.

    Returns:
        For each input its gradient, or None where it is not needed.
    """
    wanted = {place: t for place, (t, need) in enumerate(zip(inputs, needed, strict=False)) if need and t is not None}

    def of_wanted(*tensors: Tensor) -> list[Tensor]:
        arguments = list(inputs)
        for place, tensor in zip(wanted, tensors, strict=True):
            arguments[place] = tensor
        return composite(*arguments)

    if not wanted or all(c is None for c in cotangents):
        return [None] * len(inputs)
    if inputs[0] is not None and inputs[0].numel() == 0:
        found = [torch.zeros_like(t) for t in wanted.values()]
    else:
        results, pull_back, *_ = torch.func.vjp(of_wanted, *wanted.values())
        found = pull_back([torch.zeros_like(r) if c is None else c for r, c in zip(results, cotangents, strict=True)])
    grads = dict(zip(wanted, found, strict=True))
    return [grads.get(place) for place in range(len(inputs))]


def mapped_first(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with the mapped axis, of a size, in front; expanded if it was not mapped."""
    return tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def align_mapped(info: Any, in_dims: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The arguments of a ``vmap`` rule for tensors whose leading axes broadcast from the right.

    Every tensor has the mapped axis in front, expanded if it was not mapped, so that each sample has its own gradient,
    and then as many leading axes as the longest one.
    """
    tensors = [(a, d) for a, d in zip(args, in_dims, strict=True) if isinstance(a, Tensor)]
    rank = max(a.ndim - (d is not None) for a, d in tensors)

    def align(tensor: Tensor, dim: int | None) -> Tensor:
        tensor = mapped_first(tensor, dim, info.batch_size)
        return tensor.reshape(tensor.shape[0], *(1,) * (rank + 1 - tensor.ndim), *tensor.shape[1:])

    return [align(a, d) if isinstance(a, Tensor) else a for a, d in zip(args, in_dims, strict=True)]


def conjugate(x: Tensor) -> Tensor:
    """The conjugate as numbers of its own, in a form that ``vmap`` has a rule for, which ``conj_physical`` isn't.

    Not the lazy ``conj``, which the kernel of an operator that runs under ``torch.compile`` doesn't see.
    """
    if not x.is_complex():
        return x
    if torch.compiler.is_compiling() or not _transforms():
        return x.conj_physical()
    return torch.complex(x.real, -x.imag)


def square_blocks(length: int) -> tuple[int, int]:
    """T and Q with T Q >= L: T the power of two at or above the square root of L, and no more Q than it takes."""
    size = 1
    while size * size < length:
        size *= 2
    return size, -(-length // size)


def reduce_like(gradient: Tensor, tensor: Tensor) -> Tensor:
    """A gradient summed over the axes along which ``tensor`` was broadcast, in its dtype (real part if real)."""
    gradient = gradient if tensor.is_complex() or not gradient.is_complex() else gradient.real
    return gradient.sum_to_size(tensor.shape).to(tensor.dtype)
