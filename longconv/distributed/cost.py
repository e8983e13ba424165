"""What the ways of a convolution across ranks cost, and which of them is taken.

Symbols: P ranks, R = B H rows, F filters: H, or R with one a sample; L length, K the taps that reach farthest (of
``k``, and one more than of ``k_reverse``), s bytes of a number, S those of a number in the arithmetic of the
convolution (4, or 8 in float64). A rank holds L / P positions of every row, or of an uneven sequence at most the
longest shard.

    way          bytes that a rank sends              exchanges    numbers that a rank transforms
    channels     2 R (L / P) (P - 1) / P s            2            ceil(H / P) B L, ceil(H / P) (F / H) L of filters
    neighbours   R (K - 1) S, twice if bidirectional  1            R (L / P + K), F (L / P + K) of filters
    four_step    6 R (L / P) (P - 1) / P S            4            R L / P, F L / P of filters

Filters that are cut, of T taps in all (of ``k`` and ``k_reverse``), have their own exchanges on top:

    channels     F T (P - 1) / P^2 s                  1 a filter
    neighbours   F T (P - 1) / P s                    1 a filter
    four_step    F (T + 2 L a filter) (P - 1) / P^2 S 2 a filter

A number that is transformed counts 10 log2 L operations, forth and back; in the four steps 15, in complex numbers.
Whole filters of the four steps cost 8 F L operations on top: a rank folds each. The four steps, and what goes to a
neighbour (the K of its numbers), are computed in torch, all else by the fastest backend. Then

    seconds = exchanges latency + near bytes / bandwidth + far bytes / network + operations / speed + in torch / plain,

far bytes being those to another node, of the rank that sends most of them: with n ranks a node the share
(P - n) / (P - 1) of what goes to all others, and all of what goes to the next rank. The cheapest way is taken, of those
that serve the call. Nothing overlaps in this model.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from longconv._checks import check_choice

METHODS = ("channels", "neighbours", "four_step")


class Machine(NamedTuple):
    """What a rank can do; give a :class:`~longconv.distributed.Ranks` one of your own figures.

    Attributes:
        latency: seconds of an exchange, whatever it carries.
        bandwidth: bytes a second that a rank sends to others of its node.
        speed: operations a second in convolutions by the fastest backend.
        plain: operations a second in transforms that are torch's.
        node: ranks of a node.
        network: bytes a second that a rank sends to other nodes.
    """

    latency: float
    bandwidth: float
    speed: float
    plain: float
    node: int = 1 << 62
    network: float = math.inf


MACHINES = {"cpu": Machine(1e-3, 4e8, 6e10, 9e9), "cuda": Machine(3e-5, 3e11, 2e12, 2e12, 8, 3.5e10)}
"""By the type of the tensors' device: a core of a CPU with gloo on one machine, as ``python -m bench run distributed``
measures it; nodes of 8 H100, at 0.7 of what NVLink (450 GB/s one way) and InfiniBand (400 Gb/s a GPU) are specified at,
and transforms at 3 % of its float32 arithmetic: by no measurement."""


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
    sharded: bool = False
    """Whether the filters are cut too."""
    samples: bool = False
    """Whether every sample has filters of its own."""


class Cost(NamedTuple):
    """What a rank spends in a forward pass; a backward pass takes about twice as much."""

    sent: float
    """Bytes."""
    exchanges: int
    operations: float
    """By the fastest backend."""
    in_torch: float
    """Operations too."""
    ranks: int
    to_next: float = 0.0
    """Of the bytes, those to one neighbour or both; the others go to all ranks alike."""

    def far(self, machine: Machine) -> float:
        """Of the bytes, those to other nodes."""
        if self.ranks <= machine.node:
            return 0.0
        return (self.sent - self.to_next) * (self.ranks - machine.node) / (self.ranks - 1) + self.to_next

    def exchanging(self, machine: Machine) -> float:
        """Seconds of the exchanges."""
        far = self.far(machine)
        return self.exchanges * machine.latency + (self.sent - far) / machine.bandwidth + far / machine.network

    def seconds(self, machine: Machine) -> float:
        """The time of the model above.

        >>> cost = Cost(sent=15.0, exchanges=1, operations=20.0, in_torch=3.0, ranks=4)
        >>> cost.seconds(Machine(latency=2.0, bandwidth=5.0, speed=10.0, plain=1.0, node=2, network=1.0))
        18.0
        """
        return self.exchanging(machine) + self.transforming(machine)

    def transforming(self, machine: Machine) -> float:
        """Seconds of the arithmetic."""
        return self.operations / machine.speed + self.in_torch / machine.plain


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
    check_choice("method", method, METHODS)
    ranks, length, longest = len(call.sizes), sum(call.sizes), max(call.sizes)
    each, work = call.batch if call.samples else 1, 10 * math.log2(max(length, 2))  # filters of a channel
    rows, filters = call.batch * call.channels, each * call.channels
    others, wide = (ranks - 1) / ranks, max(call.item, 4)
    sides = (1 + (call.taps_reverse > 0)) * call.sharded  # of filters that have to be exchanged
    taps = (call.taps + call.taps_reverse) * call.sharded * filters * others  # of all ranks, to be sent
    if method == "channels":
        own = -(-call.channels // ranks)
        sent = (2 * rows * longest * others + taps / ranks) * call.item
        return Cost(sent, 2 + sides, work * own * (call.batch + each) * length, 0, ranks)
    if method == "neighbours":
        carried = rows * (max(call.taps - 1, 0) + call.taps_reverse) * (ranks > 1) * wide
        step = work * (rows + filters)
        in_torch = step * (call.taps + call.taps_reverse)
        return Cost(carried + taps * call.item, 1 + sides, step * longest, in_torch, ranks, carried)
    sent = ((6 * rows + 2 * sides * filters) * longest * others + taps / ranks) * wide
    folded = 0 if call.sharded else 8 * filters * length
    return Cost(sent, 4 + 2 * sides, 0, 1.5 * work * (rows + filters) * length / ranks + folded, ranks)


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
