"""``python -m bench.cluster``: what convolutions of sharded sequences would cost on GPU nodes, by the cost model.

Prints Markdown; ``bench/results/distributed.md`` is its output without options. Nothing here is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence

from bench.tables import markdown
from longconv.distributed import MACHINES, Call, Machine, choose, cost
from longconv.distributed.cost import METHODS, refusal

MEMORY = 80e9
"""Bytes of a GPU."""

CHANNELS, FEW, SHORT, ITEM = 1024, 4, 4096, 4
"""H of a wide layer and of one with few channels, K of a short filter, bytes of a number."""

LENGTHS = {"1M": 1 << 20, "4M": 1 << 22, "16M": 1 << 24, "64M": 1 << 26}
RANKS = (8, 16, 32, 64)


def call(channels: int, length: int, taps: int, ranks: int) -> Call:
    """One sequence and its filters, cut evenly."""
    return Call(1, channels, (length // ranks,) * ranks, taps, 0, False, ITEM, sharded=True)


def held(method: str, it: Call) -> float:
    """Bytes of u, y and the filters on a rank, and of what a way makes of them there."""
    ranks, length, rows = len(it.sizes), sum(it.sizes), it.batch * it.channels
    own = -(-it.channels // ranks)
    made = {
        "channels": own * (2 * it.batch * length + it.taps),
        "neighbours": it.channels * it.taps,
        "four_step": 2 * (rows + it.channels) * length / ranks,
    }
    return ((2 * rows * length + it.channels * it.taps) / ranks + made[method]) * it.item


def ways(machine: Machine, channels: int, taps: int | None = None) -> Iterator[list[str]]:
    """A line for each length and number of ranks; ``taps`` None: as many as samples."""
    for name, length in LENGTHS.items():
        for ranks in RANKS:
            it = call(channels, length, taps or length, ranks)
            best = choose(it, machine)
            spent = cost(best, it)
            size = held(best, it)
            yield [
                name,
                str(ranks),
                best,
                _number(spent.sent / 1e9),
                _number(spent.far(machine) / 1e9),
                _number(1e3 * spent.exchanging(machine)),
                _number(1e3 * spent.transforming(machine)),
                *(_time(method, it, best, machine) for method in METHODS),
                f"{_number(size / 1e9)}{', too many' * (size > MEMORY)}",
            ]


def _time(method: str, it: Call, best: str, machine: Machine) -> str:
    """The time of a way in ms; that of the best stands out."""
    if refusal(method, it):
        return "-"
    text = _number(1e3 * cost(method, it).seconds(machine))
    return f"**{text}**" if method == best else text


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


HEADS = ("L", "ranks", "way", "GB sent", "to other nodes", "ms of exchanges", "of transforms",
         *(f"{method}, ms" for method in METHODS), "GB held")  # fmt: skip


def document(machine: Machine, command: str) -> str:
    """All of it."""
    one = [f"{name} {2 * CHANNELS * length * ITEM / 1e9:.3g} GB" for name, length in LENGTHS.items()]
    gigabytes = machine.bandwidth / 1e9, machine.network / 1e9
    assumptions = [
        f"- {machine.node} GPUs a node. A GPU sends {gigabytes[0]:.3g} GB/s within its node (NVLink) and "
        f"{gigabytes[1]:.3g} GB/s to others (InfiniBand).",
        "  By default these are 0.7 of what the two are specified at: 450 GB/s one way, and 400 Gb/s a GPU.",
        f"- An exchange takes {1e6 * machine.latency:.3g} us, however many ranks take part, and then what its bytes "
        "take. Nothing overlaps, and no link is shared with others.",
        f"- A transform runs at {machine.speed / 1e12:.3g} TFLOP/s, torch's own ones (the four steps, and what goes "
        f"to a neighbour) at {machine.plain / 1e12:.3g}, a number of a row counting 10 log2 L operations, 15 in the "
        "four steps.",
        "- One sequence, B = 1, in float32, of H channels; sequence and filters are cut evenly among the ranks "
        '(`filters="sharded"`). A forward pass; with gradients it is about three times as much of everything.',
        "- A rank sends the bytes that the tables say, and holds u, y and its filters, and what a way makes of them: "
        "the sequences of its channels, whole filters, or spectra. Workspace of transforms, gates and what gradients "
        "keep are left out, and so are the 4 KB a rank by which the ranks agree on a call.",
        "- The way is the cheapest; beside it stand the times of all ways, `-` where one can't serve.",
    ]
    sections = [
        (f"H = {CHANNELS}, a filter as long as the sequence", ways(machine, CHANNELS)),
        (f"H = {CHANNELS}, a filter of {SHORT} taps", ways(machine, CHANNELS, SHORT)),
        (f"H = {FEW}, fewer channels than ranks, a filter as long as the sequence", ways(machine, FEW)),
    ]
    lines = [
        "# Convolutions of sharded sequences on nodes of H100, by the cost model",
        "",
        f"`{command}` prints this page from `longconv.distributed.cost`. **Nothing here is measured**: no GPU has run "
        "these operators. With your own figures:",
        "`python -m bench.cluster --bandwidth 200 --network 25 --speed 4`; `distributed.Ranks(machine=Machine(...))` "
        'lets `method="auto"` choose by them.',
        "",
        "## Assumptions",
        "",
        *assumptions,
        "",
        f"Why more than one device: u and y alone take {', '.join(one)} for H = {CHANNELS}; an H100 has "
        f"{MEMORY / 1e9:.0f} GB.",
    ]
    for title, cells in sections:
        lines += ["", f"## {title}", "", *markdown(HEADS, cells)]
    return "\n".join(lines)


def parsed(words: Sequence[str] | None = None) -> Machine:
    """The machine that the options describe."""
    usual = MACHINES["cuda"]
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="costs on GPU nodes, by a model")
    parser.add_argument("--node", type=int, default=usual.node, help="GPUs of a node")
    parser.add_argument("--bandwidth", type=float, default=usual.bandwidth / 1e9, help="GB/s of a GPU in its node")
    parser.add_argument("--network", type=float, default=usual.network / 1e9, help="GB/s of a GPU to other nodes")
    parser.add_argument("--latency", type=float, default=1e6 * usual.latency, help="us of an exchange")
    parser.add_argument("--speed", type=float, default=usual.speed / 1e12, help="TFLOP/s of transforms")
    parser.add_argument("--plain", type=float, default=usual.plain / 1e12, help="TFLOP/s of torch's transforms")
    given = parser.parse_args(words)
    speeds = 1e12 * given.speed, 1e12 * given.plain
    return Machine(1e-6 * given.latency, 1e9 * given.bandwidth, *speeds, given.node, 1e9 * given.network)


def page(words: Iterable[str] = ()) -> str:
    """The page for some options.

    >>> page().splitlines()[0]
    '# Convolutions of sharded sequences on nodes of H100, by the cost model'
    """
    words = list(words)
    return document(parsed(words), " ".join(["python -m bench.cluster", *words]))


if __name__ == "__main__":
    print(page(sys.argv[1:]))
