"""What every filter module shares."""

from __future__ import annotations

import cmath
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from longconv._checks import check_real, check_values, has_values


def parameter_dtype() -> torch.dtype:
    """The dtype of a new filter's parameters: torch's default one, but float32 at least."""
    return torch.promote_types(torch.get_default_dtype(), torch.float32)


def at_most(length: int, most: int) -> int:
    """The smaller of a length and a bound; the bound where the length is a symbol, which no trace may compare."""
    return most if isinstance(length, torch.SymInt) else min(length, most)


def initial_log_dt(shape: Sequence[int], dt_min: float, dt_max: float) -> Tensor:
    """Logarithms of steps that are log-uniform in [dt_min, dt_max]."""
    least = check_real("dt_min", dt_min, least=0, open_least=True)
    most = check_real("dt_max", dt_max, least=least)
    return math.log(least) + torch.rand(shape, dtype=parameter_dtype()) * math.log(most / least)


class WideModule(nn.Module):
    """A module whose parameters stay in float32 under ``.to(torch.bfloat16)`` and ``.half()``.

    A step size or a frequency rounded to 8 bits is another filter. The op that applies a filter takes float32 taps
    beside low-precision inputs.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device, torch.float32) if moved.dtype in (torch.bfloat16, torch.float16) else moved

        return super()._apply(keep_precision, recurse)

    def require_finite(self, taps: Tensor | None = None) -> None:
        """Raise a ValueError that names a parameter or buffer with a NaN or an infinity, where looking is free.

        With the taps that came of them it costs one pass over these, and parameters that they don't need may be
        anything. No taps tell nothing: ranks that have none raise with the others.
        """
        if taps is not None and not has_values(taps):
            return
        if taps is not None and taps.numel() > 0 and cmath.isfinite(taps.detach().sum().item()):
            return
        for name, part in (*self.named_parameters(), *self.named_buffers()):
            check_values(name, part)


class Filter(WideModule, ABC):
    """A module that owns the parameters of a filter and computes its first taps.

    ``filter(n)`` is a prefix of ``filter(m)`` for every m > n: the length never changes a tap.

    Args:
        filter_lr: learning rate of the filter's parameters; None takes the optimiser's.

    Attributes:
        filter_parameters: names of the parameters that take ``filter_lr`` and no weight decay.
        support: all taps from there on are zero; None: the filter goes on for ever.
    """

    filter_parameters: tuple[str, ...] = ()
    support: int | None = None

    def __init__(self, filter_lr: float | None = None) -> None:
        super().__init__()
        self.filter_lr = None if filter_lr is None else check_real("filter_lr", filter_lr, least=0)

    @abstractmethod
    def forward(self, length: int) -> Tensor:
        """The first ``length`` taps, (C, H, length)."""


class SampledFilter(Filter):
    """A filter sampled from a system in continuous time, with steps dt = exp(log_dt).

    ``rate`` multiplies every dt, exactly: a filter that was trained on one sampling rate serves data of another,
    ``rate=2`` that of half as many samples a unit of time.

    Attributes:
        log_dt: logarithms of the steps.
    """

    log_dt: Tensor

    @abstractmethod
    def forward(self, length: int, *, rate: float = 1.0) -> Tensor:
        """The first ``length`` taps, (C, H, length), with every dt multiplied by ``rate``."""

    def steps(self, rate: float = 1.0) -> Tensor:
        """Every dt times ``rate``, float64, in the shape of log_dt.

        Raises:
            ValueError: a rate that isn't positive, or steps that aren't, or are infinite.
        """
        rate = check_real("rate", rate, least=0, open_least=True)
        check_values("log_dt", self.log_dt)
        dt = rate * self.log_dt.double().exp()
        check_values("dt", dt, positive=True, because="it is rate exp(log_dt)")
        return dt
