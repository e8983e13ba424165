"""One row for every op with a backend ``cpu``: a row puts it through all of test_native.py and test_random_calls.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from longconv import _native, ops
from longconv.ops import _registry

Axes = tuple[int | None, int | None]
"""Which axes of a tensor are samples and channels, None where it has no such axis."""
Call = dict[str, Tensor]


@dataclass(frozen=True)
class Row:
    """An op that treats samples and channels on their own.

    Attributes:
        op: its name in ``longconv.ops``.
        make: random float64 arguments for B samples, H channels and a length, by name.
        axes: of these arguments.
        results: of the op's results.
        options: further arguments.
        takes_length: whether the length is an argument.
        linear_in: the arguments that the results are proportional to, down to denormals (the Vandermonde products leave
            out modes below the least normal number).
    """

    op: str
    make: Callable[[int, int, int], Call]
    axes: Mapping[str, Axes]
    results: tuple[Axes, ...] = ((0, 1),)
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_length: bool = False
    linear_in: tuple[str, ...] = ("u",)

    def reason(self) -> str | None:
        """None if the op has a backend ``cpu`` that is here, else why not."""
        return _registry.ALL[self.op].status().get("cpu", f"{self.op} has no backend 'cpu'")

    def results_of(self, call: Mapping[str, Tensor], length: int, backend: str = "cpu") -> list[Tensor]:
        """What the op returns."""
        return results_of(self.op, call, self.options_for(length), backend)

    def run(self, call: Call, length: int, backend: str = "cpu", cotangents: Sequence[Tensor] = ()) -> Call:
        """The results and gradients, see :func:`differentiate`."""
        return differentiate(self.op, call, self.options_for(length), backend, cotangents)

    def options_for(self, length: int) -> dict[str, Any]:
        """The arguments that are no tensors."""
        return {**self.options, "length": length} if self.takes_length else dict(self.options)

    def axes_of(self, name: str) -> Axes:
        """The axes of what ``run`` returns under a name."""
        return self.axes[name[1:]] if name.startswith("d") else self.results[int(name)]


def fast(backends: _registry.Backends) -> list[str]:
    """The backends but the definition that are here and serve tensors of the CPU."""
    others = "reference", "cuda", "triton"
    return [name for name, reason in backends.status().items() if reason is None and name not in others]


def results_of(op: str, call: Mapping[str, Tensor], options: Mapping[str, Any], backend: str) -> list[Tensor]:
    """What an op returns; the backend "definition" is the op's plainest."""
    y = getattr(ops, op)(
        **call, **options, backend=_registry.ALL[op].names()[-1] if backend == "definition" else backend
    )
    return list(y) if isinstance(y, tuple) else [y]


def differentiate(
    op: str, call: Call, options: Mapping[str, Any], backend: str, cotangents: Sequence[Tensor] = ()
) -> Call:
    """The results by number, and by "d" and its name each argument's gradient to the cotangents."""
    leaves = {name: t.detach().requires_grad_() for name, t in call.items()}
    results = results_of(op, leaves, options, backend)
    given = cotangents or [_cotangent(r) for r in results]
    grads = torch.autograd.grad(results, list(leaves.values()), given)
    numbered = {str(number): r.detach() for number, r in enumerate(results)}
    return {**numbered, **{f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}}


DOUBLE = {"A", "B", "C", "left", "right"}
"""Arguments that are double whatever the others are."""


def cast(call: Call, dtype: torch.dtype) -> Call:
    """The call with real numbers of ``dtype``, and complex ones of such."""
    return {
        name: t if name in DOUBLE else t.to(dtype.to_complex() if t.is_complex() else dtype) for name, t in call.items()
    }


def _cotangent(like: Tensor) -> Tensor:
    """The same numbers of unit scale every time, whatever the precision: those of bfloat16."""
    generator = torch.Generator().manual_seed(7)
    numbers = torch.randn((*like.shape, 2) if like.is_complex() else like.shape, generator=generator).bfloat16().float()
    return (torch.view_as_complex(numbers) if like.is_complex() else numbers).to(like)


