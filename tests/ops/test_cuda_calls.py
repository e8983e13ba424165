"""What the backends ``cuda`` of all ops owe their callers, by host execution of their kernels."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from longconv import _native
from longconv.ops import (
    _cuda,
    _registry,
    cauchy,
    fft_conv,
    linear_scan,
    short_conv,
    sparse_fft_conv,
    transpose,
    vandermonde,
    vandermonde_log,
)
from tests.ops.cuda_host import cuda_on_host, host_library
from tests.ops.native_calls import ROWS
from tests.ops.test_fft_conv_cuda import small_blocks
from tests.ops.test_fft_conv_cuda_outer import outer
from tests.ops.test_fft_conv_cuda_tiles import tiles
from tests.ops.test_sparse_fft_conv import some
from tests.tolerances import RELATIVE_L2, assert_close

__all__ = ["cuda_on_host", "host_library"]

on_host = pytest.mark.usefixtures("cuda_on_host")
LENGTH, STREAM = 300, 4711


def _numbers(name: str) -> dict[str, Tensor]:
    """The arguments of a row of native_calls.py in single precision."""
    call = ROWS[name].make(2, 3, LENGTH)
    return {n: t.to(torch.complex64 if t.is_complex() else torch.float32).requires_grad_() for n, t in call.items()}


def _of_row(name: str, op: Callable[..., Tensor], **options: Any) -> Callable[[], tuple[dict[str, Tensor], Tensor]]:
    def run() -> tuple[dict[str, Tensor], Tensor]:
        call = _numbers(name)
        return call, op(**call, **options, backend="cuda")

    return run


def _sparse() -> tuple[dict[str, Tensor], Tensor]:
    call, mask = _numbers("fft_conv"), some(4)
    return {**call, "block_mask": mask}, sparse_fft_conv(call["u"], call["k"], mask, backend="cuda")


CALLS = {
    "fft_conv": _of_row("fft_conv-all", fft_conv),
    "sparse_fft_conv": _sparse,
    "short_conv": _of_row("short_conv", short_conv, activation="silu"),
    "linear_scan": _of_row("linear_scan", linear_scan),
    "cauchy": _of_row("cauchy", cauchy),
    "vandermonde": _of_row("vandermonde", vandermonde, length=LENGTH),
    "vandermonde_log": _of_row("vandermonde_log", vandermonde_log, length=LENGTH, real=True),
    "transpose": _of_row("transpose", transpose),
}
"""For every op a call: its tensors and its result."""


def forward_and_backward(op: str) -> None:
    call, y = CALLS[op]()
    torch.autograd.grad(y.abs().square().sum(), [t for t in call.values() if t.requires_grad])


def test_every_op_is_called() -> None:
    assert CALLS.keys() == {name for name, backends in _registry.ALL.items() if "cuda" in backends.names()}


def test_the_current_stream_is_torchs() -> None:
    with mock.patch.object(torch.cuda, "current_stream", return_value=SimpleNamespace(cuda_stream=STREAM)) as stream:
        assert _cuda.queue(torch.device("cuda", 3)) == (3, STREAM)
    stream.assert_called_once_with(torch.device("cuda", 3))


@on_host
@pytest.mark.parametrize("op", CALLS)
def test_all_work_goes_to_the_current_stream(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set[tuple[str, tuple[Any, ...]]]()
    call = _native.Library.call

    def noted(self: _native.Library, function: str, *arguments: Any) -> None:
        seen.add((function, arguments[-2:]))
        call(self, function, *arguments)

    monkeypatch.setattr(_native.Library, "call", noted)
    monkeypatch.setattr(_cuda, "queue", lambda device: (0, STREAM))
    forward_and_backward(op)
    told = "fft_longest", "fft_outer_limits", "sparse_size"
    assert {place for function, place in seen if function not in told} == {(0, STREAM)}


@on_host
@pytest.mark.parametrize("op", CALLS)
def test_errors_are_raised(op: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed."""
    symbol = _native.Library.symbol
    monkeypatch.setattr(
        _native.Library, "symbol", lambda self, name: symbol(self, name) if name == "error" else lambda *_: 1
    )
    with pytest.raises(RuntimeError, match=r"longconv_cuda_\w+: a size is negative or beyond what a block holds"):
        forward_and_backward(op)
    assert capfd.readouterr() == ("", "")


@on_host
@pytest.mark.parametrize("op", CALLS)
def test_no_transform_is_torchs(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of sequences nor of filters."""
    for name in set(torch.fft.__all__) - {"fftfreq", "rfftfreq", "fftshift", "ifftshift", "Tensor"}:
        monkeypatch.setattr(torch.fft, name, mock.Mock(side_effect=AssertionError("torch's transform")))
    forward_and_backward(op)


@on_host
@pytest.mark.parametrize("op", CALLS)
def test_what_is_saved_is_given(op: str) -> None:
    """For the gradients the graph keeps arguments, and a scan its result: no spectra, tables or powers."""
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call, y = CALLS[op]()
    assert kept or op == "transpose"
    given = {t.data_ptr() for t in (*call.values(), *([y] if op == "linear_scan" else []))}
    assert {t.data_ptr() for t in kept} <= given


def _apart(*shape: int) -> Tensor:
    """Two sequences in half precision that are 2^31 numbers apart, in memory that is not touched in between."""
    apart, size = 2**31 + 8, torch.Size(shape[1:]).numel()
    memory = torch.frombuffer(mmap.mmap(-1, 2 * (apart + size)), dtype=torch.float16)
    return memory.as_strided(shape, (apart, *torch.empty(shape).stride()[1:])).copy_(torch.randn(shape))


@on_host
@pytest.mark.parametrize(
    ("way", "taps"), [(contextlib.nullcontext, 700), (tiles, 100), (small_blocks, 700), (outer, 700)]
)
def test_offsets_of_convolutions_beyond_32_bits(
    way: Callable[[], contextlib.AbstractContextManager[None]], taps: int
) -> None:
    """In one block, in tiles, in several blocks, and with an outer stage."""
    u, k = _apart(2, 1, 700), torch.randn(1, taps).half() / taps**0.5
    with way():
        y = fft_conv(u, k, backend="cuda")
    assert_close(y, fft_conv(u.double(), k.double(), backend="torch"), RELATIVE_L2[torch.float16])


@on_host
@pytest.mark.parametrize(
    "run",
    [
        lambda u, backend: sparse_fft_conv(u, u[0, :, :9], some(4), backend=backend),
        lambda u, backend: short_conv(u, u[0, :, :4], backend=backend),
        lambda u, backend: linear_scan(u[0, 0, :1] / 8, u, dim=-1, backend=backend),
        lambda u, backend: transpose(u, backend=backend),
    ],
    ids=["sparse_fft_conv", "short_conv", "linear_scan", "transpose"],
)
def test_offsets_beyond_32_bits(run: Callable[[Tensor, str], Tensor]) -> None:
    u = _apart(2, 1, 700)
    assert_close(run(u, "cuda"), run(u.double(), "torch"), RELATIVE_L2[torch.float16])
