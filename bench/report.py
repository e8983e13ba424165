"""Results as JSON, one row a case and thread count."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.case import OURS, WHOLE, Work
from bench.machine import Ceilings
from bench.measure import Timing

OF_A_ROW = ("date", "commit", "longconv")
"""What may differ among the rows of a file; all else that describes a machine is the same for them."""


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
        refused: peers whose result is off, and how far, or which fail, and how.
        sent: bytes that this process sends to others in a call.
        date, commit: when it was measured, and of what; "" where it is what the file says of its machine.
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
    date: str = ""
    commit: str = ""
    sent: int = 0

    def best_peer(self) -> str | None:
        """The fastest side that isn't ours, None if ours is alone."""
        peers = [name for name in self.times if name not in (OURS, WHOLE)]
        return min(peers, key=lambda name: self.times[name].median) if peers else None

    def speed_up(self) -> float | None:
        """How many times faster ours is than the best peer."""
        peer = self.best_peer()
        return None if peer is None else self.times[peer].median / self.times[OURS].median

    def part(self) -> float | None:
        """Our time as a part of what the problem is a part of."""
        return self.times[OURS].median / self.times[WHOLE].median if WHOLE in self.times else None

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


def merged(before: Iterable[Row], rows: Iterable[Row]) -> list[Row]:
    """All rows; one that was measured again is the newer, in its former place."""
    return list({(row.case, row.threads): row for row in (*before, *rows)}.values())


def check_same(before: dict[str, str], machine: dict[str, str]) -> None:
    """Whether results of two runs may stand in one file.

    >>> check_same({"cpu": "x", "commit": "1"}, {"cpu": "x", "commit": "2"})
    >>> check_same({"cpu": "x"}, {"cpu": "y"})
    Traceback (most recent call last):
        ...
    ValueError: the file is of another machine: its cpu is x, this one's is y

    Raises:
        ValueError: they may not.
    """
    for name in [key for key in {**before, **machine} if key not in OF_A_ROW]:
        old, new = before.get(name, "not known"), machine.get(name, "not known")
        if old != new:
            raise ValueError(f"the file is of another machine: its {name} is {old}, this one's is {new}")


def kind(case: str) -> str:
    """The name of a case without its shape.

    >>> kind("fft_conv/8x256x1024/both")
    'fft_conv/both'
    """
    return "/".join(part for part in case.split("/") if not re.fullmatch(r"[\dx]+", part))
