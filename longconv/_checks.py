"""Errors that name the argument, say what came and what is expected.

Every public function checks its arguments through this module, so that the wording of errors lives in one place.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
COMPLEX = (torch.complex128, torch.complex64)


def describe(value: object) -> str:
    """Short description of a value for an error: a tensor by shape and dtype, anything else by repr and type.

    >>> describe(torch.zeros(2, 3)), describe("a")
    ('a (2, 3) float32 tensor', "'a' (str)")
    """
    if isinstance(value, Tensor):
        return f"a {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')} tensor"
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def nearest(value: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the close matches of ``value``, or an empty string."""
    close = difflib.get_close_matches(value, list(choices), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return ``value`` if it is one of ``choices``, else raise a ValueError that lists them and the nearest."""
    if isinstance(value, str) and value in choices:
        return value
    hint = nearest(value, choices) if isinstance(value, str) else ""
    raise ValueError(f"{name} is {describe(value)}, expected one of {', '.join(map(repr, choices))}{hint}")


def check_options(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise a TypeError that names every option of ``given`` that is not among ``known``, with the nearest names."""
    unknown = [option for option in given if option not in known]
    if unknown:
        named = ", ".join(f"{option!r}{nearest(option, known)}" for option in unknown)
        raise TypeError(f"{owner} has no option {named} (its options: {', '.join(known)})")


def check_bool(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False, else raise a TypeError: nothing else stands for them."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {describe(value)}, expected True or False")
    return value


def check_int(name: str, value: object, *, least: int = 1) -> int:
    """Return ``value`` as an int of at least ``least``; a bool or a float is a TypeError.

    A symbolic size (under ``torch.export`` or a tracer) passes through, with ``least`` as a condition of the trace.
    """
    if type(value) is int and value >= least:
        return value
    if isinstance(value, torch.SymInt):
        torch._check(value >= least, lambda: f"{name} is {value}, expected an integer >= {least}")
        return value  # type: ignore[return-value]
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} is {describe(value)}, expected an integer >= {least}")
    if int(value) < least:
        raise ValueError(f"{name} is {int(value)}, expected an integer >= {least}")
    return int(value)


def check_real(
    name: str, value: object, *, least: float = -math.inf, most: float = math.inf, open_least: bool = False
) -> float:
    """Return ``value`` as a finite float in [least, most] (without ``least`` itself where ``open_least``).

    Finite is what lies between the infinities: ``math.isfinite`` has no symbolic form under ``torch.compile``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} is {describe(value)}, expected a real number")
    number = float(value)
    if not (-math.inf < number < math.inf and least <= number <= most) or (open_least and number == least):
        open_least = open_least or least == -math.inf
        bounds = f"{'(' if open_least else '['}{least:g}, {most:g}{')' if most == math.inf else ']'}"
        raise ValueError(f"{name} is {number:g}, expected a finite number in {bounds}")
    return number


def check_tensor(
    name: str,
    value: object,
    shape: str,
    *,
    ndim: int | Sequence[int],
    dtypes: Sequence[torch.dtype],
) -> Tensor:
    """Return ``value`` if it is a tensor of the given rank and one of the dtypes.

    Args:
        name: the argument's name.
        value: what came.
        shape: the expected shape in symbols, such as ``"(B, H, L)"``; for the message alone.
        ndim: the rank or ranks that are accepted.
        dtypes: the dtypes that are accepted.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {describe(value)}, expected a {shape} tensor")
    if value.ndim != ndim if isinstance(ndim, int) else value.ndim not in ndim:
        raise ValueError(f"{name} is {describe(value)}, expected shape {shape}")
    if value.dtype not in dtypes:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} is {describe(value)}, expected dtype {names}")
    return value


