"""Pictures of results: time, speed-up, memory and error over the length, and the roofline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.case import OURS
from bench.report import Row, kind
from bench.tables import heading

LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"), ((0, (1, 3)), "v"))
"""Line and marker of a side: told apart without colour."""


def save_plots(machine: dict[str, str], rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write a figure of every kind of case with two lengths or more, and one roofline, each as PNG and SVG.

    Returns:
        the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.work is not None:
            groups[kind(row.case), row.threads].append(row)
    shown = {key: machine[key] for key in ("cpu", "gpu", "date", "commit") if machine.get(key, "none") != "none"}
    under = heading(shown, rows)
    written = []
    for (name, threads), found in groups.items():
        if len({row.work.length for row in found if row.work}) > 1:
            title = f"{name.replace('/', ', ')}, {threads} thread{'s' * (threads > 1)}\n{under}"
            written += _save(over_length(found, title), folder / f"{name.replace('/', '-')}-{threads}")
    sized = [row for row in rows if row.work and row.work.flops and row.ceilings]
    return written + (_save(roofline(sized, under), folder / "roofline") if sized else [])


def over_length(rows: Sequence[Row], title: str) -> Figure:
    """Time a sequence, speed-up, error, and peak memory where it was measured, of the rows of one kind."""
    rows = sorted(rows, key=lambda row: row.work.length if row.work else 0)
    with_memory = [row for row in rows if row.memory]
    figure = Figure(figsize=(9, 7) if with_memory else (12, 4.2), layout="constrained")
    time, ratio, error, *memory = figure.subplots(*((2, 2) if with_memory else (1, 3))).flat
    _lines(time, rows, lambda row, side: 1e6 * row.times[side].median / (row.work.sequences if row.work else 1))
    time.set(ylabel="us a sequence", yscale="log")
    _lines(ratio, rows, lambda row, side: row.times[side].median / row.times[OURS].median)
    ratio.set(ylabel="time / longconv's", ylim=(0, None))
    _lines(error, rows, lambda row, side: row.errors.get(side))
    error.set(ylabel="relative error (L2)", yscale="log")
    for axis in memory:
        _lines(axis, with_memory, lambda row, side: row.memory[side] / row.least_bytes if side in row.memory else None)
        axis.set(ylabel="peak memory / least bytes", ylim=(0, None))
    for axis in (time, ratio, error, *memory):
        axis.set_xscale("log", base=2)
        axis.set_xlabel("length")
        axis.grid(color="0.9")
    time.legend(frameon=False)
    figure.suptitle(title, fontsize="medium")
    return figure


def roofline(rows: Sequence[Row], title: str) -> Figure:
    """Operations a second over operations a byte, under what a copy and a matrix product reach on as many threads.

    Marks of one thread are filled. Operations are those of the usual way: what takes fewer may come out above.
    """
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axis = figure.subplots()
    points = [(row, row.work.flops / row.least_bytes, row.rates()["GFLOP/s"]) for row in rows if row.work]
    edges = [x for _, x, _ in points]
    intensity = np.geomspace(min(0.5, *edges) / 2, 2 * max(20, *edges), 200)
    by_threads: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_threads[row.threads].append(row)
    for (line, _), (threads, found) in zip(cycle(LINES), sorted(by_threads.items()), strict=False):
        ceilings = [row.ceilings for row in found if row.ceilings]
        copy = float(np.median([c.bytes_per_second for c in ceilings]))
        product = float(np.median([c.flops_per_second for c in ceilings]))
        axis.plot(intensity, np.minimum(product, copy * intensity) / 1e9, "k", linestyle=line, linewidth=1,
                  label=f"ceiling, {threads} thread{'s' * (threads > 1)}")  # fmt: skip
    groups = list(dict.fromkeys(row.case.split("/")[0] for row in rows))
    markers = "os^Dv<>pP*Xh"
    for index, name in enumerate(groups):
        shade = str(0.6 * index / max(len(groups) - 1, 1))
        own = [point for point in points if point[0].case.split("/")[0] == name]
        filled = [shade if row.threads == 1 else "none" for row, *_ in own]
        axis.scatter([x for _, x, _ in own], [y for *_, y in own], marker=markers[index % len(markers)], s=22,
                     edgecolors=shade, facecolors=filled, linewidths=0.8, label=name)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s, by the usual way's operations")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    axis.grid(color="0.9")
    axis.set_title(title, fontsize="medium")
    return figure


def _lines(axis: Axes, rows: Sequence[Row], value: Callable[[Row, str], float | None]) -> None:
    """A line a side through the rows of :func:`_joined`, ours first and bold; hollow marks at all others."""
    joined = _joined(rows)
    groups = (joined, True), ([row for row in rows if row not in joined], False)
    sides = list(dict.fromkeys(name for row in rows for name in row.times))
    for side, (line, marker) in zip(sorted(sides, key=lambda name: name != OURS), cycle(LINES), strict=False):
        grey, width = ("0", 2.0) if side == OURS else ("0.45", 1.2)
        label: str | None = side
        for found, is_line in groups:
            points = [(row.work.length, value(row, side)) for row in found if row.work and side in row.times]
            points = [(length, y) for length, y in points if y is not None]
            if points:
                axis.plot(
                    *zip(*points, strict=True),
                    color=grey,
                    linewidth=width,
                    linestyle=line if is_line else "",
                    marker=marker,
                    markersize=4,
                    markerfacecolor=grey if is_line else "none",
                    label=label,
                )
                label = None


def _joined(rows: Sequence[Row]) -> list[Row]:
    """A row a length, the one of most positions, of the lengths that are powers of two; all where these are few."""
    largest: dict[int, Row] = {}
    for row in rows:
        if row.work and row.work.length & (row.work.length - 1) == 0:
            best = largest.get(row.work.length)
            if best is None or best.work is None or row.work.tokens > best.work.tokens:
                largest[row.work.length] = row
    return list(largest.values()) if len(largest) > 1 else list(rows)


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{form}") for form in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=120)
    return paths
