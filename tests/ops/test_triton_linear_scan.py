"""Backend ``triton`` of ``linear_scan``, see triton_calls.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longconv.ops import linear_scan
from longconv.ops.linear_scan import triton
from tests.ops.triton_calls import DEVICE, FLOATS, MARKS, compare, sizes
from tests.tolerances import RELATIVE_L2, assert_close

pytestmark = MARKS


def coefficients(*shape: int, is_complex: bool, least: float = 0.0) -> Tensor:
    """Numbers of absolute value ``least`` to 1, of any sign or phase."""
    size = least + (1 - least) * torch.rand(shape, dtype=torch.float64)
    return (
        torch.polar(size, 7 * torch.rand(shape, dtype=torch.float64))
        if is_complex
        else size * torch.randn(shape).sign()
    )


def inputs(*shape: int, is_complex: bool) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128 if is_complex else torch.float64)


SHAPES = [  # a, b, initial, dim, with -1 in the place of L
    ((2, -1, 5), (2, -1, 5), (2, 5), 1),
    ((5,), (2, -1, 5), (5,), 1),
    ((2, 1, 9), (2, -1, 9), None, -2),
    ((3, 1, -1), (2, 3, 1, -1), (3, 1), 3),
    ((-1, 3, 4), (-1, 1, 4), (3, 4), 0),
    ((-1,), (-1,), None, 0),
]


@pytest.fixture
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles, and chunks, of short sequences: the interpreter scans number by number."""
    monkeypatch.setattr(triton, "TILE", 128)
    monkeypatch.setattr(triton, "LEAST", 1)


@pytest.mark.usefixtures("_small_tiles")
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_shapes(shapes: tuple[tuple[int, ...], ...], reverse: bool) -> None:
    """Every shape with real and complex coefficients and inputs, of 3 to 37 steps."""
    for length, a_complex, b_complex in ((37, False, False), (5, True, False), (19, True, True), (3, False, True)):
        a_shape, b_shape = (tuple(length if n == -1 else n for n in shape) for shape in shapes[:2])
        call = {"a": coefficients(*a_shape, is_complex=a_complex), "b": inputs(*b_shape, is_complex=b_complex)}
        if shapes[2] is not None:
            call["initial"] = inputs(*shapes[2], is_complex=b_complex)
        if length > 1 or "initial" in call:
            compare("linear_scan", call, {"dim": shapes[3], "reverse": reverse}, torch.float32)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("length", sizes([1, 200], [9000, 65537]))
def test_dtypes_and_long_memories(dtype: torch.dtype, length: int) -> None:
    """In tiles as they are."""
    for is_complex in (False, True) if dtype.itemsize > 2 else (False,):
        a = coefficients(length, 2, is_complex=is_complex, least=0.99)
        b, initial = (inputs(*shape, is_complex=is_complex) / 256 for shape in ((length, 2), (2,)))
        compare("linear_scan", {"a": a, "b": b, "initial": initial}, {"dim": 0}, dtype)


@pytest.mark.parametrize("length", sizes([1500], [65536]))
def test_a_wandering_sum_stays_exact(length: int) -> None:
    b = torch.randn(length, 1, device=DEVICE)
    got = linear_scan(torch.ones((), device=DEVICE), b, dim=0, backend="triton")
    assert_close(got, b.double().cumsum(0), RELATIVE_L2[torch.float32] / 2)


@pytest.mark.usefixtures("_small_tiles")
@pytest.mark.parametrize("is_complex", [False, True])
def test_zeros_underflow_and_growth(is_complex: bool) -> None:
    """Coefficients of 0, products that underflow, and products that overflow against a state of 0."""
    a, b = coefficients(90, 3, is_complex=is_complex), inputs(90, 3, is_complex=is_complex)
    a[::7], a[:, 1], a[:, 2] = 0, 1e-30, 0
    compare("linear_scan", {"a": a, "b": b}, {"dim": 0}, torch.float32)
    a, b = torch.full_like(a[:, :1], 1e20).to(DEVICE), torch.zeros_like(b[:, :1]).to(DEVICE)
    a[50:], b[51:] = 0.5, 1
    got = linear_scan(a.to(a.dtype), b, dim=0, backend="triton")
    assert_close(got, linear_scan(a, b, dim=0, backend="reference"))


@pytest.mark.usefixtures("_small_tiles")
def test_numbers_that_are_not_finite_stay_where_they_are() -> None:
    a, b = torch.rand(2, 60, 3, device=DEVICE), torch.randn(2, 60, 3, device=DEVICE)
    clean = linear_scan(a, b, backend="triton")
    b[1, 30, 1] = torch.nan
    h = linear_scan(a, b, backend="triton")
    assert h[1, 30:, 1].isnan().all()
    h[1, 30:, 1] = clean[1, 30:, 1]
    assert torch.equal(h, clean)
