"""``longconv.info()`` and ``python -m longconv info``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import longconv
from longconv import _native
from longconv.__main__ import main
from longconv._native import Library
from longconv.ops import _registry, transpose

ROOT = Path(__file__).parents[1]


def test_every_op_and_backend_is_reported() -> None:
    report = longconv.info()
    assert {"cauchy", "fft_conv", "linear_scan", "short_conv", "transpose", "vandermonde", "vandermonde_log"} <= set(
        report.ops
    )
    for name, op in report.ops.items():
        assert tuple(op.backends) == _registry.ALL[name].names()[1:]
        assert op.serves is not None
        assert op.backends[op.serves] is None


def test_text_names_what_it_reports() -> None:
    report, text = longconv.info(), str(longconv.info())
    for part in (report.version, report.python, str(report.packages["torch"]), *report.ops, f"{report.threads}, "):
        assert part in text
    for op in report.ops.values():
        for reason in filter(None, op.backends.values()):
            assert reason in text


def test_threads_are_torchs() -> None:
    torch.set_num_threads(2)
    try:
        assert longconv.info().threads == 2
    finally:
        torch.set_num_threads(1)


def test_absent_libraries_are_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither library everything still runs, and the report says why they are missing."""
    for name in ("cpu", "cuda"):
        monkeypatch.setattr(_native, name, lambda name=name: Library(name, reason=f"no {name} for a test"))
    report = longconv.info()
    assert report.isa is None
    assert report.ops["transpose"].serves == "torch"
    assert report.ops["transpose"].backends["cpu"] == "no cpu for a test"
    assert "none: no cuda for a test" in str(report)
    x = torch.randn(3, 4)
    assert torch.equal(transpose(x), x.mT)
    with pytest.raises(ValueError, match="no cpu for a test"):
        transpose(x, backend="cpu")


def test_a_plain_checkout_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "_candidates", lambda name: iter(()))
    assert "pip install ." in str(_native._load("cpu").reason)


def test_a_broken_or_foreign_library_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "liblongconv_cpu.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(_native, "_candidates", lambda name: iter([broken]))
    assert str(broken) in str(_native._load("cpu").reason)


@pytest.mark.skipif(_native.cpu().handle is None, reason=f"no CPU library: {_native.cpu().reason}")
def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "ABI", -1)
    assert "install longconv again" in str(_native._load("cpu").reason)


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out.startswith(f"longconv {longconv.__version__}, ")
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ops"]["transpose"]["backends"]["torch"] is None


@pytest.mark.skipif(_native.cpu().handle is None, reason=f"no CPU library: {_native.cpu().reason}")
def test_command_line_with_a_bad_instruction_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "longconv", "info"],
        env={**os.environ, _native.ISA_VARIABLE: "x86-64-v9"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: LONGCONV_CPU_ISA is 'x86-64-v9'")
    assert "Traceback" not in done.stderr
