"""Where sequences lie: whole in this process, or a shard of them in each of several processes.

What acts along time asks here, so that no operator, mixer or model knows of other processes. A shard is in use within
:func:`longconv.distributed.sequence_parallel`; else every function here is the plain one.

Shapes: B batch, n positions in this process, L positions of the whole sequence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Run = Callable[[Tensor], Tensor]
"""The states (B, n, ...) of a linear recurrence at all positions, from the one before the first (B, ...)."""

Channelwise = Callable[..., Tensor]
"""Of some channels, a slice, and of those channels of sequences (B, h, L), a sequence of theirs, (B, h, M)."""

Decay = Callable[[int], Callable[[Tensor], Tensor]]
"""For a number of inputs of 0, what they leave of a state."""


class Shard(ABC):
    """A process's part of every sequence: what the functions of this module do where it is in use."""

    @abstractmethod
    def total(self, size: int) -> int:
        """L of the sequence of which this process has ``size`` positions."""

    @abstractmethod
    def start(self, size: int) -> int:
        """The number of the first of them."""

    @abstractmethod
    def add(self, part: Tensor) -> Tensor:
        """The sum of the processes' tensors."""

    @abstractmethod
    def greatest(self, part: Tensor) -> Tensor:
        """The greatest of the processes' numbers, each by itself; its gradient in equal parts to those that have it."""

    @abstractmethod
    def first(self, x: Tensor) -> Tensor:
        """The tensor of the first process, without a gradient."""

    @abstractmethod
    def channelwise(self, function: Channelwise, sequences: tuple[Tensor, ...], size: int) -> Tensor:
        """See :func:`channelwise`."""

    @abstractmethod
    def around(self, x: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """See :func:`around`."""

    @abstractmethod
    def evenly(self, length: int) -> Shard:
        """That of other sequences, of so many positions, in parts as even as can be."""

    @abstractmethod
    def share(self, length: int) -> int:
        """The positions of this process in :meth:`evenly`."""

    @abstractmethod
    def scan(self, run: Run, decay: Decay, start: Tensor, size: int, reverse: bool) -> tuple[Tensor, Tensor]:
        """See :func:`scan`."""

    @abstractmethod
    def prefill(self, mixer: Any, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """``mixer.prefill`` of the whole: this shard's outputs, and the state after the last sample of all."""

    @abstractmethod
    def fft_conv(self, u: Tensor, k: Tensor, **options: Any) -> Tensor:
        """The operator of the whole, as the next ones."""

    @abstractmethod
    def short_conv(self, u: Tensor, w: Tensor, bias: Tensor | None, **options: Any) -> Tensor:
        """The operator of the whole."""

    @abstractmethod
    def linear_scan(self, a: Tensor, b: Tensor, initial: Tensor | None, **options: Any) -> Tensor:
        """The operator of the whole."""


class StatePassing(ABC):
    """A mixer whose state has a field x, that of a linear recurrence, which goes from shard to shard of a sequence.

    Shards take in their samples from x = 0, at the same time; what x was before them is added, as it has decayed.
    """

    @abstractmethod
    def _prefill(self, u: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A chunk u (B, T, ...) that follows a state: its outputs, and the state after it."""

    @abstractmethod
    def _after(self, u: Tensor, state: Any) -> Tensor:
        """The x after a chunk u (B, T, ...), T >= 1, that follows a state."""

    @abstractmethod
    def _decay(self, state: Any, length: int) -> Callable[[Tensor], Tensor]:
        """What so many samples of 0 leave of an x, in the system of a state; in any precision."""


_shard: Shard | None = None  # of all threads of the process: autograd's compute again what a checkpoint has dropped


def shard() -> Shard | None:
    """The shard in use, None where sequences are whole."""
    return _shard


@contextmanager
def using(other: Shard | None) -> Iterator[None]:
    """A context in which another shard is in use, in all threads; None: sequences are whole.

    Raises:
        RuntimeError: it is left while a context that was entered later is not. Sequences are whole then.
    """
    global _shard
    before, _shard = _shard, other
    try:
        yield
    finally:
        last, _shard = _shard is other, before if _shard is other else None
        if not last:
            raise RuntimeError("contexts of sequence_parallel overlap: leave the one that was entered last first")


def total(size: int) -> int:
    """L of the sequence of which this process has ``size`` positions."""
    return size if _shard is None else _shard.total(size)


def span(size: int) -> tuple[int, int]:
    """The first of the positions that this process has, and the one behind the last.

    >>> span(3)
    (0, 3)
    """
    if _shard is None:
        return 0, size
    start = _shard.start(size)
    return start, start + size


def places(size: int, device: torch.device) -> Tensor:
    """The positions that this process has, (n,).

    >>> places(3, torch.device("cpu"))
    tensor([0, 1, 2])
    """
    return torch.arange(*span(size), device=device)


def within(lengths: Tensor, size: int) -> Tensor:
    """(B, n): which positions lie before the valid length of their sample."""
    return places(size, lengths.device) < lengths[:, None]


def zero_beyond(y: Tensor, lengths: Tensor | None) -> Tensor:
    """The outputs y (B, n, ...) with zeros at t >= lengths."""
    if lengths is None:
        return y
    valid = within(lengths, y.shape[1])
    return torch.where(valid[(..., *[None] * (y.ndim - 2))], y, 0)  # masked_fill is slower on the CPU


def add(part: Tensor) -> Tensor:
    """The sum over the whole sequence, of the sum over the positions here."""
    return part if _shard is None else _shard.add(part)


def greatest(x: Tensor) -> Tensor:
    """The maximum over the times of the whole sequence (B, n, ...): (B, ...)."""
    if _shard is None:
        return x.amax(1)
    return _shard.greatest(x.amax(1) if x.shape[1] else x.sum(1) - torch.inf)


def take(x: Tensor, place: int | Tensor) -> Tensor:
    """The position ``place`` of the whole, one or (B,) of each sample, of x (B, n, ...): (B, ...)."""
    if _shard is None:
        if not isinstance(place, Tensor):  # a number, which torch.export may know by a name alone
            return x.select(1, place)
        return x.take_along_dim(place.long()[(..., *[None] * (x.ndim - 1))], dim=1)[:, 0]
    others = places(x.shape[1], x.device) != torch.as_tensor(place, device=x.device)[..., None]
    others = others.expand(x.shape[:2])[(..., *[None] * (x.ndim - 2))]
    return _shard.add(x.masked_fill(others, 0).sum(1))


def pick(x: Tensor, positions: Tensor) -> Tensor:
    """Some positions (B or 1, m) of the whole, the same in all processes, of x (B, H, n): (B, H, m)."""

    def of(x: Tensor, index: Tensor) -> Tensor:
        return x.gather(-1, index[:, None].expand(*x.shape[:2], -1))

    if _shard is None:
        return of(x, positions)
    start, stop = span(x.shape[-1])
    here = (positions >= start) & (positions < stop)
    return _shard.add(of(F.pad(x, (0, 1)), torch.where(here, positions - start, stop - start)))


def around(x: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Sequences (B, H, n) with as many positions more at either end as ``before`` and ``after`` (B, H, r) have.

    They are the neighbouring ones, and at the ends of the whole sequence ``before`` and ``after``.
    """
    return torch.cat([before, x, after], -1) if _shard is None else _shard.around(x, before, after)


def alike(mask: Tensor) -> Tensor:
    """Random numbers that do not belong to a position: those of the first process in all of them."""
    return mask if _shard is None else _shard.first(mask)


def drop_alike(dropout: nn.Dropout, x: Tensor) -> Tensor:
    """Dropout of what all processes have alike, the taps of a filter."""
    if _shard is None or not dropout.training or dropout.p == 0:
        dropped: Tensor = dropout(x)
        return dropped
    return x * _shard.first(dropout(torch.ones_like(x)))


def channelwise(function: Channelwise, *sequences: Tensor, size: int) -> Tensor:
    """``function(slice(None), *sequences)``, which acts on every channel of whole sequences (B, H, n_i) by itself.

    Args:
        function: called with a part of the channels, and with those channels of the sequences.
        *sequences: each cut in a way of its own.
        size: n of the result (B, H, n).
    """
    return function(slice(None), *sequences) if _shard is None else _shard.channelwise(function, sequences, size)


def alone(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """``function(*args)`` of what this process has, by itself."""
    if _shard is None:
        return function(*args)
    with using(None):
        return function(*args)


def share(length: int) -> int:
    """How many positions of a sequence are here that is cut :func:`evenly`."""
    return length if _shard is None else _shard.share(length)


def evenly(length: int, function: Callable[..., Tensor], *args: Any) -> Tensor:
    """``function(*args)`` of sequences of L positions that are cut in parts as even as can be, such as spectra."""
    if _shard is None:
        return function(*args)
    with using(_shard.evenly(length)):
        return function(*args)


def scan(run: Run, decay: Decay, start: Tensor, size: int, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
    """The states of a linear recurrence, and the one after the last sample.

    Args:
        run: the states of this process's samples, from the one before them.
        decay: what inputs of 0 leave of a state.
        start: the state before the first sample of all.
        size: n.
        reverse: ``run`` goes from the last sample to the first, so that the states come from the process behind.
    """
    if _shard is not None:
        return _shard.scan(run, decay, start, size, reverse)
    states = run(start)
    return states, states[:, -1] if size else start


def prefill(mixer: Any, u: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A chunk through a mixer: its outputs, and the state after it."""
    result: tuple[Tensor, Any] = mixer._prefill(u, state) if _shard is None else _shard.prefill(mixer, u, state)
    return result


def check_mixer(mixer: Any) -> None:
    """Raise a NotImplementedError, with the reason, for a mixer that can't act on shards where one is in use."""
    if _shard is not None and (reason := mixer.shard_refusal()):
        raise NotImplementedError(
            f"{type(mixer).__name__} can't mix a sequence whose shards are on several ranks: {reason}"
        )


def require_whole(what: str) -> None:
    """Raise a NotImplementedError where a shard is in use."""
    if _shard is not None:
        raise NotImplementedError(f"{what}: leave longconv.distributed.sequence_parallel for it")
