"""KeOps as a backend: asked for by name alone, told about when it compiles, and refused with a reason.

That its values and gradients are right is in the tests of ``cauchy`` and ``vandermonde``, which take every backend.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from longconv.ops import _keops, _registry, cauchy, vandermonde, vandermonde_log

OPS = ("cauchy", "vandermonde", "vandermonde_log")
needs_keops = pytest.mark.skipif(_keops.available() is not None, reason=str(_keops.available()))


def call(op: str, backend: str) -> Tensor:
    ones = torch.ones(2, 3, dtype=torch.complex128)
    if op == "cauchy":
        return cauchy(ones, torch.full((4,), 2.0), 0 * ones, backend=backend)
    return (vandermonde if op == "vandermonde" else vandermonde_log)(ones, -ones, 4, backend=backend)


@pytest.mark.parametrize("op", OPS)
def test_auto_leaves_it_alone(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("KeOps was called")

    monkeypatch.setattr(_keops, "_reduction", refuse)
    call(op, "auto")
    assert "keops" in _registry.ALL[op].names()


@pytest.mark.parametrize("op", OPS)
def test_a_reason_where_it_is_missing(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pykeops is not installed" in str(_registry.ALL[op].status()["keops"])
    with pytest.raises(ValueError, match=rf"{op}: backend 'keops' can't serve this call: pykeops is not installed"):
        call(op, "keops")


@needs_keops
def test_a_reason_where_nothing_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "C++ compiler" in str(_keops.available())


@needs_keops
def test_a_reason_on_other_devices() -> None:
    assert "meta" in str(_keops.supports(torch.ones(2, device="meta")))
    assert _keops.supports(torch.ones(2)) is None


@needs_keops
@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_compiling_is_told_once(
    op: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(_keops, "_mark", lambda *_: tmp_path / "mark")
    with caplog.at_level(logging.WARNING, logger="longconv"):
        for _ in range(2):
            call(op, "keops")
    (record,) = caplog.records
    assert "KeOps compiles" in record.message
    assert "float64 for the CPU" in record.message
    assert capsys.readouterr().out == ""


@needs_keops
def test_a_failed_compilation_says_so_and_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(*_: object) -> Callable[..., Tensor]:
        def reduction(*tensors: Tensor, backend: str) -> Tensor:
            print("fatal error: no such header")
            raise ImportError("No module named 'pykeops_cpp_0'")

        return reduction

    monkeypatch.setattr(_keops, "_reduction", failing)
    monkeypatch.setattr(_keops, "_mark", lambda *_: tmp_path / "mark")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cauchy: KeOps could not compile its sum: (.|\n)*no such header"):
            call("cauchy", "keops")


ALONE = """
import sys
from longconv.ops import _keops
_keops._pykeops().set_build_folder(sys.argv[1])
import torch
from longconv.ops import cauchy
ones = torch.ones(1, 2, dtype=torch.complex128)
print(cauchy(ones, torch.full((1,), 3.0), 0 * ones, backend="keops").real.item())
"""


@needs_keops
@pytest.mark.slow
def test_processes_that_compile_at_once_and_one_that_was_killed(tmp_path: Path) -> None:
    """Two processes start with an empty folder; then a library in it is cut short, as by a kill during its writing."""

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", ALONE, str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def result(process: subprocess.Popen[str]) -> float:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        return float(out.split()[-1])

    assert [result(process) for process in (start(), start())] == pytest.approx([2 / 3, 2 / 3])
    (library,) = tmp_path.rglob("pykeops_cpp_*.so")
    (mark,) = tmp_path.rglob("longconv_*.compiled")
    library.write_bytes(library.read_bytes()[:100])
    mark.unlink()
    assert result(start()) == pytest.approx(2 / 3)
