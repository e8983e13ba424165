"""The change between two results, by a verdict that knows the noise."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.case import OURS
from bench.measure import Timing
from bench.report import Row

LEAST_CHANGE = 0.03
"""A change by less, as a part of 1, is called none even where the noise is lower."""


@dataclass(frozen=True)
class Change:
    """How a case came out before and after.

    Attributes:
        case: its name.
        threads: its threads.
        ratio: time after over time before, divided by the same ratio of the peers, which the change left as they were.
        noise: what the ratio is uncertain by, as a part of 1.
    """

    case: str
    threads: int
    ratio: float
    noise: float

    def verdict(self) -> str:
        """Faster, slower, or no change that the noise lets through.

        >>> Change("x", 1, ratio=0.5, noise=0.1).verdict(), Change("x", 1, ratio=1.1, noise=0.1).verdict()
        ('faster', 'the same')
        """
        if abs(math.log(self.ratio)) <= max(self.noise, LEAST_CHANGE):
            return "the same"
        return "faster" if self.ratio < 1 else "slower"


def changes(before: Iterable[Row], after: Iterable[Row]) -> list[Change]:
    """The change of every case that both have on the same number of threads."""
    old = {(row.case, row.threads): row for row in before}
    return [_change(old[row.case, row.threads], row) for row in after if (row.case, row.threads) in old]


def comparison(before: Sequence[Row], after: Sequence[Row]) -> str:
    """All changes as a Markdown table, and what only one side has."""
    found = changes(before, after)
    lines = ["| case | threads | time, of before | noise | verdict |", "|---|---|---|---|---|"]
    lines += [f"| {c.case} | {c.threads} | {c.ratio:.3f} | ± {100 * c.noise:.0f} % | {c.verdict()} |" for c in found]
    for name, here, there in (("before", before, after), ("after", after, before)):
        alone = {(row.case, row.threads) for row in here} - {(row.case, row.threads) for row in there}
        lines += [f"\nOnly {name}: {', '.join(f'{case} ({n})' for case, n in sorted(alone))}."] if alone else []
    return "\n".join(lines)


def run_revision(revision: str, cases: Sequence[str], seconds: float, output: Path) -> None:
    """Check a revision of this repository out, build its CPU library, and run its own benchmark on cases.

    The build stays beside ``output``, for another revision with the same C++.

    Raises:
        subprocess.CalledProcessError: git does not know the revision, or it does not build, or its benchmark fails.
        ValueError: git or cmake is not on the path.
    """
    if missing := [name for name in ("git", "cmake") if not shutil.which(name)]:
        raise ValueError(f"to build a revision takes git and cmake: there is no {' and no '.join(missing)} on the path")
    git = ["git", "-C", str(Path(__file__).parents[1])]
    sources = subprocess.run([*git, "rev-parse", f"{revision}:csrc"], check=True, stdout=subprocess.PIPE, text=True)
    build = output.parent / sources.stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run([*git, "worktree", "add", "--detach", str(tree), revision], check=True)
        try:
            if not build.exists():
                configure = ["cmake", "-S", str(tree / "csrc"), "-B", str(build), "-DLONGCONV_CUDA=OFF"]
                subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
                make = ["cmake", "--build", str(build), "-j", str(os.cpu_count() or 1)]
                subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
            (tree / "longconv" / "lib").mkdir()
            for library in build.glob("liblongconv_cpu.*"):
                shutil.copy(library, tree / "longconv" / "lib")
            command = [sys.executable, "-m", "bench", "run", *cases, "--seconds", str(seconds)]
            subprocess.run([*command, "--output", str(output.resolve())], cwd=tree, check=True)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def _change(before: Row, after: Row) -> Change:
    peers = sorted((before.times.keys() & after.times.keys()) - {OURS})
    drift = [math.log(after.times[name].median / before.times[name].median) for name in peers]
    own = math.log(after.times[OURS].median / before.times[OURS].median)
    noise = math.hypot(*(_spread(row.times[name]) for row in (before, after) for name in (OURS, *peers[:1])))
    return Change(after.case, after.threads, math.exp(own - sum(drift) / max(len(drift), 1)), noise)


def _spread(timing: Timing) -> float:
    """Half the distance of the quartiles, as a part of the median."""
    return (timing.high - timing.low) / 2 / timing.median
