"""The benchmark refuses wrong results, times and measures right, keeps what is finished, and its commands work."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.advise import advise
from bench.case import OURS, WHOLE, Case, Problem, Work, both
from bench.cases import CASES
from bench.machine import cache_bytes, ceilings, describe
from bench.measure import (
    MOST_COPIES,
    WrongResultError,
    errors,
    least_bytes,
    relative_error,
    summarize,
    thread_count,
    times,
)
from bench.report import load, save
from bench.run import profile, run
from bench.tables import table

ROOT = Path(__file__).parents[2]


def square(x: Tensor) -> Tensor:
    return x * x


def problem(**changes: object) -> Problem:
    fields = {"inputs": (torch.randn(64),), "sides": {OURS: square, "peer": torch.square}, "exact": square, **changes}
    return Problem(**fields)  # type: ignore[arg-type]


def test_errors_of_result_and_gradients() -> None:
    found, refused = errors(problem(backward=True))
    assert not refused
    assert set(found) == {OURS, "peer"}
    assert max(found.values()) < 1e-6


@pytest.mark.parametrize("backward", [False, True])
def test_a_wrong_side_is_refused(backward: bool) -> None:
    """Ours at its tolerance, a peer where it computes something else; NaN and another shape too."""

    def slightly(x: Tensor) -> Tensor:
        return x * x * (1 + 1e-5)

    with pytest.raises(WrongResultError, match="longconv has a relative error of 1e-05, more than 1e-06"):
        errors(problem(sides={OURS: slightly}, backward=backward))
    assert errors(problem(sides={OURS: square, "peer": slightly}, backward=backward))[0]["peer"] > 5e-6
    sides = {OURS: square, "peer": torch.abs, "other": lambda x: (x * x)[:1]}
    found, refused = errors(problem(sides=sides, backward=backward))
    assert found.keys() == {OURS}
    assert "a relative error of" in refused["peer"]
    assert refused["other"].startswith("shapes [(1,)")
    with pytest.raises(WrongResultError, match="nan"):
        errors(problem(sides={OURS: lambda x: x * x + float("nan")}))
    with pytest.raises(WrongResultError, match="shapes"):
        errors(problem(sides={OURS: lambda x: (x * x)[:1]}))


def test_a_wrong_gradient_is_refused() -> None:
    with pytest.raises(WrongResultError):
        errors(problem(sides={OURS: lambda x: x * x.detach()}, backward=True))


class NoGradient(torch.autograd.Function):
    """The square, whose gradient is no number."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x * x

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0] * float("nan")


def test_a_gradient_that_is_no_number_is_refused() -> None:
    with pytest.raises(WrongResultError, match="longconv has a relative error of nan"):
        errors(problem(sides={OURS: NoGradient.apply}, backward=True))
    assert "peer" in errors(problem(sides={OURS: square, "peer": NoGradient.apply}, backward=True))[1]


def test_a_case_that_needs_another_package_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def make() -> Problem:
        raise ModuleNotFoundError("No module named 'lightning'")

    assert not run([Case("needy", make)], seconds=0.0)
    assert "left out: needy: No module named 'lightning'" in capsys.readouterr().out


def test_a_peer_that_fails_is_refused() -> None:
    def fails(x: Tensor) -> Tensor:
        raise RuntimeError("no kernel\nsecond line")

    found, refused = errors(problem(sides={OURS: square, "peer": fails, WHOLE: fails}))
    assert found.keys() == {OURS}
    assert refused == {"peer": "RuntimeError: no kernel"}
    with pytest.raises(RuntimeError, match="no kernel"):
        errors(problem(sides={OURS: fails}))


def test_a_case_that_fails_does_not_end_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> Problem:
        raise MemoryError("too large")

    with pytest.raises(WrongResultError, match=r"^broken: MemoryError: too large$"):
        run([Case("broken", broken), Case("right", problem, threads=(1,))], seconds=0.0)
    assert "right, 1 thread: longconv" in capsys.readouterr().out


def test_a_refused_case_does_not_end_the_run(tmp_path: Path) -> None:
    """It is told at once and at the end, where the command fails; a refused peer is named in the results."""
    wrong = Case("wrong", lambda: problem(sides={OURS: torch.abs}), threads=(1,))
    right = Case("right", lambda: problem(sides={OURS: square, "peer": torch.abs}), threads=(1,))
    with pytest.raises(WrongResultError, match=r"^wrong: longconv has a relative error"):
        run([wrong, right], seconds=0.0, output=tmp_path / "results.json")
    machine, rows = load(tmp_path / "results.json")
    assert [row.case for row in rows] == ["right"]
    assert rows[0].times.keys() == {OURS}
    assert "Refused: peer in right, a relative error of" in table(machine, rows)


def test_rounds_are_interleaved_and_the_first_is_dropped() -> None:
    calls: list[str] = []

    def side(name: str) -> Tensor:
        calls.append(name)
        return torch.zeros(1)

    sides = {OURS: lambda x: side("a"), "peer": lambda x: side("b")}
    found = times(problem(sides={**sides, "absent": None}), budget=0.0)
    assert calls == ["a", "b"] * 6
    assert {name: len(values) for name, values in found.items()} == {OURS: 5, "peer": 5}


@pytest.mark.parametrize(("work", "expected"), [(None, 1), (Work(1.0, 1, 64), MOST_COPIES)])
def test_inputs_rotate_where_they_fit_the_cache(work: Work | None, expected: int) -> None:
    seen: list[int] = []

    def side(x: Tensor) -> Tensor:
        seen.append(x.data_ptr())
        return x

    times(problem(sides={OURS: side}, work=work), budget=1.0)
    assert len(set(seen)) == expected


