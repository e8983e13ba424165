"""What the ranks tell each other of a call before they exchange numbers, so that a mistake is an error on all of them.

A rank whose arguments are refused, or fit those of the others nowhere, would leave these waiting. So every call begins
with a card a rank, shapes, dtypes and options; each rank reads all of them, and all raise what one of them has to.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from longconv._checks import describe, has_values
from longconv.distributed.exchange import Range
from longconv.distributed.ranks import Ranks

CARD = 4096
"""Bytes of a card."""

REFUSAL = 900
"""Characters of an error that a card has room for."""


@dataclass(frozen=True)
class Shards:
    """How a sequence is cut: rank r has the positions from ``starts[r]`` up to ``starts[r] + sizes[r]``.

    >>> shards = Shards((3, 0, 2))
    >>> shards.length, shards.ranges()
    (5, [(0, 3), (3, 3), (3, 5)])
    """

    sizes: tuple[int, ...]

    @property
    def length(self) -> int:
        """L of the whole sequence."""
        return sum(self.sizes)

    def ranges(self) -> list[Range]:
        """The positions of every rank."""
        ends = list(itertools.accumulate(self.sizes, initial=0))
        return list(itertools.pairwise(ends))

    def first(self, count: int) -> Shards:
        """Those of so many positions, the first ones.

        >>> Shards((3, 0, 2)).first(4).sizes
        (3, 0, 1)
        """
        return Shards(tuple(min(stop, count) - min(start, count) for start, stop in self.ranges()))

    def delayed(self) -> Shards:
        """Those of the positions with one more before them, which is the first rank's.

        >>> Shards((3, 0, 2)).delayed().sizes
        (4, 0, 2)
        """
        return Shards((self.sizes[0] + 1, *self.sizes[1:]))

    @classmethod
    def even(cls, total: int, parts: int) -> Shards:
        """So many positions in as many parts, the first ones longer by one where it has to be.

        >>> Shards.even(8, 3).sizes
        (3, 3, 2)
        """
        return cls(tuple(total // parts + (part < total % parts) for part in range(parts)))


Tensors = Mapping[str, Tensor | None]


def agree(ranks: Ranks, name: str, check: Callable[[], tuple[Tensors, Tensors]], axis: int, **options: Any) -> Shards:
    """The lengths of all ranks' shards, once the ranks agree on the call: the first ones of :func:`agree_on_all`."""
    return next(iter(agree_on_all(ranks, name, check, axis, **options).values()))


def agree_on_all(
    ranks: Ranks, name: str, check: Callable[[], tuple[Tensors, Tensors]], axis: int, **options: Any
) -> dict[str, Shards]:
    """How the tensors that are cut along time are cut, by name, once the ranks agree on the call.

    Args:
        ranks: the ranks.
        name: the name of the function.
        check: raises for arguments of this rank that are wrong by themselves, a TypeError or a ValueError, and returns
            the tensors that are cut along ``axis``, and those that every rank has whole, and alike.
        axis: the axis of time.
        options: what has to be the same everywhere.

    Raises:
        TypeError, ValueError: this rank's arguments are wrong.
        ValueError: those of another rank are, or they don't fit together; the message gives them rank by rank.
        RankError: the others don't answer.
    """
    error: Exception | None = None
    card: dict[str, Any] = {"name": name}
    try:
        shards, whole = check()
    except Exception as refusal:
        error = refusal
        card["refusal"] = f"{type(error).__name__}: {error}"[:REFUSAL]
    else:
        card["options"] = {key: _plain(value) for key, value in options.items()}
        card["tensors"] = {key: _entry(value, axis) for key, value in shards.items()}
        card["tensors"] |= {key: _entry(value, None) for key, value in whole.items()}
    text = json.dumps(card, separators=(",", ":"), ensure_ascii=False).encode()
    cards = [json.loads(message) for message in ranks.gather(text, CARD)]
    if error is not None:
        raise error
    _compare(cards)
    cut = [key for key, value in shards.items() if value is not None]
    return {key: Shards(tuple(card["tensors"][key]["length"] for card in cards)) for key in cut}


def _plain(value: Any) -> Any:
    """An option as JSON has it; a tensor by its values where looking at them is free."""
    if isinstance(value, Tensor):
        if not has_values(value):
            return describe(value)
        return value.tolist() if value.numel() <= 16 else f"{describe(value)} #{zlib.crc32(value.numpy().tobytes()):x}"
    return value


def _entry(value: Tensor | None, axis: int | None) -> dict[str, Any] | None:
    """A tensor on a card, the length of a shard apart from what has to be the same."""
    if value is None:
        return None
    shape: list[int | str] = list(value.shape)
    entry: dict[str, Any] = {"what": describe(value), "grad": value.requires_grad and torch.is_grad_enabled()}
    if axis is not None:
        entry["length"] = shape[axis]
        shape[axis] = "L"
    return {**entry, "shape": shape, "dtype": str(value.dtype)}


def _compare(cards: list[dict[str, Any]]) -> None:
    """Raise a ValueError unless all cards say the same, lengths of shards aside."""
    names = [card["name"] for card in cards]
    if len(set(names)) > 1:
        _differ("the ranks are at different calls", names)
    for rank, card in enumerate(cards):
        if "refusal" in card:
            raise ValueError(f"{names[0]}: the arguments of rank {rank} are refused there: {card['refusal']}")
    for option in cards[0]["options"]:
        values = [card["options"][option] for card in cards]
        if any(value != values[0] for value in values):
            _differ(f"{names[0]}: {option} has to be the same on all ranks", values)
    for tensor in cards[0]["tensors"]:
        entries = [card["tensors"][tensor] for card in cards]
        if any((entry is None) != (entries[0] is None) for entry in entries):
            _differ(f"{names[0]}: {tensor} is given on some ranks alone", [e and e["what"] for e in entries])
        if entries[0] is None:
            continue
        if any((e["shape"], e["dtype"]) != (entries[0]["shape"], entries[0]["dtype"]) for e in entries):
            what = "shards, alike but for their lengths" if "length" in entries[0] else "the same on all ranks"
            _differ(f"{names[0]}: {tensor} is expected to be {what}", [entry["what"] for entry in entries])
        if any(entry["grad"] != entries[0]["grad"] for entry in entries):
            _differ(f"{names[0]}: {tensor} has a gradient on some ranks alone", [entry["grad"] for entry in entries])


def _differ(message: str, values: list[Any]) -> NoReturn:
    each = ", ".join(f"{value} on rank {rank}" for rank, value in enumerate(values))
    raise ValueError(f"{message}, but it is {each}")
