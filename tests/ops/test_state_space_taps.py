"""``state_space_taps``: the definition against dense powers, the blocks against it, precision and memory."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from longconv.ops import state_space_taps
from longconv.ops.state_space_taps import torch_blocks
from longconv.ops.state_space_taps.operator import BACKENDS
from tests.ops.native_calls import fast
from tests.tolerances import assert_close

FAST = fast(BACKENDS)
System = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def system(R: int = 1, C: int = 2, H: int = 3, N: int = 4) -> System:
    """A stable random system: |A| < 1 and a small correction."""

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, dtype=torch.complex128)).requires_grad_()

    A = torch.polar(0.8 + 0.15 * torch.rand(H, N).double(), 3 * torch.randn(H, N).double()).requires_grad_()
    return A, normal(H, N), normal(C, H, N), normal(R, H, N, scale=0.1), normal(R, H, N, scale=0.1)


@pytest.mark.parametrize("R", [0, 1, 3])
def test_reference_is_the_matrix_power(R: int) -> None:
    """On real vectors [Re x, Im x] the whole is a real matrix."""
    A, B, C, left, right = (part.detach() for part in system(R))
    diagonal = torch.cat(
        [
            torch.cat([torch.diag_embed(A.real), torch.diag_embed(-A.imag)], -1),
            torch.cat([torch.diag_embed(A.imag), torch.diag_embed(A.real)], -1),
        ],
        -2,
    )
    columns, rows = torch.cat([left.real, left.imag], -1), torch.cat([right.real, -right.imag], -1)
    matrix = diagonal + torch.einsum("rhn,rhm->hnm", columns, rows)
    x, readout = torch.cat([B.real, B.imag], -1), torch.cat([C.real, -C.imag], -1)
    want = torch.stack([torch.einsum("chn,hnm,hm->ch", readout, matrix.matrix_power(l), x) for l in range(20)], -1)
    assert_close(state_space_taps(A, B, C, left, right, 20, backend="reference"), want)


@pytest.mark.parametrize("backend", FAST)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(R=st.integers(0, 3), C=st.integers(1, 3), H=st.integers(1, 3), N=st.integers(1, 5), length=st.integers(1, 150))
def test_agrees_with_reference(backend: str, R: int, C: int, H: int, N: int, length: int) -> None:
    """Taps and gradients over sizes, ranks and lengths."""
    parts = system(R, C, H, N)
    y = state_space_taps(*parts, length=length, backend=backend)
    want = state_space_taps(*parts, length=length, backend="reference")
    assert_close(y, want)
    g = torch.randn_like(want)
    gradients = torch.autograd.grad(y, parts, g), torch.autograd.grad(want, parts, g)
    for got, expected in zip(*gradients, strict=True):
        if expected.count_nonzero():
            assert_close(got, expected, 1e-11)
        else:
            assert got.count_nonzero() == 0


def test_features_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same whether all features are in work at once or one after the other."""
    parts = system(2, 2, 5, 3)
    whole = state_space_taps(*parts, length=40)
    gradients = torch.autograd.grad(whole.sum(), parts)
    monkeypatch.setattr(torch_blocks, "BLOCK_NUMBERS", 2 * 36)
    split = state_space_taps(*parts, length=40)
    assert_close(split, whole)
    for got, want in zip(torch.autograd.grad(split.sum(), parts), gradients, strict=True):
        assert_close(got, want)


def test_gradients_numerically() -> None:
    inputs = system(2, 2, 2, 2)
    assert torch.autograd.gradcheck(lambda A, B, C, left, right: state_space_taps(A, B, C, left, right, 9), inputs)
    assert torch.autograd.gradgradcheck(lambda A, B, C, left, right: state_space_taps(A, B, C, left, right, 5), inputs)


def test_rounding_does_not_grow() -> None:
    """A rotation without decay, with feedback that keeps its norm: 2^16 taps of one size, to double precision."""
    angle = torch.tensor([[0.1, 1.0, 2.0]], dtype=torch.float64)
    A, one = torch.polar(torch.ones_like(angle), angle), torch.ones(1, 3, dtype=torch.complex128)
    none = torch.zeros(1, 1, 3, dtype=torch.complex128)
    y = state_space_taps(A, one, one[None], none, none, 2**16)
    want = torch.cos(torch.arange(2**16, dtype=torch.float64)[:, None] * angle).sum(-1)
    assert_close(y[0, 0], want, 1e-10)


MEMORY = """
import resource, torch
from longconv.ops import state_space_taps
torch.set_num_threads(1)
A = torch.polar(torch.full((256, 32), 0.99, dtype=torch.float64), torch.rand(256, 32, dtype=torch.float64))
parts = [t.requires_grad_() for t in (A, *(0.01 * torch.randn(s, dtype=torch.complex128)
         for s in ((256, 32), (1, 256, 32), (1, 256, 32), (1, 256, 32))))]
state_space_taps(*parts, 64).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state_space_taps(*parts, 65536).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded() -> None:
    """H = 256, N = 32, L = 65536: the states alone would be 8.6 GB; forward and backward stay below 1 GB."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1e6, f"{int(result.stdout) / 1e3:.0f} MB above the start"


@pytest.mark.parametrize(("H", "C", "N", "length"), [(3, 2, 4, 0), (0, 2, 4, 5), (3, 0, 4, 5), (3, 2, 0, 5)])
def test_empty(H: int, C: int, N: int, length: int) -> None:
    parts = system(1, C, H, N)
    y = state_space_taps(*parts, length=length)
    y.sum().backward()
    assert y.shape == (C, H, length) and y.count_nonzero() == 0
    assert all(part.grad is not None and part.grad.count_nonzero() == 0 for part in parts)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"A": 3.0}, TypeError, "A is 3.0"),
        ({"A": torch.ones(3, 4)}, TypeError, "A is .*float32"),
        ({"B": torch.ones(3, 5, dtype=torch.complex128)}, ValueError, r"B is a \(3, 5\).*\(H, N\) = \(3, 4\)"),
        ({"C": torch.ones(3, 4, dtype=torch.complex128)}, ValueError, r"C is a \(3, 4\).*\(C, H, N\)"),
        ({"right": torch.ones(2, 3, 4, dtype=torch.complex128)}, ValueError, r"right is a \(2, 3, 4\).*\(1, 3, 4\)"),
        ({"left": torch.ones(1, 3, 4, dtype=torch.complex128, device="meta")}, ValueError, "left is on meta"),
        ({"length": -1}, ValueError, "length is -1"),
        ({"length": 2.0}, TypeError, "length is 2.0"),
        ({"backend": "torhc"}, ValueError, "did you mean 'torch'"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], words: str) -> None:
    names = ("A", "B", "C", "left", "right")
    call: dict[str, Any] = {**dict(zip(names, system(), strict=True)), "length": 4, **change}
    with pytest.raises(error, match=words):
        state_space_taps(**call)
