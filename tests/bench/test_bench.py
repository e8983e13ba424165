"""The benchmark refuses wrong results, counts right, and its cases solve what their peers solve."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.advise import advise
from bench.case import OURS, WHOLE, Case, Problem, Work, both
from bench.cases import CASES, fft_conv, quick, scan, select, short_conv
from bench.compare import changes, comparison
from bench.machine import Ceilings, cache_bytes, ceilings, describe
from bench.measure import (
    MOST_COPIES,
    Timing,
    WrongResultError,
    errors,
    least_bytes,
    relative_error,
    summarize,
    thread_count,
    times,
)
from bench.plots import over_length, save_plots
from bench.report import Row, load, save
from bench.run import profile, run
from bench.tables import exponents, gains, side_table, table
from longconv.ops.sparse_fft_conv.blocks import next_smooth

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


def test_operations_by_hand() -> None:
    """Real FFTs of 16 numbers: 5/2 * 16 * 4 each; u, k and y of 3 rows of 2 channels, and products at 6 operations."""
    assert fft_conv.flops(3, 2, 8, backward=False) == (6 + 6 + 2) * 160 + 6 * 6 * 8
    assert fft_conv.flops(3, 2, 8, backward=True) == 2 * (6 + 6 + 2) * 160 + 3 * 6 * 6 * 8
    assert fft_conv.flops(3, 2, 8, backward=False, kind="circular") == (6 + 6 + 2) * 60 + 6 * 6 * 4
    assert short_conv.work(3, 2, 8, taps=4, backward=False) == Work(2.0 * 3 * 2 * 8 * 4, 6, 8)
    assert CASES["vandermonde/256x32x1024/forward"].make().work == Work(4.0 * 256 * 32 * 1024, 256, 1024)
    assert CASES["cauchy/256x32x256/both"].make().work == Work(38.0 * 256 * 32 * 256, 256, 256)
    assert CASES["transpose/8x256x256/float32/both"].make().work == Work(0.0, 8 * 256, 256)
    # Of each mode: A x, Re right x and left times it, Re C x; of a step B u too, and two steps are made.
    assert CASES["state_space_taps/64x32x1024/forward"].make().work == Work(
        (6 + 4 + 4 + 4) * 64.0 * 32 * 1024, 64, 1024
    )
    assert CASES["state_space_step/1x256x32/forward"].make().work == Work(2 * (6 + 4 + 4 + 4 + 4) * 256.0 * 32, 256, 2)
    assert scan.flops(2, 8, 3, torch.float32, backward=False) == 2 * 2 * 8 * 3
    assert scan.flops(2, 8, 3, torch.complex64, backward=True) == (8 + 8 + 6) * 2 * 8 * 3


def test_bytes_of_cases_by_hand() -> None:
    """In and out once; of a step what it reads and the output alone."""
    assert least_bytes(CASES["transpose/8x256x256/float32/forward"].make()) == 2 * 4 * 8 * 256 * 256
    assert least_bytes(CASES["linear_scan/8x256x256/float32/forward"].make()) == 3 * 4 * 8 * 256 * 256
    systems = 16 * 256 * 32 * 5
    assert least_bytes(CASES["state_space_step/1x256x32/forward"].make()) == systems + 8 * 256 * 32 + 2 * 4 * 256


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


def test_selection() -> None:
    assert len(select([])) == len(CASES)
    assert {case.name.split("/")[0] for case in select(["cauchy", "linear_scan"])} == {"cauchy", "linear_scan"}
    assert len(select(["fft_conv/8x256x1024/both", "fft_conv/8x256x1024/*"])) == 2
    with pytest.raises(ValueError, match="no case fits 'fft'"):
        select(["fft"])


def test_quick_is_one_case_of_every_kind() -> None:
    assert {case.name.split("/")[0] for case in quick()} == {name.split("/")[0] for name in CASES}
    assert len(quick()) < len(CASES) / 3


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
    "fft_conv_per_sample/8x256x4096/forward",
    "fft_conv_partial/8x256x4096/both",
    "fft_conv_bfloat16/8x256x4096/both",
    "fft_conv_float16/8x256x4096/forward",
    "fft_conv_float64/8x256x4096/both",
    "fft_conv_short/8x256x1024/K16/both",
    "sparse_fft_conv/8x256x4096/monarch-1-4/both",
    "short_conv/8x256x4096/K3/both",
    "short_conv/8x256x4096/K4-bias-silu/both",
    "vandermonde/256x32x1024/both",
    "cauchy/256x32x1024/both",
    "dense_taps/64x32x1024/both",
    "vandermonde_log/256x32x256/both",
    "state_space_taps/64x32x1024/both",
    "state_space_step/1x256x32/both",
    "linear_scan/8x256x256/float32/both",
    "linear_scan/4x256x4096/float32-constant-last/forward",
    "transpose/8x4096x256/bfloat16/both",
    "butterfly/8x256x1024/both",
    "butterfly_trained/8x256x1024/both",
    "calls/fft_conv/plainx100",
    "calls/cauchy/recordingx100",
    "mixers/s4d/both",
    "mixers/s4/train",
    "mixers/conv_s5/both",
    "mixers/conv_s5/train",
    "mixers/conv_s5/prefill",
    "mixers/conv_s5/step",
    "models/hyena/convolutions",
    "mixers/hyena/prefill",
    "mixers/dss/step",
    "models/s4d/both",
    "loaders/pathfinder32/batch",
    "scaling-L/2x64x256/both",
    "scaling-B/1x64x4096/both",
    "scaling-H/2x16x4096/both",
    "scaling-N/64x4x4096/both",
]


def test_one_case_of_every_group_is_checked() -> None:
    assert {name.split("/")[0] for name in SMALLEST} == {name.split("/")[0] for name in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_cases_solve_what_their_peers_solve(name: str) -> None:
    it = CASES[name].make()
    sides = {name: solve for name, solve in it.sides.items() if name != "keops"}
    found, refused = errors(dataclasses.replace(it, inputs=it.sample or it.inputs, sides=sides, sample=()))
    assert found[OURS] < it.tolerance
    assert not refused


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