def check_shape(name: str, value: Tensor, expected: Sequence[int | None], symbols: str) -> None:
    """Raise a ValueError unless ``value`` has the sizes ``expected`` (None: any size)."""
    fits = len(expected) == value.ndim
    if fits:
        for got, want in zip(value.shape, expected, strict=True):
            fits = fits and (want is None or got == want)
    if not fits:
        sizes = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(f"{name} is {describe(value)}, expected shape {symbols} = ({sizes})")


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that shapes broadcast to; ``torch.broadcast_shapes`` where sizes may be symbols, as it takes its time.

    >>> broadcast_shapes((2, 1, 3), (4, 1))
    (2, 4, 3)

    Raises:
        RuntimeError: they don't broadcast.
    """
    if torch.compiler.is_compiling():
        return tuple(torch.broadcast_shapes(*map(tuple, shapes)))
    found = [1] * max(map(len, shapes))
    for shape in shapes:
        place = len(found) - len(shape)
        for size in shape:
            if type(size) is not int:
                return tuple(torch.broadcast_shapes(*map(tuple, shapes)))
            if size != 1 and found[place] != size:
                if found[place] != 1:
                    raise RuntimeError(f"{', '.join(str(tuple(shape)) for shape in shapes)} don't broadcast")
                found[place] = size
            place += 1
    return tuple(found)


def check_device(name: str, value: Tensor, other_name: str, other: Tensor) -> None:
    """Raise a ValueError unless both tensors are on one device."""
    if value.device != other.device:
        raise ValueError(f"{name} is on {value.device}, but {other_name} is on {other.device}: move one of them")


def check_lengths(lengths: Tensor | None, length: int) -> None:
    """Raise a ValueError for lengths outside 0..L. On a GPU, which reading them would stall, they count as 0 or L."""
    if lengths is None or lengths.device.type != "cpu" or torch.compiler.is_compiling() or not lengths.numel():
        return
    least, most = int(lengths.min()), int(lengths.max())
    if least < 0 or most > length:
        raise ValueError(f"lengths go from {least} to {most}, expected 0 <= lengths <= L = {length}")


def has_values(value: Tensor) -> bool:
    """Whether the values of a tensor may be looked at.

    They may on the CPU alone, where looking costs no synchronisation, and not under ``torch.compile`` or the transforms
    of ``torch.func``, where there are no values to look at.
    """
    compiling = torch.compiler.is_compiling()
    return value.device.type == "cpu" and not compiling and not torch._C._are_functorch_transforms_active()


def check_values(name: str, value: Tensor, *, positive: bool = False, because: str = "") -> None:
    """Raise a ValueError that names the first value that is NaN or infinite, or isn't positive where ``positive``.

    It looks where :func:`has_values` allows it.

    Args:
        name: the argument's name.
        value: a real or complex tensor.
        positive: whether the values, then real, have to be greater than zero.
        because: what makes such values, and how to mend it; for the message alone.
    """
    if not has_values(value):
        return
    good = value.detach().isfinite()
    if positive:
        good = good & (value > 0)
    if not good.all():
        first = (~good).nonzero()[0].tolist()
        index = f"[{', '.join(map(str, first))}]" if first else ""
        wanted = "finite, positive values" if positive else "finite values"
        raise ValueError(
            f"{name}{index} is {value[tuple(first)].item():g}, expected {wanted}" + (f": {because}" if because else "")
        )


def check_stream(batch_size: object, dtype: torch.dtype | None) -> None:
    """Raise an error unless a stream can begin with so many samples at a time, and a state of such a precision."""
    check_int("batch_size", batch_size, least=0)
    if dtype is not None and dtype not in FLOATS:
        raise TypeError(f"dtype is {dtype}, expected one of {', '.join(map(str, FLOATS))}")


def check_batch(name: str, part: Tensor, u: Tensor) -> None:
    """Raise an error unless a part (B, ...) of a state is of the batch size of the chunk or the sample ``u``."""
    if part.shape[0] != u.shape[0]:
        raise ValueError(
            f"{name} is {describe(part)}, a state of batch size {part.shape[0]}, but the input is {describe(u)}: "
            f"init_state({u.shape[0]}) makes one that fits"
        )


def check_state(
    state: object,
    kind: type,
    u: Tensor,
    shape: Sequence[int],
    symbols: str,
    dtypes: Sequence[torch.dtype],
    outputs: Sequence[int],
) -> None:
    """Raise an error unless ``state`` is a ``kind`` whose ``x`` and ``C`` fit a mixer and a chunk or a sample ``u``.

    Args:
        state: what came.
        kind: the class of the mixer's states.
        u: the input that the state meets, (B, ...).
        shape: the sizes of ``state.x``.
        symbols: the same in symbols.
        dtypes: dtypes of ``state.x``, the double precision one first; it alone serves a float64 ``u``.
        outputs: the sizes of ``state.C``, by which the states of other mixers are known.
    """
    if not isinstance(state, kind):
        raise TypeError(f"state is {describe(state)}, expected the {kind.__name__} that init_state returns")
    x = check_tensor("state.x", state.x, symbols, ndim=len(shape), dtypes=dtypes)  # type: ignore[attr-defined]
    check_batch("state.x", x, u)
    check_shape("state.x", x, shape, symbols)
    C: Tensor = state.C  # type: ignore[attr-defined]
    if C.shape != torch.Size(outputs):
        raise ValueError(f"state.C is {describe(C)}, expected shape {tuple(outputs)}: the state is another mixer's")
    check_device("state.x", x, "the input", u)
    check_device("state.C", C, "the input", u)
    if u.dtype == torch.float64 and x.dtype != dtypes[0]:
        raise TypeError(
            f"state.x is {describe(x)}, but the input is {describe(u)}: init_state with dtype=torch.float64 makes a "
            "state of its precision"
        )


def check_states(state: object, count: int) -> tuple[Any, ...]:
    """Return ``state`` if it is a tuple of ``count`` entries, one a layer, as ``init_state`` of a stack returns it.

    >>> check_states((), 2)
    Traceback (most recent call last):
        ...
    ValueError: state is a tuple of 0, expected the 2 that init_state returns, a mixer's state a layer
    """
    if not isinstance(state, tuple):
        raise TypeError(f"state is {describe(state)}, expected the tuple that init_state returns")
    if len(state) != count:
        raise ValueError(
            f"state is a tuple of {len(state)}, expected the {count} that init_state returns, a mixer's state a layer"
        )
    return state


def filter_dtypes(u: Tensor) -> tuple[torch.dtype, ...]:
    """The dtypes of a filter for an input u: that of u, or float32 beside 16 bits."""
    return (u.dtype,) if u.dtype in (torch.float64, torch.float32) else (u.dtype, torch.float32)
