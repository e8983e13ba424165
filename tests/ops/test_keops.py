"""KeOps as a backend: asked for by name alone, told about when it compiles, and refused with a reason.

That its values and gradients are right is in the tests of ``cauchy`` and ``vandermonde``, which take every backend.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
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
