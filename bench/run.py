"""Running cases: check, time, measure memory, and keep what is finished."""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.case import OURS, WHOLE, Case, Problem
from bench.cases import CASES
from bench.machine import WARM, Ceilings, ceilings, describe
from bench.measure import WrongResultError, errors, least_bytes, peak_memory, sent_bytes, summarize, thread_count, times
from bench.report import Row, check_same, load, merged, save

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


def run(
    cases: Sequence[Case],
    *,
    threads: Sequence[int] | None = None,
    seconds: float = 2.0,
    memory: bool = False,
    device: str = "cpu",
    output: Path | None = None,
    add: bool = False,
    missing: bool = False,
) -> list[Row]:
    """Run cases one after the other, print a line each, and write what is finished after each.

    Args:
        cases: see :func:`bench.cases.select`.
        threads: thread counts in place of those of a case; on a GPU there is one row a case.
        seconds: time for the rounds of a row; 0 for as few rounds as there may be.
        memory: measure peak memory too, in processes of their own (CPU).
        device: "cpu" or "cuda".
        output: the JSON file of :func:`bench.report.save`.
        add: keep the rows that the file has, but those that are measured again.
        missing: of these cases, measure only what the file lacks.

    Raises:
        WrongResultError: at the end, the cases that were refused, since our own result was off or there was none.
        ValueError: the file to add to is of another machine.
    """
    machine, rows, wrong = describe(), [], []
    before = _kept(output, machine) if add and output and output.exists() else []
    known = {(row.case, row.threads) for row in before} if missing else set()
    todo = [(case, [n for n in _counts(case, threads, device) if (case.name, n) not in known]) for case in cases]
    todo = [(case, counts) for case, counts in todo if counts and case.device in (None, device)]
    console = Console(soft_wrap=True, highlight=False)
    console.print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    if elsewhere := [case for case in cases if case.device not in (None, device)]:
        console.print(f"left out, they need --device {elsewhere[0].device}: {len(elsewhere)} cases", markup=False)
    with Progress(*_COLUMNS, console=console, transient=True) as progress:
        task = progress.add_task("rows", total=sum(len(counts) for _, counts in todo))
        for case, counts in todo:
            progress.update(task, description=case.name)
            try:
                for row in _rows(case, counts, seconds, memory, torch.device(device)):
                    rows.append(replace(row, date=machine["date"], commit=machine["commit"]))
                    if output:
                        save(output, machine, merged(before, rows))
                    console.print(f"[{len(rows)}] {_line(row)}", markup=False)
            except ModuleNotFoundError as error:
                console.print(f"left out: {case.name}: {error}", markup=False)
            except Exception as error:
                name = "" if isinstance(error, WrongResultError) else f"{type(error).__name__}: "
                wrong.append(f"{case.name}: {name}{error}")
                console.print(f"refused: {wrong[-1]}", markup=False)
            progress.advance(task, len(counts))
    if wrong:
        raise WrongResultError("; ".join(wrong))
    return rows


def make(case: Case, device: torch.device) -> Problem:
    """The problem of a case, the same at every call, with its tensors on a device."""
    torch.manual_seed(0)
    with device:
        return case.make()


def profile(case: Case, device: torch.device, trace: Path) -> str:
    """Record some calls of ours, write the trace for Perfetto or chrome://tracing, and tell the greatest costs."""
    problem = make(case, device)
    alone = replace(problem, sides={OURS: problem.installed[OURS]})
    times(alone, 0.0)
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] * (device.type == "cuda")
    start = time.perf_counter()
    with torch.profiler.profile(activities=activities) as recorded:
        times(alone, 0.0)
    seconds = time.perf_counter() - start
    trace.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(trace))
    averages = recorded.key_averages()
    own = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    own_times = {event.key: float(getattr(event, own)) for event in averages}
    share = sum(value for key, value in own_times.items() if "longconv" in key) / sum(own_times.values())
    listing = averages.table(sort_by=own, row_limit=15, max_name_column_width=60)
    return f"{listing}\n{100 * share:.0f} % of the time is in longconv's operators; {seconds:.2f} s in all; {trace}"


@functools.cache
def _ceilings_once(device: torch.device, threads: int) -> Ceilings:
    """Those of a run that is to be short."""
    return ceilings(device)


def _counts(case: Case, threads: Sequence[int] | None, device: str) -> Sequence[int]:
    return [1] if device == "cuda" else threads or case.threads


def _kept(path: Path, machine: dict[str, str]) -> list[Row]:
    """The rows of a file to add to, each with its own date and commit."""
    kept, rows = load(path)
    check_same(kept, machine)
    return [replace(row, date=row.date or kept["date"], commit=row.commit or kept["commit"]) for row in rows]


def _rows(case: Case, threads: Sequence[int], seconds: float, memory: bool, device: torch.device) -> Iterator[Row]:
    """A row for every thread count; all are of the same inputs."""
    problem = make(case, device)
    absent = tuple(name for name, solve in problem.sides.items() if solve is None)
    found, refused = errors(problem)
    kept = {name: solve for name, solve in problem.installed.items() if name not in refused}
    problem = replace(problem, sides=kept)
    size, sent = least_bytes(problem), sent_bytes(problem)
    peaks = {side: _peak(case.name, side, device) for side in found} if memory else {}
    for count in threads:
        with thread_count(count):
            limits = (ceilings(device) if seconds else _ceilings_once(device, count)) if problem.work else None
            timings = {name: summarize(found) for name, found in times(problem, seconds).items()}
        yield Row(case.name, count, timings, found, peaks, problem.work, size, limits, absent, refused, sent=sent)


def _line(row: Row) -> str:
    ratio, part, share = row.speed_up(), row.part(), row.share()
    parts = [f"{row.case}, {row.threads} thread{'s' * (row.threads > 1)}:"]
    parts += [f"{name} {1e3 * timing.median:.4g} ms," for name, timing in row.times.items()]
    parts += [f"{ratio:.2f} x {row.best_peer()}"] if ratio else []
    parts += [f"{100 * part:.0f} % of a {WHOLE}"] if part else []
    parts += [f"{100 * share:.0f} % of the ceiling"] if share else []
    parts += [f"{row.sent / 1e6:.3g} MB sent"] if row.sent else []
    parts += [f"({', '.join(row.absent)} not installed)"] if row.absent else []
    parts += [f"({name} refused: {reason})" for name, reason in row.refused.items()]
    return " ".join(parts)


def _peak(name: str, side: str, device: torch.device) -> int:
    """:func:`bench.measure.peak_memory`.

    On the CPU it is that of a new process, which gives freed memory back, as glibc does by itself.
    """
    if device.type == "cuda":
        return peak_memory(make(CASES[name], device), side)
    warm = {key: os.environ.pop(key) for key in WARM if key in os.environ}
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_peak_here, (name, side))
    finally:
        os.environ.update(warm)


def _peak_here(name: str, side: str) -> int:
    torch.set_num_threads(1)
    return peak_memory(make(CASES[name], torch.device("cpu")), side)
