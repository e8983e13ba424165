"""Results as Markdown: a row a case or a side, what grew how, and what more threads gave."""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence

from bench.case import OURS, WHOLE
from bench.measure import Timing
from bench.report import Row, kind

BRIEF = ("case", "threads", "best peer", "its ms", "longconv ms", "times faster")
"""Columns of a brief table."""
SERIES = {"B": "BHL", "H": "BHL", "N": "HNL"}
"""What the numbers of the shapes are in a series of scaling, by what it varies."""


def heading(machine: dict[str, str], rows: Iterable[Row]) -> str:
    """The machine, and when and of what commits the rows were measured.

    >>> row = Row("x", 1, {}, {}, {}, date="2026-01-02", commit="abc")
    >>> heading({"date": "2026-01-01", "cpu": "fast", "commit": "012"}, [row])
    'cpu: fast, measured: 2026-01-02 of abc'
    """
    origins = [(row.date or machine.get("date", "?"), row.commit or machine.get("commit", "?")) for row in rows]
    parts = [f"{key}: {value}" for key, value in machine.items() if key not in ("date", "commit")]
    return ", ".join([*parts, f"measured: {', '.join(f'{d} of {c}' for d, c in dict.fromkeys(origins))}"])


def table(machine: dict[str, str], rows: Sequence[Row], *, brief: bool = False) -> str:
    """Machine and rows (at least one); times are medians, with half the quartiles' distance in per cent.

    ``brief`` keeps the times and how many times faster ours is than the fastest peer.
    """
    cells = [_columns(row) for row in rows]
    heads = [head for head in cells[0] if (head in BRIEF if brief else any(c[head] for c in cells))]
    lines = [heading(machine, rows), "", *markdown(heads, ([c[head] for head in heads] for c in cells))]
    if brief:
        return "\n".join(lines)
    absent = sorted({name for row in rows for name in row.absent})
    lines += [f"\nNot installed: {', '.join(absent)}."] if absent else []
    lines += [f"\nRefused: {name} in {row.case}, {why}." for row in rows for name, why in row.refused.items()]
    for title, found in (("Cost as a power of the length, or of what a series varies", exponents(rows)),
                         ("Times as fast as on one thread", gains(rows)),
                         ("Times as fast as in one process", gains_of_ranks(rows))):  # fmt: skip
        lines += [f"\n{title}: {', '.join(f'{name} {value:.2f}' for name, value in found.items())}."] * bool(found)
    return "\n".join(lines)


def side_table(machine: dict[str, str], rows: Sequence[Row]) -> str:
    """A row a side: those that were timed, and those that were refused or are not installed."""
    heads = ["case", "threads", "side", "ms", "times longconv's", "sequences/s", "error", "peak memory, MB"]
    cells = []
    for row in rows:
        for name, timing in row.times.items():
            rate = f"{row.work.sequences / timing.median:.3g}" if row.work and name != WHOLE else ""
            error = f"{row.errors[name]:.1e}" if name in row.errors else ""
            memory = f"{row.memory[name] / 1e6:.1f}" if name in row.memory else ""
            ratio = f"{timing.median / row.times[OURS].median:.2f}"
            cells.append([row.case, str(row.threads), name, _milliseconds(timing), ratio, rate, error, memory])
        missing = {name: f"refused: {why}" for name, why in row.refused.items()}
        missing |= dict.fromkeys(row.absent, "not installed")
        cells += [[row.case, str(row.threads), name, why, "", "", "", ""] for name, why in missing.items()]
    return "\n".join([heading(machine, rows), "", *markdown(heads, cells)])


def exponents(rows: Iterable[Row]) -> dict[str, float]:
    """The exponent p of time a sequence ~ length^p by least squares, for kinds of cases with three lengths or more.

    In a series of scaling it is that of the time ~ x^p, x the number of the shape that the series varies.
    """
    points = defaultdict(list)
    for row in rows:
        if row.work is None:
            continue
        size, seconds = row.work.length, row.times[OURS].median / row.work.sequences
        series = re.fullmatch(r"scaling-(\w)/([\dx]+)/.*", row.case)
        if series and series[1] in SERIES:
            size = int(series[2].split("x")[SERIES[series[1]].index(series[1])])
            seconds = row.times[OURS].median
        points[_kind(row)].append((math.log(size), math.log(seconds)))
    return {name: _slope(at) for name, at in points.items() if len({x for x, _ in at}) >= 3}


def gains(rows: Sequence[Row]) -> dict[str, float]:
    """How many times as fast as on one thread each kind of case is on others: the median of its cases."""
    alone = {row.case: row.times[OURS].median for row in rows if row.threads == 1}
    found = defaultdict(list)
    for row in rows:
        if row.threads > 1 and row.case in alone:
            found[_kind(row)].append(alone[row.case] / row.times[OURS].median)
    return {name: statistics.median(ratios) for name, ratios in found.items()}


def gains_of_ranks(rows: Iterable[Row]) -> dict[str, float]:
    """How many times as fast as one process alone several are, by case."""
    found, alone = {}, {}
    for row in rows:
        name = re.fullmatch(r"distributed/(\w+)/P(\d+)/(.*)", row.case)
        if name and name[2] == "1":
            alone[name[3]] = row.times[OURS].median
        elif name and name[3] in alone:
            found[f"{name[1]} {name[3]}, {name[2]} processes"] = alone[name[3]] / row.times[OURS].median
    return found


def _kind(row: Row) -> str:
    return f"{kind(row.case)}, {row.threads} thread{'s' * (row.threads > 1)}"


def _slope(points: list[tuple[float, float]]) -> float:
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def _columns(row: Row) -> dict[str, str]:
    peer, ratio, part, reached, rates = row.best_peer(), row.speed_up(), row.part(), row.share(), row.rates()
    return {
        "case": row.case,
        "threads": str(row.threads),
        "best peer": peer or "",
        "its ms": _milliseconds(row.times[peer]) if peer else "",
        "longconv ms": _milliseconds(row.times[OURS]),
        "times faster": f"{ratio:.2f}" if ratio else "",
        f"of a {WHOLE}": f"{100 * part:.0f} %" if part else "",
        **{name: f"{rates[name]:.3g}" if rates else "" for name in ("sequences/s", "tokens/s", "GFLOP/s", "GB/s")},
        "of the ceiling": f"{100 * reached:.0f} %" if reached else "",
        "MB sent": f"{row.sent / 1e6:.3g}" if row.sent else "",
        "error": f"{row.errors[OURS]:.1e}",
        "memory, of the peer's": f"{row.memory[OURS] / row.memory[peer]:.2f}" if peer and row.memory else "",
    }


def _milliseconds(timing: Timing) -> str:
    return f"{1e3 * timing.median:.4g} ± {50 * (timing.high - timing.low) / timing.median:.0f} %"


def markdown(heads: Sequence[str], cells: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table.

    >>> markdown(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    rows = [f"| {' | '.join(line)} |" for line in (heads, *cells)]
    return [rows[0], "|---" * len(heads) + "|", *rows[1:]]
