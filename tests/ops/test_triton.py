"""Triton's backends with no GPU: reasons, the interpreter in a process of its own, and every kernel compiled to PTX."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longconv
from longconv import ops
from longconv.ops import _registry, _triton, cauchy, fft_conv, linear_scan, short_conv, vandermonde, vandermonde_log
from longconv.ops.fft_conv import triton_plan

ROOT = Path(__file__).parents[2]
FILES = sorted(path.name for path in Path(__file__).parent.glob("test_triton_*.py"))
needs_triton = pytest.mark.skipif(_triton._not_installed() is not None, reason=str(_triton._not_installed()))
pytestmark = pytest.mark.skipif(_triton.interpreted(), reason="this process interprets its kernels")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_in_the_interpreter(file: str, tmp_path: Path) -> None:
    """The tests of a file in a process whose kernels are interpreted, which must be known before Triton is imported."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    environment = {**inherited, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"tests/ops/{file}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.fixture
def asked_again() -> Iterator[None]:
    """Availability is looked at anew, in the test and after it."""
    _triton.available.cache_clear()
    yield
    _triton.available.cache_clear()


@pytest.mark.usefixtures("asked_again")
@pytest.mark.parametrize("reason", ["sees no GPU", "triton is 3.3.1, at least 3.4", "can't be imported", "needs Linux"])
def test_reasons(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    if "no GPU" in reason and _triton._not_installed():
        pytest.skip(str(_triton._not_installed()))
    if "3.3.1" in reason:
        monkeypatch.setattr(pytest.importorskip("triton"), "__version__", "3.3.1")
    if "imported" in reason:
        monkeypatch.setitem(sys.modules, "triton", None)
    if "Linux" in reason:
        monkeypatch.setattr(sys, "platform", "darwin")
    assert reason in str(longconv.info().ops["short_conv"].backends["triton"])
    with pytest.raises(ValueError, match="backend 'triton' can't serve this call"):
        short_conv(torch.ones(1, 1, 2), torch.ones(1, 1), backend="triton")


@needs_triton
def test_the_cpu_is_refused_where_kernels_are_compiled() -> None:
    assert _triton.refusal("u", torch.ones(2)) == "u is on cpu"


def test_importing_longconv_leaves_triton_alone() -> None:
    code = "import sys, longconv; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int64: "*i64",
}
"""Triton's names of pointers to a tensor's numbers."""


