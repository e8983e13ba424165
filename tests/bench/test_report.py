"""Results in files, tables, comparisons and plots."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.case import OURS, WHOLE, Work
from bench.compare import changes, comparison, run_revision
from bench.machine import Ceilings
from bench.measure import Timing, summarize
from bench.plots import over_length, save_plots
from bench.report import Row, load, save
from bench.tables import exponents, gains, side_table, table

LIMITS = Ceilings(bytes_per_second=1e3, flops_per_second=1e6)


def row(case: str = "sum/3", length: int = 10, **times: float) -> Row:
    timings = {name: summarize([t, t]) for name, t in times.items()}
    memory = {OURS: 1000, "fast": 4000, "slow": 9000}
    return Row(case, 2, timings, {OURS: 1e-7}, memory, Work(3e5, 4, length), 500, LIMITS, ("gone",))


def test_the_fastest_peer_is_the_one_to_beat() -> None:
    it = row(longconv=1.0, slow=9.0, fast=3.0)
    assert (it.best_peer(), it.speed_up(), it.share()) == ("fast", 3.0, 0.5)
    assert it.rates() == {"sequences/s": 4.0, "tokens/s": 40.0, "GFLOP/s": 3e-4, "GB/s": 5e-7}
    alone = Row("calls/3", 1, {OURS: summarize([1.0, 1.0])}, {OURS: 0.0}, {})
    assert (alone.best_peer(), alone.speed_up(), alone.share(), alone.rates()) == (None, None, None, {})


def test_what_a_problem_is_a_part_of_is_no_peer() -> None:
    it = row(longconv=1.0)
    it = dataclasses.replace(it, times={**it.times, WHOLE: summarize([4.0, 4.0])})
    assert (it.best_peer(), it.speed_up(), it.part()) == (None, None, 0.25)
    assert "| 25 % |" in table({}, [it])
    assert row(longconv=1.0).part() is None


def test_results_survive_a_file_and_become_a_table(tmp_path: Path) -> None:
    bare = Row("calls/3", 1, {OURS: summarize([2.0, 2.0])}, {OURS: 0.0}, {})
    rows = [row(longconv=1.0, slow=9.0, fast=3.0), bare]
    save(tmp_path / "new" / "r.json", {"cpu": "x"}, rows)
    machine, again = load(tmp_path / "new" / "r.json")
    assert again == rows
    lines = table(machine, again).splitlines()
    assert lines[0] == "cpu: x, measured: ? of ?"
    cells = "sum/3 | 2 | fast | 3000 ± 0 % | 1000 ± 0 % | 3.00 | 4 | 40 | 0.0003 | 5e-07 | 50 % | 1.0e-07 | 0.25"
    assert lines[4] == f"| {cells} |"
    assert len({line.count("|") for line in lines[2:6]}) == 1
    assert lines[-1] == "Not installed: gone."
    brief = table(machine, again, brief=True).splitlines()
    assert brief[4:] == [
        "| sum/3 | 2 | fast | 3000 ± 0 % | 1000 ± 0 % | 3.00 |",
        "| calls/3 | 1 |  |  | 2000 ± 0 % |  |",
    ]


def test_a_row_a_side(tmp_path: Path) -> None:
    it = dataclasses.replace(row(longconv=1.0, fast=3.0), refused={"odd": "shapes"}, date="2026-01-02", commit="abc")
    save(tmp_path / "r.json", {"cpu": "x", "date": "2026-01-01", "commit": "012"}, [it])
    lines = side_table(*load(tmp_path / "r.json")).splitlines()
    assert lines[0] == "cpu: x, measured: 2026-01-02 of abc"
    assert lines[4:] == [
        "| sum/3 | 2 | longconv | 1000 ± 0 % | 1.00 | 4 | 1.0e-07 | 0.0 |",
        "| sum/3 | 2 | fast | 3000 ± 0 % | 3.00 | 1.33 |  | 0.0 |",
        "| sum/3 | 2 | odd | refused: shapes |  |  |  |  |",
        "| sum/3 | 2 | gone | not installed |  |  |  |  |",
    ]


def test_exponents_of_the_cost() -> None:
    """Time a sequence that grows as the square of the length; two lengths are too few to tell."""
    rows = [row(f"sum/{n}", n, longconv=1e-3 * n**2) for n in (16, 64, 256)]
    assert exponents(rows) == {"sum, 2 threads": pytest.approx(2.0)}
    assert exponents(rows[:2]) == {}
    series = [row(f"scaling-N/64x{n}x4096/both", 4096, longconv=3e-4 * n) for n in (4, 16, 64)]
    assert exponents(series) == {"scaling-N/both, 2 threads": pytest.approx(1.0)}
    series = [row(f"scaling-B/{n}x64x4096/both", 4096, longconv=3e-4 * n**0.5) for n in (1, 4, 16)]
    assert exponents(series) == {"scaling-B/both, 2 threads": pytest.approx(0.5)}


def test_gain_of_threads() -> None:
    rows = [row(f"sum/{n}", n, longconv=1e-3 * n) for n in (16, 64, 256)]
    alone = [dataclasses.replace(row(f"sum/{n}", n, longconv=1e-3 * n * f), threads=1)
             for n, f in ((16, 1.2), (64, 1.9), (256, 1.6))]  # fmt: skip
    assert gains([*alone, *rows]) == {"sum, 2 threads": pytest.approx(1.6)}
    assert gains(rows) == {}


def test_comparison_knows_drift_and_noise() -> None:
    """A machine that became twice as slow is no change; a peer shows it."""
    before = [row(longconv=1.0, fast=3.0), row("mul/3", longconv=1.0, fast=3.0), row("old/1", longconv=1.0)]
    after = [row(longconv=2.0, fast=6.0), row("mul/3", longconv=1.0, fast=6.0), row("new/1", longconv=1.0)]
    assert [(c.case, c.ratio, c.verdict()) for c in changes(before, after)] == [
        ("sum/3", pytest.approx(1.0), "the same"),
        ("mul/3", pytest.approx(0.5), "faster"),
    ]
    assert [c.verdict() for c in changes(after[1:2], before[1:2])] == ["slower"]
    text = comparison(before, after)
    assert "Only before: old/1 (2)." in text
    assert "Only after: new/1 (2)." in text
    noisy = Row("mul/3", 2, {OURS: Timing(1.2, 0.9, 1.5), "fast": summarize([3.0, 3.0])}, {OURS: 0.0}, {})
    assert [c.verdict() for c in changes(before, [noisy])] == ["the same"]


def test_plots(tmp_path: Path) -> None:
    rows = [row(f"sum/{n}", n, longconv=1e-3 * n, fast=2e-3 * n) for n in (16, 64, 256)]
    rows = [dataclasses.replace(r, errors={OURS: 1e-7, "fast": 1e-6}) for r in rows]
    empty = dataclasses.replace(rows[0], case="copy/16", work=Work(0.0, 4, 16))
    written = save_plots({"cpu": "x"}, [*rows, empty], tmp_path)
    assert len(over_length(rows, "").axes) == 4
    assert len(over_length([dataclasses.replace(r, memory={}) for r in rows], "").axes) == 3
    assert sorted(path.name for path in written) == ["roofline.png", "roofline.svg", "sum-2.png", "sum-2.svg"]
    assert all(path.stat().st_size > 5000 for path in written)


def test_a_revision_needs_what_builds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no git and no cmake on the path"):
        run_revision("HEAD", ["fft_conv/8x256x256/forward"], 0.0, tmp_path / "0.json")
