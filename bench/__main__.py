"""``python -m bench``: time longconv's operators beside what users write without it."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bench.advise import advise
from bench.cases import CASES, fits, quick, select
from bench.compare import comparison, run_revision
from bench.machine import restart_warm
from bench.measure import WrongResultError
from bench.plots import save_plots
from bench.report import Row, load
from bench.run import profile, run
from bench.tables import side_table, table

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main() -> None:
    """The command line."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.command in ("run", "advise", "compare", "profile"):
        restart_warm()
    try:
        _COMMANDS[arguments.command](arguments)
    except ValueError as error:
        parser.error(str(error))
    except WrongResultError as error:
        raise SystemExit(f"refused: {error}") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"failed: {shlex.join(error.cmd)}") from None
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        raise SystemExit(130) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the names of all cases")
    run = commands.add_parser("run", help="check and time cases")
    run.add_argument("cases", nargs="*", help="names, groups (what stands before a slash) or shell patterns; all")
    run.add_argument("--threads", type=int, nargs="+", help="thread counts (default: those of the case)")
    run.add_argument("--seconds", type=float, default=2.0, help="time for the rounds of a case")
    run.add_argument("--memory", action="store_true", help="measure peak memory too, in processes of their own")
    run.add_argument(
        "--quick", action="store_true", help="few rounds, one thread, and where no case is named one of every kind"
    )
    run.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    target = run.add_mutually_exclusive_group()
    target.add_argument("--output", type=Path, help="JSON file; finished cases are in it even after Ctrl-C")
    target.add_argument("--add", type=Path, metavar="FILE", help="the same, beside the rows FILE has of this machine")
    run.add_argument("--missing", action="store_true", help="with --add: only the cases and threads that FILE lacks")
    show = commands.add_parser("table", help="print a results file as a Markdown table")
    show.add_argument("results", type=Path)
    show.add_argument("cases", nargs="*", help="names, groups or shell patterns; all")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--brief", action="store_true", help="times and speed-ups alone")
    form.add_argument("--sides", action="store_true", help="a row a side, with those that are not installed")
    plot = commands.add_parser("plot", help="draw a results file as PNG and SVG")
    plot.add_argument("results", type=Path)
    plot.add_argument("cases", nargs="*", help="names, groups or shell patterns; all")
    plot.add_argument("--folder", type=Path, help="where to (default: a folder of the results' name beside them)")
    compare = commands.add_parser("compare", help="print the change between two results files or git revisions")
    compare.add_argument("before", help="a results file, else a revision")
    compare.add_argument("after", help="a results file, else a revision")
    compare.add_argument("cases", nargs="*", help="for revisions: the cases to run")
    compare.add_argument("--seconds", type=float, default=2.0, help="for revisions: time for the rounds of a case")
    trace = commands.add_parser("profile", help="record a torch profiler trace of a case, print the greatest costs")
    trace.add_argument("case")
    trace.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    trace.add_argument("--output", type=Path, default=Path("trace.json"))
    advice = commands.add_parser("advise", help="measure which backend and how many threads suit a convolution here")
    for name, default in (("length", 4096), ("channels", 256), ("batch", 8), ("taps", None)):
        advice.add_argument(f"--{name}", type=_positive, default=default)
    advice.add_argument("--dtype", choices=DTYPES, default="float32")
    advice.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    advice.add_argument("--forward", action="store_true", help="the forward pass alone")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if arguments.missing and not arguments.add:
        raise ValueError("--missing goes with --add FILE, which says what is there")
    cases = quick() if arguments.quick and not arguments.cases else select(arguments.cases)
    run(
        cases,
        threads=arguments.threads or ([1] if arguments.quick else None),
        seconds=0.0 if arguments.quick else arguments.seconds,
        memory=arguments.memory,
        device=arguments.device,
        output=arguments.output or arguments.add,
        add=arguments.add is not None,
        missing=arguments.missing,
    )


def _load(arguments: argparse.Namespace) -> tuple[dict[str, str], list[Row]]:
    """Machine and those rows of a results file that are asked for."""
    machine, rows = load(arguments.results)
    found = [row for row in rows if fits(row.case, arguments.cases)]
    if not found:
        raise ValueError(f"{arguments.results} has no case {' or '.join(arguments.cases) or 'at all'}")
    return machine, found


def _table(arguments: argparse.Namespace) -> None:
    found = _load(arguments)
    print(side_table(*found) if arguments.sides else table(*found, brief=arguments.brief))


def _plot(arguments: argparse.Namespace) -> None:
    for path in save_plots(*_load(arguments), arguments.folder or arguments.results.with_suffix("")):
        print(path)


def _compare(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for index, side in enumerate((arguments.before, arguments.after)):
            path = Path(side)
            if not path.is_file():
                path = Path(folder) / f"{index}.json"
                run_revision(side, arguments.cases, arguments.seconds, path)
            found.append(load(path)[1])
        print(comparison(*found))


def _profile(arguments: argparse.Namespace) -> None:
    print(profile(select([arguments.case])[0], torch.device(arguments.device), arguments.output))


def _advise(arguments: argparse.Namespace) -> None:
    print(advise(arguments.batch, arguments.channels, arguments.length, arguments.taps, dtype=DTYPES[arguments.dtype],
                 device=arguments.device, backward=not arguments.forward))  # fmt: skip


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_COMMANDS = {
    "list": lambda _: print("\n".join(CASES)),
    "table": _table,
    "run": _run,
    "plot": _plot,
    "compare": _compare,
    "profile": _profile,
    "advise": _advise,
}

if __name__ == "__main__":
    main()
