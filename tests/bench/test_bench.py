"""The benchmark refuses wrong results, counts right, and its cases solve what their peers solve."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.case import OURS, Problem, both
from bench.cases import CASES, select
from bench.cases.fft_conv import next_smooth
from bench.machine import describe
from bench.measure import CEILING, WrongResultError, errors, relative_error, summarize, thread_count, times
from bench.report import Row, load, save, table

ROOT = Path(__file__).parents[2]


def square(x: Tensor) -> Tensor:
    return x * x


def problem(**changes: object) -> Problem:
    fields = {"inputs": (torch.randn(64),), "sides": {OURS: square, "peer": torch.square}, "exact": square, **changes}
    return Problem(**fields)  # type: ignore[arg-type]


def test_errors_of_result_and_gradients() -> None:
    found = errors(problem(backward=True))
    assert set(found) == {OURS, "peer"}
    assert max(found.values()) < 1e-6


@pytest.mark.parametrize("backward", [False, True])
def test_a_wrong_side_is_refused(backward: bool) -> None:
    """Ours at its tolerance, a peer where it computes something else; NaN and another shape too."""

    def slightly(x: Tensor) -> Tensor:
        return x * x * (1 + 1e-5)

    with pytest.raises(WrongResultError, match="longconv has a relative error of 1e-05, more than 1e-06"):
        errors(problem(sides={OURS: slightly}, backward=backward))
    assert errors(problem(sides={OURS: square, "peer": slightly}, backward=backward))["peer"] > 5e-6
    with pytest.raises(WrongResultError, match="peer has a relative error"):
        errors(problem(sides={OURS: square, "peer": torch.abs}, backward=backward))
    with pytest.raises(WrongResultError, match="nan"):
        errors(problem(sides={OURS: lambda x: x * x + float("nan")}))
    with pytest.raises(WrongResultError, match="shapes"):
        errors(problem(sides={OURS: lambda x: (x * x)[:1]}))


def test_a_wrong_gradient_is_refused() -> None:
    with pytest.raises(WrongResultError):
        errors(problem(sides={OURS: lambda x: x * x.detach()}, backward=True))


def test_rounds_are_interleaved_and_the_first_is_dropped() -> None:
    calls: list[str] = []

    def side(name: str) -> Tensor:
        calls.append(name)
        return torch.zeros(1)

    sides = {OURS: lambda x: side("a"), "peer": lambda x: side("b")}
    found = times(problem(sides=sides, ceiling=lambda x: side("c")), budget=0.0)
    assert calls == ["a", "b", "c"] * 6
    assert {name: len(values) for name, values in found.items()} == {OURS: 5, "peer": 5, CEILING: 5}


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


def row(**times: float) -> Row:
    timings = {name: summarize([t, t]) for name, t in times.items()}
    return Row("sum/3", 2, timings, {OURS: 1e-7}, {OURS: 1000, "fast": 4000, "slow": 9000})


def test_the_fastest_peer_is_the_one_to_beat() -> None:
    it = row(longconv=1.0, slow=9.0, fast=3.0, ceiling=0.5)
    assert (it.best_peer(), it.speed_up(), it.share()) == ("fast", 3.0, 0.5)
    alone = row(longconv=1.0)
    assert (alone.best_peer(), alone.speed_up(), alone.share()) == (None, None, None)


def test_results_survive_a_file_and_become_a_table(tmp_path: Path) -> None:
    rows = [row(longconv=1.0, slow=9.0, fast=3.0), row(longconv=2.0, ceiling=1.0)]
    save(tmp_path / "new" / "r.json", {"cpu": "x"}, rows)
    machine, again = load(tmp_path / "new" / "r.json")
    assert again == rows
    lines = table(machine, again).splitlines()
    assert lines[0] == "cpu: x"
    assert lines[4] == "| sum/3 | 2 | fast | 3000 ± 0 % | 1000 ± 0 % | 3.00 |  | 1.0e-07 | 0.25 |"
    assert "| 50 % |" in lines[5]
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_selection() -> None:
    assert len(select([])) == len(CASES)
    assert {case.name.split("/")[0] for case in select(["cauchy", "linear_scan"])} == {"cauchy", "linear_scan"}
    assert len(select(["fft_conv/8x256x1024/both", "fft_conv/8x256x1024/*"])) == 2
    with pytest.raises(ValueError, match="no case fits 'fft'"):
        select(["fft"])


def test_both_makes_each_direction() -> None:
    made = [case.make().backward for case in both("x", lambda backward: problem(backward=backward))]
    assert made == [False, True]


def test_next_smooth() -> None:
    assert [next_smooth(n) for n in (1, 7, 11, 121, 2 * 99991)] == [1, 8, 12, 125, 200000]


SMALLEST = [
    "fft_conv/2x1039x1009/both",
    "fft_conv_gated/8x256x1024/both",
    "fft_conv_two_sided/8x256x1024/forward",
    "fft_conv_circular/8x256x1024/both",
    "short_conv/8x256x4096/K3/both",
    "short_conv/8x256x4096/K4-bias-silu/both",
    "vandermonde/256x32x1024/both",
    "cauchy/256x32x1024/both",
    "linear_scan/4x4096x256/complex64",
    "linear_scan/4x4096x256/float32-constant",
    "calls/fft_conv/plainx100",
    "calls/cauchy/recordingx100",
]


def test_one_case_of_every_group_is_checked() -> None:
    assert {name.split("/")[0] for name in SMALLEST} == {name.split("/")[0] for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_cases_solve_what_their_peers_solve(name: str) -> None:
    it = CASES[name].make()
    it = Problem(it.sample or it.inputs, {n: s for n, s in it.sides.items() if n != "keops"}, it.exact, (), it.backward)
    assert errors(it)[OURS] < 1e-6


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
