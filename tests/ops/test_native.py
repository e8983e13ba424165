"""What every op of the CPU library promises alike: bad numbers, threads, processes, memory, instruction sets."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longconv import _native
from tests.ops.native_calls import HERE, ROWS, Axes, Call, cast
from tests.tolerances import RELATIVE_L2, assert_close

ROOT = Path(__file__).parents[2]
ISAS = _native.isas(_native.cpu())
pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(_native.cpu().handle is None, reason=f"no CPU library: {_native.cpu().reason}"),
]
every_op = pytest.mark.parametrize("name", HERE)
linux = pytest.mark.skipif(sys.platform != "linux", reason="as Linux does it")

B, H = 3, 4
SAMPLE, CHANNEL = 1, 2
"""Where the tests put bad numbers."""


def arguments(name: str, length: int, dtype: torch.dtype, batch: int = B, channels: int = H) -> Call:
    torch.manual_seed(0)
    return cast(ROWS[name].make(batch, channels, length), dtype)


def of_row(tensor: Tensor, axes: Axes, sample: bool = True) -> Tensor:
    """Which numbers belong to the sample (or to any one) and channel of the bad numbers."""
    own = torch.ones(tensor.shape, dtype=torch.bool)
    for axis, place in zip(axes, (SAMPLE if sample else None, CHANNEL), strict=True):
        if axis is not None and place is not None:
            along = torch.arange(tensor.shape[axis]) == place
            own &= along.view(*(-1 if i == axis else 1 for i in range(tensor.ndim)))
    return own


@every_op
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", [5, 67, 1024])
def test_the_definition(isa: str, name: str, dtype: torch.dtype, length: int) -> None:
    """Results and gradients in every instruction set."""
    call = arguments(name, length, dtype)
    want = ROWS[name].run(cast(call, torch.float64), length, "definition")
    for key, got in ROWS[name].run(call, length).items():
        assert_close(got, want[key], RELATIVE_L2[dtype])


@every_op
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e-40], ids=str)
@pytest.mark.parametrize("length", [5, 300, 1024])
def test_bad_numbers_stay_in_their_row(isa: str, name: str, bad: float, length: int) -> None:
    """In each argument, and in each cotangent: what belongs to other samples and channels stays the same to a bit."""
    row, call = ROWS[name], arguments(name, length, torch.float32)
    clean = row.run(call, length)
    cotangents = [torch.ones_like(r) for r in row.results_of(call, length)]
    plain = row.run(call, length, cotangents=cotangents)
    for spoiled, tensor in call.items():
        changed = {**call, spoiled: spoil(tensor, row.axes[spoiled], bad)}
        compare(name, row.run(changed, length), clean, row.axes[spoiled])
    for number, axes in enumerate(row.results):
        changed_cotangents = [spoil(c, axes, bad) if i == number else c for i, c in enumerate(cotangents)]
        compare(name, row.run(call, length, cotangents=changed_cotangents), plain, axes)


def spoil(tensor: Tensor, axes: Axes, bad: float) -> Tensor:
    """The tensor with every third number of the row replaced; a small number is a factor of all."""
    own = of_row(tensor, axes)
    if abs(bad) < 1:
        return torch.where(own, tensor * bad, tensor)
    own &= (torch.arange(tensor.numel()) % 3 == 0).view(tensor.shape)
    return torch.where(own, torch.full_like(tensor, bad), tensor)


def compare(name: str, got: Call, clean: Call, spoiled: Axes) -> None:
    for key, tensor in got.items():
        axes = ROWS[name].axes_of(key)
        if axes[1] is None or spoiled[1] is None:
            continue  # a sum over all channels, or an argument that all share
        others = ~of_row(tensor, axes, sample=spoiled[0] is not None)
        assert torch.equal(tensor[others], clean[key][others]), key


@pytest.mark.parametrize("name", [name for name in HERE if ROWS[name].linear_in])
def test_denormals_are_numbers(isa: str, name: str) -> None:
    """They are neither flushed to zero nor does anything else become of them."""
    row, call = ROWS[name], arguments(name, 300, torch.float32)
    call.update({n: call[n] * 1e-41 for n in row.linear_in})
    wide = row.results_of(cast(call, torch.float64), 300, "definition")
    for got, want in zip(row.results_of(call, 300), wide, strict=True):
        assert got.any()
        assert (got - want).abs().max() < 3e-43


@every_op
def test_threads_change_nothing(name: str) -> None:
    call = arguments(name, 700, torch.float32, batch=6, channels=50)
    alone = ROWS[name].run(call, 700)
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            for key, got in ROWS[name].run(call, 700).items():
                assert torch.equal(got, alone[key]), key
    finally:
        torch.set_num_threads(1)


def test_from_several_python_threads_at_once() -> None:
    """Every op, at lengths that differ, more of them than tables are kept for."""
    jobs = [(name, length) for length in range(200, 250) for name in HERE]
    calls = [arguments(name, length, torch.float32, 2, 3) for name, length in jobs]
    want = [ROWS[name].run(call, length) for (name, length), call in zip(jobs, calls, strict=True)]
    wrong: list[str] = []
    finished: list[int] = []

    def work(first: int) -> None:
        for i in range(first, len(jobs) + first):
            (name, length), expected = jobs[i % len(jobs)], want[i % len(jobs)]
            got = ROWS[name].run(calls[i % len(jobs)], length)
            wrong.extend(f"{name} {length} {key}" for key in got if not torch.equal(got[key], expected[key]))
        finished.append(first)

    workers = [threading.Thread(target=work, args=(i * len(jobs) // 4,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(finished) == 4
    assert not wrong


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A new Python process, on two threads."""
    return subprocess.run(
        [sys.executable, "-c", "import torch; torch.set_num_threads(2)\n" + textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )


FORKED = """
    import os
    from longconv import ops
    from tests.ops.native_calls import HERE, ROWS

    calls = {name: ROWS[name].make(6, 50, 700) for name in HERE}
    results = lambda name: b"".join(r.numpy().tobytes() for r in ROWS[name].results_of(calls[name], 700))
    want = {name: results(name) for name in HERE}  # torch's threads are there, and in a child they are not
"""


@linux
def test_after_fork() -> None:
    """A child computes alone what its parent computes on two threads, and the parent goes on."""
    code = """
        child = os.fork()
        if not child:
            os._exit(sum(results(name) != want[name] for name in HERE))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), all(results(name) == want[name] for name in HERE))
    """
    done = python(textwrap.dedent(FORKED) + textwrap.dedent(code))
    assert done.stdout.split() == ["0", "True"], done.stderr


@linux
def test_workers_of_a_data_loader() -> None:
    code = """
        class Data(torch.utils.data.Dataset):
            def __len__(self):
                return 4 * len(HERE)
            def __getitem__(self, i):
                name = HERE[i % len(HERE)]
                return results(name) == want[name]

        loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork")
        print(all(bool(x.all()) for x in loader))
    """
    done = python(textwrap.dedent(FORKED) + textwrap.dedent(code))
    assert done.stdout.split() == ["True"], done.stderr


@linux
def test_a_failed_allocation_is_a_memory_error() -> None:
    """That names the op, forward and backward, and after which the next call works."""
    code = """
        import resource
        from longconv import ops
        from tests.ops.native_calls import HERE, ROWS

        def limit(room):
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if room else 0
            resource.setrlimit(resource.RLIMIT_AS, (used + room or resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        def attempt(name, function):
            limit(2**24)
            try:
                function()
                print(name, "no error")
            except MemoryError as error:
                named = str(error).startswith(ROWS[name].op) and " bytes" in str(error)
                print(name, "named" if named else repr(error))
            limit(0)

        for name in HERE:
            row = ROWS[name]
            row.run(row.make(2, 3, 64), 64)  # starts what autograd needs
            call = {n: t.requires_grad_() for n, t in row.make(25_000, 8, 64).items()}
            results = row.results_of(call, 64)
            attempt(name, lambda: row.results_of(call, 64))
            attempt(name, lambda: torch.autograd.grad(results, list(call.values()), results))
            row.run(row.make(2, 3, 64), 64)
    """
    kept = {name: "65536" for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}  # no more when freed
    done = python(code, **kept)
    expected = [f"{name} named" for name in HERE for _ in range(2)]
    assert done.stdout.splitlines() == expected, done.stdout + done.stderr


@pytest.mark.parametrize("isa", [name for name, supported in ISAS.items() if supported])
def test_instruction_set_by_environment(isa: str) -> None:
    code = """
        from longconv import _native
        from tests.ops.native_calls import HERE, ROWS
        from tests.tolerances import assert_close

        print(_native.chosen_isa(_native.cpu()))
        for name in HERE:
            call = ROWS[name].make(2, 3, 100)
            want = ROWS[name].run(call, 100, "definition")
            for key, got in ROWS[name].run(call, 100).items():
                assert_close(got, want[key])
        print("right")
    """
    done = python(code, **{_native.ISA_VARIABLE: isa})
    assert done.stdout.split() == [isa, "right"], done.stderr


def test_unknown_instruction_set_is_an_error() -> None:
    done = python("from longconv import ops; ops.transpose(torch.ones(2, 2))", **{_native.ISA_VARIABLE: "mmx"})
    assert done.returncode != 0
    assert "LONGCONV_CPU_ISA is 'mmx'" in done.stderr
    assert next(iter(ISAS)) in done.stderr


def test_an_instruction_set_that_the_processor_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library answers where it has none."""
    library, unsupported = _native._load("cpu"), 4
    monkeypatch.setattr(library.handle, "longconv_cpu_isa_select", lambda name: unsupported)
    with pytest.raises(ValueError, match="LONGCONV_CPU_ISA is 'x86-64-v4': this processor lacks the instruction set"):
        _native.select_isa(library, "x86-64-v4")
    monkeypatch.setattr(_native, "_load", lambda name: library)
    monkeypatch.delenv(_native.ISA_VARIABLE, raising=False)
    assert f"this processor has none of {', '.join(ISAS)}" in str(_native.cpu.__wrapped__().reason)
