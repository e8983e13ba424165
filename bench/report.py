"""Results as JSON, one row a case and thread count, and as a Markdown table."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.case import OURS
from bench.measure import CEILING, Timing


@dataclass(frozen=True)
class Row:
    """The outcome of a case: times and errors by side, peak memory in bytes by side where it was measured."""

    case: str
    threads: int
    times: dict[str, Timing]
    errors: dict[str, float]
    memory: dict[str, int]

    def best_peer(self) -> str | None:
        """The fastest side that isn't ours, None if ours is alone."""
        peers = [name for name in self.times if name not in (OURS, CEILING)]
        return min(peers, key=lambda name: self.times[name].median) if peers else None

    def speed_up(self) -> float | None:
        """How many times faster ours is than the best peer."""
        peer = self.best_peer()
        return None if peer is None else self.times[peer].median / self.times[OURS].median

    def share(self) -> float | None:
        """The share of the ceiling that ours reaches."""
        return self.times[CEILING].median / self.times[OURS].median if CEILING in self.times else None


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
        rows.append(Row(**row))
    return content["machine"], rows


def table(machine: dict[str, str], rows: Iterable[Row]) -> str:
    """Machine and rows in Markdown; times are medians, with the quartiles' distance in per cent."""
    lines = [", ".join(f"{key}: {value}" for key, value in machine.items()), ""]
    heads = ["case", "threads", "best peer", "its ms", "longconv ms", "times faster", "of the ceiling", "error"]
    heads += ["memory, of the peer's"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    peer, ratio, reached = row.best_peer(), row.speed_up(), row.share()
    memory = f"{row.memory[OURS] / row.memory[peer]:.2f}" if peer and row.memory else ""
    return [
        row.case,
        str(row.threads),
        peer or "",
        _milliseconds(row.times[peer]) if peer else "",
        _milliseconds(row.times[OURS]),
        f"{ratio:.2f}" if ratio else "",
        f"{100 * reached:.0f} %" if reached else "",
        f"{row.errors[OURS]:.1e}",
        memory,
    ]


def _milliseconds(timing: Timing) -> str:
    return f"{1e3 * timing.median:.4g} ± {50 * (timing.high - timing.low) / timing.median:.0f} %"
