"""Results as JSON, one row a case and thread count, and as a Markdown table."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.case import OURS, Work
from bench.machine import Ceilings
from bench.measure import Timing

BRIEF = ("case", "threads", "best peer", "its ms", "longconv ms", "times faster")
"""Columns of a brief table."""


@dataclass(frozen=True)
class Row:
    """The outcome of a case on a number of threads.

    Attributes:
        case: its name.
        threads: threads of the processor.
        times: of every side.
        errors: relative L2 error of every side.
        memory: peak memory in bytes by side, where it was measured.
        work: size and operations; None for a case of overhead.
        least_bytes: bytes of all tensors once.
        ceilings: measured right before the case.
        absent: sides that are not installed.
        refused: peers whose result is off, and how far.
    """

    case: str
    threads: int
    times: dict[str, Timing]
    errors: dict[str, float]
    memory: dict[str, int]
    work: Work | None = None
    least_bytes: int = 0
    ceilings: Ceilings | None = None
    absent: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)

    def best_peer(self) -> str | None:
        """The fastest side that isn't ours, None if ours is alone."""
        peers = [name for name in self.times if name != OURS]
        return min(peers, key=lambda name: self.times[name].median) if peers else None

    def speed_up(self) -> float | None:
        """How many times faster ours is than the best peer."""
        peer = self.best_peer()
        return None if peer is None else self.times[peer].median / self.times[OURS].median

    def share(self) -> float | None:
        """The share of what the machine could reach at best, by its bandwidth or its arithmetic."""
        if self.work is None or self.ceilings is None:
            return None
        return self.ceilings.floor(self.work.flops, self.least_bytes) / self.times[OURS].median

    def rates(self) -> dict[str, float]:
        """Sequences, tokens, operations and bytes a second."""
        if self.work is None:
            return {}
        seconds = self.times[OURS].median
        found = {"sequences/s": self.work.sequences, "tokens/s": self.work.tokens}
        return {
            **{name: number / seconds for name, number in found.items()},
            "GFLOP/s": self.work.flops / seconds / 1e9,
            "GB/s": self.least_bytes / seconds / 1e9,
        }


def save(path: Path, machine: dict[str, str], rows: Iterable[Row]) -> None:
    """Write results in one move, so that an interruption leaves the former ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine, "rows": [dataclasses.asdict(row) for row in rows]}, indent=1)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n")
    os.replace(part, path)


def load(path: Path) -> tuple[dict[str, str], list[Row]]:
    """What :func:`save` wrote."""
    content = json.loads(path.read_text())
    rows = []
    for row in content["rows"]:
        row["times"] = {name: Timing(**timing) for name, timing in row["times"].items()}
        row["work"] = row["work"] and Work(**row["work"])
        row["ceilings"] = row["ceilings"] and Ceilings(**row["ceilings"])
        rows.append(Row(**{**row, "absent": tuple(row["absent"])}))
    return content["machine"], rows


def table(machine: dict[str, str], rows: Sequence[Row], *, brief: bool = False) -> str:
    """Machine and rows (at least one) in Markdown; times are medians, with half the quartiles' distance in per cent.

    ``brief`` keeps the times and how many times faster ours is than the fastest peer.
    """
    heads = [head for head in _columns(rows[0]) if not brief or head in BRIEF]
    lines = [", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = _columns(row)
        lines += [f"| {' | '.join(cells[head] for head in heads)} |"]
    if brief:
        return "\n".join(lines)
    absent = sorted({name for row in rows for name in row.absent})
    lines += [f"\nNot installed: {', '.join(absent)}."] if absent else []
    lines += [f"\nRefused: {name} in {row.case}, {why}." for row in rows for name, why in row.refused.items()]
    growth = exponents(rows)
    lines += [
        "\nCost as a power of the length: " + ", ".join(f"{name} {p:.2f}" for name, p in growth.items()) + "."
    ] * bool(growth)
    return "\n".join(lines)


def exponents(rows: Iterable[Row]) -> dict[str, float]:
    """The exponent p of time a sequence ~ length^p by least squares, for kinds of cases with three lengths or more."""
    points = defaultdict(list)
    for row in rows:
        if row.work is not None:
            seconds = row.times[OURS].median / row.work.sequences
            points[f"{kind(row.case)}, {row.threads} thread{'s' * (row.threads > 1)}"].append(
                (math.log(row.work.length), math.log(seconds))
            )
    return {name: _slope(at) for name, at in points.items() if len({x for x, _ in at}) >= 3}


def kind(case: str) -> str:
    """The name of a case without its shape.

    >>> kind("fft_conv/8x256x1024/both")
    'fft_conv/both'
    """
    return "/".join(part for part in case.split("/") if not re.fullmatch(r"[\dx]+", part))


def _slope(points: list[tuple[float, float]]) -> float:
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def _columns(row: Row) -> dict[str, str]:
    peer, ratio, reached, rates = row.best_peer(), row.speed_up(), row.share(), row.rates()
    return {
        "case": row.case,
        "threads": str(row.threads),
        "best peer": peer or "",
        "its ms": _milliseconds(row.times[peer]) if peer else "",
        "longconv ms": _milliseconds(row.times[OURS]),
        "times faster": f"{ratio:.2f}" if ratio else "",
        **{name: f"{rates[name]:.3g}" if rates else "" for name in ("tokens/s", "GFLOP/s", "GB/s")},
        "of the ceiling": f"{100 * reached:.0f} %" if reached else "",
        "error": f"{row.errors[OURS]:.1e}",
        "memory, of the peer's": f"{row.memory[OURS] / row.memory[peer]:.2f}" if peer and row.memory else "",
    }


def _milliseconds(timing: Timing) -> str:
    return f"{1e3 * timing.median:.4g} ± {50 * (timing.high - timing.low) / timing.median:.0f} %"