class Compiler:
    """In the place of launches: kernels are compiled for sm_90, as the arguments of the launch ask for, and not run."""

    def __init__(self) -> None:
        self.compiled: dict[str, Any] = {}

    def run(self, kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        """Stands for ``JITFunction.run``."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        names = [parameter.name for parameter in kernel.params]
        given = {**dict(zip(names, args, strict=False)), **options}
        signature: dict[str, Any] = {}
        self.constants: dict[tuple[int, ...], Any] = {}
        self.attributes: dict[tuple[int, ...], Any] = {}
        for place, parameter in enumerate(kernel.params):
            value = given[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name], self.constants[place,] = "constexpr", value
            else:
                signature[parameter.name] = self._type(value, (place,))
        source = ASTSource(kernel, signature, self.constants, self.attributes)
        rest = {name: value for name, value in options.items() if name not in names}
        result: Any = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=rest)
        assert ".entry" in result.asm["ptx"]
        if "N3" in given:
            kind = torch.float16 if str(given["C"]) == "fp16" else torch.float32
            tile = triton_plan.TILES[kind][given["N1"] * given["N2"] * given["N3"]]
            assert result.metadata.shared <= tile.shared, f"{tile}: {result.metadata.shared} bytes of shared memory"
        self.compiled[kernel.__name__] = result

    def _type(self, value: Any, path: tuple[int, ...]) -> Any:
        """The type of an argument; that it is 1 or a multiple of 16, which a launch sees, is kept by its place."""
        if value is None or (type(value) is int and value == 1):
            self.constants[path] = value
            return "constexpr"
        if isinstance(value, tuple):
            return tuple(self._type(v, (*path, i)) for i, v in enumerate(value))
        if type(value) is float:
            return "fp32"
        if (value.data_ptr() if isinstance(value, Tensor) else value) % 16 == 0:
            self.attributes[path] = [["tt.divisibility", 16]]
        if isinstance(value, Tensor):
            return POINTERS[value.dtype]
        assert type(value) is int, value
        return "i32" if -(2**31) <= value < 2**31 else "i64"


@pytest.fixture
def compiler(asked_again: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    """Tensors of the CPU go to Triton's backends, whose kernels are compiled and not run."""
    from triton.runtime.jit import JITFunction

    result = Compiler()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # the choice that Triton 3.9 warns about
    monkeypatch.setattr(JITFunction, "run", lambda kernel, *args, **options: result.run(kernel, *args, **options))
    monkeypatch.setattr(_triton, "DEVICES", ("cpu",))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cpu"))
    return result


def _short_conv(dtype: torch.dtype) -> None:
    u, w = torch.randn(2, 3, 2048, dtype=dtype, requires_grad=True), torch.randn(3, 4, dtype=dtype, requires_grad=True)
    bias, past = torch.randn(3, dtype=dtype), torch.randn(2, 3, 3, dtype=dtype)
    short_conv(u, w, bias, activation="gelu", initial=past, backend="triton").sum().backward()
    short_conv(u, w, activation="tanh", backend="triton").sum().backward()


def _linear_scan(dtype: torch.dtype) -> None:
    for kind in (dtype, dtype.to_complex()) if dtype.itemsize > 2 else (dtype,):
        a, b = torch.rand(3000, 3, dtype=dtype), torch.randn(2, 3000, 3, dtype=kind)
        linear_scan(a, b, torch.randn(3, dtype=kind), backend="triton")
        linear_scan(b, b, dim=0, reverse=True, backend="triton")


def _vandermonde(op: str, real: bool, dtype: torch.dtype) -> None:
    v, x = (
        torch.randn(2, 3, 18, dtype=dtype.to_complex(), requires_grad=True),
        torch.rand(3, 18, dtype=torch.complex128) - 1,
    )
    getattr(ops, op)(v.requires_grad_(), x, 1000, real=real, backend="triton").abs().sum().backward()


def _cauchy(dtype: torch.dtype) -> None:
    for kind in {dtype, torch.float64}:
        call = [torch.randn(n, 5, dtype=d.to_complex()) for n, d in ((2, dtype), (1, kind), (2, kind))]
        cauchy(
            *[(t[0] if t.shape[0] == 1 else t).requires_grad_() for t in call], backend="triton"
        ).abs().sum().backward()


def _fft_conv(dtype: torch.dtype) -> None:
    """Of the smallest tile, with one row and with several, and of the least one of order 3."""
    u, gate = (torch.randn(2, 3, 200, dtype=dtype, requires_grad=True) for _ in range(2))
    k, skip = torch.randn(3, 100, requires_grad=True), torch.randn(3, requires_grad=True)
    fft_conv(u, k, k_reverse=k, skip=skip, pre_gate=gate, post_gate=gate, backend="triton").sum().backward()
    fft_conv(u, k, mode="circular", lengths=torch.tensor([200, 7]), backend="triton")
    tiles = triton_plan.TILES[triton_plan.operands(dtype)]
    u = torch.randn(tiles[256].rows * _triton.PROGRAMS, 1, 200, dtype=dtype)
    fft_conv(u, k[:1], pre_gate=u, backend="triton")
    u = torch.randn(1, 3, min(length for length, tile in tiles.items() if tile.N3 > 1), dtype=dtype)
    fft_conv(u, k, pre_gate=u, backend="triton")


WIDE, ALL = (torch.float32, torch.float64), tuple(POINTERS)[:4]
CALLS: dict[str, tuple[Callable[[torch.dtype], None], set[str], Sequence[torch.dtype]]] = {
    "short_conv": (_short_conv, {"convolve", "correlate", "sums"}, ALL),
    "linear_scan": (_linear_scan, {"summaries", "states"}, ALL),
    "fft_conv": (_fft_conv, {"spectrum", "convolve", "correlate", "taps"}, (torch.float32, torch.bfloat16)),
    "vandermonde": (functools.partial(_vandermonde, "vandermonde", True), {"forward", "backward"}, WIDE[:1]),
    "vandermonde_log": (functools.partial(_vandermonde, "vandermonde_log", False), {"forward", "backward"}, WIDE[:1]),
    "cauchy": (_cauchy, {"forward", "points", "poles"}, WIDE),
}
"""For every op its calls, the names of the kernels that they compile, and the dtypes that there are."""


def test_every_op_is_compiled() -> None:
    assert set(CALLS) == {name for name, backends in _registry.ALL.items() if "triton" in backends.names()}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("op", "dtype"), [(op, dtype) for op, row in CALLS.items() for dtype in row[2]], ids=str)
