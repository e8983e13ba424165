"""What the ways of a convolution across ranks cost, and which of them is taken.

Symbols: P ranks, R = B H rows, L length, K the taps that reach farthest (of ``k``, and one more than of ``k_reverse``),
s bytes of a number. A rank holds L / P positions of every row, or of an uneven sequence at most the longest shard.

    way          bytes that a rank sends              exchanges    numbers that a rank transforms
    channels     2 R (L / P) (P - 1) / P s            2            ceil(H / P) B L, ceil(H / P) L of filters
    neighbours   R (K - 1) s, twice if bidirectional  1            R (L / P + K), H (L / P + K) of filters
    four_step    6 R (L / P) (P - 1) / P s            4            R L / P, H L / P of filters

A number that is transformed counts 10 log2 L operations, forth and back; in the four steps 15, for they run in torch
and in complex numbers. The filters of the four steps cost H L operations on top: a rank folds each whole. Then

    seconds = exchanges latency + bytes / bandwidth + operations / speed,

and the cheapest way is taken, of those that serve the call. Nothing overlaps in this model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

METHODS = ("channels", "neighbours", "four_step")


class Machine(NamedTuple):
    """What a rank can do; the defaults stand for a core of a CPU with gloo on one machine, and for an H100 with NVLink.

    Attributes:
        latency: seconds of an exchange, whatever it carries.
        bandwidth: bytes a second that a rank sends.
        speed: operations a second in transforms.
    """

    latency: float
    bandwidth: float
    speed: float


MACHINES = {"cpu": Machine(1e-3, 1e9, 4e9), "cuda": Machine(3e-5, 2e11, 2e12)}


class Call(NamedTuple):
    """The sizes of a call."""

    batch: int
    channels: int
    sizes: tuple[int, ...]
    """L of every rank's shard."""
    taps: int
    """K of the causal filter."""
    taps_reverse: int
    """K of the anticausal one, 0 where there is none."""
    circular: bool
    item: int
    """s."""


class Cost(NamedTuple):
    """What a rank spends in a forward pass; a backward pass takes about twice as much."""

    sent: float
    """Bytes."""
    exchanges: int
    operations: float

    def seconds(self, machine: Machine) -> float:
        """The time of the model above."""
        return self.exchanges * machine.latency + self.sent / machine.bandwidth + self.operations / machine.speed


def refusal(method: str, call: Call) -> str | None:
    """Why a way can't serve a call, or None."""
    if method == "channels":
        return None
    if call.circular:
        return "a circular convolution goes by channels alone"
    reach = max(call.taps - 1, call.taps_reverse)
    if method == "neighbours" and any(size < reach for size in call.sizes[1:-1]):
        return f"the filter reaches {reach} positions, beyond the neighbour's shard of {min(call.sizes[1:-1])}"
    return None


def cost(method: str, call: Call) -> Cost:
    """What a way costs; see the table of this module.

    >>> call = Call(batch=1, channels=64, sizes=(1 << 20,) * 4, taps=1 << 22, taps_reverse=0, circular=False, item=4)
    >>> [round(cost(method, call).sent / 2**20) for method in ("channels", "four_step")]
    [384, 1152]
    """
    ranks, length, longest = len(call.sizes), sum(call.sizes), max(call.sizes)
    rows, work = call.batch * call.channels, 10 * math.log2(max(length, 2))
    share = longest * (ranks - 1) / ranks * call.item
    if method == "channels":
        own = -(-call.channels // ranks)
        return Cost(2 * rows * share, 2, work * own * (call.batch + 1) * length)
    if method == "neighbours":
        carried = max(call.taps - 1, 0) + call.taps_reverse
        at_once = longest + call.taps + call.taps_reverse
        return Cost(rows * carried * call.item * (ranks > 1), 1, work * (rows + call.channels) * at_once)
    numbers = (rows + call.channels) * length / ranks
    return Cost(6 * rows * share, 4, 1.5 * work * numbers + 8 * call.channels * length)


def choose(call: Call, machine: Machine) -> str:
    """The cheapest way that serves a call.

    >>> sizes, gpu = (1 << 20,) * 8, MACHINES["cuda"]
    >>> def taken(channels: int, taps: int) -> str:
    ...     return choose(Call(1, channels, sizes, taps, 0, False, 4), gpu)
    >>> taken(64, 1 << 23), taken(64, 128), taken(1, 1 << 23)
    ('channels', 'neighbours', 'four_step')
    """
    serving = [method for method in METHODS if refusal(method, call) is None]
    return min(serving, key=lambda method: cost(method, call).seconds(machine))