def _real(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _complex(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128)


def _nodes(*shape: int) -> Tensor:
    return torch.complex(-torch.rand(shape, dtype=torch.float64), _real(*shape))


def _filter(channels: int, taps: int) -> Tensor:
    return _real(channels, taps) / taps**0.5


def _fft_conv(batch: int, channels: int, length: int) -> Call:
    return {"u": _real(batch, channels, length), "k": _filter(channels, length)}


def _fft_conv_all(batch: int, channels: int, length: int) -> Call:
    gates = {name: _real(batch, channels, length) for name in ("pre_gate", "post_gate")}
    reverse = _filter(channels, max(length - 1, 1))
    return {**_fft_conv(batch, channels, length), "k_reverse": reverse, "skip": _real(channels), **gates}


def _fft_conv_per_sample(batch: int, channels: int, length: int) -> Call:
    return {"u": _real(batch, channels, length), "k": _filter(batch * channels, length).view(batch, channels, length)}


def _short_conv(batch: int, channels: int, length: int) -> Call:
    taps = min(length, 4)
    past = _real(batch, channels, taps - 1)
    return {"u": _real(batch, channels, length), "w": _real(channels, taps), "bias": _real(channels), "initial": past}


def _linear_scan(batch: int, channels: int, length: int) -> Call:
    a = torch.rand(length, channels, dtype=torch.float64) * 2 - 1
    return {"a": a, "b": _real(batch, length, channels), "initial": _real(batch, channels)}


def _linear_scan_complex(batch: int, channels: int, length: int) -> Call:
    a = torch.polar(torch.rand(length, channels, dtype=torch.float64), _real(length, channels))
    return {"a": a, "b": _complex(batch, length, channels), "initial": _complex(batch, channels)}


def _step(batch: int, channels: int, length: int) -> Call:
    modes = min(length, 40)
    parameters = {"A": _complex(channels, modes), "B": _complex(channels, modes), "C": _complex(2, channels, modes)}
    low_rank = {"left": _complex(1, channels, modes), "right": _complex(1, channels, modes)}
    return {"x": _complex(batch, channels, modes), "u": _real(batch, channels), **parameters, **low_rank}


def _vandermonde(batch: int, channels: int, length: int) -> Call:
    nodes = torch.polar(0.5 + torch.rand(channels, 6, dtype=torch.float64) / 2, _real(channels, 6))
    return {"v": _complex(batch, channels, 6), "x": nodes}


def _vandermonde_log(batch: int, channels: int, length: int) -> Call:
    return {"v": _complex(batch, channels, 6), "log_x": _nodes(channels, 6)}


def _cauchy(batch: int, channels: int, length: int) -> Call:
    points = torch.complex(torch.ones(length, dtype=torch.float64), _real(length))
    return {"v": _complex(batch, channels, 6), "z": points, "w": _nodes(channels, 6)}


def _dense(batch: int, channels: int, length: int) -> Call:
    return {"A": _real(channels, 9, 9) / 18, "B": _real(channels, 9), "C": _real(channels, batch, 9)}


_EACH, _SHARED = (0, 1), (None, 0)
_SEQUENCES: dict[str, Axes] = dict.fromkeys(("u", "pre_gate", "post_gate"), _EACH)
_FILTERS: dict[str, Axes] = dict.fromkeys(("k", "k_reverse", "skip"), _SHARED)
_SCAN: dict[str, Axes] = {"a": (None, 1), "b": (0, 2), "initial": _EACH}
_SYSTEM: dict[str, Axes] = {**dict.fromkeys("AB", _SHARED), **dict.fromkeys(("C", "left", "right"), (None, 1))}
_DENSE: dict[str, Axes] = {"A": _SHARED, "B": _SHARED, "C": (1, 0)}
_SUM: dict[str, Axes] = {"v": _EACH, "z": (None, None), **dict.fromkeys(("x", "log_x", "w"), _SHARED)}

ROWS: dict[str, Row] = {
    "fft_conv": Row("fft_conv", _fft_conv, {**_SEQUENCES, **_FILTERS}),
    "fft_conv-all": Row("fft_conv", _fft_conv_all, {**_SEQUENCES, **_FILTERS}),
    "fft_conv-circular": Row("fft_conv", _fft_conv, {**_SEQUENCES, **_FILTERS}, options={"mode": "circular"}),
    "fft_conv-per-sample": Row("fft_conv", _fft_conv_per_sample, {**_SEQUENCES, "k": _EACH}),
    "short_conv": Row(
        "short_conv",
        _short_conv,
        {"u": _EACH, "w": _SHARED, "bias": _SHARED, "initial": _EACH},
        options={"activation": "relu"},
        linear_in=("u", "bias", "initial"),
    ),
    "linear_scan": Row("linear_scan", _linear_scan, _SCAN, ((0, 2),), linear_in=("b", "initial")),
    "linear_scan-complex": Row(
        "linear_scan", _linear_scan_complex, _SCAN, ((0, 2),), {"reverse": True}, linear_in=("b", "initial")
    ),
    "state_space_step": Row(
        "state_space_step", _step, {"x": _EACH, "u": _EACH, **_SYSTEM}, (_EACH, (0, 2)), linear_in=("x", "u")
    ),
    "dense_taps": Row("dense_taps", _dense, _DENSE, ((1, 0),), takes_length=True, linear_in=("B",)),
    "transpose": Row("transpose", lambda b, h, n: {"x": _real(b, h, n)}, {"x": _EACH}, ((0, 2),), linear_in=("x",)),
    "vandermonde": Row("vandermonde", _vandermonde, _SUM, takes_length=True, linear_in=()),
    "vandermonde_log": Row(
        "vandermonde_log", _vandermonde_log, _SUM, options={"real": True}, takes_length=True, linear_in=()
    ),
    "cauchy": Row("cauchy", _cauchy, _SUM, linear_in=("v",)),
}
"""By the name of the op and of its variant."""

HERE = [name for name, row in ROWS.items() if row.reason() is None] if _native.cpu().handle is not None else []
"""The rows whose backend is here."""
