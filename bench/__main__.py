"""``python -m bench``: time longconv's operators beside what users write without it."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.case import Case
from bench.cases import CASES, select
from bench.machine import describe, restart_warm
from bench.measure import errors, peak_memory, summarize, thread_count, times
from bench.report import Row, load, save, table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the names of all cases")
    run = commands.add_parser("run", help="check and time cases")
    run.add_argument("cases", nargs="*", help="names, groups (what stands before a slash) or shell patterns; all")
    run.add_argument("--threads", type=int, nargs="+", help="thread counts (default: those of the case)")
    run.add_argument("--seconds", type=float, default=2.0, help="time for the rounds of a case")
    run.add_argument("--memory", action="store_true", help="measure peak memory too, in processes of their own")
    run.add_argument("--quick", action="store_true", help="as few rounds as there may be")
    run.add_argument("--output", type=Path, help="JSON file; finished cases are in it even after Ctrl-C")
    show = commands.add_parser("table", help="print a results file as a Markdown table")
    show.add_argument("results", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(CASES))
    elif arguments.command == "table":
        print(table(*load(arguments.results)))
    else:
        try:
            cases = select(arguments.cases)
        except ValueError as error:
            parser.error(str(error))
        restart_warm()
        _run(cases, arguments)


def _run(cases: list[Case], arguments: argparse.Namespace) -> None:
    machine, rows = describe(), []
    print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    try:
        for case in cases:
            for row in _rows(case, arguments):
                rows.append(row)
                print(f"[{len(rows)}] {_line(row)}", flush=True)
                if arguments.output:
                    save(arguments.output, machine, rows)
    except KeyboardInterrupt:
        print(f"interrupted; {len(rows)} results are finished", file=sys.stderr)
        raise SystemExit(130) from None


def _rows(case: Case, arguments: argparse.Namespace) -> Iterator[Row]:
    """A row for every thread count; all are of the same inputs."""
    torch.manual_seed(0)
    problem = case.make()
    found = errors(problem)
    memory = {side: _peak(case.name, side) for side in problem.sides} if arguments.memory else {}
    for threads in arguments.threads or case.threads:
        with thread_count(threads):
            seconds = times(problem, 0.0 if arguments.quick else arguments.seconds)
        yield Row(case.name, threads, {n: summarize(s) for n, s in seconds.items()}, found, memory)


def _line(row: Row) -> str:
    ratio, share = row.speed_up(), row.share()
    parts = [f"{row.case}, {row.threads} thread{'s' * (row.threads > 1)}:"]
    parts += [f"{name} {1e3 * timing.median:.4g} ms," for name, timing in row.times.items()]
    parts += [f"{ratio:.2f} x {row.best_peer()}"] if ratio else []
    parts += [f"{100 * share:.0f} % of the ceiling"] if share else []
    return " ".join(parts)


def _peak(name: str, side: str) -> int:
    """:func:`bench.measure.peak_memory` in a new process, which keeps no freed memory."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_here, (name, side))


def _peak_here(name: str, side: str) -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return peak_memory(CASES[name].make(), side)


if __name__ == "__main__":
    main()