def test_least_bytes_by_hand() -> None:
    """64 float32 in, 64 out; with gradients the input and the cotangent are read too, and the gradient written."""
    assert least_bytes(problem()) == 4 * (64 + 64)
    assert least_bytes(problem(backward=True)) == 4 * (64 + 64 + 64 + 64 + 64)


def test_ceilings() -> None:
    found = ceilings(torch.device("cpu"), rounds=1)
    assert 1e8 < found.bytes_per_second < 1e13
    assert 1e8 < found.flops_per_second < 1e15
    assert cache_bytes() >= 1 << 18


def test_times_with_gradients_leave_the_inputs_alone() -> None:
    it = problem(backward=True)
    times(it, budget=0.0)
    assert it.inputs[0].grad is None
    assert not it.inputs[0].requires_grad


def test_statistics() -> None:
    timing = summarize([10.0, 1.0, 2.0, 3.0, 4.0])
    assert (timing.median, timing.low, timing.high) == (3.0, 2.0, 4.0)
    assert relative_error(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])) == 1.0


def test_thread_count_is_put_back() -> None:
    before = torch.get_num_threads()
    with thread_count(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


PEAKS = """
import torch
from bench.case import Problem
from bench.measure import peak_memory

def twice(x):
    return x.add(1.0).add(1.0)

sides = {"once": torch.neg, "twice": twice}
problem = Problem((torch.zeros(10_000_000),), sides, torch.neg, (torch.zeros(1),))
print(*(peak_memory(problem, side) / 2**20 for side in sides))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_peak_memory() -> None:
    """In a process of its own, where no memory was freed before.

    A side that holds two tensors of 40 MB at once is told from one that fills its result alone.
    """
    done = subprocess.run([sys.executable, "-c", PEAKS], cwd=ROOT, capture_output=True, text=True, check=True)
    once, twice = map(float, done.stdout.split())
    assert 36 < once < 60
    assert 74 < twice < 100


def test_results_are_added_to_a_file_of_this_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each row keeps its own date and commit; what was there is replaced where it is measured again."""
    path = tmp_path / "r.json"
    old, new = (Case(name, problem, threads=(1,)) for name in ("old", "new"))
    run([old], seconds=0.0, output=path)
    machine, rows = load(path)
    save(path, machine | {"date": "2000-01-01", "commit": "012"}, [dataclasses.replace(rows[0], date="", commit="")])
    run([old, new], seconds=0.0, output=path, add=True, missing=True)
    assert "old, 1 thread" not in capsys.readouterr().out.split("\n", 2)[2]
    rows = load(path)[1]
    assert [(r.case, r.date) for r in rows] == [("old", "2000-01-01"), ("new", machine["date"])]
    assert (rows[0].commit, rows[1].commit) == ("012", machine["commit"])
    run([old], seconds=0.0, output=path, add=True)
    assert [(r.case, r.date) for r in load(path)[1]] == [("old", machine["date"]), ("new", machine["date"])]
    save(path, machine | {"cpu": "other"}, rows)
    with pytest.raises(ValueError, match="of another machine: its cpu is other, this one's is"):
        run([new], seconds=0.0, output=path, add=True)
    assert load(path)[1] == rows


def test_advice_names_what_was_measured_and_refused() -> None:
    text = advise(1, 2, 100, 7, seconds=0.0)
    assert "u (1, 2, 100) float32, 7 taps, forward + backward, cpu" in text
    assert "| 1 | torch |" in text
    assert re.search(r"^Use torch.set_num_threads\(\d+\) and \S+.*: [\d.e-]+ ms\.$", text, flags=re.MULTILINE)
    assert "keops" not in text


def test_profile_writes_a_trace(tmp_path: Path) -> None:
    text = profile(CASES["calls/fft_conv/plainx100"], torch.device("cpu"), tmp_path / "new" / "trace.json")
    assert "% of the time is in longconv's operators" in text
    assert json.loads((tmp_path / "new" / "trace.json").read_text())["traceEvents"]


def test_both_makes_each_direction() -> None:
    made = [case.make().backward for case in both("x", lambda backward: problem(backward=backward))]
    assert made == [False, True]


def test_machine() -> None:
    assert all(isinstance(value, str) and value for value in describe().values())


def test_the_command(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    command = [sys.executable, "-m", "bench", "run", "calls/fft_conv/plainx100", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "calls/fft_conv/plainx100, 1 thread: longconv" in done.stdout
    content = json.loads(output.read_text())
    assert len(content["rows"]) == 1
    assert content["machine"]["torch"] == torch.__version__


def test_an_unknown_case_is_named() -> None:
    command = [sys.executable, "-m", "bench", "run", "nothing"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no case fits 'nothing'" in done.stderr


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    """As by Ctrl-C in the middle of the second case, whose rounds would take minutes."""
    output = tmp_path / "r.json"
    cases = ["calls/fft_conv/plainx100", "fft_conv_gated/4x256x16384/both"]
    command = [sys.executable, "-m", "bench", "run", *cases, "--threads", "1", "--seconds", "600"]
    child = subprocess.Popen(
        [*command, "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job is born with it ignored
    )
    try:
        assert child.stdout and any(line.startswith("[1] ") for line in child.stdout)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert told.endswith("interrupted; what was finished is kept\n")
    assert [row.case for row in load(output)[1]] == cases[:1]