def test_kernels_compile_with_no_gpu(op: str, dtype: torch.dtype, compiler: Compiler) -> None:
    call, kernels, _ = CALLS[op]
    call(dtype)
    assert set(compiler.compiled) == kernels


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_largest_tile_spills_little(dtype: torch.dtype, compiler: Compiler) -> None:
    """Bytes of local memory a thread, beside 1020 of registers: two transforms at a time would take 3000."""
    import triton

    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    length = max(triton_plan.TILES[triton_plan.operands(dtype)])
    u, gate = (torch.randn(1, 1, length, dtype=dtype, requires_grad=True) for _ in range(2))
    k, skip = torch.randn(1, length, requires_grad=True), torch.randn(1, requires_grad=True)
    fft_conv(u, k, k_reverse=k, skip=skip, pre_gate=gate, post_gate=gate, backend="triton").sum().backward()
    assert set(compiler.compiled) == CALLS["fft_conv"][1]
    for name, kernel in compiler.compiled.items():
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(kernel.asm["cubin"])
            file.flush()
            usage = subprocess.run([cuobjdump, "-res-usage", file.name], capture_output=True, text=True, check=True)
        stack = re.search(rf"Function {name}:\s+REG:\d+ STACK:(\d+)", usage.stdout)
        assert stack and int(stack[1]) <= 1600, f"{name}: {usage.stdout}"


def _ones(*shape: int, is_complex: bool = False) -> Tensor:
    return torch.ones(shape, dtype=torch.complex64 if is_complex else torch.float32, requires_grad=True)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("op", CALLS)
def test_kernels_compile_for_sizes_of_one(op: str, compiler: Compiler) -> None:
    """Sizes and strides of 1 are constants of a kernel, of another type than numbers that it is given."""
    one, row = _ones(1, 1, 1), _ones(1, 1, is_complex=True)
    calls: dict[str, Callable[[], Tensor]] = {
        "short_conv": lambda: short_conv(one, _ones(1, 1), _ones(1), activation="silu", backend="triton"),
        "linear_scan": lambda: linear_scan(one, one, _ones(1, 1), backend="triton"),
        "fft_conv": lambda: (
            fft_conv(one, _ones(1, 1), k_reverse=_ones(1, 1), skip=_ones(1), post_gate=one, backend="triton")
            + fft_conv(one, one, mode="circular", lengths=torch.ones(1, dtype=torch.int64), backend="triton")
        ),
        "vandermonde": lambda: vandermonde(row, row, 1, backend="triton").abs(),
        "vandermonde_log": lambda: vandermonde_log(row, row, 1, real=True, backend="triton"),
        "cauchy": lambda: cauchy(row, row[0], row, backend="triton").abs(),
    }
    calls[op]().sum().backward()
    assert set(compiler.compiled) >= CALLS[op][1] - {"summaries"}
